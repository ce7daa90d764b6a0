"""The table of docs/speed.md: the speed of the libraries beside each other.

`python -m benchmarks.throughput ROW --write` stores the rows that it measures in
benchmarks/results/speed.json, one set for each version of jax, and writes the table.
"""

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.scores import replace_between
from benchmarks.workloads import WORKLOADS, Workload

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "speed.json"
PAGE = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
OWN = {"jaxrl": "jaxrl", "jaxrl-devices": "all devices", "jaxrl-one-thread": "one thread"}
PEERS = {"purejaxrl": "PureJaxRL", "rejax": "rejax", "sb3": "sb3-contrib"}

Rows = list[dict[str, Any]]
"""Of one workload: a row for each program, as `benchmarks.throughput.measure` returns them."""


def store(rows: Rows) -> None:
    """Keeps the rows of a workload, in place of older ones with the same jax on such a machine."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    (own,) = [row for row in rows if row["program"] == "jaxrl"]
    setup = f"jax {own['versions']['jax']}, {own['machine']}"
    kept = {"date": time.strftime("%Y-%m-%d"), "programs": rows}
    found.setdefault(setup, {})[own["workload"]] = kept
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def write_page() -> None:
    """Replaces the tables between the markers in docs/speed.md."""
    found = json.loads(RESULTS.read_text())
    tables = [
        f"### {setup}\n\n{table({name: measured[name] for name in WORKLOADS if name in measured})}"
        for setup, measured in sorted(found.items(), reverse=True)
    ]
    replace_between(PAGE, BEGIN, END, "\n\n".join(tables))
    print(f"the table is in {PAGE.relative_to(ROOT)}")


def table(measured: dict[str, dict[str, Any]]) -> str:
    """Thousands of steps a second, and the factor over the fastest other library."""
    columns = {**OWN, **PEERS}
    titles = ["row", "work", *columns.values(), "factor", "compiling, s", "date"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, kept in measured.items():
        of = {row["program"]: row for row in kept["programs"]}
        speeds = {name: row["steps_per_second"] for name, row in of.items()}
        own = max(speeds.get(name, 0.0) for name in OWN)
        peers = [speeds[name] for name in PEERS if name in speeds]
        cells = [
            name,
            work_of(WORKLOADS[name]),
            *(_thousands(speeds.get(name)) for name in columns),
            f"**{own / max(peers):.2f}**" if peers else "",
            _compiling(of),
            kept["date"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def work_of(work: Workload) -> str:
    """The algorithm, the environment and the sizes."""
    parts = [f"{work.algorithm.upper()}, {work.env}, {work.num_envs} x {work.num_steps}"]
    if work.num_seeds > 1:
        parts.append(f"{work.num_seeds:,} seeds")
    if work.num_updates:
        parts.append(f"{work.num_updates} x {work.batch_size} rows, buffer {work.capacity:,}")
    if work.sb3_sizes:
        envs, steps = work.sb3_sizes
        parts.append(f"sb3-contrib {envs} x {steps}")
    return "; ".join(parts)


def _thousands(speed: float | None) -> str:
    return "" if speed is None else f"{speed / 1000:.3g}k"


def _compiling(of: dict[str, dict[str, Any]]) -> str:
    """Seconds of tracing and compiling: of jaxrl, otherwise placed, and of the fastest other."""

    def seconds(name: str) -> float:
        return of[name]["trace_seconds"] + of[name]["compile_seconds"]

    own = [f"{seconds(name):.1f}" for name in OWN if name in of]
    peers = [(seconds(name), PEERS[name]) for name in PEERS if name in of and seconds(name)]
    fastest = [f"{min(peers)[1]} {min(peers)[0]:.1f}"] if peers else []
    return ", ".join([*own, *fastest])
