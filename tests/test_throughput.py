"""The comparison of speeds: what is divided by what."""

from benchmarks.throughput import factors


def row(program, speed, parameters=10):
    return {
        "program": program, "steps_per_second": speed, "parameters": parameters, "env_steps": 5
    }  # fmt: skip


def test_factors_are_of_jaxrl_wherever_it_stands():
    rows = [row("rejax", 2.0), row("jaxrl", 6.0), row("sb3", 3.0, parameters=11)]
    assert factors(rows) == [("rejax", 3.0, True), ("sb3", 2.0, False)]


def test_no_peer_passes_for_jaxrl():
    assert factors([row("rejax", 2.0), row("sb3", 3.0)]) == []
    assert factors([]) == []
