"""Tests that several mutants share."""

BY_HAND = (
    "tests/agents/test_dqn.py"
    "::test_double_q_takes_the_value_of_one_network_at_the_action_of_another"
)
ENDS = "tests/test_estimators.py::TestEnds"
FISHER = "tests/test_solvers.py::test_fisher_product_matches_the_explicit_matrix"
IDENTITIES = "tests/test_estimators.py::TestIdentities"
IMMOVABLE = "tests/agents/test_trpo.py::test_advantages_that_are_not_finite_or_nothing_move_nothing"
KEYS = "tests/engine/test_engine.py::test_key_streams_are_independent[agent0-fresh]"
ONCE = "tests/replay/test_replay.py::test_compiled_training_takes_the_memory_once"
OWN_MODULES = "tests/networks/test_own_modules.py"
ONE_LOOP = "tests/engine/test_engine.py::test_rollout_matches_a_reference_loop"
PPO_LOSS = "tests/agents/test_ppo.py::test_the_loss_is_that_of_the_paper"
LONG_EVALUATION = "tests/engine/test_engine.py::test_long_evaluation_reuses_no_key"
PRIORITISED = "tests/agents/test_dqn.py::test_a_prioritised_update_is_that_of_the_paper"
PROMISE = (
    "tests/agents/test_trpo.py::test_every_step_is_within_the_radius_and_better_or_no_step_at_all"
)
SURROGATE = "tests/test_losses.py::TestClippedSurrogate::test_each_case_of_the_paper"
TWO_SEEDS = "tests/engine/test_engine.py::test_two_seeds_share_no_key"
UNBIASED = "tests/agents/test_policy_gradients.py::test_reinforce_is_unbiased_whatever_the_baseline"
VALUES = (
    "tests/agents/test_actor_critic.py"
    "::test_values_equal_a_slow_loop_that_looks_at_every_next_observation[False-none]"
)
RESUME = "tests/runs/test_resume.py"
GOES_ON = f"{RESUME}::test_a_run_that_died_goes_on_to_the_same_bits[on-policy]"
UPDATES = "tests/agents/test_off_policy_updates.py"
HAPPENED = "tests/replay/test_replay.py::test_every_row_is_one_that_happened"
FRESH_STARTS = (
    "tests/engine/test_engine.py::test_whole_episode_rollout_counts_one_episode_per_environment"
)
DECLARED = (
    "tests/replay/test_replay.py::test_a_declared_limit_bounds_the_final_observations_exactly[2]"
)
TARGET_MOVES = "tests/agents/test_dqn.py::test_the_target_moves_when_it_is_due_also_under_vmap"
