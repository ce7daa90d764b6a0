"""The table of speeds: what is divided by what, and what is kept."""

import json

import pytest

from benchmarks import speed


def row(program, speed, seconds=1.0, **others):
    return {
        "workload": "P4",
        "program": program,
        "steps_per_second": speed,
        "trace_seconds": seconds,
        "compile_seconds": seconds if program != "sb3" else 0.0,
        "machine": "2 CPU cores",
        "versions": {"jax": "0.11.2"},
        **others,
    }


@pytest.fixture
def page(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "ROOT", tmp_path)
    monkeypatch.setattr(speed, "RESULTS", tmp_path / "speed.json")
    monkeypatch.setattr(speed, "PAGE", tmp_path / "speed.md")
    speed.PAGE.write_text(f"before\n{speed.BEGIN}\n{speed.END}\nafter\n")
    return speed.PAGE


def test_the_factor_is_that_of_the_faster_program_over_the_fastest_peer(page):
    rows = [
        row("jaxrl", 300e3, 2.0),
        row("jaxrl-devices", 500e3, 3.0),
        row("rejax", 200e3, 2.5),
        row("purejaxrl", 250e3, 4.0),
    ]
    speed.store(rows)
    speed.write_page()
    text = page.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "### jax 0.11.2, 2 CPU cores" in text
    cells = "| 300k | 500k |  | 250k | 200k |  | **2.00** | 4.0, 6.0, rejax 5.0 |"
    assert "| P4 | PPO, CartPole-v1, 4 x 128; 16 seeds " + cells in text


def test_each_setup_keeps_the_latest_rows(page):
    speed.store([row("jaxrl", 1e3)])
    speed.store([row("jaxrl", 2e3)])
    speed.store([row("jaxrl", 3e3, versions={"jax": "0.10.2"})])
    kept = json.loads(speed.RESULTS.read_text())
    assert {
        setup: [x["steps_per_second"] for x in rows["P4"]["programs"]]
        for setup, rows in kept.items()
    } == {"jax 0.11.2, 2 CPU cores": [2e3], "jax 0.10.2, 2 CPU cores": [3e3]}
    speed.write_page()
    assert page.read_text().count("| P4 |") == 2


def test_without_peers_there_is_no_factor():
    text = speed.table({"P3": {"date": "2026-01-02", "programs": [row("jaxrl", 2e3)]}})
    assert "**" not in text
    assert "2k" in text
