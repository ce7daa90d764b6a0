"""The mutants: one defect each, as a change of a few lines, and the tests that must notice it.

A snippet that no longer occurs once in its file fails a fast test: follow the code, so that the
defect stays what its sentence says. A new algorithm brings the defects of its kind along.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A defect put into the library.

    Attributes:
      name: a few words with hyphens.
      defect: one sentence, and the library that shipped it or its like, where one is known.
      file: the source file, from the root of the repository.
      old: what is replaced; occurs once in the file.
      new: by what.
      tests: pytest's ids of the tests that look; at least one must fail.
      error: how the message of that failure begins, if it is no failed assertion: a mutant that
        merely crashes proves nothing.
    """

    name: str
    defect: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    error: str | None = None

    def apply(self, source: str) -> str:
        """The mutated text of the file; ValueError where the snippet does not occur just once."""
        if (count := source.count(self.old)) != 1:
            raise ValueError(f"{self.name}: its snippet occurs {count} times in {self.file}")
        return source.replace(self.old, self.new)


# Files and tests that several mutants share.
A2C = "jaxrl/agents/a2c.py"
ACTOR_CRITIC = "jaxrl/agents/actor_critic.py"
CRITIC = "jaxrl/agents/critic.py"
DISTRIBUTIONS = "jaxrl/distributions.py"
ENVIRONMENT = "jaxrl/environment.py"
ESTIMATORS = "jaxrl/estimators.py"
EVALUATE = "jaxrl/engine/evaluate.py"
EVENTS = "jaxrl/runs/events.py"
FIT = "jaxrl/runs/fit.py"
INTERVALS = "jaxrl/runs/intervals.py"
LEARNERS = "jaxrl/engine/learners.py"
LOSSES = "jaxrl/losses.py"
MINIBATCHES = "jaxrl/minibatches.py"
NATURAL = "jaxrl/agents/natural_gradient.py"
NORMALIZATION = "jaxrl/normalization.py"
NPG = "jaxrl/agents/npg.py"
OPTIMIZERS = "jaxrl/optimizers.py"
PPO = "jaxrl/agents/ppo.py"
RECORDER = "jaxrl/runs/recorder.py"
REINFORCE = "jaxrl/agents/reinforce.py"
ROLLOUT = "jaxrl/engine/rollout.py"
SOLVERS = "jaxrl/solvers.py"
SPACES = "jaxrl/spaces.py"
STATISTICS = "jaxrl/runs/statistics.py"
TRAIN = "jaxrl/engine/train.py"
TRPO = "jaxrl/agents/trpo.py"
TYPES = "jaxrl/types.py"
WRAPPERS = "jaxrl/wrappers.py"

ACTION_VALUES = "jaxrl/agents/action_values.py"
CONTINUOUS = "jaxrl/agents/continuous.py"
DDPG = "jaxrl/agents/ddpg.py"
DQN = "jaxrl/agents/dqn.py"
PQN = "jaxrl/agents/pqn.py"
OWN = "jaxrl/own_modules.py"
Q_SEARCH = "jaxrl/agents/q_search.py"
Q_NETWORKS = "jaxrl/q_networks.py"
REPLAY = "jaxrl/replay.py"
SAC = "jaxrl/agents/sac.py"
SUM_TREE = "jaxrl/sum_tree.py"
VALUE_LOSSES = "jaxrl/value_losses.py"
VARIABLES = "jaxrl/variables.py"

BY_HAND = "tests/test_dqn.py::test_double_q_takes_the_value_of_one_network_at_the_action_of_another"
ENDS = "tests/test_estimators.py::TestEnds"
FISHER = "tests/test_solvers.py::test_the_fisher_product_is_the_explicit_matrix_times_the_vector"
IDENTITIES = "tests/test_estimators.py::TestIdentities"
IMMOVABLE = "tests/test_trpo.py::test_advantages_that_are_not_finite_or_nothing_move_nothing"
KEYS = "tests/test_engine.py::test_nobody_gets_anybody_elses_key[agent0-fresh]"
ONCE = "tests/test_replay.py::test_compiled_training_takes_the_memory_once"
OWN_MODULES = "tests/test_own_modules.py"
ONE_LOOP = "tests/test_engine.py::test_rollout_equals_a_slow_loop"
PPO_LOSS = "tests/test_ppo.py::test_the_loss_is_that_of_the_paper"
LONG_EVALUATION = "tests/test_engine.py::test_a_long_evaluation_uses_no_key_twice"
PRIORITISED = "tests/test_dqn.py::test_a_prioritised_update_is_that_of_the_paper"
PROMISE = "tests/test_trpo.py::test_every_step_is_within_the_radius_and_better_or_no_step_at_all"
SURROGATE = "tests/test_losses.py::TestClippedSurrogate::test_each_case_of_the_paper"
TWO_SEEDS = "tests/test_engine.py::test_two_seeds_share_no_key"
UNBIASED = "tests/test_policy_gradients.py::test_reinforce_is_unbiased_whatever_the_baseline"
VALUES = (
    "tests/test_actor_critic.py"
    "::test_values_equal_a_slow_loop_that_looks_at_every_next_observation[False-none]"
)

RESUME = "tests/test_resume.py"
GOES_ON = f"{RESUME}::test_a_run_that_died_goes_on_to_the_same_bits[on-policy]"
UPDATES = "tests/test_off_policy_updates.py"
HAPPENED = "tests/test_replay.py::test_every_row_is_one_that_happened"
FRESH_STARTS = (
    "tests/test_engine.py::test_a_rollout_from_fresh_starts_counts_one_episode_of_each_copy"
)
DECLARED = "tests/test_replay.py::test_a_declared_limit_bounds_the_final_observations_exactly[2]"
TARGET_MOVES = "tests/test_dqn.py::test_the_target_moves_when_it_is_due_also_under_vmap"

