"""ledger: where every file and every clip of a run ended, in counts that add up, and why for any one of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ptta_core.config import ConfigError, Site
from ptta_core.looks import PREFIX
from ptta_core.ops import runs
from ptta_core.ops.edits import beginning
from ptta_core.ops.fates import ClipFate, admit_rule, fates, footage
from ptta_core.ops.show import open_store
from ptta_core.rows import Source
from ptta_core.stages.caption import BY_HAND
from ptta_core.stages.encode import admitted
from ptta_core.stages.select import rule_of
from ptta_core.store import Store
from ptta_core.view import View
from ptta_core.windows import clip_of


@dataclass(frozen=True)
class Stage:
    """What came in, what went on, and what became of the rest: count_in = count_out + the sum of `lost`."""

    stage: str
    noun_in: str
    count_in: float  # a whole number but for seconds
    noun_out: str
    count_out: float
    lost: dict[str, Any]  # why -> how many


@dataclass(frozen=True)
class Fate:
    """Where one file, source or clip ended."""

    what: str  # file | source | clip
    name: str
    end: str  # in the dataset | rejected | failed | removed | not reached
    stage: str
    why: str


def last_view(workspace: str, run: str | None = None) -> View:
    """The workspace as its last (or a named) run left it. Raises ConfigError when there is none."""
    store, site = open_store(workspace)
    record = runs.last(store, run_id=run)
    if record is None:
        raise ConfigError(f"no run {run!r} in {workspace}" if run else f"no run in {workspace} yet")
    return runs.view_of(record, Site(workspace=workspace, roots=site.roots))


def reached(view: View, name: str) -> bool:
    """Whether the run resolved what a stage has to do."""
    return name in view.pinned["inputs"]


# --------------------------------------------------------------------------------------------- the funnel


def funnel(view: View) -> list[Stage]:
    """One Stage a decision of the river that the run reached, from files to latents; then what is learnt of the clips.

    The last two take the selected clips up again, once counted and once in seconds: see fates.py.
    """
    steps = [_gather, _split, _score, _select, _caption, _admit, _encode]
    found = [step(view) for step in steps if reached(view, step.__name__[1:])]
    if learnt := footage(view):
        clips, seconds = learnt["clips"], learnt["seconds"]
        found.append(Stage("clips", "selected", clips["selected"], "learnt whole", clips["whole"], learnt["causes"]))
        found.append(Stage("seconds", "selected", seconds["selected"], "learnt", seconds["learnt"], seconds["lost"]))
    return found


def _gather(view: View) -> Stage:
    rows = view.rows("gather", ["source_id", "status"]).to_pylist()
    lost = _failed(view, "gather")
    lost["removed by hand"] = sum(row["status"] == "removed" for row in rows)
    good = [row["source_id"] for row in rows if row["status"] != "removed"]
    lost["the same bytes as another file"] = len(good) - len(set(good))
    return _stage("gather", "files", len(set(view.items("gather").input_ids)), "sources", len(set(good)), lost)


def _split(view: View) -> Stage:
    sources = set(view.items("split").input_ids)
    with_clips = set(view.rows("split", ["source_id"], ordered=False)["source_id"].unique().to_pylist())
    lost = _failed(view, "split")
    done = sources & view.ledger("split").done.keys()
    lost["no clips"] = len(done - with_clips)
    return _stage("split", "sources", len(sources), "sources with clips", len(with_clips), lost)


def _score(view: View) -> Stage:
    clips = len(set(view.items("score").input_ids))
    return _stage("score", "clips", clips, "scored clips", _count(view, "score"), _failed(view, "score"))


def _select(view: View) -> Stage:
    table = view.rows("select", ["kept", "reason"], ordered=False)
    rejected = table.filter(pc.invert(table["kept"]))["reason"]
    lost = Counter(f"rejected: {rule_of(reason)}" for reason in rejected.to_pylist())
    return _stage("select", "scored clips", _count(view, "score"), "kept clips", len(table) - len(rejected), lost)


def _caption(view: View) -> Stage:
    windows = len(set(view.items("caption").input_ids))
    noun = "windows" if view.recipe.caption.of == "window" else "kept clips"
    return _stage("caption", noun, windows, "captions", _count(view, "caption"), _failed(view, "caption"))


def _admit(view: View) -> Stage:
    rows = view.rows("admit", ["kept", "reason"]).to_pylist()
    lost = Counter(f"refused: {admit_rule(row['reason'])}" for row in rows if not row["kept"])
    kept = sum(row["kept"] for row in rows)
    return _stage("admit", "captions", _count(view, "caption"), "admitted captions", kept, lost)


def _encode(view: View) -> Stage:
    windows = sum(1 for _ in admitted(view))
    return _stage("encode", "admitted windows", windows, "latents", _count(view, "encode"), _failed(view, "encode"))


def _count(view: View, name: str) -> int:
    return len(view.rows(name, ["item_id"], ordered=False)["item_id"].unique())


def _failed(view: View, name: str) -> Counter[str]:
    rows = [row for row in view.open_failures(name) if not row["item_id"].startswith(PREFIX)]  # pictures for people
    return Counter(f"failed: {row['kind']}" for row in rows)


def _stage(stage: str, noun_in: str, count_in: int, noun_out: str, count_out: int, lost: Counter[str]) -> Stage:
    """What is neither out nor named lost was not reached: the run was stopped, or another has not come to it."""
    lost["not reached"] = count_in - count_out - sum(lost.values())
    return Stage(stage, noun_in, count_in, noun_out, count_out, {why: n for why, n in lost.most_common() if n})


# ------------------------------------------------------------------------------------ one file, source or clip


def explain(view: View, asked: str) -> list[Fate]:
    """Where a file (path, or the end of one), a source or a clip (id, or its beginning) ended, with its clips.

    Raises ConfigError when nothing is known by that name.
    """
    found = _files(view, asked)
    if found:
        return found
    known = view.store.read("sources", ["source_id"])["source_id"].unique()
    if pc.any(pc.starts_with(known, asked)).as_py():
        return _source(view, beginning(known, asked, "source"))
    known = view.store.read("clips", ["clip_id"])["clip_id"].unique()
    clip_id = beginning(known, asked, "clip")
    return [clip_fate(view, clip_id, _learnt(view, [clip_id]))]


def _files(view: View, asked: str) -> list[Fate]:
    """The fates of the files of that name, each followed by those of its clips."""
    fates: list[Fate] = []
    for failure in view.open_failures("gather"):
        if _named(view, failure["path"], asked):
            fates.append(_failure("file", failure["path"], failure))
    for row in view.rows("gather", ["path", "source_id", "status"]).to_pylist():
        if not _named(view, row["path"], asked):
            continue
        if row["status"] == "removed":
            fates.append(Fate("file", row["path"], "removed", "gather", _removal(view.store, row["source_id"])))
        else:
            fates += _source(view, row["source_id"], row["path"])
    return fates


def _named(view: View, path: str, asked: str) -> bool:
    return asked == path or path.endswith("/" + asked.lstrip("/")) or str(view.absolute(path)) == str(
        Path(asked).expanduser().resolve())  # fmt: skip


def _removal(store: Store, source_id: str) -> str:
    rows = store.read("edits", where=f"field = 'removed' AND clip_id = '{source_id}'").sort_by("at").to_pylist()
    return f"by hand ({rows[-1]['author']}, {rows[-1]['at'][:10]}): {rows[-1]['value']}" if rows else "by hand"


def _source(view: View, source_id: str, path: str = "") -> list[Fate]:
    """A source and its clips."""
    names = {row["source_id"]: row for row in view.rows("gather", ["source_id", "path", "licence"], Source).to_pylist()}
    what, name = ("file", path) if path else ("source", source_id)
    if source_id not in names:
        return [Fate(what, name, "not reached", "gather", "the last run does not have this source")]
    failures = [row for row in (view.open_failures("split") if reached(view, "split") else [])
                if row["item_id"] == source_id]  # fmt: skip
    if failures:
        return [_failure(what, name, failures[0])]
    if not reached(view, "split"):
        return [Fate(what, name, "not reached", "split", "the run ended before")]
    table = view.rows("split", ["clip_id", "source_id", "start_s"])
    clips = table.filter(pc.equal(table["source_id"], source_id)).sort_by("start_s")["clip_id"].to_pylist()
    learnt = _learnt(view, clips)
    ended = [clip_fate(view, clip_id, learnt) for clip_id in clips]
    ends = ", ".join(f"{count} {end}" for end, count in Counter(fate.end for fate in ended).most_common())
    licence = f"; licence {names[source_id]['licence']}" if names[source_id]["licence"] else ""
    end = "in the dataset" if any(fate.end == "in the dataset" for fate in ended) else "not in the dataset"
    return [Fate(what, name, end, "split", f"{len(clips)} clips: {ends or 'none'}{licence}"), *ended]


def clip_fate(view: View, clip_id: str, learnt: dict[str, ClipFate]) -> Fate:
    """How far a clip came in the run, and why no further. learnt: see _learnt."""
    if not reached(view, "split") or not _rows(view, "split", clip_id):
        return Fate("clip", clip_id, "not reached", "split",
                    "no clip of the last run: its source is not there, or it is split otherwise now")  # fmt: skip
    why, last = "", "split"
    for name in ("score", "select", "caption", "admit", "encode"):
        if not reached(view, name):
            break
        if name == "encode":
            one = learnt[clip_id]
            return _lost(view, name, clip_id, why) if not one.latents else Fate(
                "clip", clip_id, "in the dataset", name, f"{why}; learnt {one.fate}: {one.why}")  # fmt: skip
        rows = _rows(view, name, clip_id)
        if not rows:
            return _lost(view, name, clip_id, why)
        if not any(row.get("kept", True) for row in rows):
            return Fate("clip", clip_id, "rejected", name, rows[0]["reason"])
        why, last = rows[0]["reason"] if name == "select" else why, name
        if hand := sorted({row["captioner"] for row in rows if row.get("captioner", "").startswith(BY_HAND)}):
            why += f"; caption written {', '.join(hand)}"
    return Fate("clip", clip_id, "in the dataset", last, why)


def _learnt(view: View, clips: list[str]) -> dict[str, ClipFate]:
    """What became of those of the clips that were selected, once a run has reached encode."""
    return {one.clip_id: one for one in fates(view, clips)} if reached(view, "encode") else {}


def _lost(view: View, name: str, clip_id: str, why: str) -> Fate:
    """A clip that a stage has no row of: it failed, or its turn has not come."""
    for failure in view.open_failures(name):
        if clip_of(failure["item_id"]) == clip_id:
            return _failure("clip", clip_id, failure)
    return Fate("clip", clip_id, "not reached", name, f"not done yet{f'; {why}' if why else ''}")


def _rows(view: View, name: str, clip_id: str) -> list[dict[str, Any]]:
    own = {"select": ["kept", "reason"], "admit": ["kept", "reason"], "caption": ["captioner"]}
    columns = ["clip_id", *own.get(name, [])]
    table = view.rows(name, columns, ordered=False)
    return table.filter(pc.equal(table["clip_id"], clip_id)).to_pylist()


def _failure(what: str, name: str, row: dict[str, Any]) -> Fate:
    again = "can be retried with --retry-failed" if row["retryable"] else "will fail again"
    return Fate(what, name, "failed", row["stage"], f"{row['kind']}: {row['message']} ({again})")


# ------------------------------------------------------------------------------------------------- for people


def ledger(workspace: str, asked: str | None = None, run: str | None = None) -> list[dict[str, Any]]:
    """The funnel, or the fate of one thing, as plain values."""
    view = last_view(workspace, run)
    return [asdict(one) for one in (explain(view, asked) if asked else funnel(view))]


def as_text(found: list[dict[str, Any]]) -> str:
    """For people."""
    lines = []
    for row in found:
        if "end" in row:
            lines.append(f"{row['what']:6} {row['name']}\n       {row['end']} ({row['stage']}): {row['why']}")
            continue
        lines.append(f"{row['stage']:8} {_number(row['count_in'])} {row['noun_in']:16} -> "
                     f"{_number(row['count_out'])} {row['noun_out']}")  # fmt: skip
        lines += [f"{'':28}{_number(count)} {why}" for why, count in row["lost"].items()]
    return "\n".join(lines) or "nothing yet"


def _number(value: float) -> str:
    return f"{value:8}" if isinstance(value, int) else f"{value:8.1f}"
