"""The clips of a run for its report: all of them as columns, and the cards of a bounded number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ptta_core import columns as cols
from ptta_core.memo import StageError
from ptta_core.report.data import ClipCard, Columns, LookCard
from ptta_core.rows import Decoded, Thumbnail
from ptta_core.view import View

MOST_CARDS = 12_000
EMBEDDED = 200  # clips whose picture goes into the page
NEAR = 6  # clips on each side of the line between kept and not kept, shown beside the figures
NEAR_CARDS = 200  # clips nearest to theta that have a card whatever else is left out


def table(view: View, name: str, columns: list[str], noun: type | None = None) -> pa.Table | None:
    """Columns of a stage that this run reached, in no order; None for the others."""
    if name not in view.resolved():
        return None
    try:
        return view.rows(name, columns, noun, ordered=False)
    except StageError:
        return None


def clips(view: View) -> tuple[list[ClipCard], Columns | None, list[str]]:
    """(cards, the kept ones first by S; every clip as columns; the ids of the clips nearest to theta).

    At most MOST_CARDS cards: those nearest to theta, then the kept ones by S, then the others by how near they are.
    """
    spans = table(view, "split", ["clip_id", "source_id", "start_s", "end_s"])
    if spans is None or not spans.num_rows:
        return [], None, []
    spans = cols.sort_by_id(spans, "clip_id")
    again = pc.equal(spans["clip_id"][1:], spans["clip_id"][:-1])
    if pc.any(again).as_py():
        spans = spans.filter(pa.array(np.r_[True, ~np.asarray(again)]))
    beside = _beside(spans["clip_id"], table(view, "score", ["clip_id", "motion_px", "aesthetic"]),
                     table(view, "select", ["clip_id", "score", "kept", "reason"]))  # fmt: skip
    kept = np.asarray(pc.fill_null(pc.cast(beside["kept"], pa.int8()), -1))
    motion, looks, score = (np.asarray(pc.fill_null(beside[name], np.nan), np.float64)
                            for name in ("motion_px", "aesthetic", "score"))  # fmt: skip
    seconds = np.subtract(spans["end_s"], spans["start_s"])
    whole = Columns(motion, looks, score, seconds, kept, pc.count_distinct(spans["source_id"]).as_py())
    chosen, near = _chosen(whole, view.recipe.select.theta)
    ids = spans["clip_id"].take(pa.array(chosen)).to_pylist()
    near_ids = spans["clip_id"].take(pa.array(near)).to_pylist()
    rows = [one | two for one, two in zip(spans.take(pa.array(chosen)).to_pylist(), beside.take(pa.array(chosen))
                                          .to_pylist())]  # fmt: skip
    return _cards(view, rows, {*ids[: EMBEDDED - len(near_ids)], *near_ids}), whole, near_ids


def _beside(clip_ids: Any, scores: pa.Table | None, selection: pa.Table | None) -> pa.Table:
    """motion_px, aesthetic, score, kept and reason of each clip; null where there is none."""
    kinds = {"motion_px": pa.float64(), "aesthetic": pa.float64(), "score": pa.float64(), "kept": pa.bool_(),
             "reason": pa.string()}  # fmt: skip
    found = {}
    for name, kind in kinds.items():
        owner = scores if name in ("motion_px", "aesthetic") else selection
        found[name] = pa.nulls(len(clip_ids), kind) if owner is None else owner[name].take(
            cols.where(clip_ids, owner["clip_id"]))  # fmt: skip
    return pa.table(found)


def _chosen(whole: Columns, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows that get a card, the kept ones first by S; and the rows just above and just below theta, by S."""
    score = np.nan_to_num(whole.score, nan=-np.inf)
    apart = np.where(np.isfinite(score), np.abs(score - theta), np.inf)
    by_nearness = np.argsort(apart, kind="stable")
    rank = np.empty(len(score))
    rank[by_nearness] = np.arange(len(score)) + len(score)  # the others, by nearness
    by_score = np.argsort(-score, kind="stable")
    first = by_score[whole.kept[by_score] == 1]
    rank[first] = np.arange(len(first))
    rank[by_nearness[:NEAR_CARDS]] = -1
    order = np.lexsort((-score, whole.kept != 1))
    few = np.argsort(rank, kind="stable")[:MOST_CARDS]
    taken = np.zeros(len(score), bool)
    taken[few] = True
    decided = by_nearness[(whole.kept[by_nearness] >= 0) & np.isfinite(score[by_nearness])]
    near = np.r_[decided[score[decided] >= theta][:NEAR], decided[score[decided] < theta][:NEAR]]
    return order[taken[order]], near[np.argsort(-score[near], kind="stable")]


