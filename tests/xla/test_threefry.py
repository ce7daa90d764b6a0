"""The generator gives the bits of jax's threefry and leaves other keys unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.agents import PPO
from jaxrl.engine.training import Training
from jaxrl.xla.threefry import fast

KEY = jax.random.key(7)
DRAWS = {
    "split": lambda key: jax.random.key_data(jax.random.split(key, (3, 4))),
    "fold_in": lambda key: jax.random.key_data(jax.random.fold_in(key, 7)),
    "fold_in of an array": lambda key: jax.random.key_data(jax.random.fold_in(key, jnp.int32(5))),
    "uint8": lambda key: jax.random.bits(key, (9,), "uint8"),
    "uint16": lambda key: jax.random.bits(key, (9,), "uint16"),
    "uint32": lambda key: jax.random.bits(key, (2, 3, 4)),
    "scalar": lambda key: jax.random.uniform(key),
    "nothing": lambda key: jax.random.uniform(key, (0,)),
    "normal": lambda key: jax.random.normal(key, (1000,)),
    "randint": lambda key: jax.random.randint(key, (50,), -3, 12),
    "permutation": lambda key: jax.random.permutation(key, 64),
    "categorical": lambda key: jax.random.categorical(key, jnp.zeros((20, 3))),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_bits_match_jax(draw):
    once = jax.jit(draw)  # compile both here: jax's cached programs may round differently
    np.testing.assert_array_equal(once(fast(KEY)), once(KEY))
    keys, several = jax.random.split(KEY, 3), jax.jit(jax.vmap(draw))
    np.testing.assert_array_equal(several(fast(keys)), several(keys))


def test_other_keys_are_left_alone():
    other = jax.random.key(0, impl="rbg")
    assert fast(other) is other
    with jax.threefry_partitionable(False):
        assert fast(KEY) is KEY
    again = fast(fast(KEY))
    np.testing.assert_array_equal(jax.random.key_data(again), jax.random.key_data(KEY))


def test_training_programs_contain_no_jax_threefry(monkeypatch):
    """On a CPU jax lowers its threefry primitive to rolled loops."""
    from helpers.environments import Counter

    training = Training.create(PPO(num_envs=8, num_steps=8), Counter(limit=5), total_steps=64)
    state = jax.eval_shape(training.init, KEY)
    zero = jnp.int32(0)
    for program, arguments in (
        (training.init, (KEY,)),
        (training.chunk, (state, KEY, zero, zero)),
        (training.evaluate, (state, KEY, zero)),
    ):
        assert "threefry2x32" not in str(jax.make_jaxpr(program)(*arguments)).replace(
            "jaxrl_threefry2x32", ""
        )
