"""Dissolves: stretches in which one picture turns into another by mixing, whatever moves in either of them.

In a dissolve from A to B every frame is (1 - s) A + s B with s rising from 0 to 1. Where A and B move, a frame lies off
the line between the pictures at the ends, but two things hold all the same: areas an eighth of the picture wide keep
their mean, so that coarse pictures stay near the line; and detail, which A and B do not share, sinks to (1 - s)^2 of
the energy that it has in A plus s^2 of that in B. A pan keeps its detail. Windows of every length are searched for
both, the ends are fitted, and a second look at all their frames decides. The numbers of both looks are fitted.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptta_core.models.changes import kept
from ptta_core.models.dissolve_fit import SEARCH, SEARCH_BIAS, SURE, SURE_BIAS
from ptta_core.models.picture_space import Space, correlation, median, mixture
from ptta_core.models.trace import CELLS, Trace

LENGTHS = (3, 4, 5, 7, 9, 12, 15, 19, 25, 33, 43, 57, 75, 100)  # frames between the ends of a window
LONGEST_S = 4.0  # of a dissolve
PLACES = 6  # a window is looked at where sixths of it have passed
DETAIL = 2.0  # square levels: detail below says nothing
REACH = 0.8  # of a window's length: how far beyond it the ends may lie
SUDDEN = 0.5  # share of the difference that a step makes where another shot begins
WORST = 0.7  # what one frame may add to the misfit
SAME = 0.5  # intersection over union above which two windows are about one dissolve
EASED = 1.15  # times better that an eased dissolve must fit than an even one
STEEPEST = 0.6  # share that one step of a dissolve may make: a cut makes all of it
MOST_MISFIT = 0.48  # see Fitted: windows that fit worse are none
MOST_ALIKE = 0.85  # correlation of A and B above which only the light has changed
LEAST_FRAMES = 3  # between the clean pictures at the ends
Features = dict[str, np.ndarray]


@dataclass(frozen=True)
class Fitted:
    """A dissolve between the clean frames `first` and `last`."""

    first: int
    last: int
    eased: bool  # its share rises as 3 s^2 - 2 s^3 and not evenly
    misfit: float  # 0 = every frame is where it should be


def find(space: Space, trace: Trace, taken: np.ndarray, step_s: float) -> list[tuple[float, Fitted]]:
    """(confidence 0..1, dissolve) in no order; no two overlap. taken: bool [N], frames of fades; step_s: a frame."""
    found: list[tuple[float, Fitted]] = []
    for score, fitted in tried(space, trace, taken, step_s):
        seen = sure_features(space, trace, fitted, score)
        log_odds = float(certainty(seen, SURE, SURE_BIAS)[0])
        if log_odds > 0 and seen["steepest"][0] < math.log(STEEPEST * (fitted.last - fitted.first)):
            found.append((1 / (1 + math.exp(-log_odds)), fitted))
    return _grown(space, trace, _apart(found), taken)


def tried(space: Space, trace: Trace, taken: np.ndarray, step_s: float) -> Iterator[tuple[float, Fitted]]:
    """(log odds of its window, dissolve fitted to it) for what the search finds, the likeliest of similar windows."""
    windows = [one for length in LENGTHS if length * step_s <= LONGEST_S and length < len(space)
               for one in _search(space, trace, length, taken)]  # fmt: skip
    seen: list[tuple[int, int]] = []
    for score, first, last in sorted(windows, reverse=True):
        if not any(_overlap(first, last, *other) > SAME for other in seen):
            seen.append((first, last))
            fitted = refined(space, trace, first, last, taken)
            if fitted.misfit < MOST_MISFIT and alike(space, fitted.first, fitted.last) <= MOST_ALIKE:
                yield score, fitted


def _grown(
    space: Space, trace: Trace, found: Sequence[tuple[float, Fitted]], taken: np.ndarray
) -> list[tuple[float, Fitted]]:  # fmt: skip
    """The same with their ends fitted again, among more frames than those around a window that was too short."""
    taken = taken.copy()
    for _, one in found:
        taken[one.first + 1 : one.last] = True
    grown = []
    for sure, one in found:
        taken[one.first + 1 : one.last] = False
        again = refined(space, trace, one.first, one.last, taken)
        taken[again.first + 1 : again.last] = True
        grown.append((sure, again))
    return grown


def _overlap(first: int, last: int, start: int, end: int) -> float:
    """Intersection over union of two windows, 0..1."""
    return max(0, min(last, end) - max(first, start)) / (max(last, end) - min(first, start))


def _apart(found: Sequence[tuple[float, Fitted]]) -> list[tuple[float, Fitted]]:
    """The surest of those that overlap."""
    kept: list[tuple[float, Fitted]] = []
    for one in sorted(found, key=lambda one: (-one[0], one[1].first)):
        if all(one[1].last <= other.first or other.last <= one[1].first for _, other in kept):
            kept.append(one)
    return kept


def certainty(features: Mapping[str, np.ndarray], fit: Mapping[str, tuple[float, float]], bias: float) -> np.ndarray:
    """Log odds [n] that windows are dissolves: `fit` has each feature's weight and that of its square."""
    odds = np.full(len(next(iter(features.values()))), bias)
    for name, (plain, squared) in fit.items():
        values = np.clip(features[name], -10.0, 10.0)
        odds += plain * values + squared * values**2
    return odds


