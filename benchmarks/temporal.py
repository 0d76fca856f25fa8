"""How `train.temporal_loss_weight` trades motion for consistency: one adapter a weight, judged without weights.

    python benchmarks/temporal.py [--weights 0 0.5 2 8] [--recipe demo] [--site laptop] [--workspace DIR]
                                  [--videos DIR] [--set FIELD=VALUE] [--svg FILE] [--json] [--markdown]

Each weight trains an adapter on the same latents and generates the same prompts and seeds; their dynamic degree (how
much moves) is plotted against their warp error (how much changes that motion does not explain: less is more steady).
What a workspace has already is not computed again. With the demo's random base, which is the default, the sweep shows
that it runs, and nothing about what the weight does to a trained model.
"""

import argparse
import html
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import Result, arguments, say, scratch, show

from ptta_core import fleet, memo, stages
from ptta_core.config import parse_overrides
from ptta_core.ops import runs
from ptta_core.view import View

RANDOM = "random base model: this shows that the sweep runs, not a result"
MEASURES = ("dynamic_degree", "warp_error", "flicker")  # ratio, grey levels, grey levels: see models/judge.py
QUICK = {"train.epochs": 1, "generate.limit": 1, "generate.steps": 2, "generate.seeds": [0]}
SEEDS = {"generate.seeds": [0, 1, 2]}
WIDTH, HEIGHT, LEFT, FOOT = 620, 340, 62, 44  # px of the plot


@dataclass(frozen=True)
class Point:
    """What the videos of one variant measure: means over prompts and seeds, and the standard error of the mean."""

    name: str  # "base", or the weight
    means: dict[str, float]
    errors: dict[str, float]
    videos: int


def sweep(open_view: Callable[[dict[str, float]], View], weights: Sequence[float]) -> list[Point]:
    """The base, then an adapter a weight. open_view: of recipe overrides."""
    points: list[Point] = []
    for weight in weights:
        view = open_view({"train.temporal_loss_weight": weight})
        for name in stages.RIVER:
            memo.run(view.stage(name), view)
        rows = [row for row in view.rows("evaluate").to_pylist() if row["judge"] == "measures"]
        if not points:
            points.append(point("base", [row for row in rows if row["variant"] == "base"]))
        points.append(point(f"{weight:g}", [row for row in rows if row["variant"] == "adapter"]))
        say(f"weight {weight:g}: {points[-1].means}")
    return points


def point(name: str, rows: list[dict]) -> Point:
    """Means over the videos of one variant."""
    values = {what: [row["value"] for row in rows if row["dimension"] == what] for what in MEASURES}
    count = len(values[MEASURES[0]])
    means = {what: statistics.fmean(found) for what, found in values.items()}
    errors = {what: statistics.stdev(found) / count**0.5 if count > 1 else 0.0 for what, found in values.items()}
    return Point(name, means, errors, count)


@dataclass(frozen=True)
class Axis:
    """A measure along a side of the plot: values from `low` to `high` lie between `first` and `last` px."""

    what: str
    low: float
    high: float
    first: float
    last: float

    def at(self, value: float) -> float:
        """Where a value lies, px."""
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)

    def place(self, one: Point) -> tuple[float, float, float]:
        """Where a point lies, and the ends of its error bar."""
        mean, error = one.means[self.what], one.errors[self.what]
        return self.at(mean), self.at(mean - error), self.at(mean + error)


def axis(what: str, points: Sequence[Point], first: float, last: float) -> Axis:
    """An axis that holds all points with their error bars."""
    ends = [one.means[what] + sign * one.errors[what] for one in points for sign in (-1, 1)]
    room = 0.12 * (max(ends) - min(ends)) or 0.5
    return Axis(what, min(ends) - room, max(ends) + room, first, last)


def plot(points: Sequence[Point], note: str) -> str:
    """Dynamic degree (to the right: more motion) against warp error (down: more consistent), as SVG."""
    x = axis("dynamic_degree", points, LEFT, WIDTH - 16)
    y = axis("warp_error", points, HEIGHT - FOOT, 30)
    marks = "".join(_mark(x, y, one) for one in points)
    ends = "".join(_text(x.at(value), HEIGHT - FOOT + 16, f"{value:.3g}", "middle") for value in (x.low, x.high))
    ends += "".join(_text(LEFT - 6, y.at(value) + 4, f"{value:.3g}", "end") for value in (y.low, y.high))
    words = _text(WIDTH - 16, HEIGHT - 10, "dynamic degree: more moves", "end")
    words += _text(6, 14, "warp error, grey levels: less is more consistent") + _text(LEFT, HEIGHT - 10, note)
    frame = f'<path d="M{LEFT} 30V{HEIGHT - FOOT}H{WIDTH - 16}" stroke="#5a626c" fill="none"/>'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
            f'font-size="12"><rect width="100%" height="100%" fill="white"/>{frame}{ends}{marks}{words}'
            "</svg>")  # fmt: skip


def _mark(x: Axis, y: Axis, one: Point) -> str:
    (across, left, right), (down, bottom, top) = x.place(one), y.place(one)
    bars = f"M{left:.1f} {down:.1f}H{right:.1f}M{across:.1f} {bottom:.1f}V{top:.1f}"
    fill = "white" if one.name == "base" else "#2563b0"
    return (f'<path d="{bars}" stroke="#9aa3ad"/><circle cx="{across:.1f}" cy="{down:.1f}" r="5" fill="{fill}" '
            f'stroke="#2563b0"/>{_text(across + 8, down - 7, one.name)}')  # fmt: skip


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def table(points: Sequence[Point], note: str) -> Result:
    """What is printed."""
    result = Result()
    for one in points:
        name = "base, no adapter" if one.name == "base" else f"weight {one.name}"
        for what in MEASURES:
            result.note(what, name, f"{one.means[what]:.4g} ± {one.errors[what]:.2g} over {one.videos} videos")
    if note:
        result.note("", "**what this means**", note)
    result.figures |= {"points": [one.name for one in points], "random_base": bool(note)}
    result.figures |= {what: [one.means[what] for one in points] for what in MEASURES}
    return result


def main() -> None:
    """Measure, print and plot."""
    parser = arguments(__doc__, rounds=1)
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.5, 2.0, 8.0])
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--site", default="laptop")
    parser.add_argument("--workspace", help="kept and gone on with; a scratch folder by default")
    parser.add_argument("--videos", help="a folder of footage, in place of the recipe's")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="FIELD=VALUE")
    parser.add_argument("--svg", help="where the plot goes; beside the tables by default")
    asked = parser.parse_args()
    weights = asked.weights[:2] if asked.quick else asked.weights
    own = (QUICK if asked.quick else SEEDS) | parse_overrides(asked.overrides)
    with scratch() as folder:
        workspace = Path(asked.workspace or folder / "w")

        def open_view(changed: dict[str, float]) -> View:
            return runs.open_view(asked.recipe, asked.site, own | changed, str(workspace), asked.videos)

        try:
            points = sweep(open_view, weights)
        finally:
            fleet.stop()
        note = RANDOM if open_view({}).recipe.base.model.tiny else ""
        target = Path(asked.svg) if asked.svg else workspace / "temporal.svg"
        target.write_text(plot(points, note), encoding="utf-8")
        if asked.svg or asked.workspace:
            print(f"plot: {target}", file=sys.stderr)
    show(table(points, note), asked)


if __name__ == "__main__":
    main()
