"""Near-duplicates among a run's clips, grouped once: `select` keeps one of a group, `train` never splits a group."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ptta_core import columns as cols
from ptta_core.ids import digest
from ptta_core.view import View

GROUPS_VERSION = 1  # raise it when near-duplicates are found in another way


def duplicate_groups(view: View, scores: pa.Table) -> np.ndarray:
    """The number of each clip's group of near-duplicates, int32, -1 for none; in the order of `scores`.

    Neither theta nor any bound enters, so the groups of one set of scores are kept in a file for the next theta.
    """
    from ptta_core.models import phash

    distance = view.recipe.select.duplicate_distance
    named = digest("groups", GROUPS_VERSION, cols.set_digest(scores["content_id"]), distance)
    path, order = view.home / "cache" / f"duplicates-{named}.npy", cols.order(scores["clip_id"])
    groups = np.full(len(order), -1, np.int32)
    if path.is_file() and len(kept := np.load(path, allow_pickle=False)) == len(order):
        groups[order] = kept
        return groups
    table = view.rows("score", ["clip_id", "phash"], ordered=False)  # the same rows in the same order
    hashed = pc.fill_null(pc.greater(pc.binary_length(table["phash"]), 0), False)
    rows = np.flatnonzero(cols.whole(hashed).to_numpy(zero_copy_only=False))
    hashes = cols.whole(table["phash"].filter(hashed))
    if len(rows):
        _, offsets, text = hashes.buffers()
        ends = np.frombuffer(offsets, np.int32)[hashes.offset : hashes.offset + len(hashes) + 1]
        first = phash.group_words(phash.words_of(text.slice(ends[0], ends[-1] - ends[0])), distance)
        groups[rows[first >= 0]] = rows[first[first >= 0]]  # a group is named by its first member's row
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    with unfinished.open("wb") as file:
        np.save(file, groups[order])
    unfinished.replace(path)
    return groups
