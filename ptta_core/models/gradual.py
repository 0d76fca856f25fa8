"""Which frames belong to no shot: those of dissolves, with a margin, and blends of both sides at a hard cut.

Dissolves are found in `dissolves`, fades in `fades`. What a smoke or a light leaves as it was is no boundary: the
picture behind it was there before. What is fitted is thumbnails (`picture_space`), in which mixtures stay mixtures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ptta_core.models import dissolves
from ptta_core.models.picture_space import Space, median, mixture
from ptta_core.models.shot_features import Features
from ptta_core.models.trace import Trace

LEAST_LEVELS = 12.0  # rms levels between the pictures of a change
MARGIN = 2  # frames trimmed beyond the ends of a fade: the first and last shares are too small to see
DISSOLVE_MARGIN = 3  # ... of a dissolve ...
MARGIN_SHARE = 0.03  # ... and this share of its length
STILL_MIXING = 0.2  # of a dissolve's mean step along its line: pictures beyond its ends that go on so belong to it
EASED_SHARE = 0.05  # of an eased dissolve's length in which less than 1 % has changed
MOST_BLENDS = 4  # frames at a hard cut that are blends of both sides
BLENDED = 0.06  # share of the other picture in a blend
BLENDED_LEVELS = 2.0  # and how much of it in levels
OFF_LINE = 0.3  # share of the difference of both sides by which a blend may lie off the line between them
DETAIL = 0.1  # square levels: less detail says nothing
SLACK = 0.03  # by which the amplitude of detail (as a logarithm) may be more like that of one side
EFFECT_S = 1.5  # how long a light, a smoke or a thing may hide a shot
LOOK_EVERY = 3  # frames between the pictures that are compared with what comes after
RETURNED = 0.25  # of the square difference of A and B, and of their contrast: a picture this near to B is B


@dataclass(frozen=True)
class Gradual:
    """Mixed frames start..end-1, which belong to no shot."""

    kind: Literal["cut", "fade", "dissolve"]
    frame: int  # where it is reported
    start: int
    end: int
    confidence: float
    core: tuple[int, int]  # first and end, exclusive, without a margin for what is too faint to see


# --------------------------------------------------------------------------------------------------- dissolves


def mixtures(
    features: Features, space: Space, trace: Trace, fades: Sequence[Gradual]
) -> tuple[list[Gradual], list[tuple[int, int]]]:
    """Dissolves with all their mixed frames and a margin; the (first, end) of effects that passed over one shot."""
    taken = np.zeros(len(space), bool)
    for fade in fades:
        taken[fade.start : fade.end] = True
    step_s = float(median(np.diff(features.times_s))) if len(space) > 1 else 0.0
    found: list[Gradual] = []
    effects: list[tuple[int, int]] = []
    for sure, one in dissolves.find(space, trace, taken, step_s):
        effect = _effect(space, features.times_s, one.first, one.last)
        if effect:
            effects.append(effect)
        else:
            length = one.last - one.first
            margin = DISSOLVE_MARGIN + round(MARGIN_SHARE * length) - (int(EASED_SHARE * length) if one.eased else 0)
            start = max(0, one.first + 1 - margin - _more(space, trace, one, -1))
            end = min(len(space), one.last + margin + _more(space, trace, one, 1))
            found.append(
                Gradual("dissolve", (one.first + one.last + 1) // 2, start, end, sure, (one.first + 1, one.last))
            )
    return found, effects


def _more(space: Space, trace: Trace, one: dissolves.Fitted, way: int) -> int:
    """How many frames beyond an end of a dissolve (before it for way -1) still change in its direction."""
    length, edge = one.last - one.first, one.last if way > 0 else one.first
    frames = np.arange(edge, edge + way * (length // 2 + 2), way)
    frames = frames[(frames >= 0) & (frames < len(space))]
    line = trace.coarse[one.last] - trace.coarse[one.first]
    steps = np.diff(trace.coarse[frames] @ line) * way / float(line @ line) * length
    sudden = space.steps[np.maximum(frames[1:], frames[:-1])] > dissolves.SUDDEN * space.distance(one.first, one.last)
    slow = np.flatnonzero((steps < STILL_MIXING) | sudden)
    return int(slow[0]) if len(slow) else len(steps)


def _effect(space: Space, times_s: np.ndarray, first: int, last: int) -> tuple[int, int] | None:
    """The (first, end) of what has passed over one shot, when the picture after `last` stood before `first` already."""
    changed = min(space.apart(first, last)[1], *(space.contrast([first, last]) ** 2).tolist())
    early = np.searchsorted(times_s, times_s[first] - EFFECT_S)
    late = np.searchsorted(times_s, times_s[last] + EFFECT_S)
    before, after = np.arange(first - 1, early - 1, -LOOK_EVERY), np.arange(last + 1, late, LOOK_EVERY)
    pairs = [(int(one), last) for one in before] + [(first, int(one)) for one in after]
    alike = next((pair for pair in pairs if space.apart(*pair)[1] < RETURNED * changed), None)
    return (min(alike), max(*alike, last)) if alike else None


# ------------------------------------------------------------------------------------------------ blended cuts


def blended(space: Space, trace: Trace, cut: int) -> tuple[int, int]:
    """(first, end) of the frames at a hard cut that are blends of both sides; first == end == cut for none."""
    for length in range(MOST_BLENDS, 0, -1):
        for first in range(cut - length, cut + 1):
            if blends(space, trace, first, first + length - 1):
                return first, first + length
    return cut, cut


def blends(space: Space, trace: Trace, first: int, last: int) -> bool:
    """Whether the frames first..last are mixtures of those before and after them, in what they show and in detail."""
    if first < 1 or last + 1 >= len(space):
        return False
    some = space.vectors(np.arange(first - 1, last + 2))
    way = some[-1] - some[0]
    levels = float(np.linalg.norm(way))
    share, residual = mixture(some[1:-1], some[0], way)
    least = np.minimum(share, 1 - share)
    if levels < LEAST_LEVELS or least.min() < max(BLENDED, BLENDED_LEVELS / levels) or residual.max() > OFF_LINE:
        return False
    detail = trace.energy[first - 1 : last + 2, 0]
    mixed = (1 - share) ** 2 * detail[0] + share**2 * detail[-1]
    own = np.where(share < 0.5, detail[0], detail[-1])
    seen, mixed, own = (np.log(np.maximum(one, DETAIL)) / 2 for one in (detail[1:-1], mixed, own))
    return bool((np.abs(seen - mixed) < np.abs(seen - own) + SLACK).all())


def without(one: Gradual, cut: int) -> Gradual:
    """A gradual change whose margin ends at a hard cut; the same where the cut lies elsewhere."""
    if one.core[1] <= cut < one.end:
        return replace(one, end=cut)
    if one.start < cut <= one.core[0]:
        return replace(one, start=cut)
    return one
