"""Training speed of PPO on environments that step outside JAX, beside other libraries (row P11).

    python -m benchmarks.host_speed
    python -m benchmarks.host_speed cartpole --peer-python PYTHON
    python -m benchmarks.host_speed --cleanrl-python PYTHON --cleanrl-path CHECKOUT
    python -m benchmarks.host_speed --write       also renews the table in docs/speed.md

"jaxrl-lag" plays while it learns (`--actor-lag 1`). Each library has its own process, and their
runs alternate. Time starts with the environments and leaves out compilation and evaluations.

The other libraries need interpreters of their own: `--peer-python` with stable-baselines3[extra],
and `--cleanrl-python` with what CleanRL's ppo.py and ppo_atari_envpool.py import (Python 3.11,
gymnasium 0.29.1, gym 0.23.1, envpool 0.8.4).
"""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.scores import machine, replace_between
from benchmarks.throughput import measure

ROWS = {
    "cartpole": ("gymnasium/CartPole-v1", 40),
    "acrobot": ("gymnasium/Acrobot-v1", 40),
    "pong": ("envpool/Pong-v5", 4),
}
"""Environment and iterations of a run, of 1,024 steps each."""
PROGRAMS = ("jaxrl", "jaxrl-lag", "sb3", "cleanrl")
BEGIN, END = "<!-- host speed: begin -->", "<!-- host speed: end -->"
PAGE = Path(__file__).parent.parent / "docs" / "speed.md"


def table(found: dict[str, list[dict]]) -> str:
    """A line for each row, with steps a second, and the factor over the fastest other library."""
    lines = [
        "| environment | jaxrl | plays while it learns | SB3 | CleanRL | factor | date |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, programs in found.items():
        speeds = {each["program"]: each["steps_per_second"] for each in programs}
        ours = max(speeds.get(name, 0) for name in PROGRAMS[:2])
        others = [speeds[name] for name in PROGRAMS[2:] if name in speeds]
        factor = f"**{ours / max(others):.1f}**" if others else ""
        cells = [f"{speeds[name]:,.0f}" if name in speeds else "" for name in PROGRAMS]
        date = time.strftime("%Y-%m-%d")
        lines.append(f"| `{ROWS[row][0]}` | {' | '.join(cells)} | {factor} | {date} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; or all")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--peer-python", help="interpreter with Stable-Baselines3")
    parser.add_argument("--cleanrl-python", help="interpreter with what CleanRL imports")
    parser.add_argument("--cleanrl-path", default="", help="checkout of CleanRL")
    parser.add_argument("--write", action="store_true", help="renew the table in docs/speed.md")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no row is called {unknown.pop()!r}: choose from {', '.join(ROWS)}")
    programs = dict.fromkeys(PROGRAMS[:2], (sys.executable, ""))
    if options.peer_python:
        programs["sb3"] = (options.peer_python, "")
    if options.cleanrl_python:
        programs["cleanrl"] = (options.cleanrl_python, options.cleanrl_path)
    found = {}
    for row in options.rows or ROWS:
        found[row] = measure(
            json.dumps(ROWS[row]), programs, options.rounds, script="host_worker.py"
        )
        for each in found[row]:
            speed, slowest, fastest = (each[x] for x in ("steps_per_second", "slowest", "fastest"))
            spread = f"({slowest:,.0f} to {fastest:,.0f})"
            print(f"{row:9} {each['program']:10} {speed:>9,.0f} steps/s {spread}", flush=True)
    print(f"\n{machine()}\n\n{table(found)}")
    if options.write:
        replace_between(PAGE, BEGIN, END, f"{machine()}\n\n{table(found)}")


if __name__ == "__main__":
    main()
