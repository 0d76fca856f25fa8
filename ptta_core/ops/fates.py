"""fates: what became of each clip that was selected: learnt whole, shortened, or not at all, in counts that add up.

Nothing here is stored: it follows from the selection, the windows of each clip (windows.py), captions, admissions,
latents and failures. Seconds of clips are seconds of footage; seconds learnt are those that the model sees.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from ptta_core.report.text import count, duration, plural
from ptta_core.view import View
from ptta_core.windows import Plan, Window, item_id, length_s, plan

FATES = ("whole", "shortened", "dropped", "refused", "failed", "not reached")
LESS = "less than a frame"
NAMED = 6  # small buckets that a sentence names


@dataclass(frozen=True)
class ClipFate:
    """One selected clip. selected_s = learnt_s + the sum of lost_s."""

    clip_id: str
    fate: str  # one of FATES
    why: str  # "33 of 48 frames: encode.frames"
    latents: int
    selected_s: float
    learnt_s: float
    lost_s: dict[str, float]  # why -> seconds

    @property
    def cause(self) -> str:
        """The fate with what cost most, if anything was lost to speak of: "shortened: encode.frames"."""
        if self.fate in ("whole", "not reached"):
            return self.fate
        worst = max(self.lost_s, key=lambda why: self.lost_s[why])
        return worst if worst.startswith(self.fate) else f"{self.fate}: {worst}"


class Known:
    """What the tables say of the windows of a run: its latents, and why others have none."""

    def __init__(self, view: View) -> None:
        self.whole = view.recipe.caption.of == "clip"
        self.latents = set(view.rows("encode", ["item_id"], ordered=False)["item_id"].to_pylist())
        failures = [row for name in ("caption", "encode") for row in view.open_failures(name)]
        self.failed = {row["item_id"]: f"failed: {row['kind']}" for row in failures}
        refused = {row["caption_id"]: f"refused: {admit_rule(row['reason'])}" for row in
                   view.rows("admit", ["caption_id", "kept", "reason"]).to_pylist() if not row["kept"]}  # fmt: skip
        captions = view.rows("caption", ["item_id", "caption_id"], ordered=False).to_pylist()
        self.refused = {row["item_id"]: refused[row["caption_id"]] for row in captions if row["caption_id"] in refused}

    def lost(self, clip_id: str, window: Window) -> str:
        """Why a window was not learnt; "" where it was."""
        own, of_caption = item_id(clip_id, window), item_id(clip_id, None if self.whole else window)
        if own in self.latents:
            return ""
        return self.refused.get(of_caption) or self.failed.get(own) or self.failed.get(of_caption) or "not reached"


def fates(view: View, wanted: Iterable[str] | None = None) -> list[ClipFate]:
    """A ClipFate a selected clip of a run that reached encode, or of the wanted ones among them, by clip_id."""
    rows = view.rows("select", ["clip_id", "kept"], ordered=False)
    kept = set(rows.filter(rows["kept"])["clip_id"].to_pylist())
    known = Known(view)
    return [_fate(clip, view, known) for clip in view.clip_rows(kept if wanted is None else kept & set(wanted))]


def _fate(clip: dict[str, Any], view: View, known: Known) -> ClipFate:
    clip_id, seconds = clip["clip_id"], float(length_s(clip))
    try:
        planned = plan(clip, view.recipe.encode)
    except ValueError as error:
        kind = getattr(error, "kind", "unfit")
        return ClipFate(clip_id, "dropped", str(error), 0, seconds, 0.0, {f"dropped: {kind}": seconds})
    left_out = Counter(known.lost(clip_id, window) for window in planned.windows)
    each_s = float(planned.windows[0].shown_s)  # the windows of a clip are equally long
    lost = {why: many * each_s for why, many in left_out.items() if why}
    lost[planned.cut or LESS] = seconds - float(planned.shown_s)
    latents = left_out.pop("", 0)
    fate = "shortened" if planned.cut or left_out else "whole"
    if not latents:
        fate = next(iter(left_out)).partition(":")[0]
    return ClipFate(clip_id, fate, _why(planned, latents, left_out), latents, seconds,
                    latents * each_s, lost)  # fmt: skip


def _why(planned: Plan, latents: int, left_out: Counter[str]) -> str:
    """In words: how much of a clip its windows take and why no more, and which of them were not learnt."""
    taken = sum(window.frames for window in planned.windows)
    said = [f"{taken} of {planned.held} frames{f': {planned.cut}' if planned.cut else ''}"]
    if planned.cut == "time-lapse":
        said[0] += f", {float(planned.windows[0].speed):.2f} times its speed"
    if len(planned.windows) > 1:
        said.append(f"{latents} of {len(planned.windows)} windows learnt")
    return "; ".join([*said, *(f"{many} {why}" for why, many in left_out.items())])


def admit_rule(reason: str) -> str:
    """The field of the recipe that a refused caption's reason names."""
    found = re.search(r"^refuse \w+|min_words|max_words|max_repeats", reason)
    return f"admit.{found[0]}" if found else "unknown"


