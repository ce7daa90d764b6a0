"""Replay buffers from checkpoints of older versions, or of another number of devices."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrl.replay.sum_tree import WIDTH, SumTree

Arrays = Mapping[str, np.ndarray]
LEVELS = "buffer.priorities.levels."


def fitted(arrays: Arrays, wanted: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The same arrays, with those of a replay buffer laid out as wanted.

    Args:
      arrays: of a checkpoint, by name (`buffer.steps.reward`).
      wanted: by the same names, anything with the shapes that are needed.
    """
    found, counts = dict(arrays), "buffer.num_truncated"
    if counts in wanted and counts in found and found[counts].shape != wanted[counts].shape:
        found |= _finals_of_each_copy(arrays, wanted)
    before, now = ([x.shape for x in _levels(of)] for of in (arrays, wanted))
    if before and now and before != now:
        found = {k: x for k, x in found.items() if not k.startswith(LEVELS)}
        found |= _priorities(arrays, wanted)
    return found


def _finals_of_each_copy(arrays: Arrays, wanted: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Rings of final observations for each copy, from one that all copies shared (schema 4)."""
    shape = wanted["buffer.num_truncated"].shape
    members, num_copies = int(np.prod(shape[:-1])), shape[-1]
    names = [k for k in arrays if k == "buffer.final_obs" or k.startswith("buffer.final_obs.")]
    lead = len(shape) - 1
    old = {k: arrays[k].reshape(members, *arrays[k].shape[lead:]) for k in names}
    new = {
        k: np.zeros((members, *wanted[k].shape[lead:]), arrays[k].dtype) for k in names
    }  # [M, F, N, ...]
    num_old, num_new = old[names[0]].shape[1], new[names[0]].shape[1]
    index, truncated, terminated = (
        arrays[f"buffer.{k}"].reshape(members, -1, num_copies)
        for k in ("final_index", "steps.truncated", "steps.terminated")
    )
    total = arrays["buffer.num_truncated"].reshape(members, 1, 1)
    cut = truncated & ~terminated
    kept = cut & (total - index <= num_old)
    new_index, counts = np.zeros_like(index), np.zeros((members, num_copies), np.int32)
    for member, copy in np.ndindex(members, num_copies):
        slots = np.flatnonzero(kept[member, :, copy])
        slots = slots[np.argsort(index[member, slots, copy])]  # from the oldest
        counts[member, copy] = len(slots)
        new_index[member, :, copy] = len(slots) - num_new - 1  # lost, unless found below
        new_index[member, slots, copy] = np.arange(len(slots))
        for number, slot in enumerate(slots):
            for k in names:
                new[k][member, number % num_new, copy] = old[k][
                    member, index[member, slot, copy] % num_old
                ]
    return {
        **{k: x.reshape(wanted[k].shape) for k, x in new.items()},
        "buffer.final_index": new_index.reshape(arrays["buffer.final_index"].shape),
        "buffer.num_truncated": counts.reshape(shape),
    }


def _levels(arrays: Mapping[str, Any]) -> list[Any]:
    """The levels of the sum tree, from the leaves."""
    names = [name for name in arrays if name.startswith(LEVELS)]
    return [arrays[name] for name in sorted(names, key=lambda name: int(name.rsplit(".", 1)[1]))]


def _priorities(arrays: Arrays, wanted: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Sum trees of the wanted number of devices, one beside the other, from those of another."""
    *lead, num_slots, num_copies = arrays["buffer.steps.reward"].shape
    levels = _levels(arrays)
    before, after = (x[-1].shape[-1] // WIDTH for x in (levels, _levels(wanted)))
    trees = levels[0].reshape(-1, before, levels[0].shape[-1] // before)
    trees = trees[..., : num_slots * num_copies // before]
    by_copy = np.moveaxis(trees.reshape(-1, before, num_slots, num_copies // before), 1, 2)
    split = by_copy.reshape(-1, num_slots, after, num_copies // after)
    sums = np.moveaxis(split, 2, 1).reshape(-1, after, num_slots * num_copies // after)
    found = {}
    for i, size in enumerate(SumTree.sizes(sums.shape[-1])):
        level = np.pad(sums, [(0, 0), (0, 0), (0, size - sums.shape[-1])])
        found[f"{LEVELS}{i}"] = level.reshape(*lead, -1)
        sums = level.reshape(*level.shape[:2], -1, WIDTH).sum(-1)
    return found
