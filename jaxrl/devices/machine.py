"""Cores and memory that this process can use. Imports no jax."""

import os
import re
from pathlib import Path


def cores() -> int:
    """Number of cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int | None:
    """Main memory and swap available to this process, in bytes; None if unknown."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on this system
        return None
    swap = re.search(r"^SwapTotal:\s*(\d+) kB", _content("/proc/meminfo"), re.MULTILINE)
    found += 1024 * int(swap[1]) if swap else 0
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _content(file).strip()
        if limit.isdigit():  # "max" means no limit
            found = min(found, int(limit))
    return found


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