# ------------------------------------------------------------------------------------------------- added up


def footage(view: View) -> dict[str, Any]:
    """What a run that reached encode learns from, added up: clips by fate, seconds, latents, buckets, cut prompts.

    {} for a run that did not get there.
    """
    if not {"select", "caption", "admit", "encode"} <= view.resolved().keys() | view.pinned.get("inputs", {}).keys():
        return {}
    found = fates(view)
    counts, lost = Counter(one.fate for one in found), Counter[str]()
    for one in found:
        lost.update(one.lost_s)
    rows = view.rows("encode", ["bucket", "text_cut"], ordered=False)
    buckets = {row["values"]: row["counts"] for row in pc.value_counts(rows["bucket"]).to_pylist()}
    return {
        "clips": {"selected": len(found)} | {fate: counts[fate] for fate in FATES},
        "seconds": {"selected": sum(one.selected_s for one in found), "learnt": sum(one.learnt_s for one in found),
                    "lost": dict(lost.most_common())},
        "causes": dict(Counter(one.cause for one in found if one.fate != "whole").most_common()),
        "latents": rows.num_rows, "buckets": dict(sorted(buckets.items(), key=lambda pair: (-pair[1], pair[0]))),
        "batch": view.recipe.train.batch, "cut_prompts": pc.sum(pc.greater(rows["text_cut"], 0)).as_py() or 0,
    }  # fmt: skip


def sentences(found: dict[str, Any]) -> list[str]:
    """`footage` for people: what was learnt, what that left out, and what else should not go unsaid."""
    clips, seconds = found["clips"], found["seconds"]
    each = ", ".join(f"{count(clips[fate])} {fate}" for fate in FATES if clips[fate])
    lost = ", ".join(f"{duration(one)} {why}" for why, one in seconds["lost"].items() if one >= 0.05)
    said = [f"{plural(found['latents'], 'latent')} from {plural(clips['selected'], 'selected clip')}"
            f"{f' ({each})' if each else ''}",
            f"{duration(seconds['selected'])} selected, {duration(seconds['learnt'])} learnt"
            f"{f'; left out: {lost}' if lost else ''}"]  # fmt: skip
    small = {name: many for name, many in found["buckets"].items() if many < found["batch"]}
    if small:
        named = ", ".join(f"{name} ({many})" for name, many in list(small.items())[:NAMED])
        said.append(f"{count(len(small))} of {plural(len(found['buckets']), 'bucket')} hold fewer latents than "
                    f"train.batch = {found['batch']}, so their batches are smaller: {named}"
                    f"{', ...' if len(small) > NAMED else ''}")  # fmt: skip
    if found["cut_prompts"]:
        said.append(f"{plural(found['cut_prompts'], 'prompt')} longer than the text encoder reads, cut at its end "
                    "(latents.text_cut)")  # fmt: skip
    return said
