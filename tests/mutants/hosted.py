"""Defects of environments that step outside JAX, and of the actors that step them."""

from mutants.mutant import Mutant

ENGINE = "tests/runs/test_host_environments.py"
ADAPTERS = "tests/envs/test_host_adapters.py"
EXACT = f"{ENGINE}::test_the_host_engine_learns_what_the_compiled_engine_learns"

MUTANTS = (
    Mutant(
        "a-successor-after-the-reset",
        "The observation after the last step of an episode is the first of the next one (CleanRL, "
        "Gymnasium before final_observation).",
        "envs/jaxrl_envs/gymnasium.py",
        "after = replaced(now, ended, self._last(info, np.flatnonzero(ended)))",
        "after = now",
        (f"{ADAPTERS}::test_all_ways_to_reset_return_the_true_last_observation[same step]",),
    ),
    Mutant(
        "a-reset-is-a-step",
        "Steps in which a vector only resets a copy are learned from (CleanRL with EnvPool).",
        "envs/jaxrl_envs/gymnasium.py",
        "valid = ~self.ended",
        "valid = None",
        (f"{ADAPTERS}::test_the_learner_never_sees_a_step_that_only_resets[next step]",),
    ),
    Mutant(
        "a-gap-is-no-end",
        "Steps that are left out are no truncation, so that a return goes on across the gap.",
        "jaxrl/engine/collector.py",
        "truncated[-1, full] = ~terminated[-1, full]",
        "pass",
        (f"{ADAPTERS}::test_a_gap_between_iterations_is_a_truncation",),
    ),
    Mutant(
        "actors-wait-for-the-learner",
        "A lag of one iteration is none: actors never play while the learner trains.",
        "jaxrl/engine/actors.py",
        "self._wait_for(max(self.first, iteration - self.lag))",
        "self._wait_for(max(self.first, iteration - self.lag // 2))",
        (f"{ENGINE}::test_a_lag_is_the_age_of_the_policy",),
    ),
    Mutant(
        "a-hosted-carry-is-never-reset",
        "A recurrent policy on a host environment keeps its memory across episodes.",
        "jaxrl/engine/hosted.py",
        "    carry = tree_where(first, start, carry)\n    policy = policy_of",
        "    policy = policy_of",
        (f"{EXACT}[recurrent ppo-False]",),
    ),
    Mutant(
        "copies-share-a-seed",
        "All copies of a host environment have the same seed.",
        "jaxrl/engine/host_episodes.py",
        "return jax.random.bits(key, (number,), jnp.uint32) >> 1",
        "return jnp.broadcast_to(jax.random.bits(key, (), jnp.uint32) >> 1, (number,))",
        (f"{ENGINE}::test_copies_have_different_seeds",),
    ),
    Mutant(
        "a-fault-loses-the-run",
        "What was learned before an environment failed is not saved.",
        "jaxrl/runs/loop.py",
        "            self.save(self.run_state)\n            raise\n",
        "            raise\n",
        (f"{ENGINE}::test_a_fault_ends_the_run_by_name_after_a_checkpoint[raises]",),
    ),
    Mutant(
        "an-episode-keeps-its-return",
        "The return of a finished episode on a host environment goes on in the next one.",
        "jaxrl/engine/collector.py",
        "returns, lengths = np.where(done, 0, returns), np.where(done, 0, lengths)",
        "lengths = np.where(done, 0, lengths)",
        (f"{ENGINE}::test_episodes_count_once_they_end",),
    ),
    Mutant(
        "a-hidden-nan",
        "NaN in an observation of a host environment reaches the agent.",
        "jaxrl/engine/checked_vector.py",
        "if is_float and np.isnan(x.sum()) and np.isnan(x).any():",
        "if False:",
        (f"{ENGINE}::test_check_names_what_is_wrong[<lambda>-NaN in copies]",),
    ),
)
