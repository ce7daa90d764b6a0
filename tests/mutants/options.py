"""Defects of options: policies over a box, kept noise, Munchausen, standardisation, wrappers."""

from mutants.mutant import Mutant

DISTRIBUTIONS = "tests/test_distributions.py"
EXPLORATION = "tests/agents/test_exploration.py"
IMPALA = "tests/agents/test_impala.py"
ON_POLICY_OPTIONS = "tests/agents/test_on_policy_options.py"
Q_OPTIONS = "tests/agents/test_q_options.py"

MUTANTS = (
    Mutant(
        "munchausen-by-the-online-network",
        "The policy in Munchausen's reward is that of the network that learns.",
        "jaxrl/agents/bases/munchausen.py",
        "self._scaled_log_policy(evaluator, rows.obs",
        "self._scaled_log_policy(params, rows.obs",
        (f"{Q_OPTIONS}::test_munchausen_target_matches_numpy",),
    ),
    Mutant(
        "munchausen-without-its-limit",
        "The log-policy in the reward has no lower limit, and grows without bound for bad actions.",
        "jaxrl/agents/bases/munchausen.py",
        "jnp.clip(taken, self.munchausen_clip, 0.0)",
        "taken",
        (f"{Q_OPTIONS}::test_munchausen_target_matches_numpy",),
    ),
    Mutant(
        "munchausen-next-value-without-entropy",
        "The next value lacks the entropy of the policy.",
        "jaxrl/agents/bases/munchausen.py",
        "outputs - log_pi[..., None]",
        "outputs",
        (f"{Q_OPTIONS}::test_munchausen_target_matches_numpy",),
    ),
    Mutant(
        "one-number-of-levels",
        "IQN acts with as many quantile levels as it learns with, whatever is asked for.",
        "jaxrl/agents/bases/action_values.py",
        "self.outputs(params, obs, key, num_levels=self.num_acting_levels)",
        "self.outputs(params, obs, key)",
        (f"{Q_OPTIONS}::test_iqn_has_its_three_numbers_of_levels",),
    ),
    Mutant(
        "epsilons-of-the-wrong-copies",
        "The exponents end before the last copy: i / N in place of i / (N - 1).",
        "jaxrl/agents/bases/action_values.py",
        "max(num_envs * num_shards() - 1, 1)",
        "(num_envs * num_shards())",
        (f"{Q_OPTIONS}::test_each_copy_can_have_its_own_epsilon",),
    ),
    Mutant(
        "noise-drawn-in-every-step",
        "State-dependent noise is drawn again in each step, and explores no further than others.",
        "jaxrl/agents/bases/kept_noise.py",
        "tree_where(self.age == 0, drawn, self.noise)",
        "drawn",
        (f"{EXPLORATION}::test_noise_is_kept_until_it_is_drawn_again[ppo]",),
    ),
    Mutant(
        "rollout-standardised-twice",
        "Advantages standardised over the rollout are standardised again in each minibatch.",
        "jaxrl/agents/bases/proximal.py",
        "return sample.advantage if self._standardizes_rollouts else super().advantages(sample)",
        "return super().advantages(sample)",
        (f"{ON_POLICY_OPTIONS}::test_advantages_can_be_standardised_over_the_rollout[PPO]",),
    ),
    Mutant(
        "truncation-starts-a-step-late",
        "Backpropagation through time is cut one step too late.",
        "jaxrl/networks/recurrent.py",
        "% self.truncate_every == 0",
        "% self.truncate_every == 1",
        (
            f"{ON_POLICY_OPTIONS}::test_truncated_backpropagation_stops_at_multiples_of_its_length[gru]",
        ),
    ),
    Mutant(
        "scaled-density-without-its-volume",
        "The density of a scaled action lacks the volume, so that entropies are wrong.",
        "jaxrl/distributions/bounded.py",
        "return self.distribution.entropy() + self._log_volume()",
        "return self.distribution.entropy()",
        (f"{DISTRIBUTIONS}::test_beta_matches_scipy",),
    ),
    Mutant(
        "squashed-entropy-of-the-gaussian",
        "The entropy of a squashed Gaussian is that before tanh (several PPO codes).",
        "jaxrl/distributions/gaussian.py",
        "return gaussian.entropy() + functools.reduce(operator.add, slopes)",
        "return gaussian.entropy()",
        (
            f"{DISTRIBUTIONS}::test_entropy_of_a_squashed_gaussian_matches_numerical_integration[0.0-1.0]",
        ),
    ),
    Mutant(
        "beta-fisher-without-its-shared-part",
        "The Fisher matrix of a Beta distribution is diagonal.",
        "jaxrl/distributions/bounded.py",
        "shared = polygamma(1, alpha + beta) * (tangent[0] + tangent[1])",
        "shared = 0.0 * tangent[0]",
        (f"{DISTRIBUTIONS}::test_hessian_of_kl_of_bounded_policies_is_their_fisher_matrix[beta]",),
    ),
    Mutant(
        "noise-of-the-standard-deviation-squared",
        "The variance of noise linear in features adds up features, not their squares.",
        "jaxrl/distributions/gaussian.py",
        "squares = jnp.square(features) @",
        "squares = jnp.abs(features) @",
        (f"{EXPLORATION}::test_variance_is_that_of_a_sum_over_features",),
    ),
    Mutant(
        "time-left-of-the-step-before",
        "The observation shows the time that was left a step earlier.",
        "jaxrl/wrappers/observation.py",
        "self._observe(timestep.obs, time + 1)",
        "self._observe(timestep.obs, time)",
        ("tests/test_wrappers.py::test_the_time_that_is_left_is_seen",),
    ),
    Mutant(
        "actions-rescaled-from-zero",
        "Actions are scaled as if their interval began at 0.",
        "jaxrl/wrappers/action.py",
        "(action - self.low) / (self.high - self.low)",
        "action / (self.high - self.low)",
        ("tests/test_wrappers.py::test_rescaled_actions_reach_the_bounds",),
    ),
    Mutant(
        "actors-are-never-behind",
        "The actors of IMPALA act with the latest parameters, so that there is nothing to correct.",
        "jaxrl/agents/impala.py",
        "return jnp.concatenate([past[1:], now[None]])",
        "return jnp.broadcast_to(now, past.shape)",
        (f"{IMPALA}::test_actors_are_behind_by_the_lag[3]",),
    ),
    Mutant(
        "ratio-upside-down",
        "V-trace gets the behaviour's probability over the policy's.",
        "jaxrl/agents/impala.py",
        'now[0].log_prob(steps.action) - steps.extras["log_prob"]',
        'steps.extras["log_prob"] - now[0].log_prob(steps.action)',
        (f"{IMPALA}::test_targets_are_those_of_vtrace",),
    ),
    Mutant(
        "retrace-cut-one-action-early",
        "The trace is cut by the action of the step itself, not by the next one.",
        "jaxrl/agents/pqn.py",
        "jnp.where(taken < jnp.max(q, axis=-1), -jnp.inf, 0.0)",
        "jnp.roll(jnp.where(taken < jnp.max(q, axis=-1), -jnp.inf, 0.0), 1, axis=0)",
        (f"{Q_OPTIONS}::test_traces_of_pqn_are_peng_s_or_retrace_s",),
    ),
    Mutant(
        "gamma-takes-what-was-rejected",
        "Beta samples take the first proposal, whether it was accepted or not.",
        "jaxrl/distributions/bounded.py",
        "jnp.where(jnp.any(accepted, -1), jnp.argmax(accepted, -1), 5)",
        "jnp.zeros(shape.shape, int)",
        (f"{DISTRIBUTIONS}::test_beta_samples_pass_a_kolmogorov_smirnov_test",),
    ),
    Mutant(
        "one-gain-for-all-layers",
        "Kernels keep the gain of their layer whatever initialisation is asked for.",
        "jaxrl/networks/initialization.py",
        'return variables if kind == "orthogonal" else _with_lecun_kernels(variables, key)',
        "return variables",
        ("tests/networks/test_networks.py::test_kernels_can_have_the_variance_of_lecun",),
    ),
)
