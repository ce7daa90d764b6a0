"""Buffers of older versions, and of other numbers of devices, keep what they hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replay.test_replay import KEY, filled, spec

from jaxrl.agent import Replay
from jaxrl.replay.saved import fitted
from jaxrl.trees import named_leaves

PLAN = Replay(2, 4, 1, batch_size=512, capacity=64)


def arrays_of(memory):
    return {f"buffer.{name}": np.asarray(x) for name, x in named_leaves(memory).items()}


def of_schema_4(memory, num_slots, written):
    """The same final observations, in one ring for all copies, filled step by step."""
    arrays = arrays_of(memory)
    total, ring = 0, np.zeros((num_slots, 3), np.int16)
    index = np.zeros_like(arrays["buffer.final_index"])
    cut = arrays["buffer.steps.truncated"] & ~arrays["buffer.steps.terminated"]
    for slot in written:
        for copy in range(2):
            if cut[slot, copy]:
                own = arrays["buffer.final_index"][slot, copy]
                finals = arrays["buffer.final_obs"][:, copy]
                ring[total % num_slots] = finals[own % len(finals)]
                index[slot, copy] = total
                total += 1
    return arrays | {
        "buffer.final_obs": ring,
        "buffer.final_index": index,
        "buffer.num_truncated": np.int32(total),
    }


@pytest.mark.parametrize("num_slots", [40, 4])
@pytest.mark.parametrize("members", [None, 1])
def test_one_ring_of_final_observations_becomes_one_for_each_copy(num_slots, members):
    """Rows that had lost theirs stay invalid."""
    ring, memory, iterations, _ = filled(
        PLAN, 9, spec(9, "at_max_steps"), limit=9, p_terminated=0.02
    )
    old = of_schema_4(memory, num_slots, range(4, 36))  # the slots that can be sampled, in order
    wanted = jax.eval_shape(lambda: memory)
    if members is not None:
        old = {name: x[None] for name, x in old.items()}
        wanted = jax.eval_shape(lambda: jax.tree.map(lambda x: x[None], memory))
    found = fitted(old, {f"buffer.{name}": x for name, x in named_leaves(wanted).items()})
    names = [f"buffer.{name}" for name in named_leaves(memory)]
    leaves = [found[name] if members is None else found[name][0] for name in names]
    again = jax.tree.unflatten(jax.tree.structure(memory), map(jnp.asarray, leaves))
    rows, same = (ring.sample(x, KEY, iterations, 0.9) for x in (memory, again))
    assert rows.truncated.sum() > 50
    lost = rows.truncated & ~same.valid
    assert lost.any() == (num_slots == 4)
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(x[~lost], y[~lost]),
        rows.replace(valid=()),
        same.replace(valid=()),
    )
