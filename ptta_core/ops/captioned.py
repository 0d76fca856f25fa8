"""The captions of a run for its report: how many were judged, which flags they have, and the worst of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow.compute as pc

from ptta_core.ops.cards import table
from ptta_core.report.data import CaptionCard
from ptta_core.view import View

WORST = 40  # shown


def judged(view: View) -> dict[str, Any]:
    """The fields `captions`, `refused`, `flags` and `worst` of ReportData; {} before admit."""
    decided = table(view, "admit", ["clip_id", "caption_id", "kept", "reason", "flags"])
    if decided is None:
        return {}
    named = pc.fill_null(decided["flags"], "")
    counts: Counter[str] = Counter()
    for row in pc.value_counts(named).to_pylist():
        for flag in filter(None, row["values"].split(", ")):
            counts[flag] += row["counts"]
    doubtful = decided.filter(pc.or_(pc.invert(decided["kept"]), pc.not_equal(named, ""))).to_pylist()
    return {"captions": decided.num_rows, "refused": decided.num_rows - (pc.sum(decided["kept"]).as_py() or 0),
            "flags": counts.most_common(), "worst": _worst(view, doubtful)}  # fmt: skip


def _worst(view: View, rows: list[dict[str, Any]]) -> list[CaptionCard]:
    """The refused ones first, then those with most flags, then by clip."""
    rows = sorted(rows, key=lambda row: (row["kept"], -len((row["flags"] or "").split(", ")), row["clip_id"]))[:WORST]
    captions = table(view, "caption", ["caption_id", "text", "start_s", "end_s"])
    if captions is None:
        return []
    wanted = pc.is_in(captions["caption_id"], pc.cast([row["caption_id"] for row in rows], "string"))
    texts = {row["caption_id"]: row for row in captions.filter(wanted).to_pylist()}
    return [CaptionCard(row["clip_id"], said["text"], said["start_s"], said["end_s"], row["flags"] or "", row["kept"],
                        row["reason"]) for row in rows if (said := texts.get(row["caption_id"]))]  # fmt: skip
