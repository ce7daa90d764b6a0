"""Defects of `contracts`."""

from mutants.mutant import Mutant
from mutants.tests import ONE_LOOP

MUTANTS = (
    Mutant(
        "a-mask-that-broadcasts",
        "A mask with one entry broadcasts to four actions and allows forbidden ones.",
        "jaxrl/spaces.py",
        'if getattr(mask, "shape", None) != (size,) or mask.dtype != np.bool_:',
        'if getattr(mask, "shape", None) not in ((size,), (1,)) or mask.dtype != np.bool_:',
        ("tests/test_types.py::test_a_mask_that_does_not_fit_the_action_space_is_named",),
    ),
    Mutant(
        "a-box-of-no-width",
        "A box with equal bounds is accepted as an action space.",
        "jaxrl/spaces.py",
        "if not (low < high).all():",
        "if not (low <= high).all():",
        ("tests/test_types.py::test_a_space_that_cannot_be_is_named",),
    ),
    Mutant(
        "unfinished-episodes-are-zeros",
        "Steps that end no episode count as returns of zero in the mean (many libraries).",
        "jaxrl/types.py",
        "count = condition.astype(jnp.float32)",
        "count = jnp.ones_like(condition, jnp.float32)",
        (ONE_LOOP,),
    ),
    Mutant(
        "no-episode-is-a-zero",
        "An iteration in which no episode ended reports a return of zero.",
        "jaxrl/types.py",
        "self.total / jnp.maximum(self.count, 1e-38), jnp.nan)",
        "self.total / jnp.maximum(self.count, 1e-38), 0.0)",
        ("tests/engine/test_engine.py::test_no_episode_ended_is_not_a_zero",),
    ),
    Mutant(
        "info-of-every-step",
        "Metrics of the environment are averaged over steps instead of episodes.",
        "jaxrl/types.py",
        "{name: Mean.where(ended, x) for name, x in (info or {}).items()}",
        "{name: Mean.where(ended | ~ended, x) for name, x in (info or {}).items()}",
        ("tests/engine/test_info.py::test_scalars_of_the_last_step_are_averaged_over_episodes",),
    ),
    Mutant(
        "sticky-actions-ignore-the-mask",
        "A sticky action is repeated although it is no longer available.",
        "jaxrl/wrappers/action.py",
        "sticks = sticks & is_available(self.env.spec.action, mask, previous)",
        "sticks = jnp.bool_(sticks)",
        ("tests/test_wrappers.py::test_sticky_actions_repeat_nothing_that_is_unavailable",),
    ),
    Mutant(
        "frames-without-the-newest",
        "The frame stack ends with the second-newest observation.",
        "jaxrl/wrappers/observation.py",
        "jnp.concatenate([old[..., new.shape[-1] :], new], axis=-1)",
        "old",
        (
            "tests/test_wrappers.py::test_a_frame_stack_begins_with_copies_and_forgets_the_last_episode",
        ),
    ),
    Mutant(
        "time-limit-terminates",
        "The time limit counts as termination (most libraries).",
        "jaxrl/wrappers/time.py",
        "timestep.replace(truncated=truncated)",
        "timestep.replace(terminated=timestep.terminated | truncated)",
        ("tests/test_wrappers.py::test_a_time_limit_truncates_and_lets_termination_pass",),
    ),
    Mutant(
        "repeats-beyond-the-end",
        "A repeated action continues after the end of an episode and collects its rewards.",
        "jaxrl/wrappers/time.py",
        "over = timestep.terminated | timestep.truncated\n            following =",
        "over = jnp.bool_(False)\n            following =",
        ("tests/test_wrappers.py::test_repeated_actions_add_rewards_up_and_stop_with_the_episode",),
    ),
)
