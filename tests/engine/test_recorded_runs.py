"""One short run per plan is bit-identical to a recorded one.

The digests in `tests/data/recorded_runs.json` were computed at commit b5a3e58, before the library
was split into packages. They are valid for the recorded versions and CPU, because XLA compiles for
the host CPU. On another CPU only sums of the state are compared; with other versions the test is
skipped. After an intended change of the numbers, record them again:

    PYTHONPATH=tests python -m engine.test_recorded_runs
"""

import importlib.metadata
import json
import platform
import re
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.agents.cross_entropy import CrossEntropy
from helpers.environments import Chain, Counter, Recall
from helpers.paths import DATA
from helpers.plans import walk

from jaxrl.agents import DQN, PPO, FittedQ
from jaxrl.engine.train import train

RECORDS = DATA / "recorded_runs.json"
ITERATIONS = 6
SMALL = {"hidden_sizes": (8,)}
RUNS = {
    "on-policy": (
        PPO(num_envs=4, num_steps=8, num_epochs=2, num_minibatches=2, **SMALL),
        Counter(limit=5),
        {"normalize_observations": True, "normalize_rewards": True},
    ),
    "replay": (
        DQN(num_envs=4, num_steps=2, batch_size=8, capacity=64, warmup=16, target_every=2, **SMALL),
        Chain(),
        {},
    ),
    "offline": (
        FittedQ(num_updates=3, batch_size=16, **SMALL),
        Chain(),
        {"data": lambda: walk(4)},
    ),
    "population": (
        CrossEntropy(population_size=8, num_elites=3, episodes_per_candidate=2),
        Recall(),
        {},
    ),
}


def cpu() -> str:
    """The CPU's model and vector instructions, for which XLA compiles."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        text = ""
    found = dict(re.findall(r"^(\w[\w ]*?)\s*: (.*)$", text, re.MULTILINE))
    vector = sorted(x for x in found.get("flags", "").split() if re.match("avx|fma|amx|f16c", x))
    make = [found.get(name, "") for name in ("vendor_id", "cpu family", "model")]
    return " ".join([platform.machine(), *make, *vector])


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")}


def run(plan: str) -> dict:
    """Digest of the final state, independent of leaf order and names, and sums over its leaves."""
    agent, env, options = RUNS[plan]
    options = {name: x() if callable(x) else x for name, x in options.items()}
    steps = agent.bind(env.spec).plan.steps_per_iteration * ITERATIONS
    state, _ = jax.jit(
        lambda key: train(agent, env, key, total_steps=steps, num_evaluations=0, **options)
    )(jax.random.key(1))
    leaves = [np.ascontiguousarray(x) for x in jax.tree.leaves(state.agent)]
    digests = sorted(zlib.crc32(x.tobytes()) for x in leaves)
    learned = [x.astype(np.float64) for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    return {
        "digest": f"{zlib.crc32(np.array(digests, '<u4').tobytes()):08x}",
        "sizes": [float(sum(np.abs(x).sum() for x in learned)),
                  float(sum(np.square(x).sum() for x in learned))],
    }  # fmt: skip


@pytest.mark.optimized
@pytest.mark.parametrize("plan", RUNS)
def test_final_state_matches_the_recording(plan):
    records = json.loads(RECORDS.read_text(encoding="utf-8"))
    record = next((x for x in records if x["versions"] == versions()), None)
    if record is None:
        pytest.skip(f"no run was recorded with {versions()}")
    found = run(plan)
    np.testing.assert_allclose(found["sizes"], record["runs"][plan]["sizes"], rtol=1e-3)
    if record["cpu"] == cpu():
        assert found["digest"] == record["runs"][plan]["digest"]


def main() -> None:
    """Records runs on this machine and replaces those with the same versions."""
    others = json.loads(RECORDS.read_text(encoding="utf-8")) if RECORDS.exists() else []
    others = [x for x in others if x["versions"] != versions()]
    mine = {"versions": versions(), "cpu": cpu(), "runs": {plan: run(plan) for plan in RUNS}}
    RECORDS.write_text(json.dumps([*others, mine], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
