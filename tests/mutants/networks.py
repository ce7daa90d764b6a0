"""Defects of `networks`."""

from mutants.mutant import Mutant
from mutants.tests import OWN_MODULES

MUTANTS = (
    Mutant(
        "divergence-of-rows-the-wrong-way-round",
        "The KL divergence of a user's policy over several axes has its arguments swapped.",
        "jaxrl/networks/own_modules.py",
        "self.rows.kl(other.rows)",
        "other.rows.kl(self.rows)",
        (f"{OWN_MODULES}::test_distributions_over_several_axes_match_single_rows[several]",),
    ),
    Mutant(
        "never-in-training-mode",
        "Modules never get `train=True`, so that BatchNorm keeps its initial statistics.",
        "jaxrl/networks/own_modules.py",
        "train=None if self.train is None else True",
        "train=None if self.train is None else False",
        (f"{OWN_MODULES}::test_batch_statistics_match_numpy_and_parameters_learn[dqn]",),
    ),
    Mutant(
        "batch-statistics-in-a-policy-that-must-not-change",
        "An on-policy agent accepts a module with batch statistics.",
        "jaxrl/networks/own_modules.py",
        "if names and not trains:",
        "if names and not trains and module is None:",
        (f"{OWN_MODULES}::test_on_policy_agents_reject_modules_that_change_the_policy[PPO]",),
    ),
    Mutant(
        "advantages-not-centred",
        "Dueling streams are added without centring the advantages.",
        "jaxrl/networks/q_networks.py",
        "per_action = value + per_action - jnp.mean(per_action, axis=-2, keepdims=True)",
        "per_action = value + per_action",
        ("tests/agents/test_dqn.py::test_dueling_streams_are_centred",),
    ),
    Mutant(
        "advantages-less-the-largest",
        "Dueling subtracts the maximum advantage instead of the mean (equation 8 of the paper "
        "instead of 9).",
        "jaxrl/networks/q_networks.py",
        "- jnp.mean(per_action, axis=-2, keepdims=True)",
        "- jnp.max(per_action, axis=-2, keepdims=True)",
        ("tests/agents/test_dqn.py::test_mean_of_dueling_values_is_the_state_value",),
    ),
    Mutant(
        "noise-not-factorised",
        "Each weight of a noisy layer gets independent noise, with a different scale than in the "
        "paper.",
        "jaxrl/networks/q_networks.py",
        "kernel_std * into[:, None] * out[None]",
        'kernel_std * jax.random.normal(self.make_rng("noise"), kernel.shape)',
        ("tests/agents/test_dqn.py::test_noise_is_factorised_and_vanishes_without_a_key",),
    ),
    Mutant(
        "unrolled-carry-kept-across-episodes",
        "The recurrent state is reset in acting but not in learning, so that the first ratio is "
        "not 1.",
        "jaxrl/networks/recurrent.py",
        "cell(tree_where(first, start, carry), x)",
        "cell(carry, x)",
        ("tests/agents/test_actor_critic.py::test_acting_step_by_step_matches_the_unroll[gru]",),
    ),
    Mutant(
        "targets-keep-their-first-statistics",
        "Target networks get new parameters but keep the batch statistics of `init`.",
        "jaxrl/networks/variables.py",
        'return x | {"params": optax.incremental_update',
        'return target | {"params": optax.incremental_update',
        (f"{OWN_MODULES}::test_batch_statistics_match_numpy_and_parameters_learn[td3]",),
    ),
)
