"""Fades and dissolves: stretches of frames that are mixtures of the pictures before and after them.

In a dissolve from A to B every frame is (1 - a) A + a B with a rising from 0 to 1. A pan, a zoom or a passing object
gives frames that lie off that line, or an A and a B that are one picture shifted. A fade is the same with black or
white on one side. What is fitted is thumbnails (`picture_space`), in which mixtures stay mixtures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from ptta_core.config import SplitConfig
from ptta_core.models.picture_space import BLOCK, Space
from ptta_core.models.shot_features import N_LUMA, Features

LENGTHS = (4, 6, 8, 11, 14, 18, 24, 32, 42, 56, 75, 100, 133)  # frames between the ends of a window
LONGEST_S = 4.0  # of a dissolve
LEAST_LEVELS = 12.0  # rms levels between the pictures of a dissolve
QUARTERS = ((0.25, 0.06, 0.46), (0.5, 0.28, 0.72), (0.75, 0.54, 0.94))  # place in a window, least and most share
RESIDUAL = 0.30  # share of the difference between A and B by which a frame may lie off the line
# What small differences between A and B allow, since motion is near a line where pictures hardly differ:
LEVELS = (30.0, 60.0, 80.0)
CORRELATION = (0.5, 0.85, 0.85)  # of A and B; above it only light or place has changed
OFF_LINE = (0.14, 0.22, 0.26)  # mean share of the difference by which frames may lie off the line
USUAL_CONTRAST = 25.0  # levels; in pictures with less, dark ones, smaller differences count as much
SUDDEN = 0.42  # share of the difference that one step may make; above it lies a cut
UNMOVED = 0.6  # share of the difference of A and B that motion must leave unexplained
LEAST_FRAMES = 3  # mixed frames of a dissolve; fewer are a cut with blended frames
MARGIN = 2  # frames trimmed beyond the ends found: the first and last shares are too small to see
STILL_MIXING = 0.3  # of a dissolve's mean step along its line: pictures beyond its ends that go on so belong to it
RAMP_S = 5.0  # the longest ramp of a fade
SLOPE = 0.15  # of a ramp's mean slope: below it the ramp has ended ...
STEEP = 0.45  # ... and where a cut follows
AHEAD = 5  # frames over which the slope is taken
SHORT_BLACK = 10  # frames: a dip this short is one boundary
HARD_EDGE = 0.6  # share of the way that one step makes where black is cut to
CUT_SHARE = 0.5  # ... or that lies across it, when it is this many times the steps before
CUT_RATIO = 3.0
ALIKE_LEVELS = 18.0  # between the pictures on both sides of a flash
SAME_STRUCTURE = 0.85  # ... or their correlation
FLASH_SPAN = 4.0  # times flash_s: a flash with its afterglow


@dataclass(frozen=True)
class Gradual:
    """Mixed frames start..end-1, which belong to no shot."""

    kind: Literal["cut", "fade", "dissolve"]
    frame: int  # where it is reported
    start: int
    end: int
    confidence: float


# ------------------------------------------------------------------------------------------------------- fades


def fades(features: Features, space: Space, config: SplitConfig) -> tuple[list[Gradual], list[tuple[int, int]]]:
    """Black and white stretches with their ramps, and the (first, end) of those that are flashes of one shot.

    A stretch with no ramp on a side is cut to or from there.
    """
    found: list[Gradual] = []
    flashes: list[tuple[int, int]] = []
    runs = blanks(features, config.fade_threshold)
    edges = [0, *(edge for run in runs for edge in run), len(space)]
    for number, (first, end) in enumerate(runs):
        down = _ramp(space, features.times_s, first, -1, edges[2 * number])
        up = _ramp(space, features.times_s, end - 1, 1, edges[2 * number + 3])
        if _is_flash(features, space, first, end, down, up, config.flash_s):
            flashes.append((first - down, end + up))
        else:
            found += _of_run(first, end, down, up, len(space))
    return found, flashes


def blanks(features: Features, threshold: float) -> list[tuple[int, int]]:
    """(first, end) of each run of frames that are nothing but black or nothing but white."""
    mean, low, high = features.mean, features.low.astype(np.float32), features.high.astype(np.float32)
    black = (mean < threshold) & (high < 4 * threshold)
    white = (mean > 255 - threshold) & (low > 255 - 4 * threshold)
    return sorted(runs_of(black) + runs_of(white))


def runs_of(flags: Sequence[bool] | np.ndarray) -> list[tuple[int, int]]:
    """(first, end) of each run of True, end exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], np.asarray(flags, dtype=np.int8), [0]))))
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2])]


