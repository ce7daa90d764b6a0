"""Tests all brax environments on all backends, each pair in its own process.

    python -m benchmarks.brax_support                       # all, takes some minutes
    python -m benchmarks.brax_support hopper ant            # only these
    python -m benchmarks.brax_support --write docs/brax.md  # also write the table to a file

A pair works if it can be built, compiled and stepped with random actions, and its observations and
rewards are finite.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from jaxrl_envs.registry import BRAX_IDS

BACKENDS = ("generalized", "spring", "positional", "mjx")
PATIENCE = 600  # seconds for one pair
NUM_COPIES, NUM_STEPS = 4, 20

PROGRAM = f"""
import json, sys, time
import jaxrl, jaxrl_envs, jax, jax.numpy as jnp
from jaxrl.types import sample_action
name, backend = sys.argv[1:]
try:
    env = jaxrl_envs.make("brax/" + name, backend=backend)
except ValueError as error:
    print(json.dumps({{"unsupported": str(error)}}))
    sys.exit()

def play(key):
    def one(state, key):
        state, timestep = env.step(key, state, sample_action(env.spec.action, key))
        return state, jnp.isfinite(timestep.reward) & jnp.all(jnp.isfinite(timestep.obs))
    state, obs = env.reset(key)
    return jax.lax.scan(one, state, jax.random.split(key, {NUM_STEPS}))[1], obs

keys = jax.random.split(jax.random.key(0), {NUM_COPIES})
began = time.perf_counter()
options = {{"xla_backend_optimization_level": 0}}
run = jax.jit(jax.vmap(play), compiler_options=options).lower(keys).compile()
seconds = time.perf_counter() - began
finite, obs = run(keys)
print(json.dumps({{"seconds": seconds, "finite": bool(finite.all()), "size": obs.shape[1],
                  "actions": env.spec.action.shape[0]}}))
"""


def examine(name: str, backend: str) -> dict:
    """Tests one pair and returns its result."""
    command = [sys.executable, "-c", PROGRAM, name, backend]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {"error": f"not finished in {PATIENCE} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = [
            line for line in done.stderr.splitlines() if re.match(r"\w+(Error|Exception)\b", line)
        ]
        return {"error": (said or ["it died"])[-1][:100]}
    return json.loads(lines[-1])


def verdict(found: dict) -> str:
    """The text of a cell of the table."""
    if "unsupported" in found:
        return "not supported by brax"
    if "error" in found:
        return f"fails: {found['error']}"
    return "works" if found["finite"] else "works, but not finite under random actions"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BRAX_IDS)}")
    parser.add_argument("--write", type=Path, help="a Markdown file for the table")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BRAX_IDS]
    if unknown:
        parser.error(f"unknown environment {unknown[0]!r}: use {', '.join(BRAX_IDS)}")

    lines = [
        f"| environment | observation, action | {' | '.join(BACKENDS)} |",
        "|---" * (2 + len(BACKENDS)) + "|",
    ]
    print("\n".join(lines), flush=True)
    for name in options.names or BRAX_IDS:
        found = {backend: examine(name, backend) for backend in BACKENDS}
        shapes = {f"{x['size']}, {x['actions']}" for x in found.values() if "size" in x}
        cells = [name, " or ".join(sorted(shapes)), *(verdict(found[b]) for b in BACKENDS)]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if options.write:
        head = "# brax: what works\n\nMade by `python -m benchmarks.brax_support --write FILE`.\n\n"
        options.write.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