MUTANTS = (
    # Ends of episodes ----------------------------------------------------------------------------
    Mutant(
        "gae-done-is-terminated",
        "GAE takes a time limit for a death (most libraries).",
        ESTIMATORS,
        "deltas = rewards + discount * jnp.where(terminated, 0, next_values) - values",
        "deltas = rewards + discount * jnp.where(cut, 0, next_values) - values",
        (f"{ENDS}::test_truncation_is_not_termination[gae]",),
    ),
    Mutant(
        "n-step-done-is-terminated",
        "n-step returns take a time limit for a death (most libraries).",
        ESTIMATORS,
        "return rewards + discount * jnp.where(terminated, 0, tail)",
        "return rewards + discount * jnp.where(cut, 0, tail)",
        (f"{ENDS}::test_truncation_is_not_termination[n_step_returns]",),
    ),
    Mutant(
        "lambda-done-is-terminated",
        "Lambda-returns take a time limit for a death (most libraries).",
        ESTIMATORS,
        "bootstrap = weight * jnp.where(terminated, 0, next_values)",
        "bootstrap = weight * jnp.where(cut, 0, next_values)",
        (f"{ENDS}::test_truncation_is_not_termination[lambda_returns]",),
    ),
    Mutant(
        "vtrace-done-is-terminated",
        "V-trace takes a time limit for a death (most libraries).",
        ESTIMATORS,
        "    bootstrap = jnp.where(terminated, 0, next_values)\n",
        "    bootstrap = jnp.where(cut, 0, next_values)\n",
        (f"{ENDS}::test_truncation_is_not_termination[vtrace]",),
    ),
    Mutant(
        "gae-runs-on-after-truncation",
        "GAE's sum runs on into the next episode after a time limit.",
        ESTIMATORS,
        "jnp.where(cut, 0, discount * lambda_)",
        "jnp.where(terminated, 0, discount * lambda_)",
        (f"{ENDS}::test_nothing_crosses_the_end_of_an_episode[gae-truncated]",),
    ),
    Mutant(
        "n-step-runs-on-after-truncation",
        "n-step returns run on into the next episode after a time limit.",
        ESTIMATORS,
        "stop = cut | _is_last(rewards)",
        "stop = terminated | _is_last(rewards)",
        (f"{ENDS}::test_nothing_crosses_the_end_of_an_episode[n_step_returns-truncated]",),
    ),
    Mutant(
        "lambda-runs-on-after-truncation",
        "Lambda-returns run on into the next episode after a time limit.",
        ESTIMATORS,
        "lambda_ = jnp.where(cut, 0,",
        "lambda_ = jnp.where(terminated, 0,",
        (f"{ENDS}::test_nothing_crosses_the_end_of_an_episode[lambda_returns-truncated]",),
    ),
    Mutant(
        "vtrace-runs-on-after-truncation",
        "V-trace's sum runs on into the next episode after a time limit.",
        ESTIMATORS,
        "errors = _accumulate(deltas, jnp.where(cut, 0, discount * c))",
        "errors = _accumulate(deltas, jnp.where(terminated, 0, discount * c))",
        (f"{ENDS}::test_nothing_crosses_the_end_of_an_episode[vtrace-truncated]",),
    ),
    Mutant(
        "time-limit-bootstraps-from-here",
        "At a time limit discount V(s_t) is added where V(s_{t+1}) belongs "
        "(brax `bootstrap_on_timeout`).",
        ACTOR_CRITIC,
        "next_values = jnp.where(steps.truncated, at_cuts, following)",
        "next_values = jnp.where(steps.truncated, values, following)",
        (VALUES,),
    ),
    Mutant(
        "time-limit-bootstraps-from-the-next-start",
        "At a time limit the value of the next episode's start is added, which is all that one "
        "`values[T+1]` can say under auto-reset (rlax GAE).",
        ACTOR_CRITIC,
        "next_values = jnp.where(steps.truncated, at_cuts, following)",
        "next_values = following",
        (VALUES,),
    ),
    Mutant(
        "next-obs-after-the-reset",
        "The stored next observation is the first of the next episode.",
        ROLLOUT,
        "next_obs=timestep.obs,",
        "next_obs=next_state.obs,",
        (ONE_LOOP,),
    ),
    # Returns and traces --------------------------------------------------------------------------
    Mutant(
        "n-step-discount-without-its-power",
        "The n-step bootstrap is discounted by gamma, not gamma**n (Stoix Rainbow, D4PG).",
        ESTIMATORS,
        "jax.lax.scan(one_step_more, next_values, length",
        "jax.lax.scan(one_step_more, next_values / discount ** (num_steps - 1), length",
        (f"{IDENTITIES}::test_n_step_returns_bootstrap_with_the_discount_to_the_n",),
    ),
    Mutant(
        "lambda-bootstraps-two-steps-ahead",
        "Lambda-targets bootstrap from s_{t+2} (rejax PQN, PureJaxQL).",
        ESTIMATORS,
        "weight * jnp.where(terminated, 0, next_values)",
        "weight * jnp.where(terminated, 0, jnp.roll(next_values, -1, axis=0))",
        (f"{IDENTITIES}::test_lambda_returns_at_the_ends_are_one_step_and_whole_returns",),
    ),
    Mutant(
        "lambda-starts-with-the-wrong-carry",
        "The last step of a sequence loses the part lambda of its bootstrap (akin to the wrong "
        "carry of rejax PQN, PureJaxQL).",
        ESTIMATORS,
        "weight = jnp.where(_is_last(rewards), 1, 1 - lambda_)",
        "weight = 1 - lambda_",
        ("tests/test_estimators.py::TestGoldenNumbers::test_lambda_returns_of_rlax",),
    ),
    Mutant(
        "vtrace-rho-without-its-bound",
        "V-trace's rho is not clipped: an argument accepted and not read.",
        ESTIMATORS,
        'rho = jnp.minimum(ratios, _per_step(rewards, "clip_rho", clip_rho))',
        "rho = ratios",
        ("tests/test_estimators.py::TestGoldenNumbers::test_vtrace_of_rlax",),
    ),
    Mutant(
        "vtrace-advantage-with-the-wrong-bound",
        "The bound of the advantage's weight is not read (akin to rlax's test, which sets "
        "`clip_pg_rho` and never passes it).",
        ESTIMATORS,
        'pg_rho = jnp.minimum(ratios, _per_step(rewards, "clip_pg_rho", clip_pg_rho))',
        "pg_rho = rho",
        (
            "tests/test_estimators.py::TestDefinitions"
            "::test_equals_the_sum_over_the_steps_ahead[2-shape2-0.3-0.99-0.95-vtrace]",
        ),
    ),
    # Losses --------------------------------------------------------------------------------------
    Mutant(
        "kl-multiplied",
        "The approximate KL is (r - 1) log r instead of (r - 1) - log r (EvoRL).",
        LOSSES,
        "mean(jnp.expm1(log_ratio) - log_ratio)",
        "mean(jnp.expm1(log_ratio) * log_ratio)",
        ("tests/test_losses.py::TestStatistics::test_approximate_kl_is_r_minus_one_minus_log_r",),
    ),
    Mutant(
        "ratio-without-its-lower-bound",
        "The probability ratio is clipped from above only.",
        LOSSES,
        "jnp.clip(ratio, 1.0 - clip_epsilon, 1.0 + clip_epsilon)",
        "jnp.minimum(ratio, 1.0 + clip_epsilon)",
        (f"{SURROGATE}[0.5--2.0--1.6-0.0]",),
    ),
    Mutant(
        "surrogate-takes-the-larger",
        "The surrogate takes the larger of the two terms, so that nothing is clipped where it "
        "matters.",
        LOSSES,
        "jnp.minimum(ratio * advantages, clipped * advantages)",
        "jnp.maximum(ratio * advantages, clipped * advantages)",
        (f"{SURROGATE}[1.5-2.0-2.4-0.0]",),
    ),
    Mutant(
        "value-clipping-takes-the-smaller",
        "The clipped value loss takes the smaller error, which lets values run away.",
        LOSSES,
        "jnp.maximum(jnp.square(values - targets), jnp.square(clipped - targets))",
        "jnp.minimum(jnp.square(values - targets), jnp.square(clipped - targets))",
        ("tests/test_losses.py::TestValueLosses::test_clipping_never_lowers_the_loss",),
    ),
    Mutant(
        "targets-are-learned",
        "Gradients flow into the value targets: a stop_gradient forgotten.",
        LOSSES,
        "jnp.square(values - jax.lax.stop_gradient(targets))",
        "jnp.square(values - targets)",
        ("tests/test_losses.py::TestValueLosses::test_gradients_reach_the_values_only[None]",),
    ),
    Mutant(
        "a-column-against-a-row",
        "[N, 1] against [N] becomes [N, N] without a word.",
        LOSSES,
        "if jnp.shape(y) != jnp.shape(x):",
        "if jnp.size(y) != jnp.size(x):",
        ("tests/test_losses.py::TestShapes::test_a_column_is_not_a_row",),
    ),
    Mutant(
        "masked-mean-over-everything",
        "Entries that are masked out count as zeros in the mean.",
        LOSSES,
        "/ jnp.maximum(count, 1)",
        "/ jnp.maximum(where.size if axis is None else where.shape[axis], 1)",
        ("tests/test_losses.py::TestMean::test_where_leaves_entries_out",),
    ),
    Mutant(
        "masks-missing-from-the-log-probability",
        "Unavailable actions are never sampled, but have a probability in the loss.",
        DISTRIBUTIONS,
        "blocks = _split_actions(self._masked_logits())",
        "blocks = _split_actions(_at_least_float32(self.logits))",
        (
            "tests/test_distributions.py::test_a_masked_categorical_is_the_categorical_of_what_is_left[5]",
        ),
    ),
    # Statistics ----------------------------------------------------------------------------------
    Mutant(
        "terminal-reward-leaks",
        "The reward that ends an episode leaks into the running return of the next "
        "(PureJaxRL, rejax reward scaling).",
        NORMALIZATION,
        "jax.lax.scan(accumulate, so_far, (reward, first))",
        "jax.lax.scan(accumulate, so_far, (reward, jnp.roll(first, -1, axis=0)))",
        ("tests/test_normalization.py::test_the_last_reward_of_an_episode_stays_in_it",),
    ),
    Mutant(
        "running-return-never-reset",
        "The running return crosses the ends of episodes.",
        NORMALIZATION,
        "discount * jnp.where(first, 0.0, running) + reward",
        "discount * running + reward",
        ("tests/test_normalization.py::test_the_last_reward_of_an_episode_stays_in_it",),
    ),
    Mutant(
        "variances-merged-without-the-means",
        "Merged variances forget the difference of the means.",
        NORMALIZATION,
        "weight * batch_variance + between",
        "weight * batch_variance",
        ("tests/test_normalization.py::test_moments_of_batches_of_different_sizes_and_shapes",),
    ),
    Mutant(
        "statistics-move-before-learning",
        "Observation statistics change between rollout and update, so that the first ratio is not "
        "1 (brax, EvoRL PPO).",
        LEARNERS,
        "steps=_normalized(state.stats, raw))",
        "steps=_normalized(_learn_statistics(agent, state.stats, trajectory.first, raw), raw))",
        ("tests/test_ppo.py::test_the_first_importance_ratio_is_one[separate]",),
    ),
    Mutant(
        "next-obs-not-normalised",
        "Observations are normalised, the ones that values are bootstrapped from are not.",
        LEARNERS,
        "next_obs=stats.normalize_obs(steps.next_obs),",
        "next_obs=steps.next_obs,",
        ("tests/test_engine.py::test_an_agent_sees_one_scale_in_acting_and_in_learning",),
    ),
    Mutant(
        "replay-not-normalised",
        "Actions are chosen on normalised observations and learned from raw ones.",
        LEARNERS,
        "obs=stats.normalize_obs(rows.obs), next_obs=stats.normalize_obs(rows.next_obs)",
        "obs=rows.obs, next_obs=rows.next_obs",
        ("tests/test_engine.py::test_an_agent_sees_one_scale_in_acting_and_in_learning",),
    ),
    # PPO -----------------------------------------------------------------------------------------
    Mutant(
        "gradients-clipped-by-element",
        '"max_grad_norm" clips element-wise (rejax, all agents).',
        OPTIMIZERS,
        "optax.clip_by_global_norm(max_grad_norm)",
        "optax.clip(max_grad_norm)",
        ("tests/test_ppo.py::test_gradients_are_clipped_by_their_global_norm",),
    ),
    Mutant(
        "optimizer-without-params",
        "`optimizer.update(grads, state)` without params: AdamW breaks (several).",
        OPTIMIZERS,
        ".update(gradient, optimizer, tree)",
        ".update(gradient, optimizer)",
        ("tests/test_ppo.py::test_an_optimizer_may_read_the_parameters",),
        "ValueError: You are using a transformation that requires the current value of parameters",
    ),
    Mutant(
        "entropy-punished",
        "The entropy bonus has the wrong sign.",
        PPO,
        "- at(self.entropy_coefficient, clock) * entropy",
        "+ at(self.entropy_coefficient, clock) * entropy",
        (f"{PPO_LOSS}[False-False]",),
    ),
    Mutant(
        "advantages-not-standardised",
        "`normalize_advantages` centres and does not scale, so that the step depends on the "
        "unit of the rewards.",
        PPO,
        "advantages = standardize(advantages)",
        "advantages = advantages - mean(advantages)",
        (f"{PPO_LOSS}[True-False]",),
    ),
    Mutant(
        "one-advantage-standardised",
        "Minibatches of one step are accepted, though one advantage standardises to 0.",
        ACTOR_CRITIC,
        "plan.steps_per_iteration == plan.num_minibatches",
        "plan.steps_per_iteration < plan.num_minibatches",
        ("tests/test_ppo.py::test_one_advantage_is_not_standardised[none]",),
    ),
    Mutant(
        "target-kl-stops-for-good",
        "Once stopped by `target_kl`, later iterations stay stopped: a flag never reset.",
        PPO,
        "stopped = state.stopped & ~opens_iteration",
        "stopped = state.stopped",
        ("tests/test_ppo.py::test_target_kl_stops_the_rest_of_the_iteration_only",),
    ),
    Mutant(
        "target-kl-never-restores",
        "The step that is found to lie too far away is taken all the same (akin to line "
        "searches of TRPO ports that never restore parameters).",
        PPO,
        "jnp.where(too_far, old, new), state, new_state",
        "new, state, new_state",
        ("tests/test_ppo.py::test_a_step_beyond_target_kl_is_not_taken",),
    ),
    Mutant(
        "clipping-never-annealed",
        "A schedule of clip_epsilon is read at its start.",
        PPO,
        "clip_epsilon = at(self.clip_epsilon, clock)",
        "clip_epsilon = at(self.clip_epsilon, Clock.start())",
        ("tests/test_ppo.py::test_the_loss_is_annealed_by_the_clock[clip_epsilon-others0]",),
    ),
    Mutant(
        "entropy-never-annealed",
        "A schedule of entropy_coefficient is read at its start.",
        PPO,
        "- at(self.entropy_coefficient, clock) * entropy",
        "- at(self.entropy_coefficient, Clock.start()) * entropy",
        ("tests/test_ppo.py::test_the_loss_is_annealed_by_the_clock[entropy_coefficient-others1]",),
    ),
    Mutant(
        "learning-rate-never-annealed",
        "A schedule is read once, at its start.",
        OPTIMIZERS,
        "optax.adam(at(learning_rate, clock)",
        "optax.adam(at(learning_rate, Clock.start())",
        ("tests/test_ppo.py::test_the_learning_rate_is_annealed_by_the_clock",),
    ),
    Mutant(
        "schedule-in-the-wrong-unit",
        "Annealing counts iterations against steps, so that it hardly moves.",
        TRAIN,
        "/ float(self.num_iterations)",
        "/ float(self.total_steps)",
        ("tests/test_engine.py::test_every_third_update_stays_a_branch_under_vmap",),
    ),
    # Conjugate gradient, Fisher products, the line search -----------------------------------------
    Mutant(
        "conjugate-gradient-is-steepest-descent",
        "The new direction has the wrong share, beta, of the old one: none.",
        SOLVERS,
        "z + (new_rz / rz) * p",
        "z",
        ("tests/test_solvers.py::test_each_iterate_is_the_best_of_its_krylov_space",),
    ),
    Mutant(
        "conjugate-gradient-never-done",
        "Conjugate gradient goes on after it has converged, on rounding errors.",
        SOLVERS,
        "active = taken & (_norm(r) > tolerance * norm_b)",
        "active = taken",
        ("tests/test_solvers.py::test_it_freezes_once_the_residual_is_small",),
    ),
    Mutant(
        "negative-curvature-followed",
        "Conjugate gradient steps along directions of negative curvature, uphill.",
        SOLVERS,
        "curved = (curvature > 0) & (curvature > ROUNDING * largest * squared)",
        "curved = jnp.isfinite(alpha)",
        ("tests/test_solvers.py::test_curvature_that_is_not_positive_stops_it_where_it_stands",),
    ),
    Mutant(
        "division-by-no-curvature",
        "Where p^T A p is 0, conjugate gradient divides by it (TRPO ports).",
        SOLVERS,
        "taken = active & curved & jnp.all(jnp.isfinite(new_x)) & jnp.isfinite(new_rz)",
        "taken = active & ~(curvature < 0)",
        (
            "tests/test_solvers.py"
            "::test_a_singular_matrix_gives_the_least_solution_where_there_is_one",
        ),
    ),
    Mutant(
        "fisher-summed-over-rows",
        "The Fisher matrix is a sum over the rows, the gradient a mean, so that the step depends "
        "on the size of the batch.",
        SOLVERS,
        "return mean(_row_inner(push(v), outputs, batch_ndim))",
        "return jnp.sum(_row_inner(push(v), outputs, batch_ndim))",
        (f"{FISHER}[wide-True]",),
    ),
    Mutant(
        "gauss-newton-for-fisher",
        "J^T J of the network's outputs, without the metric of the distribution.",
        SOLVERS,
        "outputs = metric(push(v))",
        "outputs = push(v)",
        (f"{FISHER}[wide-True]",),
    ),
    Mutant(
        "categorical-fisher-without-its-mean",
        "The Fisher matrix of a categorical is diag(p), without - p p^T.",
        DISTRIBUTIONS,
        "return p * (tangent - jnp.sum(p * tangent, axis=-1, keepdims=True))",
        "return p * tangent",
        (f"{FISHER}[wide-True]",),
    ),
    Mutant(
        "fisher-of-unavailable-actions",
        "The Fisher matrix counts actions that the mask forbids.",
        DISTRIBUTIONS,
        "p = jax.nn.softmax(self._masked_logits(), axis=-1)",
        "p = jax.nn.softmax(self.parameters, axis=-1)",
        (f"{FISHER}[wide-True]",),
    ),
    Mutant(
        "gaussian-fisher-without-its-scale",
        "The Fisher matrix of a normal variable's mean is 1, not 1 / std^2.",
        DISTRIBUTIONS,
        "return tangent[0] * jnp.exp(-2 * log_std), 2 * tangent[1]",
        "return tangent[0], 2 * tangent[1]",
        (f"{FISHER}[matrix-False]",),
    ),
    Mutant(
        "log-std-missing-from-the-vector",
        "`log_std` is not among the parameters that the Fisher matrix is of (TRPO ports).",
        DISTRIBUTIONS,
        '"""Mean and log_std, both float [..., *event]."""\n        return self._parameters()',
        '"""Mean and log_std, both float [..., *event]."""\n'
        "        return self._parameters()[0], jax.lax.stop_gradient(self._parameters()[1])",
        (f"{FISHER}[matrix-False]",),
    ),
    Mutant(
        "refused-steps-not-undone",
        "The last point that a line search has refused is where the parameters stay (TRPO ports).",
        SOLVERS,
        "x=chosen(point, x),",
        "x=point,",
        ("tests/test_solvers.py::test_nothing_that_passes_leaves_every_bit",),
    ),
    Mutant(
        "line-search-skips-the-whole-step",
        "The first point that a line search looks at is a shortened step already.",
        SOLVERS,
        "jnp.asarray(shrink, jnp.float32) ** search.num_tries",
        "jnp.asarray(shrink, jnp.float32) ** (search.num_tries + 1)",
        ("tests/test_solvers.py::test_the_first_point_that_passes_is_taken",),
    ),
    # NPG and TRPO --------------------------------------------------------------------------------
    Mutant(
        "line-search-without-the-radius",
        "The line search checks only the surrogate (TRPO ports).",
        TRPO,
        "(new_surrogate > surrogate) & (kl <= kl_radius)",
        "new_surrogate > surrogate",
        (f"{PROMISE}[masked]",),
    ),
    Mutant(
        "line-search-without-the-surrogate",
        "The line search checks only the KL divergence (of the kind in TRPO ports).",
        TRPO,
        "(new_surrogate > surrogate) & (kl <= kl_radius)",
        "kl <= kl_radius",
        (f"{PROMISE}[masked]",),
    ),
    Mutant(
        "kl-the-wrong-way-round",
        "The trust region is of the KL divergence of the old policy from the new one.",
        TRPO,
        "mean(old_policy.kl(self.policy(candidate, batch)))",
        "mean(self.policy(candidate, batch).kl(old_policy))",
        (f"{PROMISE}[masked]",),
    ),
    Mutant(
        "kl-of-a-policy-with-itself",
        "The KL divergence is of the new policy from itself, always 0 (akin to the missing "
        "stop_gradient of TRPO ports).",
        TRPO,
        "mean(old_policy.kl(self.policy(candidate, batch)))",
        "mean(self.policy(candidate, batch).kl(self.policy(candidate, batch)))",
        (f"{PROMISE}[masked]",),
    ),
    Mutant(
        "npg-step-of-the-wrong-length",
        "The step is delta / x^T F x long, without the root and the 2.",
        NPG,
        "scale = jnp.sqrt(2.0 * at(self.kl_radius, clock) / curvature)",
        "scale = at(self.kl_radius, clock) / curvature",
        ("tests/test_trpo.py::test_a_natural_step_goes_as_far_as_it_was_asked_to",),
    ),
    Mutant(
        "nan-step-without-curvature",
        "Where x^T F x is not positive, the step is NaN (TRPO ports).",
        "jaxrl/agents/natural_gradient.py",
        "return jnp.where((curvature > 0) & jnp.isfinite(scale), scale, 0.0)",
        "return scale",
        ("tests/test_trpo.py::test_the_step_to_a_radius",),
    ),
    Mutant(
        "root-of-a-divergence-below-zero",
        "NPG takes the root of a divergence, which rounding brings below zero where the policy is "
        "sure: it is NaN from then on (ours, once).",
        NPG,
        "share = jnp.clip(kl / at(self.kl_radius, clock), 1.0)\n"
        "            scale = jnp.where(jnp.isfinite(share), scale / jnp.sqrt(share), 0.0)",
        "shrink = jnp.minimum(1.0, jnp.sqrt(at(self.kl_radius, clock) / kl))\n"
        "            scale = scale * jnp.where(jnp.isnan(kl), 0.0, shrink)",
        ("tests/test_trpo.py::test_npg_keeps_a_policy_that_is_sure_of_itself",),
    ),
    Mutant(
        "critic-gives-in-to-nan",
        "After five gradients in a row that are not finite, the critic's optimiser lets them "
        "through.",
        CRITIC,
        "max_consecutive_errors=2**31 - 1",
        "max_consecutive_errors=5",
        (f"{IMMOVABLE}[FactorNPG]",),
    ),
    Mutant(
        "every-row-for-the-fisher-matrix",
        "`fisher_stride` is accepted and not read.",
        NATURAL,
        "part = self._part_for_fisher(batch)",
        "part = batch",
        ("tests/test_trpo.py::test_the_stride_takes_every_nth_row",),
    ),
    Mutant(
        "critic-learns-advantages",
        "The critic is fitted to the advantages, not to the value targets.",
        CRITIC,
        "return value_loss(values, sample.target, sample.counts)",
        "return value_loss(values, sample.advantage, sample.counts)",
        ("tests/test_trpo.py::test_probe_truncation_is_not_termination",),
    ),
    Mutant(
        "torso-moved-behind-the-policy",
        "`shared_torso` is not refused: the critic's optimiser moves the policy's torso too.",
        CRITIC,
        "if agent.shared_torso:",
        "if agent.shared_torso and agent.critic_epochs < 1:",
        ("tests/test_trpo.py::test_what_does_not_fit_is_refused_by_name",),
    ),
    Mutant(
        "surrogate-of-the-logarithm",
        "The surrogate takes log ratio for ratio: the same gradient at first, another line search.",
        NATURAL,
        "return mean(jnp.exp(log_prob - sample.log_prob) * sample.advantage)",
        "return mean((log_prob - sample.log_prob) * sample.advantage)",
        (f"{PROMISE}[mixed]",),
    ),
    Mutant(
        "advantages-never-standardised",
        "`normalize_advantages` is accepted and not read.",
        NATURAL,
        "if self.normalize_advantages:",
        "if self.normalize_advantages and self.cg_iterations < 1:",
        ("tests/test_trpo.py::test_advantages_are_standardised_where_asked_for[True]",),
    ),
    Mutant(
        "empirical-fisher-never-used",
        "`fisher='empirical'` is accepted and the exact matrix taken.",
        NATURAL,
        'if self.fisher == "exact":',
        "if self.fisher:",
        ("tests/test_trpo.py::test_the_empirical_fisher_matrix_is_that_of_the_actions_taken",),
    ),
    Mutant(
        "policy-forgets-no-episode",
        "In learning, the recurrent policy goes on from the episode before.",
        NATURAL,
        'apply(actor, sample.obs, batch.carry, batch.first, method="policy")',
        'apply(actor, sample.obs, batch.carry, jnp.zeros_like(batch.first), method="policy")',
        (f"{PROMISE}[recurrent]",),
    ),
    Mutant(
        "critic-forgets-no-episode",
        "In learning, the recurrent critic goes on from the episode before.",
        CRITIC,
        'apply(critic, sample.obs, part.carry, part.first, method="value")',
        'apply(critic, sample.obs, part.carry, part.first & False, method="value")',
        ("tests/test_trpo.py::test_a_recurrent_critic_learns_from_the_memory_it_had",),
    ),
    Mutant(
        "critic-starts-without-memory",
        "In learning, the recurrent critic begins every rollout with an empty memory.",
        CRITIC,
        'apply(critic, sample.obs, part.carry, part.first, method="value")',
        "apply(critic, sample.obs, jax.tree.map(jax.numpy.zeros_like, part.carry), part.first, "
        'method="value")',
        ("tests/test_trpo.py::test_a_recurrent_critic_learns_from_the_memory_it_had",),
    ),
    Mutant(
        "bound-with-the-older-constant",
        "TRPO's bound with 2 epsilon discount / (1 - discount)^2 beside the total variation.",
        "envs/jaxrl_envs/exact/gradients.py",
        "penalty = 4.0 * epsilon",
        "penalty = 2.0 * epsilon",
        ("tests/test_exact_tabular.py::test_the_bound_on_the_other_policy_is_the_papers",),
    ),
    # REINFORCE -----------------------------------------------------------------------------------
    Mutant(
        "baseline-from-its-own-episode",
        "The mean that is subtracted holds the episode's own return: a biased gradient.",
        REINFORCE,
        "others = jnp.sum(total, 1, keepdims=True) - total\n"
        "    baseline = others / jnp.maximum(jnp.sum(number, 1, keepdims=True) - number, 1.0)",
        "others = jnp.sum(total, 1, keepdims=True)\n"
        "    baseline = others / jnp.maximum(jnp.sum(number, 1, keepdims=True), 1.0)",
        (f"{UNBIASED}[by time]",),
    ),
    Mutant(
        "whole-return-never-given",
        "`credit='return'` is accepted and rewards to go are taken.",
        REINFORCE,
        "returns = jnp.broadcast_to(returns[:1], returns.shape)",
        "returns = 1.0 * returns",
        (f"{UNBIASED}[whole return]",),
    ),
    Mutant(
        "states-never-discounted",
        "`discount_states` is accepted and not read: no gradient of the discounted return (A2C's "
        "kin).",
        REINFORCE,
        "weight = weight * jnp.asarray(self.discount, jnp.float32) ** age",
        "weight = 1.0 * weight",
        (f"{UNBIASED}[constant]",),
    ),
    Mutant(
        "steps-of-the-next-episode-count",
        "What follows the end of an episode counts as part of it.",
        REINFORCE,
        "return ended_before == 0, time",
        "return ended_before >= 0, time",
        (f"{UNBIASED}[to go]",),
    ),
    Mutant(
        "optimal-baseline-from-its-own-episode",
        "E[g^2 R] / E[g^2] is estimated with the episode that it is subtracted from.",
        REINFORCE,
        "return jnp.sum(x, axis=0, keepdims=True) - x",
        "return jnp.sum(x, axis=0, keepdims=True) + 0.0 * x",
        (f"{UNBIASED}[optimal baseline]",),
    ),
    # Layouts of devices --------------------------------------------------------------------------
    Mutant(
        "accelerators-laid-out-as-cpus",
        "The layout does not ask for the device.",
        "jaxrl/device.py",
        'return jax.default_backend() == "cpu"',
        'return jax.default_backend() != "cpu"',
        ("tests/test_device.py::test_the_device_is_the_one_that_jax_computes_on",),
    ),
    Mutant(
        "vector-on-every-device",
        "Parameters are one vector on accelerators, too.",
        LEARNERS,
        "fields = agent.raveled if device.is_cpu() else ()",
        "fields = agent.raveled",
        ("tests/test_raveled.py::test_only_a_cpu_keeps_parameters_as_a_vector[False]",),
    ),
    Mutant(
        "critic-vector-on-every-device",
        "The critic is one vector on accelerators, too.",
        CRITIC,
        "start = Raveled.of(critic) if device.is_cpu() else critic",
        "start = Raveled.of(critic)",
        ("tests/test_device.py::test_a_critic_is_fitted_as_a_vector_on_a_cpu_only[False]",),
    ),
    # A2C -----------------------------------------------------------------------------------------
    Mutant(
        "a2c-flees-uncertainty",
        "The entropy bonus is a penalty.",
        A2C,
        "self.value_coefficient * error - bonus",
        "self.value_coefficient * error + bonus",
        ("tests/test_a2c.py::test_the_loss_is_its_three_terms[False]",),
    ),
    Mutant(
        "rmsprop-decay-the-other-way",
        "RMSprop keeps 1 - decay of its mean of squared gradients.",
        OPTIMIZERS,
        "optax.rmsprop(rate, decay, epsilon",
        "optax.rmsprop(rate, 1 - decay, epsilon",
        ("tests/test_a2c.py::test_two_steps_are_those_of_rmsprop[None]",),
    ),
    Mutant(
        "rmsprop-epsilon-beside-the-root",
        "RMSprop adds epsilon to the root instead of below it (PyTorch's, for which "
        "Stable-Baselines3 offers a replacement).",
        OPTIMIZERS,
        "initial_scale=1.0)",
        "initial_scale=1.0, eps_in_sqrt=False)",
        ("tests/test_a2c.py::test_epsilon_stands_below_the_root",),
    ),
    Mutant(
        "rmsprop-begins-at-zero",
        "RMSprop's mean of squared gradients begins at 0: first steps are ten times the step size.",
        OPTIMIZERS,
        "initial_scale=1.0)",
        "initial_scale=0.0)",
        ("tests/test_a2c.py::test_two_steps_are_those_of_rmsprop[None]",),
    ),
    # Replay --------------------------------------------------------------------------------------
    Mutant(
        "rows-cross-the-write-head",
        "Rows of several steps are drawn so near the newest that they go on with the oldest.",
        REPLAY,
        "num_starts = self.num_written(iterations) - (plan.n_step - 1)",
        "num_starts = self.num_written(iterations)",
        (f"{HAPPENED}[three steps]",),
    ),
    Mutant(
        "rows-cross-episodes",
        "The sum of rewards goes on past the end of an episode.",
        REPLAY,
        "goes_on, weight = goes_on & ~ended, weight * discount",
        "goes_on, weight = goes_on | ended, weight * discount",
        (f"{HAPPENED}[three steps]",),
    ),
    Mutant(
        "cut-leads-to-the-next-start",
        "After a cut, the next episode's first observation is taken for the last of this one.",
        REPLAY,
        "following = tree_where(truncated, cut, following)",
        "following = tree_where(truncated, following, following)",
        (DECLARED,),
    ),
    Mutant(
        "no-room-for-cuts-before-the-limit",
        "Room for final observations by the time limit alone, whatever else truncates.",
        REPLAY,
        'if spec.truncates != "at_max_steps":',
        "if spec.max_steps is None:",
        (f"{HAPPENED}[several]",),
    ),
    Mutant(
        "too-little-room-for-cuts",
        "Room for half of the truncations that a time limit can make.",
        REPLAY,
        "-(-slots // spec.max_steps)",
        "slots // spec.max_steps // 2",
        (DECLARED,),
    ),
    Mutant(
        "lost-observations-made-up",
        "Where the observation of a cut has been written over, another's is taken for it.",
        REPLAY,
        "counts=has_mass & ~lost,",
        "counts=has_mass,",
        ("tests/test_replay.py::test_a_lost_last_observation_is_not_made_up",),
    ),
    Mutant(
        "the-unwritten-is-drawn",
        "Slots that hold nothing yet are drawn.",
        REPLAY,
        "age = jax.random.randint(age_key, size, 0, jnp.maximum(num_starts, 1))",
        "age = jax.random.randint(age_key, size, -self.num_slots + 1, num_starts)",
        (f"{HAPPENED}[several]",),
    ),
    Mutant(
        "new-steps-without-priority",
        "New steps enter with priority 1, however high the others are.",
        REPLAY,
        "jnp.where(new[:, None], memory.top_priority, 0.0)",
        "jnp.where(new[:, None], jnp.minimum(memory.top_priority, 1.0), 0.0)",
        ("tests/test_replay.py::test_new_steps_get_the_top_priority_and_old_ones_keep_theirs",),
    ),
    Mutant(
        "priorities-squared",
        "Draws do not follow the stated probabilities.",
        SUM_TREE,
        "children = level.reshape(-1, WIDTH)[node]",
        "children = level.reshape(-1, WIDTH)[node] ** 1.2",
        ("tests/test_replay.py::test_prioritised_draws_are_as_probable_as_they_say",),
    ),
    Mutant(
        "sums-not-carried-up",
        "An update stops below the root.",
        SUM_TREE,
        'levels.append(above.at[index].set(sums, mode="drop"))',
        "levels.append(above + 0.0 * sums[0])",
        ("tests/test_replay.py::test_the_tree_holds_the_sums_of_its_leaves",),
    ),
    Mutant(
        "memory-beside-its-successor",
        "The state is not donated: the memory is there twice.",
        "jaxrl/runs/fit.py",
        "jax.jit(chunk, donate_argnums=1)",
        "jax.jit(chunk)",
        (f"{ONCE}[1-False-anywhere]",),
    ),
    Mutant(
        "memory-chosen-from-two",
        "Each iteration chooses between the memory before it and the one after: both are there.",
        LEARNERS,
        "agent=agent_state, stats=stats, buffer=memory)",
        "agent=agent_state, stats=stats, buffer=jax.tree.map(lambda new, old: jnp.where("
        "clock.iteration >= 0, new, old), memory, state.buffer))",
        (f"{ONCE}[1-False-anywhere]",),
    ),
    Mutant(
        "an-action-that-is-none-is-certain",
        "log p of an action that does not exist is the 0 of an empty sum: probability one.",
        "jaxrl/distributions.py",
        "return jnp.where(known, log_prob, -jnp.inf)",
        "return jnp.where(known, log_prob, log_prob)",
        ("tests/test_distributions.py::test_an_action_that_does_not_exist_is_impossible[8]",),
    ),
    Mutant(
        "the-actor-climbs-the-least-critic",
        "TD3's actor maximises the minimum of the critics, as SAC's does, not the first.",
        DDPG,
        "return -mean(values[0]), (carried, None)",
        "return -mean(jnp.min(values, axis=0)), (carried, None)",
        (f"{UPDATES}::test_the_actor_of_td3_climbs_the_first_critic",),
    ),
    # The DQN family ------------------------------------------------------------------------------
    Mutant(
        "n-step-target-discounted-once",
        "The value after n steps is discounted by gamma, not gamma**n (Stoix Rainbow, D4PG).",
        ACTION_VALUES,
        "discount = self.discount ** rows.num_steps.astype(jnp.float32)",
        "discount = self.discount + 0.0 * rows.num_steps",
        (BY_HAND,),
    ),
    Mutant(
        "target-masked-with-done",
        "The target of a cut step has no value (most libraries).",
        ACTION_VALUES,
        "weight = jnp.where(rows.terminated, 0.0, discount)",
        "weight = jnp.where(rows.terminated | rows.truncated, 0.0, discount)",
        ("tests/test_dqn.py::test_a_time_limit_biases_nothing_on_the_corridor",),
    ),
    Mutant(
        "target-network-unused",
        "The target comes from the online parameters (rejax IQN).",
        ACTION_VALUES,
        "following, _ = self.outputs(evaluator, rows.next_obs, evaluate_key)",
        "following, _ = self.outputs(params, rows.next_obs, evaluate_key)",
        (BY_HAND,),
    ),
    Mutant(
        "double-q-of-one-network",
        "`double` is accepted and the target network chooses the action.",
        DQN,
        'selector = fixed if self.double == "target" else target',
        "selector = target",
        (BY_HAND,),
    ),
    Mutant(
        "target-moves-always",
        "The target network follows with every update.",
        DQN,
        "due = (clock.update + 1) % every == 0",
        "due = clock.update >= 0",
        (f"{TARGET_MOVES}[5-1.0]",),
    ),
    Mutant(
        "updates-of-an-iteration-at-one-time",
        "All updates of an iteration read the clock of its first: what is due between is missed.",
        LEARNERS,
        "fold_in(update_key, index)\n        now = clock.replace(update=clock.update + index)",
        "fold_in(update_key, index)\n        now = clock",
        (
            "tests/test_dqn.py::test_the_target_moves_when_it_is_due_between_iterations",
            "tests/test_continuous.py::test_the_policy_moves_when_it_is_due_between_iterations",
        ),
    ),
    Mutant(
        "masked-actions-looked-up",
        "The best next action may be one that is not available.",
        ACTION_VALUES,
        "jnp.where(mask | ~jnp.any(mask, axis=-1, keepdims=True), q, -1e30)",
        "q",
        ("tests/test_dqn.py::test_masked_actions_are_neither_taken_nor_looked_up[dqn]",),
    ),
    Mutant(
        "advantages-not-centred",
        "Dueling streams are added as they are.",
        Q_NETWORKS,
        "per_action = value + per_action - jnp.mean(per_action, axis=-2, keepdims=True)",
        "per_action = value + per_action",
        ("tests/test_dqn.py::test_dueling_streams_are_centred",),
    ),
    Mutant(
        "advantages-less-the-largest",
        "Dueling takes the largest advantage away, not the mean (equation 8 of its paper for 9).",
        Q_NETWORKS,
        "- jnp.mean(per_action, axis=-2, keepdims=True)",
        "- jnp.max(per_action, axis=-2, keepdims=True)",
        ("tests/test_dqn.py::test_the_mean_of_dueling_values_is_the_stream_of_the_state",),
    ),
    Mutant(
        "noise-not-factorised",
        "Every weight of a noisy layer draws noise of its own, of another size than the paper "
        "says.",
        Q_NETWORKS,
        "kernel_std * into[:, None] * out[None]",
        'kernel_std * jax.random.normal(self.make_rng("noise"), kernel.shape)',
        ("tests/test_dqn.py::test_noise_is_factorised_and_vanishes_without_a_key",),
    ),
    Mutant(
        "rainbow-without-noise",
        "One of the six parts of Rainbow is off.",
        "jaxrl/agents/rainbow.py",
        "noisy: bool = static(default=True)",
        "noisy: bool = static(default=False)",
        ("tests/test_dqn.py::test_rainbow_has_its_six_parts",),
    ),
    Mutant(
        "importance-weights-upside-down",
        "Rows that are drawn often weigh more.",
        ACTION_VALUES,
        "jnp.maximum(rows.relative_probability, 1e-20) ** -exponent",
        "jnp.maximum(rows.relative_probability, 1e-20) ** exponent",
        ("tests/test_dqn.py::test_importance_weights_undo_the_priorities",),
    ),
    Mutant(
        "priority-exponent-never-read",
        "`priority_exponent` is accepted and the error itself is the priority.",
        DQN,
        "priorities = (error + 1e-6) ** self.priority_exponent",
        "priorities = error + 1e-6",
        (PRIORITISED,),
    ),
    Mutant(
        "importance-exponent-never-annealed",
        "The share of the bias that is weighted away stays where it began.",
        DQN,
        "at(self.importance_exponent, clock)",
        "at(self.importance_exponent, Clock.start())",
        (PRIORITISED,),
    ),
    Mutant(
        "mass-lost-beyond-the-support",
        "C51's projection drops what lies beyond its ends.",
        VALUE_LOSSES,
        "inside = jnp.clip(atoms, support[0], support[-1])[..., None, :]",
        "inside = atoms[..., None, :]",
        (
            "tests/test_value_losses.py"
            "::test_the_projection_conserves_mass_and_within_the_support_the_mean",
        ),
    ),
    Mutant(
        "backed-up-too-sure",
        "C51 backs up a distribution that is narrower than what the network says.",
        ACTION_VALUES,
        "jax.nn.softmax(following), support",
        "jax.nn.softmax(2.0 * following), support",
        ("tests/test_dqn.py::test_two_coins_in_a_row_have_the_distribution_of_their_sum[c51]",),
    ),
    Mutant(
        "iqn-believes-its-own-draw",
        "IQN looks an action up at the quantile levels by which it was chosen, and finds too much.",
        ACTION_VALUES,
        "self.outputs(evaluator, rows.next_obs, evaluate_key, select_key)",
        "self.outputs(evaluator, rows.next_obs, evaluate_key)",
        ("tests/test_dqn.py::test_iqn_chooses_at_other_levels_than_it_looks_up",),
    ),
    Mutant(
        "quantiles-upside-down",
        "The levels of quantile regression are those of the other tail.",
        VALUE_LOSSES,
        "(jax.lax.stop_gradient(error) < 0)",
        "(jax.lax.stop_gradient(error) > 0)",
        ("tests/test_value_losses.py::test_quantile_losses_of_rlax",),
    ),
    Mutant(
        "every-quantile-is-the-median",
        "The levels of quantile regression are not read: right wherever the return is certain.",
        ACTION_VALUES,
        "quantile_huber(predicted, levels, target, kappa)",
        "quantile_huber(predicted, 0.0 * levels + 0.5, target, kappa)",
        (
            "tests/test_dqn.py::test_two_coins_in_a_row_have_the_distribution_of_their_sum[quantile]",
        ),
    ),
    Mutant(
        "pqn-runs-on-after-truncation",
        "Q(lambda) carries the next episode's return over a cut.",
        PQN,
        "            steps.truncated,\n            self.discount,",
        "            steps.truncated & False,\n            self.discount,",
        ("tests/test_dqn.py::test_the_targets_of_pqn_equal_a_slow_loop",),
    ),
    Mutant(
        "pqn-without-layer-norm",
        "PQN has no target network and no layer norm in its place.",
        PQN,
        "layer_norm: bool = static(default=True)",
        "layer_norm: bool = static(default=False)",
        ("tests/test_dqn.py::test_pqn_normalises_every_hidden_layer",),
    ),
    Mutant(
        "online-q-looks-behind-the-end",
        "Online Q looks up a value where the episode is over.",
        "jaxrl/agents/online_q.py",
        "rows = Replayed.once(batch.steps)",
        "rows = Replayed.once(batch.steps).replace(terminated=batch.steps.truncated)",
        ("tests/test_dqn.py::test_online_q_takes_a_semi_gradient_step",),
    ),
    Mutant(
        "fitted-target-never-moves",
        "Every fit is to the values of the first network.",
        "jaxrl/agents/fitted_q.py",
        "opens = clock.update % self.num_updates == 0",
        "opens = clock.update < 0",
        ("tests/test_dqn.py::test_fitted_q_iteration_converges_to_the_optimal_values",),
    ),
    Mutant(
        "retrace-with-the-ratio-of-now",
        "Retrace weighs the correction by the ratio of the action before it.",
        ESTIMATORS,
        "c = jnp.concatenate([c[1:], c[-1:]])",
        "c = jnp.concatenate([c[:1], c[1:]])",
        ("tests/test_retrace.py::test_retrace_of_rlax",),
    ),
    # Continuous actions --------------------------------------------------------------------------
    Mutant(
        "cut-of-a-box-is-a-death",
        "The target of a cut step has no value (most libraries).",
        CONTINUOUS,
        "following = jnp.where(rows.terminated, 0.0, next_values)",
        "following = jnp.where(rows.terminated | rows.truncated, 0.0, next_values)",
        ("tests/test_continuous.py::test_probe_truncation_is_not_termination[td3]",),
    ),
    Mutant(
        "n-step-target-of-a-box-discounted-once",
        "The value after n steps is discounted by gamma, not gamma**n (Stoix Rainbow, D4PG).",
        CONTINUOUS,
        "weight = self.discount ** rows.num_steps.astype(jnp.float32)",
        "weight = self.discount + 0.0 * rows.num_steps",
        (f"{UPDATES}::test_the_value_after_several_steps_is_discounted_as_often[ddpg]",),
    ),
    Mutant(
        "one-critic-of-two",
        "The target takes the first critic's value, not the least.",
        DDPG,
        "self.backed_up(rows, jnp.min(next_q, axis=0))",
        "self.backed_up(rows, next_q[0])",
        ("tests/test_continuous.py::test_targets_take_the_least_critic_and_noise_stays_clipped",),
    ),
    Mutant(
        "targets-almost-copies",
        "Polyak's weights are exchanged: targets go 1 - tau of the way.",
        DDPG,
        "polyak_update(params, state.target, self.tau)",
        "polyak_update(params, state.target, 1.0 - self.tau)",
        (f"{UPDATES}::test_targets_go_a_tenth_of_the_way_to_what_was_just_learned[td3]",),
    ),
    Mutant(
        "target-noise-not-clipped",
        "The noise on the target's actions has no bound.",
        DDPG,
        "noise = jnp.clip(noise, -self.target_noise_clip, self.target_noise_clip)",
        "noise = 1.0 * noise",
        ("tests/test_continuous.py::test_targets_take_the_least_critic_and_noise_stays_clipped",),
    ),
    Mutant(
        "policy-never-delayed",
        "`policy_delay` is accepted and the policy moves with every update.",
        DDPG,
        "due = (clock.update + 1) % self.policy_delay == 0",
        "due = clock.update >= 0",
        ("tests/test_continuous.py::test_the_policy_moves_when_it_is_due_also_under_vmap[2]",),
    ),
    Mutant(
        "likelihood-by-inversion",
        "tanh's likelihood inverts the action, which is NaN or infinite where it saturates (SAC "
        "ports).",
        DISTRIBUTIONS,
        "return jnp.tanh(u), gaussian._log_prob_of(noise) - self._slope(u)",
        "return jnp.tanh(u), gaussian._log_prob_of(noise) - self._slope(jnp.arctanh(jnp.tanh(u)))",
        ("tests/test_continuous.py::test_tanh_gaussian_is_a_density",),
    ),
    Mutant(
        "likelihood-without-its-slope",
        "The change of variables is left out.",
        DISTRIBUTIONS,
        "return self._gaussian._sum_event(slope)",
        "return 0.0 * self._gaussian._sum_event(slope)",
        ("tests/test_continuous.py::test_tanh_gaussian_is_a_density",),
    ),
    Mutant(
        "temperature-runs-away",
        "The temperature moves against the entropy it should keep.",
        SAC,
        "mean(entropy - self._wanted_entropy(rows.obs))",
        "mean(self._wanted_entropy(rows.obs) - entropy)",
        ("tests/test_continuous.py::test_the_temperature_keeps_the_entropy_it_is_asked_for",),
    ),
    Mutant(
        "soft-target-without-entropy",
        "The policy is paid for its entropy now, and the critics' target leaves out what follows.",
        SAC,
        "next_policy, state.target, rows.next_obs, next_key, temperature",
        "next_policy, state.target, rows.next_obs, next_key, 0.0 * temperature",
        (f"{UPDATES}::test_the_soft_target_of_a_box_has_its_entropy_and_the_least_critic",),
    ),
    Mutant(
        "soft-value-of-few-actions-without-entropy",
        "The value of a choice among few actions lacks its entropy.",
        SAC,
        "return expected + temperature * entropy, entropy",
        "return expected, entropy",
        (f"{UPDATES}::test_the_soft_value_of_an_endless_coin_stays_where_it_is",),
    ),
    Mutant(
        "first-critic-of-sac",
        "The soft value is that of the first critic, not the least.",
        SAC,
        "jnp.min(q, axis=0) - temperature * log_prob, -log_prob",
        "q[0] - temperature * log_prob, -log_prob",
        (f"{UPDATES}::test_the_soft_target_of_a_box_has_its_entropy_and_the_least_critic",),
    ),
    Mutant(
        "targets-of-sac-almost-copies",
        "Polyak's weights are exchanged: targets go 1 - tau of the way.",
        SAC,
        "polyak_update(critic, state.target, self.tau)",
        "polyak_update(critic, state.target, 1.0 - self.tau)",
        (f"{UPDATES}::test_targets_go_a_tenth_of_the_way_to_what_was_just_learned[sac]",),
    ),
    Mutant(
        "search-around-the-worst",
        "The search refines around the candidates of the lowest value.",
        Q_SEARCH,
        "jax.lax.top_k(q, self.num_elites)",
        "jax.lax.top_k(-q, self.num_elites)",
        (f"{UPDATES}::test_search_climbs_a_peak_that_is_known[uniform]",),
    ),
    # Modules of the user's own --------------------------------------------------------------------
    Mutant(
        "copies-in-one-group",
        "A torso sees `[T, N, ...]`: a layer that takes axis 0 for the batch mixes environments.",
        ACTOR_CRITIC,
        "call_torso=call(self.torso)",
        "call_torso=call_directly",
        (f"{OWN_MODULES}::test_the_value_of_a_copy_does_not_depend_on_the_others[none]",),
    ),
    Mutant(
        "divergence-of-rows-the-wrong-way-round",
        "The KL divergence of a user's policy over several axes is taken the wrong way round.",
        OWN,
        "self.rows.kl(other.rows)",
        "other.rows.kl(self.rows)",
        (f"{OWN_MODULES}::test_the_distribution_of_many_axes_is_that_of_each_row[several]",),
    ),
    Mutant(
        "never-in-training-mode",
        "Modules are never told that they learn: BatchNorm keeps its first statistics.",
        OWN,
        "train=None if self.train is None else True",
        "train=None if self.train is None else False",
        (f"{OWN_MODULES}::test_batch_statistics_are_those_of_numpy_and_parameters_learn[dqn]",),
    ),
    Mutant(
        "statistics-thrown-away",
        "The statistics of a learning pass are not stored.",
        OPTIMIZERS,
        "new = merged(tree, params, carried)",
        "new = merged(tree, params)",
        (f"{OWN_MODULES}::test_batch_statistics_are_those_of_numpy_and_parameters_learn[dqn]",),
    ),
    Mutant(
        "targets-keep-their-first-statistics",
        "A target network gets new parameters and keeps the statistics of `init`.",
        VARIABLES,
        'return x | {"params": optax.incremental_update',
        'return target | {"params": optax.incremental_update',
        (f"{OWN_MODULES}::test_batch_statistics_are_those_of_numpy_and_parameters_learn[td3]",),
    ),
    Mutant(
        "batch-statistics-in-a-policy-that-must-not-change",
        "An on-policy agent takes a module with batch statistics.",
        OWN,
        "if names and not trains:",
        "if names and not trains and module is None:",
        (f"{OWN_MODULES}::test_an_on_policy_agent_refuses_what_would_change_its_policy[PPO]",),
    ),
    # Acting and memory ---------------------------------------------------------------------------
    Mutant(
        "action-axes-squeezed",
        "`squeeze` drops one-dimensional action axes and the axis of a single environment "
        "(rejax `act`).",
        ACTOR_CRITIC,
        "return carry, action, policy.log_prob(action)",
        "return carry, jax.tree.map(jnp.squeeze, action), policy.log_prob(action)",
        ("tests/test_actor_critic.py::test_actions_have_the_shape_of_their_space",),
    ),
    Mutant(
        "carry-kept-across-episodes",
        "The recurrent state of one episode is carried into the next in acting.",
        ROLLOUT,
        "        carry = tree_where(env_state.first, initial_carry, carry)\n",
        "",
        ("tests/test_engine.py::test_the_recurrent_carry_is_dropped_where_an_episode_begins",),
    ),
    Mutant(
        "unrolled-carry-kept-across-episodes",
        "The recurrent state is dropped in acting and not in learning, so that the first ratio "
        "is not 1.",
        "jaxrl/networks.py",
        "cell(tree_where(first, start, carry), x)",
        "cell(carry, x)",
        ("tests/test_actor_critic.py::test_acting_step_by_step_is_the_unrolled_policy[gru]",),
    ),
    Mutant(
        "carry-of-the-wrong-end",
        "Sequences are replayed from the recurrent state at their end.",
        ROLLOUT,
        "Trajectory(steps, first, carry), ended",
        "Trajectory(steps, first, last_carry), ended",
        ("tests/test_engine.py::test_the_recurrent_carry_is_dropped_where_an_episode_begins",),
    ),
    # Resets and statistics of episodes -----------------------------------------------------------
    Mutant(
        "one-cached-start",
        "One cached start is replayed for the whole run (brax, Playground auto-reset).",
        ENVIRONMENT,
        "keys = jax.random.split(key, (num_steps, self.num_envs))",
        "keys = jnp.broadcast_to(\n"
        "            jax.random.split(jax.random.key(0), self.num_envs)[None],\n"
        "            (num_steps, self.num_envs),\n"
        "        )",
        ("tests/test_engine.py::test_fresh_starts_are_all_different",),
    ),
    Mutant(
        "a-pool-of-one",
        "The pool holds one start for all copies (akin to brax, Playground auto-reset).",
        ENVIRONMENT,
        "size = self.pool_size or max(self.num_envs, 64)",
        "size = 1",
        ("tests/test_engine.py::test_starts_follow_the_start_distribution[pool]",),
    ),
    Mutant(
        "a-pool-for-the-whole-run",
        "The pool of starts is drawn once and never again (akin to brax, Playground auto-reset).",
        ENVIRONMENT,
        "self._pool(stream(key, Stream.POOL))",
        "self._pool(jax.random.key(0))",
        ("tests/test_engine.py::test_a_pool_is_drawn_anew_in_each_rollout",),
    ),
    Mutant(
        "episode-return-never-reset",
        "The return of an episode contains those before it.",
        ENVIRONMENT,
        "episode_return=jnp.where(done, 0.0, episode_return),",
        "episode_return=episode_return,",
        (ONE_LOOP,),
    ),
    Mutant(
        "unfinished-episodes-are-zeros",
        "Steps that end no episode are averaged in as returns of zero (many).",
        TYPES,
        "count = condition.astype(jnp.float32)",
        "count = jnp.ones_like(condition, jnp.float32)",
        (ONE_LOOP,),
    ),
    Mutant(
        "episodes-cut-off-are-forgotten",
        "An episode that a time limit ends is in no statistics.",
        ROLLOUT,
        "steps.terminated | steps.truncated",
        "steps.terminated",
        (ONE_LOOP,),
    ),
    Mutant(
        "no-episode-is-a-zero",
        "An iteration in which no episode ended reports a return of zero.",
        TYPES,
        "self.total / jnp.maximum(self.count, 1e-38), jnp.nan)",
        "self.total / jnp.maximum(self.count, 1e-38), 0.0)",
        ("tests/test_engine.py::test_no_episode_ended_is_not_a_zero",),
    ),
    Mutant(
        "integers-are-not-normalised",
        "Integers pass as they are, though observations are said to be normalised (jaxrl once).",
        NORMALIZATION,
        'return _is_float(x) or (normalized == "numbers" and',
        'return _is_float(x) or (normalized == "all" and',
        ("tests/test_normalization.py::test_numbers_in_observations_are_normalised",),
    ),
    Mutant(
        "an-early-cut-keeps-its-promise",
        "An episode may be cut before the time limit, though the spec promises that none is.",
        "envs/jaxrl_envs/conformance.py",
        "else truncated & (age < spec.max_steps)",
        "else truncated & (age > spec.max_steps)",
        ("tests/test_registry.py::test_a_broken_contract_is_named",),
    ),
    Mutant(
        "a-mask-that-broadcasts",
        "A mask of one entry goes with four actions, and forbidden ones are taken.",
        SPACES,
        'if getattr(mask, "shape", None) != (size,) or mask.dtype != np.bool_:',
        'if getattr(mask, "shape", None) not in ((size,), (1,)) or mask.dtype != np.bool_:',
        ("tests/test_types.py::test_a_mask_that_does_not_fit_the_action_space_is_named",),
    ),
    Mutant(
        "a-box-of-no-width",
        "An entry of a box whose ends are equal is taken for an action.",
        SPACES,
        "if not (low < high).all():",
        "if not (low <= high).all():",
        ("tests/test_types.py::test_a_space_that_cannot_be_is_named",),
    ),
    # Evaluation ----------------------------------------------------------------------------------
    Mutant(
        "evaluation-of-fixed-length",
        "Evaluation plays a fixed number of steps, in which short episodes count more than once "
        "(many).",
        EVALUATE,
        "counts = ~ended_before & ~played.finished[None] & in_time[:, None]",
        "counts = jnp.broadcast_to(in_time[:, None], done.shape)",
        ("tests/test_engine.py::test_evaluation_plays_exactly_one_episode_a_copy",),
    ),
    Mutant(
        "unfinished-episodes-are-finished",
        "An episode cut by the evaluation's own limit passes for a whole one.",
        EVALUATE,
        "finished=played.finished | jnp.any(done & counts, axis=0),",
        "finished=played.finished | jnp.any(done & counts, axis=0) | ~in_time[-1],",
        ("tests/test_engine.py::test_an_episode_that_does_not_end_is_said_to_be_unfinished",),
    ),
    Mutant(
        "evaluation-explores",
        "Evaluation plays the exploring policy.",
        TRAIN,
        'self.eval_mode == "sample"',
        "True",
        ("tests/test_engine.py::test_evaluation_does_not_explore",),
    ),
    Mutant(
        "evaluation-repeats-its-noise",
        "A key is used twice in an evaluation, so that after some steps the same noise comes "
        "again (of the kind in rejax, brax and PureJaxQL).",
        EVALUATE,
        "jax.random.fold_in(stream(key, Stream.ROLLOUT), step)",
        "stream(key, Stream.ROLLOUT)",
        (LONG_EVALUATION,),
    ),
    Mutant(
        "every-evaluation-the-same",
        "All evaluations of a run share one key, so that their errors do not average out (of "
        "the kind in rejax, brax and PureJaxQL).",
        TRAIN,
        "jax.random.fold_in(stream(fast(key), Stream.EVALUATE), iteration)",
        "stream(fast(key), Stream.EVALUATE)",
        (KEYS,),
    ),
    # Keys ----------------------------------------------------------------------------------------
    Mutant(
        "one-key-for-all-actions",
        "Every step of a rollout draws its actions with the same key (of the kind in rejax, "
        "brax and PureJaxQL).",
        ROLLOUT,
        "jax.random.split(stream(key, Stream.ACT), num_steps)",
        "jax.numpy.broadcast_to(stream(key, Stream.ACT), (num_steps,))",
        (LONG_EVALUATION,),
    ),
    Mutant(
        "acting-and-stepping-share-keys",
        "The environment's noise comes of the keys that drew the actions (of the kind in "
        "rejax, brax and PureJaxQL).",
        ROLLOUT,
        "jax.random.split(stream(key, Stream.STEP), (num_steps, num_envs))",
        "jax.random.split(stream(key, Stream.ACT), (num_steps, num_envs))",
        (LONG_EVALUATION,),
    ),
    Mutant(
        "one-key-for-all-iterations",
        "Every iteration repeats the noise of the first (of the kind in rejax, brax and "
        "PureJaxQL).",
        TRAIN,
        "jax.random.fold_in(stream(fast(key), Stream.ITERATION), iteration)",
        "stream(fast(key), Stream.ITERATION)",
        (KEYS,),
    ),
    Mutant(
        "one-key-for-all-updates",
        "Every update of an iteration gets the same key (of the kind in rejax, brax and "
        "PureJaxQL).",
        LEARNERS,
        "key_i = jax.random.fold_in(key, index)",
        "key_i = key",
        (KEYS,),
    ),
    Mutant(
        "the-seed-is-overwritten",
        "`PRNGKey(0)` overwrites the seed: vmapped seeds share everything (PureJaxRL DQN).",
        TRAIN,
        "(self.agent, stream(key, Stream.INIT))",
        "(self.agent, stream(jax.random.key(0), Stream.INIT))",
        ("tests/test_engine.py::test_different_seeds_differ_in_everything",),
    ),
    Mutant(
        "the-seed-is-overwritten-in-training",
        "Rollouts and updates of every seed are those of `PRNGKey(0)`, whatever the start (akin "
        "to PureJaxRL DQN).",
        TRAIN,
        "jax.random.fold_in(stream(fast(key), Stream.ITERATION), iteration)",
        "jax.random.fold_in(stream(fast(jax.random.key(0)), Stream.ITERATION), iteration)",
        (TWO_SEEDS,),
    ),
    Mutant(
        "the-seed-is-overwritten-in-evaluation",
        "Every seed is judged by the episodes of `PRNGKey(0)`, so that their errors do not "
        "average out (akin to PureJaxRL DQN).",
        TRAIN,
        "jax.random.fold_in(stream(fast(key), Stream.EVALUATE), iteration)",
        "jax.random.fold_in(stream(fast(jax.random.key(0)), Stream.EVALUATE), iteration)",
        (TWO_SEEDS,),
    ),
    Mutant(
        "one-shuffle-for-all-seeds",
        "Every seed goes through its data in the same order (akin to PureJaxRL DQN).",
        LEARNERS,
        "minibatch_indices(stream(key, Stream.SHUFFLE), rows",
        "minibatch_indices(stream(jax.random.key(0), Stream.SHUFFLE), rows",
        ("tests/test_engine.py::test_two_seeds_learn_from_other_rows",),
    ),
    Mutant(
        "one-draw-for-all-seeds",
        "Every seed replays the same slots of its memory (akin to PureJaxRL DQN).",
        LEARNERS,
        "memory, stream(key_i, Stream.SAMPLE), iterations",
        "memory, stream(jax.random.key(0), Stream.SAMPLE), iterations",
        ("tests/test_engine.py::test_two_seeds_learn_from_other_rows",),
    ),
    # Memory --------------------------------------------------------------------------------------
    Mutant(
        "memory-grows-with-training",
        "An entry is kept of every iteration, and added up at the end (akin to PureJaxRL).",
        TRAIN,
        "        state, metrics, divergence = jax.lax.fori_loop(start, stop, one, loop)",
        "        def kept(i, both):\n"
        "            loop = one(i, both[0])\n"
        "            return loop, both[1].at[i].set(loop[1].value[0])\n\n"
        "        both = (loop, jnp.zeros(self.num_iterations))\n"
        "        (state, metrics, divergence), kept = jax.lax.fori_loop(start, stop, kept, both)\n"
        "        value = metrics.value.at[0].set(jnp.max(kept))\n"
        "        metrics = metrics.replace(value=value)",
        ("tests/test_engine.py::test_memory_does_not_grow_with_the_length_of_training",),
    ),
    Mutant(
        "columns-in-the-wrong-order",
        "A narrow layer's outputs come out in reverse.",
        "jaxrl/networks.py",
        "dimensions, **options) for column in kernel.T]",
        "dimensions, **options) for column in kernel.T[::-1]]",
        ("tests/test_networks.py::test_a_layer_is_a_product_however_narrow[2]",),
    ),
    Mutant(
        "tiles-out-of-order",
        "A convolution with a stride multiplies pixels of a tile by each other's weights.",
        "jaxrl/convolution.py",
        "kernel = _tiles(kernel, 0, strides)",
        "kernel = _tiles(kernel[::-1, ::-1], 0, strides)[::-1, ::-1]",
        ("tests/test_convolution.py::test_it_is_the_convolution_of_lax_and_so_are_its_gradients",),
    ),
    Mutant(
        "dilation-in-padding-only",
        "A dilated kernel has the right padding, and its entries lie side by side.",
        "jaxrl/convolution.py",
        "[(i * d, s, n) for i, d, s, n in axes]",
        "[(i, s, n) for i, d, s, n in axes]",
        ("tests/test_convolution.py::test_it_is_the_convolution_of_lax_and_so_are_its_gradients",),
    ),
    Mutant(
        "no-fresh-starts-each-iteration",
        "Rollouts of whole episodes begin in the middle of what went on before.",
        LEARNERS,
        "state = state.replace(envs=envs.reset(key))",
        "pass",
        (FRESH_STARTS,),
    ),
    Mutant(
        "late-short-episodes-count",
        "Of a rollout from fresh starts every episode counts that ends: too many short ones.",
        LEARNERS,
        "episodes = episodes.first()",
        "pass",
        (FRESH_STARTS,),
    ),
    Mutant(
        "dtypes-left-to-the-setting",
        "Under `jax_enable_x64` programs are traced with it on.",
        "jaxrl/precision.py",
        "with jax.enable_x64(False),",
        "with jax.enable_x64(True),",
        ("tests/test_precision.py::test_an_environment_need_not_name_its_dtypes",),
        error="jaxrl_envs.conformance.ConformanceError",
    ),
    Mutant(
        "grids-of-the-setting",
        "Under `jax_enable_x64` a sweep is a grid of float64.",
        "jaxrl/engine/sweep.py",
        "return narrow(grid)",
        "return grid",
        (
            "tests/test_precision.py"
            "::test_wide_hyperparameters_and_parameters_of_environments_are_narrowed",
        ),
    ),
    Mutant(
        "a-plain-sum-of-metrics",
        "Metrics of millions of iterations are added up in float32.",
        "jaxrl/sums.py",
        "return self.replace(value=value, lost=lost)",
        "return self.replace(value=total, lost=0.0 * lost)",
        ("tests/test_sums.py::test_small_terms_between_large_ones_are_not_lost",),
    ),
    Mutant(
        "a-warm-start-without-statistics",
        "A run that starts from another one's agent sees observations on another scale.",
        "jaxrl/normalization.py",
        "obs=self.obs if self.obs == () else earlier.obs,",
        "obs=self.obs,",
        (f"{RESUME}::test_a_warm_start_brings_the_statistics_along",),
    ),
    Mutant(
        "info-of-every-step",
        "The environment's own metrics are averaged over steps, not over episodes.",
        TYPES,
        "{name: Mean.where(ended, x) for name, x in (info or {}).items()}",
        "{name: Mean.where(ended | ~ended, x) for name, x in (info or {}).items()}",
        ("tests/test_info.py::test_scalars_of_the_last_step_are_averaged_over_episodes",),
    ),
    Mutant(
        "brax-rewards-of-one-step",
        "brax's parts of the reward are those of the last step.",
        "envs/jaxrl_envs/brax.py",
        "jax.tree.map(jnp.add, rewards, added)",
        "added",
        ("tests/test_brax.py::test_rewards_among_the_metrics_are_added_up_over_an_episode",),
    ),
    # Minibatches and replay ----------------------------------------------------------------------
    Mutant(
        "updates-at-the-wrong-parameters",
        "The vector of the parameters and that of their updates are not in the same order.",
        "jaxrl/raveled.py",
        "self.vector + ravel_pytree(updates)[0]",
        "self.vector + ravel_pytree(updates)[0][::-1]",
        ("tests/test_raveled.py::test_a_step_on_the_vector_is_that_on_the_tree[flat]",),
    ),
    Mutant(
        "shuffle-repeats-rows",
        "Some rows come twice in a pass over the data, others never.",
        MINIBATCHES,
        "i = (i + shifts[:side][j]) % other",
        "i = jax.random.randint(key, i.shape, 0, other)",
        ("tests/test_engine.py::test_a_shuffle_is_a_permutation[64]",),
    ),
    Mutant(
        "shuffle-of-too-few-rounds",
        "The cheap shuffle mixes badly: minibatches are of neighbours.",
        MINIBATCHES,
        "NUM_ROUNDS = 3",
        "NUM_ROUNDS = 1",
        ("tests/test_engine.py::test_a_shuffle_mixes_as_a_sort_does[shape0]",),
    ),
    Mutant(
        "shuffle-of-two-rounds",
        "Pairs of rows keep their distance more often than in a random order.",
        MINIBATCHES,
        "NUM_ROUNDS = 3",
        "NUM_ROUNDS = 2",
        ("tests/test_engine.py::test_a_shuffle_mixes_as_a_sort_does[shape1]",),
    ),
    Mutant(
        "one-order-for-all-epochs",
        "Every pass over the data takes them in the same minibatches.",
        MINIBATCHES,
        "jax.vmap(lambda k: permutation(k, num_rows))(jax.random.split(key, num_epochs))",
        "permutation(key, num_rows)[None].repeat(num_epochs, 0)",
        ("tests/test_engine.py::test_every_row_is_seen_once_an_epoch[flat-4]",),
    ),
    Mutant(
        "carries-not-shuffled",
        "Sequences are shuffled and their recurrent states are not.",
        MINIBATCHES,
        "take(x, 0), trajectory.carry)",
        "x[jnp.sort(index)], trajectory.carry)",
        ("tests/test_engine.py::test_every_row_is_seen_once_an_epoch[env-4]",),
    ),
    Mutant(
        "warmup-by-remainder",
        "`step % k == 0` decides who learns, and is almost never true (PureJaxRL DQN).",
        LEARNERS,
        "length = jnp.where(ring.is_ready(iterations), plan.num_updates, 0)",
        "ready = iterations * plan.steps_per_iteration % plan.warmup == 0\n"
        "    length = jnp.where(ready, plan.num_updates, 0)",
        ("tests/test_agents.py::test_no_update_before_the_warmup",),
    ),
    Mutant(
        "updates-not-counted",
        'The count of updates stands still within an iteration, and with it "every k updates" '
        "(akin to PureJaxRL DQN).",
        LEARNERS,
        "now = clock.replace(update=clock.update + index)\n        agent_state, new = agent.update",
        "now = clock\n        agent_state, new = agent.update",
        ("tests/test_engine.py::test_every_third_update_stays_a_branch_under_vmap",),
    ),
    # Environments ---------------------------------------------------------------------------------
    Mutant(
        "time-limit-terminates",
        "The time limit is reported as a death (most libraries).",
        WRAPPERS,
        "timestep.replace(truncated=truncated)",
        "timestep.replace(terminated=timestep.terminated | truncated)",
        ("tests/test_wrappers.py::test_a_time_limit_truncates_and_lets_termination_pass",),
    ),
    Mutant(
        "repeats-beyond-the-end",
        "A repeated action goes on after the end of the episode and collects its rewards.",
        WRAPPERS,
        "over = timestep.terminated | timestep.truncated\n            following =",
        "over = jnp.bool_(False)\n            following =",
        ("tests/test_wrappers.py::test_repeated_actions_add_rewards_up_and_stop_with_the_episode",),
    ),
    Mutant(
        "frames-without-the-newest",
        "The stack of frames ends with the observation before the last one.",
        WRAPPERS,
        "jnp.concatenate([old[..., new.shape[-1] :], new], axis=-1)",
        "old",
        (
            "tests/test_wrappers.py::test_a_frame_stack_begins_with_copies_and_forgets_the_last_episode",
        ),
    ),
    Mutant(
        "sticky-actions-ignore-the-mask",
        "An action that is not available any more is repeated.",
        WRAPPERS,
        "sticks = sticks & is_available(self.env.spec.action, mask, previous)",
        "sticks = jnp.bool_(sticks)",
        ("tests/test_wrappers.py::test_sticky_actions_repeat_nothing_that_is_unavailable",),
    ),
    Mutant(
        "gymnax-time-limit-terminates",
        "gymnax's time limit is reported as a death (most libraries).",
        "envs/jaxrl_envs/gymnax.py",
        "terminated = jnp.asarray(terminated, bool)",
        "terminated = jnp.asarray(terminated, bool) | jnp.asarray(truncated, bool)",
        ("tests/test_gymnax.py::test_the_time_limit_truncates_where_the_step_really_ended",),
    ),
    Mutant(
        "a-fallen-pendulum-timed-out",
        "A fallen pendulum counts as timed out, not as dead (brax's `time_out`).",
        "envs/jaxrl_envs/brax.py",
        "            terminated=stepped.done > 0,\n            truncated=jnp.bool_(False),",
        "            terminated=jnp.bool_(False),\n            truncated=stepped.done > 0,",
        ("tests/test_brax.py::test_a_fall_terminates_and_the_time_limit_truncates",),
    ),
    # Runs ----------------------------------------------------------------------------------------
    Mutant(
        "a-checkpoint-without-the-environments",
        "A resumed run begins new episodes instead of going on with those it had (most libraries).",
        RECORDER,
        "standing.state = state.replace(**part, **rest)",
        "standing.state = state.replace(**part, **rest | {'envs': state.envs})",
        (GOES_ON,),
    ),
    Mutant(
        "a-checkpoint-without-replay",
        "A resumed run has an empty replay memory (most libraries).",
        RECORDER,
        "standing.state = state.replace(**part, **rest)",
        "standing.state = state.replace(**part, **rest | {'buffer': state.buffer})",
        (f"{RESUME}::test_a_run_that_died_goes_on_to_the_same_bits[replay]",),
    ),
    Mutant(
        "resume-at-iteration-zero",
        "A resumed run starts its schedules and its counts anew.",
        RECORDER,
        'standing.iteration = record["iteration"]',
        "standing.iteration = 0",
        (GOES_ON,),
    ),
    Mutant(
        "a-checkpoint-that-is-believed",
        "A bit that turned on the disk is read as if it had been written.",
        "jaxrl/runs/checkpoint.py",
        'if x["crc32"] != leaves[k]["crc32"]]',
        "if False]",
        ("tests/test_runs.py::test_every_damage_is_noticed",),
    ),
    Mutant(
        "a-directory-that-is-not-claimed",
        "Two runs write into one directory: it was found empty by both (a check without a lock).",
        "jaxrl/runs/directory.py",
        "fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        ("tests/test_runs.py::test_one_of_many_claims_a_directory_and_the_others_leave_it_alone",),
    ),
    Mutant(
        "a-configuration-written-late",
        "A run killed while it compiles leaves nothing to resume.",
        "jaxrl/runs/fit.py",
        "                recorder.begin()\n",
        "                pass\n",
        (f"{RESUME}::test_a_run_is_claimed_before_it_is_compiled_and_one_killed_there_is_resumed",),
    ),
    Mutant(
        "one-member-stops-all",
        "A run ends when one of its members diverges.",
        "jaxrl/runs/fit.py",
        "if len(standing.diverged) == num_members:",
        "if standing.diverged:",
        (f"{RESUME}::test_a_member_that_diverges_neither_stops_nor_poisons_the_others",),
        error="jaxrl.runs.fit.DivergenceError",
    ),
    Mutant(
        "divergence-without-its-beginning",
        "Of numbers that are not finite the last iteration is named, not the first.",
        LEARNERS,
        "jnp.where(fine & jnp.any(bad), iteration, self.iteration)",
        "jnp.where(jnp.any(bad), iteration, self.iteration)",
        (f"{RESUME}::test_train_tells_of_divergence_too",),
    ),
    Mutant(
        "a-mixed-policy-judged-by-its-mode",
        "Evaluation takes the most likely action, whatever it was asked for (most libraries).",
        TRAIN,
        'self.eval_mode == "sample"',
        "False",
        ("tests/test_engine.py::test_a_mixed_policy_is_worth_what_the_game_says",),
    ),
    Mutant(
        "the-last-is-the-best",
        "The state that is kept as the best is that of the last evaluation.",
        RECORDER,
        "if event.return_mean > highest:",
        "if event.return_mean > -np.inf:",
        (f"{RESUME}::test_the_best_state_is_kept_and_comes_back",),
    ),
    Mutant(
        "a-diverged-member-counts",
        "The mean that a target is compared with includes seeds that have diverged, and is never "
        "reached.",
        EVENTS,
        "counted(self.return_means, self.diverged)",
        "self.return_means",
        (f"{RESUME}::test_a_member_that_diverged_counts_nowhere",),
    ),
    Mutant(
        "a-stop-that-judges-itself",
        "The evaluation that was high enough to end a run says what the run reached.",
        EVENTS,
        "return self.afresh or self.evaluations[-1]",
        "return self.evaluations[-1]",
        (f"{RESUME}::test_what_ended_a_run_does_not_say_what_it_reached",),
    ),
    Mutant(
        "fresh-episodes-that-are-not",
        "What is evaluated afresh is evaluated with the keys of the evaluation that ended the run.",
        FIT,
        "self.play(standing, self.members.keys_of_stream(Stream.EVALUATE_AFRESH))",
        "self.play(standing, self.members.key)",
        (f"{RESUME}::test_what_ended_a_run_does_not_say_what_it_reached",),
    ),
    Mutant(
        "a-bootstrap-across-tasks",
        "Resampled seeds of one task are scores of another.",
        INTERVALS,
        "scores[rows, np.arange(num_tasks)]",
        "scores[rows, rng.integers(0, num_tasks, rows.shape)]",
        ("tests/test_statistics.py::test_resamples_stay_within_their_task",),
    ),
    Mutant(
        "an-interval-of-percentiles",
        "The interval is the percentile bootstrap's, too narrow for few seeds (rliable).",
        STATISTICS,
        "if statistic is mean:\n        return intervals.student_interval(scores, level)",
        "if True:\n        low, high = stratified_interval(statistic, scores, level=level)\n"
        "        return float(low), float(high)",
        (
            "tests/test_statistics.py::test_the_interval_of_the_mean_is_students",
            "tests/test_statistics.py::test_intervals_keep_their_promise_for_few_seeds",
        ),
    ),
    Mutant(
        "a-bootstrap-not-expanded",
        "The bootstrap of few seeds has the normal quantile in place of Student's.",
        INTERVALS,
        "factor = student_quantile(probability, num_seeds - 1) / ",
        "factor = NormalDist().inv_cdf(probability) / ",
        ("tests/test_statistics.py::test_intervals_keep_their_promise_for_few_seeds",),
    ),
    Mutant(
        "ties-are-wins",
        "The probability of improvement counts a tie as an improvement.",
        STATISTICS,
        "np.mean(x == y, (-3, -2)) / 2",
        "np.mean(x == y, (-3, -2))",
        (
            "tests/test_statistics.py::test_the_probability_of_improvement_is_that_of_rliable"
            "_and_of_mann_and_whitney",
        ),
    ),
    Mutant(
        "an-export-without-normalisation",
        "An exported policy sees raw observations (a common mistake of deployment).",
        "jaxrl/runs/load.py",
        "policy_of(self.training.agent, self.state, self.stats, clock, explore=False)",
        "policy_of(self.training.agent, self.state, self.stats.replace(obs=()), clock, "
        "explore=False)",
        ("tests/test_export.py::test_what_fit_learned_is_what_is_loaded",),
    ),
    Mutant(
        "a-boolean-is-any-text",
        "A text reaches a boolean parameter of an environment, where any text is true.",
        "envs/jaxrl_envs/parameters.py",
        'case str() if "text" in kinds:',
        'case str() if "text" in kinds or "bool" in kinds:',
        ("tests/test_parameters.py::test_another_type_is_refused_by_name",),
    ),
    Mutant(
        "a-size-in-int32",
        "The bytes that a run needs overflow: more of them look like few.",
        "jaxrl/engine/sizes.py",
        "size * math.prod(counts.values())",
        "size * math.prod(counts.values()) % 2**31",
        ("tests/test_sizes.py::test_the_sizes_are_those_of_the_arrays",),
    ),
    Mutant(
        "a-size-counted-twice",
        "Next observations are counted, which nothing has to keep: runs that fit are refused.",
        "jaxrl/engine/sizes.py",
        "step = obs + action + 6",
        "step = 2 * obs + action + 6",
        ("tests/test_sizes.py::test_the_sizes_are_those_of_the_arrays",),
    ),
)
