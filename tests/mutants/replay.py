"""Defects of `replay`."""

from mutants.mutant import Mutant
from mutants.tests import DECLARED, HAPPENED

MUTANTS = (
    Mutant(
        "rows-cross-the-write-head",
        "n-step rows are sampled so close to the newest step that they continue with the oldest.",
        "jaxrl/replay/buffer.py",
        "num_starts = self.num_written(iterations) - (plan.n_step - 1)",
        "num_starts = self.num_written(iterations)",
        (f"{HAPPENED}[three steps]",),
    ),
    Mutant(
        "rows-cross-episodes",
        "n-step rewards are summed across the end of an episode.",
        "jaxrl/replay/buffer.py",
        "goes_on, weight = goes_on & ~ended, weight * discount",
        "goes_on, weight = goes_on | ended, weight * discount",
        (f"{HAPPENED}[three steps]",),
    ),
    Mutant(
        "cut-leads-to-the-next-start",
        "After a truncation, the next observation is the first of the next episode.",
        "jaxrl/replay/buffer.py",
        "following = tree_where(truncated, cut, following)",
        "following = tree_where(truncated, following, following)",
        (DECLARED,),
    ),
    Mutant(
        "no-room-for-cuts-before-the-limit",
        "Room for final observations is sized by the time limit even if episodes can be truncated "
        "earlier.",
        "jaxrl/replay/buffer.py",
        'if spec.truncates != "at_max_steps":',
        "if spec.max_steps is None:",
        (f"{HAPPENED}[several]",),
    ),
    Mutant(
        "too-little-room-for-cuts",
        "There is room for only half of the final observations that a time limit can produce.",
        "jaxrl/replay/buffer.py",
        "-(-slots // spec.max_steps)",
        "slots // spec.max_steps // 2",
        (DECLARED,),
    ),
    Mutant(
        "lost-observations-made-up",
        "If a final observation was overwritten, another one is used in its place.",
        "jaxrl/replay/buffer.py",
        "valid=has_mass & ~lost,",
        "valid=has_mass,",
        ("tests/replay/test_replay.py::test_rows_without_their_final_observation_are_invalid",),
    ),
    Mutant(
        "old-final-observations-mixed-up",
        "Final observations of an older run's buffer are given to other truncations.",
        "jaxrl/replay/saved.py",
        "index[member, slot, copy] % num_old",
        "number % num_old",
        (
            "tests/replay/test_saved.py::"
            "test_one_ring_of_final_observations_becomes_one_for_each_copy[None-40]",
        ),
    ),
    Mutant(
        "the-unwritten-is-drawn",
        "Slots that were never written are sampled.",
        "jaxrl/replay/buffer.py",
        "age = jax.random.randint(age_key, size, 0, jnp.maximum(num_starts, 1))",
        "age = jax.random.randint(age_key, size, -self.num_slots + 1, num_starts)",
        (f"{HAPPENED}[several]",),
    ),
    Mutant(
        "new-steps-without-priority",
        "New steps get priority 1 instead of the largest priority.",
        "jaxrl/replay/buffer.py",
        "jnp.where(new[:, None], state.top_priority, 0.0)",
        "jnp.where(new[:, None], jnp.minimum(state.top_priority, 1.0), 0.0)",
        ("tests/replay/test_replay.py::test_only_new_steps_get_the_top_priority",),
    ),
    Mutant(
        "priorities-squared",
        "Sampling does not follow the stated probabilities.",
        "jaxrl/replay/sum_tree.py",
        "children = level.reshape(-1, WIDTH)[node]",
        "children = level.reshape(-1, WIDTH)[node] ** 1.2",
        ("tests/replay/test_replay.py::test_prioritised_draws_have_the_stated_probabilities",),
    ),
    Mutant(
        "sums-not-carried-up",
        "An update of the sum tree does not reach the root.",
        "jaxrl/replay/sum_tree.py",
        'levels.append(above.at[index].set(sums, mode="drop"))',
        "levels.append(above + 0.0 * sums[0])",
        ("tests/replay/test_replay.py::test_sum_tree_holds_the_sums_of_its_leaves",),
    ),
)
