"""Fades: black and white stretches, with the ramps that lead into and out of them.

In a fade to black every frame is a share of the picture, so that its distance to black and its detail shrink alike,
whatever moves; in one to white likewise. A ramp is as long as fits both best: even, eased, or even in linear light.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ptta_core.config import SplitConfig
from ptta_core.models.gradual import MARGIN, Gradual
from ptta_core.models.picture_space import Space, correlation, median
from ptta_core.models.shot_features import Features
from ptta_core.models.trace import Trace

RAMP_S = 5.0  # the longest ramp of a fade
PLAIN_LEVELS = 4.0  # contrast, levels: a dark picture with more is no black
BESIDE = 8  # frames of the shot behind a ramp that tell how bright it is
GAMMA = 2.2  # of a display: light is this power of the level
CUT_LEVELS = 12.0  # rms levels: a step in or behind a ramp that is larger is a cut ...
CUT_SHARE = 0.5  # ... when it is this share of the way to black ...
CUT_RATIO = 3.0  # ... and this many times the steps before
NO_RAMP = 0.04  # of the way: what a ramp must fit better than no ramp at all
MARGIN_SHARE = 0.05  # of a ramp's length, trimmed beyond its end
SHORT_BLACK = 10  # frames: a dip this short is one boundary
ALIKE_SHARE = 0.5  # of the contrast by which the pictures on both sides of a flash may differ
SAME_STRUCTURE = 0.85  # ... or their correlation
CLEAR_LEVELS = 12.0  # between a flash and the picture before it: the frames beside a true fade are nearly blank
FLASH_SPAN = 4.0  # times flash_s: a flash with its afterglow
Run = tuple[int, int]  # first frame and end, exclusive


def fades(features: Features, space: Space, trace: Trace, config: SplitConfig) -> tuple[list[Gradual], list[Run]]:
    """Black and white stretches with their ramps, and the (first, end) of those that are flashes of one shot.

    A stretch with no ramp on a side is cut to or from there.
    """
    found: list[Gradual] = []
    flashes: list[Run] = []
    runs = blanks(features, space, config.fade_threshold)
    edges = [0, *(edge for run in runs for edge in run), len(space)]
    for number, (first, end) in enumerate(runs):
        away = Away(space, trace, first, end)
        down = away.ramp(features.times_s, -1, edges[2 * number])
        up = away.ramp(features.times_s, 1, edges[2 * number + 3] - 1)
        if _is_flash(features, space, first, end, down, up, config.flash_s):
            flashes.append((first - down, end + up))
        else:
            found += _of_run(first, end, down, up, len(space))
    return found, flashes


def blanks(features: Features, space: Space, threshold: float) -> list[Run]:
    """The runs of frames that are nothing but black or nothing but white, black borders aside."""
    mean, low, high = features.mean, features.low.astype(np.float32), features.high.astype(np.float32)
    if not space.inside.all() and space.inside.any():
        mean, low = space.levels_inside()
    plain = space.contrast(np.arange(len(space))) < PLAIN_LEVELS
    black = (features.mean < threshold) & (high < 4 * threshold) & plain
    white = (mean > 255 - threshold) & (low > 255 - 4 * threshold)
    return sorted(runs_of(black) + runs_of(white))


def runs_of(flags: Sequence[bool] | np.ndarray) -> list[Run]:
    """(first, end) of each run of True, end exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], np.asarray(flags, dtype=np.int8), [0]))))
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2])]


