"""Defects of returns, advantages and values."""

from mutants.mutant import Mutant
from mutants.tests import ENDS, IDENTITIES

MUTANTS = (
    Mutant(
        "gae-done-is-terminated",
        "GAE treats a time limit as termination (most libraries).",
        "jaxrl/estimators.py",
        "deltas = rewards + discount * jnp.where(terminated, 0, next_values) - values",
        "deltas = rewards + discount * jnp.where(cut, 0, next_values) - values",
        (f"{ENDS}::test_truncation_is_not_termination[gae]",),
    ),
    Mutant(
        "n-step-done-is-terminated",
        "n-step returns treat a time limit as termination (most libraries).",
        "jaxrl/estimators.py",
        "return rewards + discount * jnp.where(terminated, 0, tail)",
        "return rewards + discount * jnp.where(cut, 0, tail)",
        (f"{ENDS}::test_truncation_is_not_termination[n_step_returns]",),
    ),
    Mutant(
        "lambda-done-is-terminated",
        "Lambda-returns treat a time limit as termination (most libraries).",
        "jaxrl/estimators.py",
        "bootstrap = weight * jnp.where(terminated, 0, next_values)",
        "bootstrap = weight * jnp.where(cut, 0, next_values)",
        (f"{ENDS}::test_truncation_is_not_termination[lambda_returns]",),
    ),
    Mutant(
        "vtrace-done-is-terminated",
        "V-trace treats a time limit as termination (most libraries).",
        "jaxrl/estimators.py",
        "    bootstrap = jnp.where(terminated, 0, next_values)\n",
        "    bootstrap = jnp.where(cut, 0, next_values)\n",
        (f"{ENDS}::test_truncation_is_not_termination[vtrace]",),
    ),
    Mutant(
        "gae-runs-on-after-truncation",
        "After a time limit, GAE's sum continues into the next episode.",
        "jaxrl/estimators.py",
        "jnp.where(cut, 0, discount * lambda_)",
        "jnp.where(terminated, 0, discount * lambda_)",
        (f"{ENDS}::test_estimates_do_not_cross_episode_ends[gae-truncated]",),
    ),
    Mutant(
        "n-step-runs-on-after-truncation",
        "After a time limit, n-step returns continue into the next episode.",
        "jaxrl/estimators.py",
        "stop = cut | _is_last(rewards)",
        "stop = terminated | _is_last(rewards)",
        (f"{ENDS}::test_estimates_do_not_cross_episode_ends[n_step_returns-truncated]",),
    ),
    Mutant(
        "lambda-runs-on-after-truncation",
        "After a time limit, lambda-returns continue into the next episode.",
        "jaxrl/estimators.py",
        "lambda_ = jnp.where(cut, 0,",
        "lambda_ = jnp.where(terminated, 0,",
        (f"{ENDS}::test_estimates_do_not_cross_episode_ends[lambda_returns-truncated]",),
    ),
    Mutant(
        "vtrace-runs-on-after-truncation",
        "After a time limit, V-trace's sum continues into the next episode.",
        "jaxrl/estimators.py",
        "errors = _accumulate(deltas, jnp.where(cut, 0, discount * c))",
        "errors = _accumulate(deltas, jnp.where(terminated, 0, discount * c))",
        (f"{ENDS}::test_estimates_do_not_cross_episode_ends[vtrace-truncated]",),
    ),
    Mutant(
        "n-step-discount-without-its-power",
        "The n-step bootstrap is discounted by gamma instead of gamma**n (Stoix Rainbow, D4PG).",
        "jaxrl/estimators.py",
        "jax.lax.scan(one_step_more, next_values, length",
        "jax.lax.scan(one_step_more, next_values / discount ** (num_steps - 1), length",
        (f"{IDENTITIES}::test_n_step_returns_bootstrap_with_the_discount_to_the_n",),
    ),
    Mutant(
        "lambda-bootstraps-two-steps-ahead",
        "Lambda-targets bootstrap from s_{t+2} (rejax PQN, PureJaxQL).",
        "jaxrl/estimators.py",
        "weight * jnp.where(terminated, 0, next_values)",
        "weight * jnp.where(terminated, 0, jnp.roll(next_values, -1, axis=0))",
        (f"{IDENTITIES}::test_lambda_0_and_1_give_one_step_and_full_returns",),
    ),
    Mutant(
        "lambda-starts-with-the-wrong-carry",
        "The last step of a sequence loses the lambda part of its bootstrap (akin to the wrong "
        "carry of rejax PQN, PureJaxQL).",
        "jaxrl/estimators.py",
        "weight = jnp.where(_is_last(rewards), 1, 1 - lambda_)",
        "weight = 1 - lambda_",
        ("tests/test_estimators.py::TestGoldenNumbers::test_lambda_returns_match_rlax",),
    ),
    Mutant(
        "vtrace-rho-without-its-bound",
        "V-trace's rho is not clipped: the argument is accepted but ignored.",
        "jaxrl/estimators.py",
        'rho = jnp.minimum(ratios, _per_step(rewards, "clip_rho", clip_rho))',
        "rho = ratios",
        ("tests/test_estimators.py::TestGoldenNumbers::test_vtrace_matches_rlax",),
    ),
    Mutant(
        "vtrace-advantage-with-the-wrong-bound",
        "The bound on the advantage's weight is ignored (akin to rlax's test, which sets "
        "`clip_pg_rho` and never passes it).",
        "jaxrl/estimators.py",
        'pg_rho = jnp.minimum(ratios, _per_step(rewards, "clip_pg_rho", clip_pg_rho))',
        "pg_rho = rho",
        (
            "tests/test_estimators.py::TestDefinitions"
            "::test_matches_the_sum_over_future_steps[2-shape2-0.3-0.99-0.95-vtrace]",
        ),
    ),
    Mutant(
        "retrace-with-the-ratio-of-now",
        "Retrace weights a correction by the ratio of the previous action.",
        "jaxrl/estimators.py",
        "c = jnp.concatenate([c[1:], c[-1:]])",
        "c = jnp.concatenate([c[:1], c[1:]])",
        ("tests/test_retrace.py::test_retrace_matches_rlax",),
    ),
)