def _ramp(space: Space, times_s: np.ndarray, blank: int, way: int, limit: int) -> int:
    """How many frames from the blank frame on, backwards or forwards, are a ramp; `limit`: where others begin."""
    frames = [blank]
    while True:
        after = frames[-1] + way
        if not (limit <= after if way < 0 else after < limit) or abs(times_s[after] - times_s[blank]) > RAMP_S:
            break
        frames.append(after)
    if len(frames) < 2:
        return 0
    some = space.vectors(frames)
    away = np.linalg.norm(some - some[0], axis=1)
    steps = space.steps[[max(pair) for pair in pairwise(frames)]]  # steps[k - 1] leads to frames[k]
    for k in range(3, len(away)):
        if steps[k - 1] > max(LEAST_LEVELS, CUT_SHARE * away[k], CUT_RATIO * np.median(steps[: k - 1])):
            # a cut to a picture about as far from black: a slow pan before it is no ramp that leads there
            return min(_ramp_length(away[:k], STEEP), max(0, k - 1 - MARGIN))
    return _ramp_length(away, SLOPE)


def _ramp_length(away: np.ndarray, slope: float) -> int:
    """How many frames a ramp lasts, from distances to its blank frame in levels [n]; `slope` as SLOPE."""
    last = len(away) - 1
    for k in range(1, last + 1):
        if away[k] - away[k - 1] > HARD_EDGE * away[k] and away[k] > LEAST_LEVELS and k > 1:
            return k - 1  # a cut inside the ramp
        ahead = min(last, k + AHEAD)
        if ahead == k or float(away[k + 1 : ahead + 1].max() - away[k]) < slope * AHEAD * away[k] / k:
            return k - 1 if k == 1 else k
    return last


def _is_flash(
    features: Features, space: Space, first: int, end: int, down: int, up: int, flash_s: float
) -> bool:  # fmt: skip
    """Whether a blank run is a flicker: short, and the same picture stands on both sides."""
    before, after = first - down - 1, end + up
    if before < 0 or after >= len(space):
        return False
    times_s = features.times_s
    if times_s[end] - times_s[first] > flash_s + 1e-6 or times_s[after] - times_s[before] > FLASH_SPAN * flash_s:
        return False
    clear = space.distance(before, first)  # the frames beside a true fade are nearly blank themselves
    ends = space.vectors([before, after])
    alike = correlation(ends[:1], ends[1:])[0] > SAME_STRUCTURE  # some of the light may still be there
    return clear > 2 * ALIKE_LEVELS and (alike or float(np.linalg.norm(ends[1] - ends[0])) < ALIKE_LEVELS)


