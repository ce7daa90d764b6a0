"""Defects of `envs`."""

from mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        "brax-rewards-of-one-step",
        "brax's reward components are those of the last step only.",
        "envs/jaxrl_envs/brax.py",
        "jax.tree.map(jnp.add, rewards, added)",
        "added",
        ("tests/envs/test_brax.py::test_reward_metrics_are_summed_over_an_episode",),
    ),
    Mutant(
        "a-fallen-pendulum-timed-out",
        "A fallen pendulum counts as timed out instead of terminated (brax's `time_out`).",
        "envs/jaxrl_envs/brax.py",
        "            terminated=stepped.done > 0,\n            truncated=jnp.bool_(False),",
        "            terminated=jnp.bool_(False),\n            truncated=stepped.done > 0,",
        ("tests/envs/test_brax.py::test_a_fall_terminates_and_the_time_limit_truncates",),
    ),
    Mutant(
        "an-early-cut-keeps-its-promise",
        "An episode may be truncated before the time limit although the spec rules that out.",
        "envs/jaxrl_envs/conformance.py",
        "else truncated & (age < spec.max_steps)",
        "else truncated & (age > spec.max_steps)",
        ("tests/envs/test_env_registry.py::test_contract_violations_are_reported",),
    ),
    Mutant(
        "joints-turn-alone",
        "A joint of the arm turns its own link, but not the links behind it.",
        "envs/jaxrl_envs/exact/arm.py",
        "heading = jnp.cumsum(angles)",
        "heading = jnp.asarray(angles)",
        ("tests/envs/test_exact_arm.py::test_hand_is_where_rotations_bring_it",),
    ),
    Mutant(
        "bound-with-the-older-constant",
        "TRPO's bound combines the constant 2 epsilon discount / (1 - discount)^2 with the total "
        "variation.",
        "envs/jaxrl_envs/exact/gradients.py",
        "penalty = 4.0 * epsilon",
        "penalty = 2.0 * epsilon",
        ("tests/envs/test_exact_tabular.py::test_trust_region_bound_matches_the_paper",),
    ),
    Mutant(
        "gymnax-time-limit-terminates",
        "gymnax's time limit counts as termination (most libraries).",
        "envs/jaxrl_envs/gymnax.py",
        "terminated = jnp.asarray(terminated, bool)",
        "terminated = jnp.asarray(terminated, bool) | jnp.asarray(truncated, bool)",
        ("tests/envs/test_gymnax.py::test_truncation_keeps_the_true_next_obs",),
    ),
    Mutant(
        "a-boolean-is-any-text",
        "A boolean environment parameter accepts text, and any text is true.",
        "envs/jaxrl_envs/parameters.py",
        'case str() if "text" in kinds:',
        'case str() if "text" in kinds or "bool" in kinds:',
        ("tests/envs/test_parameters.py::test_wrong_types_are_rejected",),
    ),
)