# ----------------------------------------------------------------------------------------------------- the search


def _search(space: Space, trace: Trace, length: int, taken: np.ndarray) -> Iterator[tuple[float, int, int]]:
    """(log odds, first, last) of the windows of one length that may be dissolves."""
    blocked = np.concatenate([[0], np.cumsum(taken)])
    firsts = np.arange(0, len(space) - length, max(1, length // 8))
    firsts = firsts[blocked[firsts + length + 1] == blocked[firsts]]
    for at in range(0, len(firsts), 4096):
        some = firsts[at : at + 4096]
        odds = certainty(window_features(space, trace, some, length), SEARCH, SEARCH_BIAS)
        yield from ((float(odds[one]), int(some[one]), int(some[one]) + length) for one in np.flatnonzero(odds > 0))


def window_features(space: Space, trace: Trace, firsts: np.ndarray, length: int, places: int = PLACES) -> Features:
    """What is to be seen of windows [n] of `length` frames where each `places`-th part of them has passed; [n] each."""
    lasts = firsts + length
    before = trace.coarse[firsts]
    way = trace.coarse[lasts] - before
    square = np.maximum((way**2).sum(axis=1), 1e-3)
    at = sorted({round(length * part / places) for part in range(1, places)} - {0, length})
    off, uneven = np.zeros(len(firsts)), np.zeros(len(firsts))
    detail = Detail(trace.energy[firsts], trace.energy[lasts])
    for place in at:
        share, rest = mixture(trace.coarse[firsts + place], before, way, square)
        off += rest / len(at)
        uneven += np.abs(share - place / length) / len(at)
        detail.add(trace.energy[firsts + place], place / length)
    colour = (way[:, CELLS:] ** 2).sum(axis=1)
    levels = np.sqrt(((space.luma(firsts) - space.luma(lasts)) ** 2).mean(axis=1) + colour)
    largest = np.lib.stride_tricks.sliding_window_view(space.steps, length)[firsts + 1].max(axis=1)
    missed = np.minimum(detail.missed(), 2.0)
    return {
        "levels": np.log(levels + 1), "off": off, "uneven": uneven, "detail_fine": missed[:, 0],
        "detail": missed[:, 1], "detail_coarse": missed[:, 2], "sunk": np.clip(detail.sunk().mean(axis=1), -1.0, 1.5),
        "sudden": np.minimum(largest / (levels + 1), 1.5), "length": np.full(len(firsts), math.log(length)),
    }  # fmt: skip


class Detail:
    """How well detail of windows, energy [n,3] at each place, follows that of a mixture."""

    def __init__(self, before: np.ndarray, after: np.ndarray) -> None:
        self.before, self.after = before, after
        self.gained, self.square = np.zeros(before.shape), np.full(before.shape, DETAIL**2)
        self.apart = np.zeros(before.shape)

    def add(self, energy: np.ndarray, share: float) -> None:
        """One place of every window, where `share` of the window has passed."""
        sinks = share * (1 - share) * (self.before + self.after)  # below the line between the ends
        line = (1 - share) * self.before + share * self.after
        self.gained += (line - energy) * sinks
        self.apart += (line - sinks - energy) ** 2
        self.square += sinks**2

    def sunk(self) -> np.ndarray:
        """[n,3]: 1 where detail sinks as in a mixture, 0 where it stays."""
        return self.gained / self.square

    def missed(self) -> np.ndarray:
        """[n,3]: 0 where detail is that of a mixture, 1 and more where it does something else."""
        return np.sqrt(self.apart / self.square)


# ------------------------------------------------------------------------------------------------------- the ends


def refined(space: Space, trace: Trace, first: int, last: int, taken: np.ndarray) -> Fitted:
    """The dissolve that best explains the frames in and around a window."""
    length = last - first
    low, high = _bounds(space, first, last, max(4, int(REACH * length)), taken)
    step = max(1, length // 8)
    firsts, lasts = np.arange(low, first + length // 3 + 1, step), np.arange(high, last - length // 3 - 1, -step)
    while True:
        misfit = _misfits(trace, low, high, firsts, lasts)
        eased, one, other = np.unravel_index(int(misfit.argmin()), misfit.shape)
        begin, end = int(firsts[one]), int(lasts[other])
        if step == 1:
            return Fitted(begin, end, bool(eased), float(misfit[eased, one, other]))
        firsts = np.arange(max(low, begin - step), begin + step + 1)
        lasts = np.arange(end - step, min(high, end + step) + 1)
        step = 1


def _bounds(space: Space, first: int, last: int, reach: int, taken: np.ndarray) -> tuple[int, int]:
    """The first and last frame that belong to the shots beside a window, at most `reach` away from it."""
    low, high = max(0, first - reach), min(len(space) - 1, last + reach)
    sudden = SUDDEN * space.distance(first, last)
    before = np.flatnonzero((space.steps[low + 1 : first + 1] > sudden) | taken[low:first])
    after = np.flatnonzero((space.steps[last + 1 : high + 1] > sudden) | taken[last + 1 : high + 1])
    return (low + 1 + int(before[-1]) if len(before) else low), (last + int(after[0]) if len(after) else high)


def _misfits(trace: Trace, low: int, high: int, firsts: np.ndarray, lasts: np.ndarray) -> np.ndarray:
    """[2, F, L]: how far frames low..high lie from an even and an eased dissolve between each two of these ends."""
    frames = np.arange(low, high + 1, 1 if high - low < 60 else 2)
    before, energy_before = trace.mean(trace.coarse, firsts, low, -1, 2), trace.mean(trace.energy, firsts, low, -1, 3)
    after, energy_after = trace.mean(trace.coarse, lasts, high, 1, 2), trace.mean(trace.energy, lasts, high, 1, 3)
    some = trace.coarse[frames]
    # |c - A|^2, |B - A|^2 and (c - A)(B - A) from products of all with all: [F,1,T], [F,L,1], [F,L,T]
    squares = (before**2).sum(axis=1)
    to_before = ((some**2).sum(axis=1) - 2 * before @ some.T + squares[:, None])[:, None]
    way = (squares[:, None] - 2 * before @ after.T + (after**2).sum(axis=1))[..., None]
    along = (after @ some.T)[None] - (before @ some.T)[:, None] - (before @ after.T)[..., None] + squares[:, None, None]
    passed = (frames - firsts[:, None, None]) / np.maximum(lasts[None, :, None] - firsts[:, None, None], 1)
    even = np.clip(passed, 0, 1).astype(np.float32)
    found = []
    for share in (even, even * even * (3 - 2 * even)):
        off = np.sqrt(np.maximum(to_before - 2 * share * along + share**2 * way, 0)) / (np.sqrt(np.maximum(way, 0)) + 2)
        missed = _detail_misfit(trace.energy[frames], share, energy_before, energy_after)
        found.append(np.minimum(off, WORST).mean(axis=2) + np.minimum(missed, WORST).mean(axis=2))
    misfit = np.stack([found[0], EASED * found[1]])
    misfit[:, lasts[None] - firsts[:, None] < LEAST_FRAMES] = np.inf
    return misfit


def _detail_misfit(energy: np.ndarray, share: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """[F,L,T]: share by which the amplitude of detail (energy [T,3]) misses that of mixtures with shares [F,L,T]."""
    total = np.zeros(share.shape, np.float32)
    for scale in range(3):
        one, other = before[:, None, None, scale], after[None, :, None, scale]
        expected = np.sqrt((1 - share) ** 2 * one + share**2 * other)
        total += np.abs(np.sqrt(energy[:, scale]) - expected) / ((np.sqrt(one) + np.sqrt(other)) / 2 + 1)
    return total / 3


# --------------------------------------------------------------------------------------------------- the second look


def sure_features(space: Space, trace: Trace, fitted: Fitted, score: float) -> Features:
    """What is to be seen of all frames of a dissolve, [1] each; `score`: log odds of the window it was found by."""
    first, last = fitted.first, fitted.last
    length = last - first
    some = space.vectors(np.arange(first, last + 1))
    share, rest = mixture(some[1:-1], some[0], some[-1] - some[0])
    part = max(1, round(length / PLACES))  # frames between pictures that motion alone would change less
    starts = sorted(set(np.linspace(first, last - part, PLACES - 1).astype(int).tolist()))
    still, moved = np.array([space.apart(one, one + part) for one in starts]).T
    own = {
        "kept": kept(space, first, last), "fine_off": rest.mean(), "alike": alike(space, first, last),
        "unmoved": space.unmoved(first, last),
        "steepest": math.log(max(1.0, float(np.diff(np.r_[0, share, 1]).max()) * length)),
        "unmoved_steps": math.sqrt(moved.sum() / max(float(still.sum()), 1.0)),
        "path": math.sqrt(float(median(moved))) * length / part / (space.distance(first, last) + 1),
        "misfit": fitted.misfit, "search": score,
    }  # fmt: skip
    return window_features(space, trace, np.array([first]), length, length) | {
        name: np.array([float(value)]) for name, value in own.items()
    }


def alike(space: Space, first: int, last: int) -> float:
    """The correlation of the lit parts of two frames' luma, -1..1."""
    some = space.vectors([first, last])
    return float(correlation(some[:1], some[1:], space.lit)[0])