def _of_run(first: int, end: int, down: int, up: int, frames: int) -> list[Gradual]:
    """The boundaries of one blank run with its ramps: into it, and out of it."""
    start = max(0, first - down - (MARGIN if down > 1 else 0))
    resume = min(frames, end + up + (MARGIN if up > 1 else 0))
    into: Literal["cut", "fade"] = "fade" if down > 1 else "cut"
    out_of: Literal["cut", "fade"] = "fade" if up > 1 else "cut"
    if first == 0:
        return [Gradual("fade", min(end, frames - 1) if end < frames else 0, 0, resume, 1.0)]
    if end == frames:
        return [Gradual("fade", first, start, frames, 1.0)]
    if end - first <= SHORT_BLACK and into == out_of == "fade":
        return [Gradual("fade", (first + end) // 2, start, resume, 1.0)]
    if end - first == 1 and into == out_of:
        return [Gradual("cut", first, start, resume, 1.0)]
    return [Gradual(into, first, start, end, 1.0), Gradual(out_of, end, end, resume, 1.0)]


# --------------------------------------------------------------------------------------------------- dissolves


def dissolves(features: Features, space: Space, fades: Sequence[Gradual], config: SplitConfig) -> list[Gradual]:
    """Stretches in which one picture turns into another by mixing; best fits first where windows overlap."""
    taken = np.zeros(len(space), bool)
    for one in fades:
        taken[one.start : one.end] = True
    step_s = float(np.median(np.diff(features.times_s))) if len(space) > 1 else 0.0
    windows = [window for length in LENGTHS if length * step_s <= LONGEST_S and length < len(space)
               for window in _search(space, length, taken)]  # fmt: skip
    found: list[Gradual] = []
    for _, first, last in sorted(windows, key=lambda one: (one[1] - one[2], one[0])):
        if taken[first : last + 1].any():
            continue
        fitted = _refined(space, first, last)
        if fitted is not None and not taken[fitted.start : fitted.end].any():
            found.append(fitted)
            taken[max(0, fitted.start - 2) : fitted.end + 2] = True
    return found


def _search(space: Space, length: int, taken: np.ndarray) -> Iterator[tuple[float, int, int]]:
    """(residual, first, last) of windows whose frames at three places are mixtures of the two at the ends."""
    blocked = np.concatenate([[0], np.cumsum(taken)])
    for begin in range(0, len(space) - length, BLOCK):
        end = min(begin + BLOCK, len(space) - length)
        firsts = np.arange(begin, end, max(1, length // 8))
        firsts = firsts[blocked[firsts + length + 1] == blocked[firsts]]
        if len(firsts):
            yield from _fits(space, firsts, length)


def _largest_step(steps: np.ndarray, firsts: np.ndarray, length: int) -> np.ndarray:
    if not len(firsts):
        return np.zeros(0)
    windows = np.lib.stride_tricks.sliding_window_view(steps, length)
    return windows[firsts + 1].max(axis=1)


def _fits(space: Space, firsts: np.ndarray, length: int) -> Iterator[tuple[float, int, int]]:
    before, after = space.vectors(firsts), space.vectors(firsts + length)
    way = after - before
    square = (way**2).sum(axis=1)
    good = (square >= LEAST_LEVELS**2) & (_largest_step(space.steps, firsts, length) < SUDDEN * np.sqrt(square))
    good &= correlation(before, after) < np.interp(_weight(before, after), LEVELS, CORRELATION)
    worst = np.zeros(len(firsts))
    for place, least, most in QUARTERS:
        firsts, before, way, square, worst = (one[good] for one in (firsts, before, way, square, worst))
        if not len(firsts):
            return
        share, residual = mixture(space.vectors(firsts + round(place * length)), before, way)
        good = (share >= least) & (share <= most) & (residual < RESIDUAL)
        worst = np.maximum(worst, residual)
    for first, residual in zip(firsts[good], worst[good]):
        yield float(residual), int(first), int(first) + length


def _weight(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Levels [n] between pictures [n,864], more where both have little contrast."""
    contrast = np.maximum(before[:, :N_LUMA].std(axis=1), after[:, :N_LUMA].std(axis=1)) * np.sqrt(N_LUMA)
    return np.linalg.norm(after - before, axis=1) * np.clip(USUAL_CONTRAST / np.maximum(contrast, 1.0), 1.0, 3.0)


def mixture(frames: np.ndarray, before: np.ndarray, way: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(share, residual) of frames [n,D] as before + share * way: least squares; the residual as a share of |way|."""
    square = np.maximum((way**2).sum(axis=-1), 1e-6)
    share = ((frames - before) * way).sum(axis=-1) / square
    rest = frames - before - share[..., None] * way
    return share, np.sqrt((rest**2).sum(axis=-1) / square)


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the luma of pictures [n,864], -1..1; 0 for a flat one."""
    one, two = (some[:, :N_LUMA] - some[:, :N_LUMA].mean(axis=1, keepdims=True) for some in (first, second))
    both = np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    return np.where(both > 1.0, (one * two).sum(axis=1) / np.maximum(both, 1e-6), 0.0)


def _refined(space: Space, first: int, last: int) -> Gradual | None:
    """The dissolve around a window, from where its line reaches 0 and 1; None when all frames together do not fit."""
    for _ in range(3):
        reach = (last - first) // 2 + 3
        frames = np.arange(max(0, first - reach), min(len(space), last + reach + 1))
        before, after = space.vectors([first])[0], space.vectors([last])[0]
        share, _ = mixture(space.vectors(frames), before, after - before)
        inner = (share > 0.15) & (share < 0.85) & (frames > first - 1) & (frames < last + 1)
        if inner.sum() < 2:
            return None
        slope, start = np.polyfit(frames[inner], share[inner], 1)
        if slope <= 0:
            return None
        zero, one = -start / slope, (1 - start) / slope
        settled = (max(0, int(np.floor(zero + 0.3))), min(len(space) - 1, int(np.ceil(one - 0.3))))
        if settled == (first, last) or settled[1] - settled[0] < LEAST_FRAMES:
            break
        first, last = settled
    return _checked(space, first, last)


def _checked(space: Space, first: int, last: int) -> Gradual | None:
    """A dissolve between the clean frames first and last, when every frame between them says so."""
    if last - first <= LEAST_FRAMES:
        return None
    ends = space.vectors([first, last])
    way = ends[1] - ends[0]
    share, residual = mixture(space.vectors(np.arange(first, last + 1)), ends[0], way)
    steps = np.diff(share)
    weight = float(_weight(ends[:1], ends[1:])[0])
    good = weight >= LEVELS[0] and correlation(ends[:1], ends[1:])[0] < np.interp(weight, LEVELS, CORRELATION)
    on_line = residual.mean() < np.interp(weight, LEVELS, OFF_LINE)
    if not good or not on_line or steps.max() > SUDDEN or steps.min() < -0.12:
        return None
    if space.unmoved(first, last) < UNMOVED:  # a slow pan: a shift by part of a thumbnail's px is a mixture too
        return None
    sure = float(np.clip(1.0 - residual.mean() / RESIDUAL / 2, 0.0, 1.0))
    start = max(0, first + 1 - MARGIN - _more(space, first, last, -1))
    end = min(len(space), last + MARGIN + _more(space, first, last, 1))
    return Gradual("dissolve", (first + last + 1) // 2, start, end, sure)


def _more(space: Space, first: int, last: int, way: int) -> int:
    """How many frames beyond an end of a dissolve (before it for way -1) still change in its direction."""
    reach = (last - first) // 2
    edge = last if way > 0 else first
    frames = [frame for frame in range(edge, edge + way * (reach + 1), way) if 0 <= frame < len(space)]
    some = space.vectors([first, last, *frames])
    line = some[1] - some[0]
    # a step along the line that is no part of it, such as a cut, ends the search
    steps = np.diff(some[2:], axis=0) @ line * way / float(line @ line) * (last - first)
    slow = np.flatnonzero((steps < STILL_MIXING) | (steps > 1 / STILL_MIXING))
    return int(slow[0]) if len(slow) else len(steps)


# ------------------------------------------------------------------------------------------------ blended cuts


def blended(space: Space, cut: int) -> tuple[int, int]:
    """(first, end) of the frames at a hard cut that are blends of both sides; first == end == cut for none."""
    for first, last in ((cut, cut), (cut - 1, cut - 1), (cut - 1, cut), (cut, cut + 1), (cut - 2, cut - 1)):
        if blends(space, first, last):
            return first, last + 1
    return cut, cut


def blends(space: Space, first: int, last: int) -> bool:
    """Whether the frames first..last are clearly mixtures of those before and after them."""
    if first < 1 or last + 1 >= len(space):
        return False
    some = space.vectors(np.arange(first - 1, last + 2))
    way = some[-1] - some[0]
    levels = float(np.linalg.norm(way))
    share, residual = mixture(some[1:-1], some[0], way)
    beside = [space.steps[frame] for frame in (first - 2, first - 1, last + 2, last + 3) if 0 < frame < len(space)]
    usual = float(np.median(beside)) if beside else 0.0
    clear = float(np.minimum(share, 1 - share).min()) * levels
    return levels > LEAST_LEVELS and clear > 3 * usual + 2.0 and float(residual.max()) < 0.2
