"""Charts as inline SVG that keep their text size at every page width.

Horizontal places are percentages of the plot, vertical places are pixels, and curves live in a stretched inner SVG with
unscaled strokes; so one string serves a phone, a desk and a sheet of paper. Colours come from the page's style.
"""

import math
from dataclasses import dataclass

from ptta_core.report.text import count, esc, number
from ptta_core.report.ticks import nice_range, nice_step, nice_ticks, tick_label

HEIGHT = 190  # px of every plot
MOST_BARS = 30
MOST_POINTS = 800  # of a curve; more are thinned, keeping each bucket's extremes


@dataclass(frozen=True)
class Scale:
    """A linear axis: `low` and `high` in data units, and where its ticks are."""

    low: float
    high: float
    ticks: list[float]

    def share(self, value: float) -> float:
        """Where a value lies, 0 at `low` and 1 at `high`, held inside."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def label(self, tick: float) -> str:
        """A tick's text."""
        return tick_label(tick, self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else abs(tick) or 1.0)


@dataclass(frozen=True)
class Series:
    """A curve: its name (drawn at its end when `named`), its points and its class in the style."""

    name: str
    points: list[tuple[float, float]]
    style: str
    named: bool = False


def axis(low: float, high: float, ticks: int = 5) -> Scale:
    """An axis over [low, high] widened to round numbers."""
    low, high = nice_range(low, high, ticks)
    return Scale(low, high, nice_ticks(low, high, ticks))


def histogram(
    values: list[float], kept: list[bool], x_label: str, y_label: str, mark: tuple[float, str] | None = None
) -> str:
    """Counts of `values`, the kept ones at the foot of each bar; `mark` is a value and its name, drawn as a line.

    A long tail (beyond 1.5 times the 98th percentile) is gathered in the last bar, and a note says so.
    Values must be finite and at least one.
    """
    ordered = sorted(values)
    top = ordered[-1]
    usual = ordered[min(len(ordered) - 1, math.ceil(0.98 * len(ordered)))]
    cut = mark[0] if mark and ordered[0] < mark[0] <= 2 * top else ordered[0]
    tail = len(ordered) >= 50 and top > 1.5 * max(usual, cut)
    low, high = nice_range(min(ordered[0], cut), max(usual if tail else top, cut), MOST_BARS)
    width = nice_step(high - low, MOST_BARS)
    bars = max(1, round((high - low) / width))
    rejected_by_bar, kept_by_bar = [0] * bars, [0] * bars
    for value, is_kept in zip(values, kept):
        (kept_by_bar if is_kept else rejected_by_bar)[min(bars - 1, int((value - low) / width + 1e-9))] += 1
    tallest = max(map(sum, zip(kept_by_bar, rejected_by_bar)))
    x, y = Scale(low, high, nice_ticks(low, high, 5)), _count_axis(tallest)
    body = "".join(
        _bar(x, y, low + index * width, width, kept_by_bar[index], rejected_by_bar[index])
        for index in range(bars)
        if kept_by_bar[index] + rejected_by_bar[index]
    )
    said = f"{x_label}: {len(values)} values from {number(ordered[0])} to {number(top)}"
    note = f"The last bar holds everything from {number(high - width)} to {number(top)}." if tail else ""
    return _frame(x, y, body + (_mark(x, *mark) if mark else ""), x_label, y_label, said, note)


def _count_axis(tallest: int) -> Scale:
    low, high = nice_range(0, max(tallest, 1), 4)
    return Scale(low, high, [tick for tick in nice_ticks(low, high, 4) if tick == int(tick)])


def _bar(x: Scale, y: Scale, left: float, width: float, kept: int, rejected: int) -> str:
    place, wide = 100 * x.share(left), 100 * (x.share(left + width) - x.share(left))
    foot, neck, head = (HEIGHT * (1 - y.share(value)) for value in (0, kept, kept + rejected))
    box = f'x="{place:.2f}%" width="{wide:.2f}%"'
    parts = [f'<rect class="{name}" {box} y="{top:.1f}" height="{tall:.1f}"/>'
             for name, top, tall in (("kept", neck, foot - neck), ("not", head, neck - head)) if tall > 0]  # fmt: skip
    said = f"{number(left)} to {number(left + width)}: {count(kept)} kept, {count(rejected)} not"
    return f"<g><title>{esc(said)}</title>{''.join(parts)}</g>"


def _mark(x: Scale, value: float, name: str) -> str:
    share = x.share(value)
    side = 'text-anchor="end" dx="-6"' if share > 0.6 else 'dx="6"'
    outside = "" if x.low <= value <= x.high else " (outside)"
    return (f'<line class="mark" x1="{100 * share:.2f}%" x2="{100 * share:.2f}%" y1="-14" y2="{HEIGHT}"/>'
            f'<text class="mark" x="{100 * share:.2f}%" y="-6" {side}>{esc(name)}{outside}</text>')  # fmt: skip