def _cards(view: View, rows: list[dict[str, Any]], pictured: set[str]) -> list[ClipCard]:
    ids = pa.array([row["clip_id"] for row in rows], pa.string())
    words = _texts(table(view, "caption", ["clip_id", "text"]), "text", ids)
    admitted = table(view, "admit", ["clip_id", "kept", "reason"])
    refused = _texts(None if admitted is None else admitted.filter(pc.invert(admitted["kept"])), "reason", ids)
    names = view.source_names() if "gather" in view.resolved() else {}
    pictures = thumbnails(view, pictured)
    cards = []
    for row in rows:
        clip_id = row["clip_id"]
        reason = f"not admitted: {refused[clip_id]}" if clip_id in refused else row["reason"] or ""
        name = Path(names.get(row["source_id"], "?")).name
        cards.append(ClipCard(clip_id, name, row["start_s"], row["end_s"], row["motion_px"], row["aesthetic"],
                              row["score"], row["kept"], reason, words.get(clip_id, ""),
                              pictures.get(clip_id)))  # fmt: skip
    return cards


def _texts(found: pa.Table | None, name: str, ids: pa.Array) -> dict[str, str]:
    """clip_id -> a text, of these clips only."""
    if found is None:
        return {}
    found = found.filter(pc.is_in(found["clip_id"], ids))
    return dict(zip(found["clip_id"].to_pylist(), found[name].to_pylist()))


def thumbnails(view: View, wanted: set[str]) -> dict[str, bytes]:
    """clip_id -> JPEG for these clips only."""
    found = table(view, "score", ["key", "clip_id"], Thumbnail)
    if found is None:
        return {}
    found = found.filter(pc.is_in(found["clip_id"], pa.array(sorted(wanted), pa.string())))
    keys = dict(zip(found["key"].to_pylist(), found["clip_id"].to_pylist()))
    return {keys[key]: jpeg for key, jpeg in view.store.take_bytes("thumbnails", sorted(keys), "jpeg").items()}


def looks(view: View) -> list[LookCard]:
    """The decoded latents of this run, by bucket and id, with what was learnt with them; [] before encode."""
    found = table(view, "encode", ["key", "latent_id"], Decoded)
    if found is None or not found.num_rows:
        return []
    keys = dict(zip(found["key"].to_pylist(), found["latent_id"].to_pylist()))
    pictures = {keys[key]: jpeg for key, jpeg in view.store.take_bytes("decoded", sorted(keys), "jpeg").items()}
    columns = ["latent_id", "clip_id", "bucket", "start_s", "end_s", "prompt", "speed"]
    latents = view.rows("encode", columns, ordered=False)
    rows = latents.filter(pc.is_in(latents["latent_id"], pa.array(sorted(pictures), pa.string()))).to_pylist()
    names = view.source_names()
    files = {clip["clip_id"]: Path(names[clip["source_id"]]).name
             for clip in view.clip_rows({row["clip_id"] for row in rows})}  # fmt: skip
    return [LookCard(row["clip_id"], row["bucket"], files[row["clip_id"]], row["start_s"], row["end_s"], row["prompt"],
                     pictures[row["latent_id"]], row["speed"] or 1.0)
            for row in sorted(rows, key=lambda row: (row["bucket"], row["latent_id"]))]  # fmt: skip
