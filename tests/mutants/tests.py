"""Tests that several mutants share."""

A3C = "tests/agents/test_a3c.py"
IN_TURN = f"{A3C}::test_stale_gradients_reach_the_shared_parameters_in_turn"
BOOK = "tests/agents/test_online_actor_critic.py::test_updates_follow_the_book"
ONE_STEP = (
    "tests/agents/test_online_actor_critic.py::test_one_step_updates_ascend_the_discounted_return"
)
FORWARD = (
    "tests/agents/test_online_actor_critic.py::test_forward_and_backward_view_agree_on_an_episode"
)
COMPATIBLE = "tests/agents/test_compatible.py"
PAPER = f"{COMPATIBLE}::test_updates_follow_the_paper"
OFF_POLICY = (
    "tests/agents/test_online_actor_critic.py::test_off_policy_updates_have_the_policys_expectation"
)
ADAPTED_STEP = "tests/agents/test_adaptive_rate.py::test_a_step_is_taken_at_the_adapted_rate"
BY_HAND = "tests/agents/test_dqn.py::test_double_q_separates_selection_from_evaluation"
CLONING = "tests/agents/test_cloning.py"
OFFLINE = "tests/agents/test_offline.py"
SEARCH = "tests/agents/test_search.py"
ENDS = "tests/test_estimators.py::TestEnds"
FITTED_Q = "tests/agents/test_fitted_q_actor_critic.py"
FISHER = "tests/test_solvers.py::test_fisher_product_matches_the_explicit_matrix"
IDENTITIES = "tests/test_estimators.py::TestIdentities"
IMMOVABLE = "tests/agents/test_trpo.py::test_zero_or_non_finite_advantages_change_no_policy"
KEYS = "tests/engine/test_engine.py::test_key_streams_are_independent[agent0-fresh]"
ONCE = "tests/replay/test_replay.py::test_compiled_training_holds_the_buffer_once"
OWN_MODULES = "tests/networks/test_own_modules.py"
ONE_LOOP = "tests/engine/test_engine.py::test_rollout_matches_a_reference_loop"
PPO_LOSS = "tests/agents/test_ppo.py::test_loss_matches_the_paper"
LONG_EVALUATION = "tests/engine/test_engine.py::test_long_evaluation_reuses_no_key"
PENALTY = "tests/agents/test_ppo_penalty.py"
PRIORITISED = "tests/agents/test_dqn.py::test_prioritised_update_matches_the_paper"
PROMISE = "tests/agents/test_trpo.py::test_steps_improve_within_the_radius_or_are_rejected"
RANDOM_HORIZON = "tests/agents/test_random_horizon.py"
SURROGATE = "tests/test_losses.py::TestClippedSurrogate::test_each_case_of_the_paper"
TWO_SEEDS = "tests/engine/test_engine.py::test_two_seeds_share_no_key"
UNBIASED = "tests/agents/test_policy_gradients.py::test_reinforce_is_unbiased_for_every_baseline"
VALUES = "tests/agents/test_actor_critic.py::test_values_equal_a_step_by_step_reference[False-none]"
RESUME = "tests/runs/test_resume.py"
GOES_ON = f"{RESUME}::test_a_run_that_died_goes_on_to_the_same_bits[on-policy]"
UPDATES = "tests/agents/test_off_policy_updates.py"
HAPPENED = "tests/replay/test_replay.py::test_sampled_rows_match_the_history"
FRESH_STARTS = (
    "tests/engine/test_engine.py::test_whole_episode_rollout_counts_one_episode_per_environment"
)
DECLARED = "tests/replay/test_replay.py::test_time_limit_bounds_the_stored_final_observations[2]"
TARGET_MOVES = "tests/agents/test_dqn.py::test_target_updates_are_periodic_under_vmap"
