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
        ("tests/test_types.py::test_masks_must_fit_the_action_space",),
    ),
    Mutant(
        "a-box-of-no-width",
        "A box with equal bounds is accepted as an action space.",
        "jaxrl/spaces.py",
        "if not (low < high).all():",
        "if not (low <= high).all():",
        ("tests/test_types.py::test_invalid_spaces_are_rejected",),
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
        ("tests/engine/test_engine.py::test_return_is_nan_without_a_finished_episode",),
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
        ("tests/test_wrappers.py::test_sticky_actions_never_repeat_unavailable_actions",),
    ),
    Mutant(
        "frames-without-the-newest",
        "The frame stack ends with the second-newest observation.",
        "jaxrl/wrappers/observation.py",
        "jnp.concatenate([old[..., new.shape[-1] :], new], axis=-1)",
        "old",
        ("tests/test_wrappers.py::test_frame_stack_repeats_the_first_frame_of_an_episode",),
    ),
    Mutant(
        "time-limit-terminates",
        "The time limit counts as termination (most libraries).",
        "jaxrl/wrappers/time.py",
        "timestep.replace(truncated=truncated)",
        "timestep.replace(terminated=timestep.terminated | truncated)",
        ("tests/test_wrappers.py::test_time_limit_truncates_and_keeps_termination",),
    ),
    Mutant(
        "repeats-beyond-the-end",
        "A repeated action continues after the end of an episode and collects its rewards.",
        "jaxrl/wrappers/time.py",
        "over = timestep.terminated | timestep.truncated\n            following =",
        "over = jnp.bool_(False)\n            following =",
        ("tests/test_wrappers.py::test_action_repeat_sums_rewards_and_stops_at_episode_ends",),
    ),
)
