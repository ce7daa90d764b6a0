"""Defects of `engine`."""

from mutants.mutant import Mutant
from mutants.tests import FRESH_STARTS, KEYS, LONG_EVALUATION, ONCE, ONE_LOOP, RESUME, TWO_SEEDS

MUTANTS = (
    Mutant(
        "evaluation-of-fixed-length",
        "Evaluation runs a fixed number of steps, which counts short episodes more than once "
        "(many libraries).",
        "jaxrl/engine/evaluate.py",
        "counts = ~ended_before & ~played.finished[None] & in_time[:, None]",
        "counts = jnp.broadcast_to(in_time[:, None], done.shape)",
        ("tests/engine/test_engine.py::test_evaluation_plays_one_episode_per_environment",),
    ),
    Mutant(
        "unfinished-episodes-are-finished",
        "Episodes cut off by the evaluation's own limit count as finished.",
        "jaxrl/engine/evaluate.py",
        "finished=played.finished | jnp.any(done & counts, axis=0),",
        "finished=played.finished | jnp.any(done & counts, axis=0) | ~in_time[-1],",
        ("tests/engine/test_engine.py::test_episodes_beyond_the_step_limit_are_unfinished",),
    ),
    Mutant(
        "evaluation-repeats-its-noise",
        "A key is reused during an evaluation, so that the same noise repeats (akin to rejax, "
        "brax and PureJaxQL).",
        "jaxrl/engine/evaluate.py",
        "jax.random.fold_in(stream(key, Stream.ROLLOUT), step)",
        "stream(key, Stream.ROLLOUT)",
        (LONG_EVALUATION,),
    ),
    Mutant(
        "statistics-move-before-learning",
        "Observation statistics change between rollout and update, so that the first ratio is not "
        "1 (brax, EvoRL PPO).",
        "jaxrl/engine/learners.py",
        "steps=_normalized(agent, state.stats, raw))",
        "steps=_normalized(agent, state.stats.update(raw.obs, raw.reward, trajectory.first, "
        "agent.discount), raw))",
        ("tests/agents/test_ppo.py::test_the_first_importance_ratio_is_one[separate]",),
    ),
    Mutant(
        "next-obs-not-normalised",
        "Observations are normalised, but the next observations for bootstrapping are not.",
        "jaxrl/engine/learners.py",
        "next_obs=_seen(agent, stats, steps.next_obs)",
        "next_obs=steps.next_obs",
        ("tests/engine/test_engine.py::test_acting_and_learning_use_the_same_observation_scale",),
    ),
    Mutant(
        "replay-not-normalised",
        "The agent acts on normalised observations and learns from raw ones.",
        "jaxrl/engine/learners.py",
        "batch = agent.prepare(agent_state, _steps_seen(agent, stats, rows), now)",
        "batch = agent.prepare(agent_state, rows, now)",
        ("tests/engine/test_engine.py::test_acting_and_learning_use_the_same_observation_scale",),
    ),
    Mutant(
        "vector-on-every-device",
        "Parameters are flattened on accelerators, too.",
        "jaxrl/engine/learners.py",
        "fields = agent.flattened if layout.is_cpu() else ()",
        "fields = agent.flattened",
        ("tests/xla/test_flatten.py::test_parameters_are_flattened_only_on_cpu[False]",),
    ),
    Mutant(
        "memory-chosen-from-two",
        "Each iteration selects between the old and the new replay buffer, so that both are in "
        "memory.",
        "jaxrl/engine/learners.py",
        "agent=agent_state, stats=stats, buffer=contents)",
        "agent=agent_state, stats=stats, buffer=jax.tree.map(lambda new, old: jnp.where("
        "clock.iteration >= 0, new, old), contents, state.buffer))",
        (f"{ONCE}[1-False-anywhere]",),
    ),
    Mutant(
        "updates-of-an-iteration-at-one-time",
        "All updates of an iteration use the clock of the first, so that periodic actions within "
        "it are skipped.",
        "jaxrl/engine/learners.py",
        "fold_in(update_key, index)\n        now = clock.replace(update=clock.update + index)",
        "fold_in(update_key, index)\n        now = clock",
        (
            "tests/agents/test_dqn.py::test_target_updates_count_across_iterations",
            "tests/agents/test_continuous.py::test_policy_delay_counts_across_iterations",
        ),
    ),
    Mutant(
        "one-key-for-all-updates",
        "All updates of an iteration get the same key (akin to rejax, brax and PureJaxQL).",
        "jaxrl/engine/learners.py",
        "key_i = jax.random.fold_in(key, index)",
        "key_i = key",
        (KEYS,),
    ),
    Mutant(
        "one-shuffle-for-all-seeds",
        "All seeds shuffle their data in the same order (akin to PureJaxRL DQN).",
        "jaxrl/engine/learners.py",
        "minibatch_indices(stream(key, Stream.SHUFFLE), rows",
        "minibatch_indices(stream(jax.random.key(0), Stream.SHUFFLE), rows",
        ("tests/engine/test_engine.py::test_seeds_draw_different_minibatches",),
    ),
    Mutant(
        "one-draw-for-all-seeds",
        "All seeds sample the same slots of the replay buffer (akin to PureJaxRL DQN).",
        "jaxrl/engine/learners.py",
        "contents,\n            stream(key_i, Stream.SAMPLE),",
        "contents,\n            stream(jax.random.key(0), Stream.SAMPLE),",
        ("tests/engine/test_engine.py::test_seeds_draw_different_minibatches",),
    ),
    Mutant(
        "no-fresh-starts-each-iteration",
        "Rollouts of whole episodes start in the middle of earlier episodes.",
        "jaxrl/engine/learners.py",
        "state = state.replace(envs=envs.reset(key))",
        "pass",
        (FRESH_STARTS,),
    ),
    Mutant(
        "late-short-episodes-count",
        "In a rollout from fresh starts, every finished episode counts, which over-represents "
        "short ones.",
        "jaxrl/engine/learners.py",
        "episodes = episodes.first()",
        "pass",
        (FRESH_STARTS,),
    ),
    Mutant(
        "warmup-by-remainder",
        "`step % k == 0` decides whether to learn, and is almost never true (PureJaxRL DQN).",
        "jaxrl/engine/learners.py",
        "length = jnp.where(buffer.is_ready(iterations), plan.num_updates, 0)",
        "ready = iterations * plan.steps_per_iteration % plan.warmup == 0\n"
        "    length = jnp.where(ready, plan.num_updates, 0)",
        ("tests/agents/test_agents.py::test_no_update_before_the_warmup",),
    ),
    Mutant(
        "updates-not-counted",
        'The update count does not advance within an iteration, which breaks "every k updates" '
        "(akin to PureJaxRL DQN).",
        "jaxrl/engine/learners.py",
        "now = clock.replace(update=clock.update + index)\n        new = _update",
        "now = clock\n        new = _update",
        ("tests/engine/test_engine.py::test_every_third_update_stays_a_branch_under_vmap",),
    ),
    Mutant(
        "raw-observations-scaled",
        "What an expert gets as raw observations is normalised (akin to DAgger on scaled labels).",
        "jaxrl/engine/learners.py",
        "return Observed(normalized, obs)",
        "return Observed(normalized, normalized)",
        ("tests/engine/test_seams.py::test_raw_observations_match_the_environment[False]",),
    ),
    Mutant(
        "copies-in-the-order-of-a-minibatch",
        "Rows of a shuffled minibatch are counted, instead of named by the copy they come from.",
        "jaxrl/minibatches.py",
        "env_index=jax.tree.map(lambda x: take(x, axis), trajectory.env_index)",
        "env_index=jax.tree.map(lambda x: x[: index.size], trajectory.env_index)",
        ("tests/engine/test_engine.py::test_every_row_is_seen_once_an_epoch[flat-4]",),
    ),
    Mutant(
        "targets-of-the-first-epoch",
        "Targets that each epoch should compute anew are those of the first.",
        "jaxrl/engine/learners.py",
        "        prepared = agent.prepare(agent_state, trajectory, now)",
        "        agent.prepare(agent_state, trajectory, now)",
        ("tests/engine/test_seams.py::test_targets_are_recomputed_before_each_epoch",),
    ),
    Mutant(
        "divergence-without-its-beginning",
        "The last iteration with non-finite metrics is reported instead of the first.",
        "jaxrl/engine/learners.py",
        "jnp.where(fine & jnp.any(bad), iteration, self.iteration)",
        "jnp.where(jnp.any(bad), iteration, self.iteration)",
        (f"{RESUME}::test_train_tells_of_divergence_too",),
    ),
    Mutant(
        "next-obs-after-the-reset",
        "The stored next observation is the first of the next episode.",
        "jaxrl/engine/rollout.py",
        "next_obs=timestep.obs,",
        "next_obs=next_state.obs,",
        (ONE_LOOP,),
    ),
    Mutant(
        "carry-kept-across-episodes",
        "In acting, the recurrent state is carried across episodes.",
        "jaxrl/engine/rollout.py",
        "        carry = tree_where(env_state.first, initial_carry, carry)\n",
        "",
        ("tests/engine/test_engine.py::test_recurrent_carry_is_reset_at_episode_starts",),
    ),
    Mutant(
        "carry-of-the-wrong-end",
        "Sequences are replayed from their final recurrent state.",
        "jaxrl/engine/rollout.py",
        "Trajectory(steps, first, carry, env_index), ended",
        "Trajectory(steps, first, last_carry, env_index), ended",
        ("tests/engine/test_engine.py::test_recurrent_carry_is_reset_at_episode_starts",),
    ),
    Mutant(
        "episodes-cut-off-are-forgotten",
        "Episodes that end by truncation are missing from the statistics.",
        "jaxrl/engine/rollout.py",
        "steps.terminated | steps.truncated",
        "steps.terminated",
        (ONE_LOOP,),
    ),
    Mutant(
        "one-key-for-all-actions",
        "All steps of a rollout sample actions with the same key (akin to rejax, brax and "
        "PureJaxQL).",
        "jaxrl/engine/rollout.py",
        "jax.random.split(stream(key, Stream.ACT), num_steps)",
        "jax.numpy.broadcast_to(stream(key, Stream.ACT), (num_steps,))",
        (LONG_EVALUATION,),
    ),
    Mutant(
        "acting-and-stepping-share-keys",
        "The environment's noise uses the keys that sampled the actions (akin to rejax, brax and "
        "PureJaxQL).",
        "jaxrl/engine/rollout.py",
        "jax.random.split(stream(key, Stream.STEP), (num_steps, num_envs))",
        "jax.random.split(stream(key, Stream.ACT), (num_steps, num_envs))",
        (LONG_EVALUATION,),
    ),
    Mutant(
        "a-size-in-int32",
        "The memory estimate overflows int32, so that too large a run looks small.",
        "jaxrl/engine/sizes.py",
        "size * math.prod(counts.values())",
        "size * math.prod(counts.values()) % 2**31",
        ("tests/engine/test_sizes.py::test_size_estimates_match_the_arrays",),
    ),
    Mutant(
        "a-size-counted-twice",
        "Next observations are counted although they are not stored: runs that fit are rejected.",
        "jaxrl/engine/sizes.py",
        "step = obs + action + 6",
        "step = 2 * obs + action + 6",
        ("tests/engine/test_sizes.py::test_size_estimates_match_the_arrays",),
    ),
    Mutant(
        "a-plain-sum-of-metrics",
        "Metrics of millions of iterations are summed in plain float32.",
        "jaxrl/engine/sums.py",
        "return self.replace(value=value, lost=lost)",
        "return self.replace(value=total, lost=0.0 * lost)",
        ("tests/engine/test_sums.py::test_small_terms_between_large_ones_are_not_lost",),
    ),
    Mutant(
        "grids-of-the-setting",
        "Under `jax_enable_x64`, a sweep is a grid of float64.",
        "jaxrl/engine/sweep.py",
        "return narrow(grid)",
        "return grid",
        ("tests/xla/test_precision.py::test_float64_parameters_become_float32",),
    ),
    Mutant(
        "schedule-in-the-wrong-unit",
        "A schedule divides iterations by steps, so that it hardly changes.",
        "jaxrl/engine/training.py",
        "/ float(self.num_iterations)",
        "/ float(self.total_steps)",
        ("tests/engine/test_engine.py::test_every_third_update_stays_a_branch_under_vmap",),
    ),
    Mutant(
        "evaluation-explores",
        "Evaluation uses the exploring policy.",
        "jaxrl/engine/training.py",
        'self.options.eval_mode == "sample"',
        "True",
        ("tests/engine/test_engine.py::test_evaluation_does_not_explore",),
    ),
    Mutant(
        "every-evaluation-the-same",
        "All evaluations of a run use the same key, so that their errors do not average out (akin "
        "to rejax, brax and PureJaxQL).",
        "jaxrl/engine/training.py",
        "jax.random.fold_in(stream(fast(key), Stream.EVALUATE), iteration)",
        "stream(fast(key), Stream.EVALUATE)",
        (KEYS,),
    ),
    Mutant(
        "one-key-for-all-iterations",
        "All iterations use the noise of the first (akin to rejax, brax and PureJaxQL).",
        "jaxrl/engine/training.py",
        "jax.random.fold_in(stream(fast(key), Stream.ITERATION), iteration)",
        "stream(fast(key), Stream.ITERATION)",
        (KEYS,),
    ),
    Mutant(
        "the-seed-is-overwritten",
        "`PRNGKey(0)` overwrites the seed, so that vmapped seeds are identical (PureJaxRL DQN).",
        "jaxrl/engine/training.py",
        "(self.agent, stream(key, Stream.INIT))",
        "(self.agent, stream(jax.random.key(0), Stream.INIT))",
        ("tests/engine/test_engine.py::test_seeds_change_parameters_and_starts",),
    ),
    Mutant(
        "the-seed-is-overwritten-in-training",
        "Rollouts and updates of all seeds use `PRNGKey(0)`; only the initial state differs (akin "
        "to PureJaxRL DQN).",
        "jaxrl/engine/training.py",
        "jax.random.fold_in(stream(fast(key), Stream.ITERATION), iteration)",
        "jax.random.fold_in(stream(fast(jax.random.key(0)), Stream.ITERATION), iteration)",
        (TWO_SEEDS,),
    ),
    Mutant(
        "the-seed-is-overwritten-in-evaluation",
        "All seeds are evaluated with `PRNGKey(0)`, so that their errors do not average out (akin "
        "to PureJaxRL DQN).",
        "jaxrl/engine/training.py",
        "jax.random.fold_in(stream(fast(key), Stream.EVALUATE), iteration)",
        "jax.random.fold_in(stream(fast(jax.random.key(0)), Stream.EVALUATE), iteration)",
        (TWO_SEEDS,),
    ),
    Mutant(
        "memory-grows-with-training",
        "Metrics of every iteration are kept and summed at the end (akin to PureJaxRL).",
        "jaxrl/engine/training.py",
        "        state, metrics, divergence = jax.lax.fori_loop(start, stop, one, loop)",
        "        def kept(i, both):\n"
        "            loop = one(i, both[0])\n"
        "            return loop, both[1].at[i].set(loop[1].value[0])\n\n"
        "        both = (loop, jnp.zeros(self.num_iterations))\n"
        "        (state, metrics, divergence), kept = jax.lax.fori_loop(start, stop, kept, both)\n"
        "        value = metrics.value.at[0].set(jnp.max(kept))\n"
        "        metrics = metrics.replace(value=value)",
        ("tests/engine/test_engine.py::test_memory_is_independent_of_training_length",),
    ),
    Mutant(
        "a-mixed-policy-judged-by-its-mode",
        "Evaluation takes the most likely action whatever the evaluation mode (most libraries).",
        "jaxrl/engine/training.py",
        'self.options.eval_mode == "sample"',
        "False",
        ("tests/engine/test_engine.py::test_mixed_policy_return_matches_the_exact_value",),
    ),
    Mutant(
        "one-cached-start",
        "A single cached start is reused for the whole run (brax, Playground auto-reset).",
        "jaxrl/engine/vector_env.py",
        "keys = jax.random.split(key, (num_steps, self.num_envs))",
        "keys = jnp.broadcast_to(\n"
        "            jax.random.split(jax.random.key(0), self.num_envs)[None],\n"
        "            (num_steps, self.num_envs),\n"
        "        )",
        ("tests/engine/test_engine.py::test_fresh_starts_are_all_different",),
    ),
    Mutant(
        "a-pool-of-one",
        "The pool contains one start for all copies (akin to brax, Playground auto-reset).",
        "jaxrl/engine/vector_env.py",
        "size = self.pool_size or max(self.num_envs, 64)",
        "size = 1",
        ("tests/engine/test_engine.py::test_starts_follow_the_start_distribution[pool]",),
    ),
    Mutant(
        "a-pool-for-the-whole-run",
        "The pool of starts is drawn once for the whole run (akin to brax, Playground auto-reset).",
        "jaxrl/engine/vector_env.py",
        "self._pool(stream(key, Stream.POOL))",
        "self._pool(jax.random.key(0))",
        ("tests/engine/test_engine.py::test_reset_pool_is_redrawn_for_each_rollout",),
    ),
    Mutant(
        "episode-return-never-reset",
        "The return of an episode includes those of earlier episodes.",
        "jaxrl/engine/vector_env.py",
        "episode_return=jnp.where(done, 0.0, episode_return),",
        "episode_return=episode_return,",
        (ONE_LOOP,),
    ),
)
