"""Defects of `runs`."""

from mutants.mutant import Mutant
from mutants.tests import GOES_ON, ONCE, RESUME

MUTANTS = (
    Mutant(
        "a-bootstrap-across-tasks",
        "The bootstrap mixes seeds of different tasks.",
        "jaxrl/analysis/intervals.py",
        "scores[rows, np.arange(num_tasks)]",
        "scores[rows, rng.integers(0, num_tasks, rows.shape)]",
        ("tests/analysis/test_statistics.py::test_resamples_stay_within_their_task",),
    ),
    Mutant(
        "a-bootstrap-not-expanded",
        "The bootstrap for few seeds uses the normal quantile instead of Student's.",
        "jaxrl/analysis/intervals.py",
        "factor = student_quantile(probability, num_seeds - 1) / ",
        "factor = NormalDist().inv_cdf(probability) / ",
        ("tests/analysis/test_statistics.py::test_intervals_keep_their_promise_for_few_seeds",),
    ),
    Mutant(
        "an-interval-of-percentiles",
        "The interval is the plain percentile bootstrap, which is too narrow for few seeds "
        "(rliable).",
        "jaxrl/analysis/statistics.py",
        "if statistic is mean:\n        return intervals.student_interval(scores, level)",
        "if True:\n        low, high = stratified_interval(statistic, scores, level=level)\n"
        "        return float(low), float(high)",
        (
            "tests/analysis/test_statistics.py::test_the_interval_of_the_mean_is_students",
            "tests/analysis/test_statistics.py::test_intervals_keep_their_promise_for_few_seeds",
        ),
    ),
    Mutant(
        "ties-are-wins",
        "The probability of improvement counts ties as improvements.",
        "jaxrl/analysis/statistics.py",
        "np.mean(x == y, (-3, -2)) / 2",
        "np.mean(x == y, (-3, -2))",
        (
            "tests/analysis/test_statistics.py::test_the_probability_of_improvement_is_that_of_rliable"
            "_and_of_mann_and_whitney",
        ),
    ),
    Mutant(
        "a-checkpoint-that-is-believed",
        "Checksums are not verified, so that a flipped bit on disk goes unnoticed.",
        "jaxrl/runs/checkpoint_files.py",
        'if x["crc32"] != leaves[k]["crc32"]]',
        "if False]",
        ("tests/runs/test_runs.py::test_every_damage_is_noticed",),
    ),
    Mutant(
        "a-directory-that-is-not-claimed",
        "Two runs write into the same directory, because it is not locked.",
        "jaxrl/runs/directory.py",
        "fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        (
            "tests/runs/test_runs.py::test_one_of_many_claims_a_directory_and_the_others_leave_it_alone",
        ),
    ),
    Mutant(
        "a-diverged-member-counts",
        "The mean that is compared with `stop_at_return` includes diverged seeds, so that it is "
        "never reached.",
        "jaxrl/runs/events.py",
        "counted(self.return_means, self.diverged)",
        "self.return_means",
        (f"{RESUME}::test_a_member_that_diverged_counts_nowhere",),
    ),
    Mutant(
        "a-stop-that-judges-itself",
        "The evaluation that stopped the run is also reported as its result, which is biased "
        "upwards.",
        "jaxrl/runs/events.py",
        "return self.afresh or self.evaluations[-1]",
        "return self.evaluations[-1]",
        (f"{RESUME}::test_what_ended_a_run_does_not_say_what_it_reached",),
    ),
    Mutant(
        "a-configuration-written-late",
        "A run killed during compilation leaves nothing to resume.",
        "jaxrl/runs/fit.py",
        "                recorder.begin()\n",
        "                pass\n",
        (f"{RESUME}::test_a_run_is_claimed_before_it_is_compiled_and_one_killed_there_is_resumed",),
    ),
    Mutant(
        "an-export-without-normalisation",
        "An exported policy sees raw observations (a common deployment bug).",
        "jaxrl/runs/loaded_policy.py",
        "policy_of(self.training.agent, self.state, self.stats, clock, explore=False)",
        "policy_of(self.training.agent, self.state, self.stats.replace(obs=()), clock, "
        "explore=False)",
        ("tests/runs/test_export.py::test_what_fit_learned_is_what_is_loaded",),
    ),
    Mutant(
        "a-cut-is-an-end",
        "The last step of a recorded episode that is cut off is not marked as truncated.",
        "jaxrl/runs/dataset.py",
        "steps.truncated | (last & ~done)",
        "steps.truncated",
        ("tests/runs/test_dataset.py::test_an_episode_that_is_cut_off_is_truncated[cut off]",),
    ),
    Mutant(
        "one-member-stops-all",
        "A run ends as soon as one of its members diverges.",
        "jaxrl/runs/loop.py",
        "if len(run_state.diverged) == num_members:",
        "if run_state.diverged:",
        (f"{RESUME}::test_a_member_that_diverges_neither_stops_nor_poisons_the_others",),
        error="jaxrl.runs.loop.DivergenceError",
    ),
    Mutant(
        "padding-reported",
        "A repeated member that only fills up a device is reported and saved.",
        "jaxrl/devices/placement.py",
        "lambda x: x[: self.num_members], tree)",
        "lambda x: x, tree)",
        ("tests/devices/test_placement.py::test_members_on_three_devices_match_one_device",),
    ),
    Mutant(
        "fresh-episodes-that-are-not",
        "The evaluation on new episodes reuses the keys of the evaluation that ended the run.",
        "jaxrl/runs/loop.py",
        "keys = self.members.keys_of_stream(Stream.EVALUATE_AFRESH)",
        "keys = self.programs.key",
        (f"{RESUME}::test_what_ended_a_run_does_not_say_what_it_reached",),
    ),
    Mutant(
        "a-resume-with-other-seeds",
        "A resumed run accepts other seeds or another number of evaluation episodes.",
        "jaxrl/runs/run_config.py",
        "role_of(name) in (Role.FOLLOWING, Role.RECORD)",
        "role_of(name) in (Role.FOLLOWING, Role.RECORD, Role.SAMPLE)",
        ("tests/runs/test_run_config.py::test_what_learns_otherwise_is_another_run",),
    ),
    Mutant(
        "an-old-run-of-todays-defaults",
        "Options missing from an old config.json get today's default instead of the default of "
        "that time.",
        "jaxrl/engine/options.py",
        "return self.default if self.before is UNSET else self.before",
        "return self.default",
        (
            "tests/runs/test_run_config.py"
            "::test_what_an_older_configuration_does_not_say_is_what_it_did",
        ),
    ),
    Mutant(
        "memory-beside-its-successor",
        "The state is not donated, so that it is in memory twice.",
        "jaxrl/runs/programs.py",
        "jax.jit(chunk, donate_argnums=1)",
        "jax.jit(chunk)",
        (f"{ONCE}[1-False-anywhere]",),
    ),
    Mutant(
        "a-checkpoint-without-the-environments",
        "A resumed run starts new episodes instead of continuing the old ones (most libraries).",
        "jaxrl/runs/checkpoint.py",
        "run_state.state = state.replace(**part, **rest)",
        "run_state.state = state.replace(**part, **rest | {'envs': jax.tree.map(np.zeros_like, "
        "rest['envs'])})",
        (GOES_ON,),
    ),
    Mutant(
        "a-checkpoint-without-replay",
        "A resumed run starts with an empty replay buffer (most libraries).",
        "jaxrl/runs/checkpoint.py",
        "run_state.state = state.replace(**part, **rest)",
        "run_state.state = state.replace(**part, **rest | {'buffer': jax.tree.map(np.zeros_like, "
        "rest['buffer'])})",
        (f"{RESUME}::test_a_run_that_died_goes_on_to_the_same_bits[replay]",),
    ),
    Mutant(
        "resume-at-iteration-zero",
        "A resumed run restarts its schedules and counters.",
        "jaxrl/runs/checkpoint.py",
        'run_state.iteration = record["iteration"]',
        "run_state.iteration = 0",
        (GOES_ON,),
    ),
    Mutant(
        "the-last-is-the-best",
        "Every later evaluation replaces the best state.",
        "jaxrl/runs/recorder.py",
        "if event.return_mean > highest:",
        "if event.return_mean > -np.inf:",
        (f"{RESUME}::test_the_best_state_is_kept_and_comes_back",),
    ),
)
