"""calibrate: what each theta would keep, without computing or deciding anything again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ptta_core import columns as cols
from ptta_core.config import ConfigError, Recipe
from ptta_core.memo import now
from ptta_core.ops import runs
from ptta_core.report import ClipCard, ReportData, write_report
from ptta_core.report.data import PAPER_THETAS
from ptta_core.report.ticks import nice_ticks
from ptta_core.rows import Source
from ptta_core.stages.select import SelectItem, decide, solve
from ptta_core.view import View

PERCENTS = (5, 10, 20, 25, 50, 75, 90)  # of the scored clips: which theta keeps so many


class Calibration:
    """The scored clips of a view, sorted by S: what passes every rule but theta, and what a person keeps."""

    def __init__(self, view: View) -> None:
        config = view.recipe.select
        item: SelectItem = view.items("select").make([0])[0]
        decided = decide(item, config.model_copy(update={"theta": -np.inf, "target": ""}))
        order = np.argsort(-decided["score"].to_numpy(), kind="stable")
        self.view, self.config, self.total = view, config, len(order)
        self.clip_id = decided["clip_id"].take(order)
        self.score = decided["score"].to_numpy()[order]
        self.passes = np.asarray(decided["kept"])[order]
        self.by_hand = np.zeros(len(order), bool)
        if item.words:
            self.by_hand = np.array([clip_id in item.words for clip_id in self.clip_id.to_pylist()]) & self.passes
        clips = view.rows("split", ["clip_id", "source_id", "start_s", "end_s"], ordered=False)
        at = np.asarray(cols.where(self.clip_id, clips["clip_id"]))
        self.start_s, self.end_s = (clips[name].to_numpy()[at] for name in ("start_s", "end_s"))
        self.source_id = clips["source_id"].take(at)

    @property
    def length_s(self) -> np.ndarray:
        """Seconds of each clip."""
        return self.end_s - self.start_s

    def theta(self) -> float:
        """The theta of the recipe, or the one that its target asks for."""
        import pyarrow as pa

        table = pa.table({"duration_s": self.length_s})
        return solve(table, self.score, self.passes & ~self.by_hand, self.by_hand, self.config)[0]

    def keeps(self, theta: float) -> np.ndarray:
        """Which clips a theta keeps, with every other rule and every word of a person as they are."""
        return self.passes & ((self.score >= theta) | self.by_hand)

    def row(self, theta: float) -> dict[str, Any]:
        """theta, clips, share (0..1 of the scored clips), hours."""
        kept = self.keeps(theta)
        return {"theta": round(float(theta), 4), "clips": int(kept.sum()),
                "share": round(float(kept.mean()), 4) if len(kept) else 0.0,
                "hours": round(float(self.length_s[kept].sum()) / 3600, 4)}  # fmt: skip

    def table(self) -> list[dict[str, Any]]:
        """A row a theta: round values over the range of S, the paper's, and the recipe's own (marked `here`)."""
        finite = self.score[np.isfinite(self.score)]
        if not len(finite):
            return []
        low, high = np.quantile(finite, [0.05, 0.95])
        here = self.theta()
        tried = {*nice_ticks(float(low), float(high), 14), *PAPER_THETAS, *([here] if np.isfinite(here) else [])}
        return [self.row(theta) | {"here": theta == here} for theta in sorted(tried)]

    def percents(self) -> list[dict[str, Any]]:
        """Which theta keeps 5, 10, ... percent of the scored clips, as far as the other rules let so many through."""
        left = self.score[self.passes & ~self.by_hand]
        found = []
        for percent in PERCENTS:
            wanted = round(percent / 100 * self.total) - int(self.by_hand.sum())
            if 0 < wanted <= len(left):
                found.append({"percent": percent} | self.row(left[wanted - 1]))
        return found

    def distribution(self, bins: int = 20) -> dict[str, list[float]]:
        """Clips by S in equal bins: `edges` (bins + 1) and `clips`."""
        finite = self.score[np.isfinite(self.score)]
        counts, edges = np.histogram(finite, bins) if len(finite) else (np.zeros(0), np.zeros(0))
        return {"edges": [round(float(edge), 4) for edge in edges], "clips": [int(one) for one in counts]}

    def near(self, count: int) -> dict[str, list[dict[str, Any]]]:
        """The clips just above and just below the line, nearest first."""
        theta = self.theta()
        open_ = self.passes & ~self.by_hand
        above, below = np.flatnonzero(open_ & (self.score >= theta))[::-1], np.flatnonzero(open_ & (self.score < theta))
        return {"above": [self._clip(at) for at in above[:count]], "below": [self._clip(at) for at in below[:count]]}

    def _clip(self, at: int) -> dict[str, Any]:
        return {"clip_id": self.clip_id[at].as_py(), "score": round(float(self.score[at]), 4),
                "source_id": self.source_id[at].as_py(), "start_s": float(self.start_s[at]),
                "end_s": float(self.end_s[at])}  # fmt: skip


def calibrate(view: View, near: int = 6) -> dict[str, Any]:
    """Everything that helps to choose a theta, as plain values. Raises StageError when nothing has been scored."""
    found = Calibration(view)
    return {"recipe": view.recipe.name, "scored": found.total, "pass_other_rules": int(found.passes.sum()),
            "by_hand": int(found.by_hand.sum()), "theta": found.theta(), "target": view.recipe.select.target,
            "thetas": found.table(), "percents": found.percents(), "distribution": found.distribution(),
            "near": found.near(near)}  # fmt: skip


def rows(view: View) -> list[dict[str, Any]]:
    """What each theta would keep, a row a theta: for a table in Prefect or a report."""
    return Calibration(view).table()


def with_sources(view: View) -> View:
    """The view with the sources of the recipe's last run here, where the recipe itself names none.

    Raises ConfigError when there is no such run.
    """
    if view.recipe.sources.folders or view.recipe.sources.cartoon is not None:
        return view
    record = runs.last(view.store, recipe=view.recipe.name)
    if record is None:
        raise ConfigError(f"recipe {view.recipe.name} names no sources and has not run in {view.home}; "
                          "name a folder with --videos")  # fmt: skip
    sources = Recipe.model_validate(json.loads(record["recipe_json"])).sources
    return View(view.recipe.model_copy(update={"sources": sources}), view.site, view.stage, view.options)


def sheet(view: View, found: dict[str, Any], path: Path) -> None:
    """A contact sheet of the clips around the line, as one HTML file."""
    from ptta_core.ops.cards import thumbnails

    near = [(kept, clip) for kept, name in ((True, "above"), (False, "below")) for clip in found["near"][name]]
    view.items("score")
    pictures = thumbnails(view, {clip["clip_id"] for _, clip in near})
    names = {row["source_id"]: row["path"] for row in view.rows("gather", ["source_id", "path"], Source).to_pylist()}
    line = f"theta {found['theta']:g}"
    cards = [ClipCard(clip["clip_id"], Path(names.get(clip["source_id"], "?")).name, clip["start_s"], clip["end_s"],
                      score=clip["score"], kept=kept, reason=f"S {'>=' if kept else '<'} {line}",
                      thumbnail_jpeg=pictures.get(clip["clip_id"])) for kept, clip in near]  # fmt: skip
    write_report(ReportData(recipe=f"{view.recipe.name}: around {line}", run_id="", started=now(), ended=now(),
                            site=view.site.name, workspace=view.home.name, theta=found["theta"],
                            alpha=view.recipe.select.alpha, clips=cards), path)  # fmt: skip


def as_text(found: dict[str, Any]) -> str:
    """For people."""
    target = f", from select.target {found['target']}" if found["target"] else ""
    lines = [f"{found['scored']} scored clips, {found['pass_other_rules']} pass every rule but theta, "
             f"{found['by_hand']} of them kept by hand; theta {found['theta']:g}{target}", "",
             "     theta    clips   share     hours"]  # fmt: skip
    lines += [f"{row['theta']:10g} {row['clips']:8} {row['share']:7.1%} {row['hours']:9.2f}"
              f"{'  <- here' if row['here'] else ''}" for row in found["thetas"]]  # fmt: skip
    lines += ["", "to keep   theta"] + [f"{row['percent']:5} % {row['theta']:8g}" for row in found["percents"]]
    counts, edges = found["distribution"]["clips"], found["distribution"]["edges"]
    most = max(counts, default=0)
    lines += ["", "     S from    clips"] if counts else []
    lines += [f"{edge:11.2f} {count:8} {'#' * round(40 * count / most)}" for edge, count in zip(edges, counts)]
    for name in ("above", "below"):
        lines += ["", f"just {name} the line:"]
        lines += [f"  {clip['clip_id']}  S {clip['score']:.2f}  {clip['start_s']:.2f} to {clip['end_s']:.2f} s"
                  for clip in found["near"][name]] or ["  none"]  # fmt: skip
    return "\n".join(lines)