def curves(series: list[Series], x_label: str, y_label: str, level: float | None = None) -> str:
    """Curves over a shared axis; `level` is a value drawn as a dashed horizontal.

    Points that are not finite are left out; at least one must remain.
    """
    drawn = [Series(one.name, _finite(one.points), one.style, one.named) for one in series]
    xs = [place for one in drawn for place, _ in one.points]
    ys = [value for one in drawn for _, value in one.points] + ([] if level is None else [level])
    x, y = Scale(min(xs), max(*xs, min(xs) + 1), _step_ticks(min(xs), max(xs))), axis(min(ys), max(ys), 4)
    inner = "".join(_curve(x, y, one) for one in drawn)
    body = f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 1000 {HEIGHT}" preserveAspectRatio="none">{inner}</svg>'
    body += "".join(_dot(x, y, one) for one in drawn if len(one.points) == 1)
    if level is not None:
        body = _level(y, level) + body
    names = [(HEIGHT * (1 - y.share(one.points[-1][1])), one) for one in drawn if one.named and one.points]
    reach = f"from {number(min(ys), 4)} to {number(max(ys), 4)}"
    said = f"{y_label} over {x_label}, {number(min(xs))} to {number(max(xs))}; {reach}"
    return _frame(x, y, body + _names(names), x_label, y_label, said, "", named=bool(names))


def smoothed(points: list[tuple[float, float]], span: int) -> list[tuple[float, float]]:
    """An exponential mean over about `span` points, corrected for its start (as Adam corrects its moments)."""
    decay = 1 - 1 / max(span, 1)
    total = weight = 0.0
    out = []
    for place, value in _finite(points):
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        out.append((place, total / weight))
    return out


def _finite(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(place, value) for place, value in points if math.isfinite(value)]


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(len(points) / (MOST_POINTS // 2))
    kept = []
    for first in range(0, len(points), size):
        bucket = points[first : first + size]
        ends = {min(bucket, key=lambda point: point[1]), max(bucket, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept


def _step_ticks(low: float, high: float) -> list[float]:
    return [tick for tick in nice_ticks(low, high, 5) if tick == int(tick)] or [low]


def _curve(x: Scale, y: Scale, series: Series) -> str:
    path = "L".join(f"{1000 * x.share(a):.1f} {HEIGHT * (1 - y.share(b)):.1f}" for a, b in _thin(series.points))
    return f'<path class="{series.style}" d="M{path}"/>' if len(series.points) > 1 else ""


def _dot(x: Scale, y: Scale, series: Series) -> str:
    (a, b), = series.points  # fmt: skip
    return f'<circle class="{series.style}" cx="{100 * x.share(a):.1f}%" cy="{HEIGHT * (1 - y.share(b)):.1f}" r="3.5"/>'


def _level(y: Scale, value: float) -> str:
    height = HEIGHT * (1 - y.share(value))
    return f'<line class="level" x1="0" x2="100%" y1="{height:.1f}" y2="{height:.1f}"/>'


def _names(names: list[tuple[float, Series]]) -> str:
    """Names at the ends of their curves, pushed apart to 14 px."""
    ordered = sorted(names, key=lambda pair: pair[0])
    places: list[float] = []
    for height, _ in ordered:
        places.append(max(height, places[-1] + 14) if places else height)
    excess = max(0.0, places[-1] - HEIGHT) if places else 0.0
    return "".join(f'<text class="name {one.style}" x="100%" dx="8" y="{place - excess + 4:.1f}">{esc(one.name)}</text>'
                   for place, (_, one) in zip(places, ordered))  # fmt: skip


def _frame(
    x: Scale, y: Scale, body: str, x_label: str, y_label: str, said: str, note: str, named: bool = False
) -> str:
    grid = "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{place:.1f}" y2="{place:.1f}"/>'
        f'<text x="-8" y="{place + 4:.1f}" text-anchor="end">{y.label(tick)}</text>'
        for tick in y.ticks
        for place in [HEIGHT * (1 - y.share(tick))]
    )
    feet = "".join(f'<line class="tick" x1="{place:.2f}%" x2="{place:.2f}%" y1="{HEIGHT}" y2="{HEIGHT + 5}"/>'
                   f'<text x="{place:.2f}%" y="{HEIGHT + 19}" text-anchor="middle">{x.label(tick)}</text>'
                   for tick in x.ticks for place in [100 * x.share(tick)])  # fmt: skip
    base = f'<line class="axis" x1="0" x2="100%" y1="{HEIGHT}" y2="{HEIGHT}"/>'
    labels = (f'<text class="label" x="-46" y="-20">{esc(y_label)}</text>'
              f'<text class="label" x="100%" y="{HEIGHT + 36}" text-anchor="end">{esc(x_label)}</text>')  # fmt: skip
    tail = f'<p class="fine">{esc(note)}</p>' if note else ""
    return (f'<div class="plot{" named" if named else ""}"><svg role="img" aria-label="{esc(said)}" width="100%" '
            f'height="{HEIGHT}">{grid}{body}{base}{feet}{labels}</svg></div>{tail}')  # fmt: skip
