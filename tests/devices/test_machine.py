"""Cores and memory of this process."""

import os

from jaxrl.devices import machine

GIB = 2**30


def test_memory_counts_swap_and_the_limit_of_a_container(monkeypatch):
    found = machine.memory()
    assert found is None or GIB / 4 < found < 2**50
    files = {
        "/proc/meminfo": "MemTotal: 1 kB\nSwapTotal:       2048 kB\n",
        "/sys/fs/cgroup/memory.max": "max\n",
    }
    monkeypatch.setattr(machine, "_content", lambda path: files.get(path, ""))
    monkeypatch.setattr(machine.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10}.get)
    assert machine.memory() == 40_960 + 2048 * 1024
    files["/sys/fs/cgroup/memory.max"] = "1000\n"
    assert machine.memory() == 1000


def test_cores_are_those_of_the_process(monkeypatch):
    if hasattr(os, "sched_getaffinity"):
        assert machine.cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert machine.cores() == os.cpu_count()
