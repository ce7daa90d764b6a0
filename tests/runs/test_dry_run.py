"""`--dry-run`: its report, and that it leaves no files."""

import re

import jax
import jax.numpy as jnp
import pytest
from helpers.commands import run_in_process

import jaxrl
from jaxrl.runs import dry_run
from jaxrl.xla.convolution import conv_general_dilated

ENV = "gymnax/CartPole-v1"


def test_a_dry_run_shows_sizes_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run_in_process(
        "train", "ppo", ENV, "--dry-run", "--num-envs", "4", "--num-steps", "16",
        "--hidden-sizes", "8", "--total-steps", "300", "--seeds", "2", "--num-eval-episodes", "5",
        "--no-preset",
    )  # fmt: skip
    assert (status, err) == (0, [])
    assert list(tmp_path.iterdir()) == []
    assert out[:2] == [
        f"jaxrl {jaxrl.__version__}: ppo on {ENV}, a dry run",
        "tracing and compiling ...",
    ]
    told = {line[:13].strip(): line[14:] for line in out[2:]}
    assert told["observation"] == "float32[4]"
    assert told["action"] == "Discrete(num=2)"
    assert told["trajectory"].startswith("16 steps x 4 environments of obs float32[4], action int")
    # Two torsos of 4 -> 8, a head of 2 and a head of 1.
    assert told["parameters"] == str(2 * (4 * 8 + 8) + (8 * 2 + 2) + (8 * 1 + 1))
    assert told["iterations"] == "5 of 64 steps: 320 steps, 80 updates"
    number = r"[\d,]+\.\d\d MiB \([\d,]+\.\d\d of it temporary\)"
    assert re.fullmatch(rf"training {number}, evaluation {number} \(2 seeds\)", told["memory"])
    assert re.match(r"at most [\d.]+ [kM]FLOP .* in total \(2 seeds\)", told["operations"])
    assert re.match(r"[\d.]+ [kM]FLOP for one iteration, .* counted once", told["XLA's count"])
    assert re.fullmatch(r"[\d.]+ s \(tracing [\d.]+, XLA [\d.]+\)", told["compile time"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-envs", "3", "--num-steps", "5"], "num_minibatches is 4, which does not divide"),
        (["--env-param", "lenght=0.7"], "has no parameter 'lenght'"),
    ],
)
def test_a_dry_run_finds_what_does_not_fit(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = run_in_process("train", "ppo", ENV, "--dry-run", *flags)
    assert status == 2
    assert message in err[0]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_needs_jit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.disable_jit():
        status, _, err = run_in_process(
            "train", "ppo", "jaxrl/bandit", "--dry-run", "--hidden-sizes", "2", "--num-envs", "4"
        )
    assert (status, len(err)) == (2, 1)
    assert "a dry run needs compilation, which jax_disable_jit turns off" in err[0]


def products(f, *shapes):
    return dry_run.operations_in_products(jax.make_jaxpr(f)(*map(jnp.zeros, shapes)).jaxpr)


def test_operations_are_counted_as_often_as_they_run():
    a, b = (3, 4), (4, 5)
    once = 2 * 3 * 4 * 5
    assert products(jnp.matmul, a, b) == once
    assert products(jax.jit(lambda x, y: jnp.tanh(x @ y)), a, b) == once
    assert products(jax.vmap(jnp.matmul, (None, 0)), a, (7, *b)) == 7 * once

    def loop(x, y):
        return jax.lax.scan(lambda c, _: (c + x @ y, ()), jnp.zeros((3, 5)), length=6)[0]

    assert products(loop, a, b) == 6 * once
    assert (
        products(lambda x, y: jax.lax.map(lambda _: loop(x, y), jnp.arange(2)), a, b) == 12 * once
    )

    def branch(x, y):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ y, lambda: (x @ y) + (x @ y))

    assert products(branch, a, b) == 2 * once
    square = (4, 4)
    # Backwards, one more product for each operand.
    assert products(jax.grad(lambda x, y: (x @ y).sum(), (0, 1)), square, square) >= 2 * 2 * 4**3


@pytest.mark.parametrize("function", [jax.lax.conv_general_dilated, conv_general_dilated])
def test_a_convolution_is_counted(function):
    """Also if it is computed as a matrix product, as on a CPU."""

    def convolve(x, kernel):
        return function(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert products(convolve, (2, 10, 10, 3), (3, 3, 3, 16)) == 2 * (2 * 5 * 5 * 16) * (3 * 3 * 3)
    assert products(convolve, (2, 10, 10, 3), (4, 4, 3, 16)) == 2 * (2 * 5 * 5 * 16) * (4 * 4 * 3)


def test_large_numbers_are_short():
    assert dry_run._flops(0) == "0 FLOP"
    assert dry_run._flops(1234) == "1.23 kFLOP"
    assert dry_run._flops(2.5e12) == "2.5 TFLOP"
    assert dry_run._flops(1e21) == "1e+06 PFLOP"