class Away:
    """How far frames are from a blank run first..end-1: in level and in detail, both 0 for blank."""

    def __init__(self, space: Space, trace: Trace, first: int, end: int) -> None:
        self.space, self.trace = space, trace
        self.first, self.end = first, end
        self.blank = 255.0 if space.luma([first]).mean() > 127 else 0.0

    def of(self, frames: np.ndarray) -> np.ndarray:
        """[2,n]: rms levels to black or white, and rms difference of neighbouring pixels."""
        luma = self.space.luma(frames)[:, self.space.inside] if self.space.inside.any() else self.space.luma(frames)
        return np.stack([np.sqrt(((luma - self.blank) ** 2).mean(axis=1)), np.sqrt(self.trace.energy[frames, 1])])

    def ramp(self, times_s: np.ndarray, way: int, limit: int) -> int:
        """How many frames beyond the run are a ramp, backwards or forwards; `limit`: the last frame that may be."""
        edge = self.first if way < 0 else self.end - 1
        inside = np.arange(edge, (self.end if way < 0 else self.first - 1), -way)[: BESIDE + 1]
        level = self.of(inside)[0]
        zero = inside[int(np.flatnonzero(level <= level.min() + 1.0)[0])]  # the blankest, as near to the edge as can be
        frames = np.arange(zero, limit + way, way)
        frames = frames[np.abs(times_s[frames] - times_s[edge]) <= RAMP_S]
        if len(frames) <= abs(edge - zero) + 1:
            return 0
        away = self.of(frames)
        away = away[:, : self._until_cut(frames, away[0])]
        return max(0, _length(away) - 1 - abs(edge - zero))

    def _until_cut(self, frames: np.ndarray, level: np.ndarray) -> int:
        """How many of the frames lie before the first cut."""
        steps = self.space.steps[np.maximum(frames[1:], frames[:-1])]
        for at in range(2, len(steps)):
            large = steps[at] > max(CUT_LEVELS, CUT_SHARE * level[at + 1])
            if large and steps[at] > CUT_RATIO * median(steps[:at]):
                return at + 1
        return len(frames)


def _length(away: np.ndarray) -> int:
    """Frames from blank to the first whole picture, 1 for a cut, from distances to blank [2,n]."""
    best, length = _misfit(away, 1) - NO_RAMP, 1
    for tried in range(2, away.shape[1]):
        misfit = _misfit(away, tried)
        if misfit < best:
            best, length = misfit, tried
    return length


def _misfit(away: np.ndarray, length: int) -> float:
    """How badly frames agree with a ramp of `length` frames and a shot behind it; 0 = exactly, in shares of the way."""
    until = min(away.shape[1], length + max(BESIDE, length // 2))
    whole = away[:, length : min(until, length + BESIDE)].mean(axis=1) if length < until else away[:, -1]
    seen = away[:, :until] / np.maximum(whole, 1.0)[:, None]
    passed = np.minimum(np.arange(until) / length, 1.0)
    shapes = np.stack([passed, passed**2 * (3 - 2 * passed), passed ** (1 / GAMMA)])
    return float(np.abs(seen[:, None] - shapes).sum(axis=(0, 2)).min()) / seen.size


def _is_flash(features: Features, space: Space, first: int, end: int, down: int, up: int, flash_s: float) -> bool:
    """Whether a blank run is a flicker: short, and the same picture stands on both sides."""
    before, after = first - down - 1, end + up
    if before < 0 or after >= len(space):
        return False
    times_s = features.times_s
    if times_s[end] - times_s[first] > flash_s + 1e-6 or times_s[after] - times_s[before] > FLASH_SPAN * flash_s:
        return False
    ends = space.vectors([before, after])
    alike = correlation(ends[:1], ends[1:])[0] > SAME_STRUCTURE  # some of the light may still be there
    allowed = ALIKE_SHARE * float(space.contrast([before, after]).min())
    clear = space.distance(before, first) > CLEAR_LEVELS
    return clear and (alike or space.moved_distance(before, after) < allowed)


def _of_run(first: int, end: int, down: int, up: int, frames: int) -> list[Gradual]:
    """The boundaries of one blank run with its ramps: into it, and out of it."""
    start = max(0, first - down - (MARGIN + round(MARGIN_SHARE * down) if down > 1 else 0))
    resume = min(frames, end + up + (MARGIN + round(MARGIN_SHARE * up) if up > 1 else 0))
    core = first - down, end + up
    into: Literal["cut", "fade"] = "fade" if down > 1 else "cut"
    out_of: Literal["cut", "fade"] = "fade" if up > 1 else "cut"
    if first == 0:
        return [Gradual("fade", min(end, frames - 1) if end < frames else 0, 0, resume, 1.0, core)]
    if end == frames:
        return [Gradual("fade", first, start, frames, 1.0, core)]
    if end - first <= SHORT_BLACK and into == out_of == "fade":
        return [Gradual("fade", (first + end) // 2, start, resume, 1.0, core)]
    if end - first == 1 and into == out_of:
        return [Gradual("cut", first, start, resume, 1.0, core)]
    down_core, up_core = (core[0], end), (end, core[1])
    return [Gradual(into, first, start, end, 1.0, down_core), Gradual(out_of, end, end, resume, 1.0, up_core)]
