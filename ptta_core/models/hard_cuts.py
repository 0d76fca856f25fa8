"""Hard cuts: steps between two frames that neither motion nor a flash explains."""

import bisect
from dataclasses import dataclass

import numpy as np

from ptta_core.config import SplitConfig
from ptta_core.models import changes
from ptta_core.models.gradual import blends
from ptta_core.models.picture_space import Space, median
from ptta_core.models.shot_features import Features
from ptta_core.models.trace import Trace

EPSILON_S = 1e-6
BESIDE = 4  # frames on each side that a step is compared with
LEAST_STEP = 3.5  # levels: a codec's refresh of a still is below
FAINT_LEVELS = 10.0  # a step this large is a cut when it stands out `FAINT_RATIO` times, as between dark pictures ...
FAINT_RATIO = 4.0
PLAIN_LEVELS = 18.0  # ... and one this large when it stands out `config.cut_threshold` times
CONTRAST_SHARE = 0.2  # of the pictures' own contrast that a step must make: a codec's refresh makes a tenth
ONCE_SHARE = 0.6  # of a neighbouring step that makes a second cut beside it
BASE_LEVELS = 1.0  # added to the neighbours, so that stills do not make every step stand out
ALIKE_LEVELS = 14.0  # rms levels between pictures that count as one
ALIKE_SHARE = 0.45  # and of the step itself, so that dark cuts are not mistaken for flashes ...
RESTLESS = 2.0  # ... or that many of the steps that the shot makes anyway
MOVED_SHARE = 0.35  # ... or of what no shift of parts explains of it


@dataclass(frozen=True)
class Step:
    """A hard cut: the first frame of the new shot, and how large the change is in levels."""

    frame: int
    levels: float


def hard_cuts(features: Features, space: Space, trace: Trace, config: SplitConfig) -> list[Step]:
    """The hard cuts of a source, flashes left out."""
    if config.detector == "steps":
        steps = [Step(int(frame), space.unexplained(int(frame))) for frame in _candidates(space)]
        steps = _without_blends([step for step in steps if _stands_out(step, space, config)], space, trace)
    else:
        steps = [Step(frame, space.distance(frame - 1, frame)) for frame in _by_content(features, config)]
        steps = [step for step in steps if step.levels >= LEAST_STEP]
    return [step for step in steps if not is_flash(step.frame, space, features.times_s, config.flash_s)
            and not changes.of_one_shot(space, step.frame)]  # fmt: skip


def _candidates(space: Space) -> np.ndarray:
    """Frames whose step is larger than usual around them, and no mere neighbour of a much larger one."""
    if len(space) < 2:
        return np.zeros(0, np.int64)
    steps = np.concatenate([space.steps, [0.0]])
    here, beside = steps[1:-1], np.maximum(steps[:-2], steps[2:])
    around = np.lib.stride_tricks.sliding_window_view(np.pad(here, BESIDE), 2 * BESIDE + 1)
    usual = median(around)
    return np.flatnonzero((here >= LEAST_STEP) & (here >= ONCE_SHARE * beside) & (here >= 1.3 * usual)) + 1


def _without_blends(steps: list[Step], space: Space, trace: Trace) -> list[Step]:
    """Of two steps in a row with a blend of both sides between them, the first."""
    frames = {step.frame for step in steps}
    return [step for step in steps
            if step.frame - 1 not in frames or not blends(space, trace, step.frame - 1, step.frame - 1)]  # fmt: skip


def _stands_out(step: Step, space: Space, config: SplitConfig) -> bool:
    """Whether a step is larger than all but the largest of its neighbours (which may be another cut)."""
    contrast = space.contrast([step.frame - 1, step.frame]).mean()
    if step.levels < max(LEAST_STEP, CONTRAST_SHARE * float(contrast)):
        return False
    begin = max(1, min(step.frame - BESIDE, len(space) - 2 * BESIDE - 1))  # as many neighbours at the ends of a source
    window = range(begin, min(len(space), begin + 2 * BESIDE + 1))
    # where the picture hardly changes, the shift cannot explain more
    others = sorted(min(space.unexplained(frame), space.steps[frame]) if space.steps[frame] > 1.0 else 0.0
                    for frame in window if frame != step.frame)  # fmt: skip
    beside = others[-2] if len(others) > 1 else 0.0
    ratio = step.levels / (beside + BASE_LEVELS)
    if step.levels >= PLAIN_LEVELS:
        return ratio >= config.cut_threshold
    return ratio >= FAINT_RATIO * (1.0 if step.levels >= FAINT_LEVELS else 1.05)


def is_flash(cut: int, space: Space, times_s: np.ndarray, flash_s: float) -> bool:
    """Whether the change at frame `cut` is undone, or undoes another, within `flash_s` seconds.

    The first cut of a flash finds the picture before it again later; the last one finds the picture after it earlier.
    """
    limit = min(ALIKE_LEVELS, ALIKE_SHARE * space.distance(cut - 1, cut))
    before = space.steps[max(1, cut - BESIDE) : cut]
    restless = RESTLESS * float(median(before)) if len(before) else 0.0
    moved = min(max(ALIKE_LEVELS, restless), MOVED_SHARE * space.moved_distance(cut - 1, cut))
    late = bisect.bisect_right(times_s, times_s[cut] + flash_s + EPSILON_S)
    early = bisect.bisect_left(times_s, times_s[cut] - flash_s - EPSILON_S)
    pairs = [(cut - 1, index) for index in range(cut + 1, late)]
    pairs += [(cut, index) for index in range(max(0, early - 1), cut - 1)]
    if any(space.distance(*pair) < limit for pair in pairs):
        return True
    # what moves meanwhile is still the same picture
    return any(space.moved_distance(*pair) < moved for pair in pairs)


def _by_content(features: Features, config: SplitConfig) -> list[int]:
    """What PySceneDetect's detectors make of the changes of hue, saturation and value."""
    change = features.content
    if config.detector == "content":
        return [int(frame) for frame in np.flatnonzero(change >= config.cut_threshold) if frame]
    found = []
    for frame in range(2, len(change) - 2):
        beside = float(np.delete(change[frame - 2 : frame + 3], 2).mean())
        if change[frame] >= config.min_content and change[frame] >= config.cut_threshold * max(beside, 1e-5):
            found.append(frame)
    return found
