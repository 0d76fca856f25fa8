"""When the drawings of a clip change: onsets, ones / twos / threes, and the distance over which flow is measured.

Limited animation holds each drawing for two or three frames. A pair of frames a fixed time apart then spans a varying
number of drawings, unless the distance is a whole number of holds: 6 frames (or 12, 18, ...) are that on ones, twos
and threes, at every phase. Where a frame rate conversion has repeated drawings unevenly, the drawings' own clock of 24
a second counts instead of the frames.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SMALL = 4  # frames are compared at a quarter of their size
CELL_PX = 16  # px of the whole frame
CELL = 4  # and in cells of 4 such px: 16 px, so that a small moving part is not averaged away
QUIET = 0.6  # gray levels (0..255), mean over a cell: compression alone changes a held drawing by less
APART = 2.2  # changes above and below this ratio are of two kinds: new drawings and noise
DISTINCT = 4.0  # a new drawing changes that many times more than a held one: else the picture drifts
PAUSE_24 = 4.5  # a drawing held longer (in 1/24 s) is a pause and says nothing about ones, twos or threes
EVEN = 0.9  # share of the holds that must fit a pattern


def small(image: np.ndarray) -> np.ndarray:
    """A gray picture at a quarter of its size: uint8 [H,W] -> [H/4,W/4]."""
    import cv2

    height, width = image.shape[:2]
    size = (max(1, round(width / SMALL)), max(1, round(height / SMALL)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean absolute difference of two small pictures in each cell of 16 px, gray levels, float32."""
    import cv2

    apart = cv2.absdiff(first, second).astype(np.float32)
    size = (max(1, round(apart.shape[1] / CELL)), max(1, round(apart.shape[0] / CELL)))
    return cv2.resize(apart, size, interpolation=cv2.INTER_AREA)


def change(first: np.ndarray, second: np.ndarray) -> float:
    """The largest mean absolute difference over the cells of two small pictures, gray levels 0..255."""
    return float(differences(first, second).max())


def spatial_noise(image: np.ndarray) -> float:
    """Standard deviation of the noise in the flatter parts of a gray image, gray levels.

    Immerkaer's Laplacian-difference mask (Fast Noise Variance Estimation, CVIU 1996), taken a cell at a time; the
    lower quartile of the cells, so that drawn texture counts as little as possible.
    """
    import cv2

    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(image.astype(np.float32), -1, mask))
    size = (max(1, image.shape[1] // 16), max(1, image.shape[0] // 16))
    return float(np.sqrt(np.pi / 2) / 6 * np.percentile(cv2.resize(response, size, interpolation=cv2.INTER_AREA), 25))


def quiet_level(images: Sequence[np.ndarray]) -> float:
    """The change of a cell of 16 px, gray levels, up to which two lightly blurred whole frames show the same drawing.

    Twice the grain plus a constant, for frames gray uint8 [H,W] (`noise` is the same for small pictures).
    """
    import cv2

    if len(images) < 2:
        return QUIET
    size = (max(1, round(images[0].shape[1] / CELL_PX)), max(1, round(images[0].shape[0] / CELL_PX)))
    smooth = [cv2.GaussianBlur(image, (0, 0), 1.0) for image in images]
    apart = (cv2.absdiff(a, b).astype(np.float32) for a, b in itertools.pairwise(smooth))
    temporal = float(
        np.percentile([np.median(cv2.resize(one, size, interpolation=cv2.INTER_AREA)) for one in apart], 10)
    )
    spatial = max(spatial_noise(image) for image in images[:: max(1, len(images) // 5)])
    # white noise of deviation s, blurred with sigma 1: difference of two frames has a mean of 0.32 s
    return 2.0 * min(temporal, 2 * 0.32 * spatial) + QUIET


class Noise(NamedTuple):
    """What grain and compression do to a picture that does not move."""

    grain: float  # mean absolute difference of two small pictures, gray levels
    quiet: float  # the change of a cell, gray levels, up to which two frames show the same drawing


def noise(steps: Sequence[np.ndarray], spatial: float) -> Noise:
    """The noise of a clip from the `differences` of its neighbouring frames and the spatial noise of some of them.

    Grain is what differs between neighbouring frames in most cells, but no more than the spatial noise can explain
    (else a textured pan would count as grain). Where the changes from frame to frame fall into two kinds, small and
    large, with a gap between them, the border lies in that gap: a codec leaves more behind in some cells.
    """
    if not steps:
        return Noise(0.0, QUIET)
    temporal = float(np.percentile([np.median(step) for step in steps], 10))
    grain = min(temporal, 2 * 0.32 * spatial)  # film grain is coarser than white noise: twice that is allowed
    quiet = 2.0 * grain + QUIET
    changes = np.maximum(np.sort([step.max() for step in steps]), quiet / APART)
    fewest = max(2, round(0.15 * len(changes)))
    ratios = (changes[1:] / changes[:-1])[fewest - 1 : len(changes) - fewest]
    if len(ratios) and ratios.max() > APART:
        at = int(np.argmax(ratios)) + fewest - 1
        quiet = max(quiet, float(np.sqrt(changes[at] * changes[at + 1])))
    return Noise(grain, quiet)


def drawing_onsets(smalls: Sequence[np.ndarray], quiet: float, changes: Sequence[float] = ()) -> list[int]:
    """Indices of the frames that show a new drawing; the first frame always counts.

    Each frame is compared with the onset of the drawing before, so that a drift too slow to see from frame to frame
    is found once it has added up. `changes`: from each frame to the next, where they are known already.
    """
    onsets: list[int] = []
    for index, image in enumerate(smalls):
        if onsets and changes and onsets[-1] == index - 1:
            moved = changes[index - 1]
        else:
            moved = change(smalls[onsets[-1]], image) if onsets else np.inf
        if moved > quiet:
            onsets.append(index)
    return onsets


def is_distinct(changes: Sequence[float], onsets: Sequence[int]) -> bool:
    """Whether drawings change at once and hold still between: only then does an onset tell a time.

    changes: from each frame to the next, gray levels.
    """
    starts = set(onsets)
    inside = [one for index, one in enumerate(changes, 1) if index not in starts]
    at = [changes[index - 1] for index in onsets[1:]]
    return bool(at and (not inside or np.median(at) > DISTINCT * max(np.median(inside), 0.1)))


def frame_period(times: np.ndarray) -> float:
    """Seconds between frames, the median, made exact over a run of frames (containers round times to milliseconds)."""
    steps = np.diff(times)
    usual = float(np.sort(steps)[len(steps) // 2])  # one of them: a mean of two need not be near any
    near = steps[np.abs(steps - usual) < 0.25 * usual]
    return float(near.mean())


def spans(period_s: float, gap_s: float) -> tuple[float, float]:
    """Seconds between the frames of a pair: (multiple of 6 frames, multiple of 6 ticks of 24 a second) up to the gap.

    A rate so low that 6 frames are longer than the gap has the gap itself.
    """
    frames = int(gap_s / (6 * period_s) + 1e-3) * 6
    ticks = int(gap_s * 24 / 6 + 1e-3) * 6
    return frames * period_s or gap_s, ticks / 24 or gap_s


class Holds(NamedTuple):
    """The rhythm of a clip's drawings."""

    onsets: list[int]  # frame indices
    frame_s: float  # seconds between frames
    even: int  # frames that nearly every drawing is held; 0 = uneven
    clock_s: float  # seconds a drawing where repeats are uneven by conversion from 24 a second; 0 = they are not
    distinct: bool  # drawings change at once and hold still between


def holds_of(times: np.ndarray, smalls: Sequence[np.ndarray], quiet: float, changes: Sequence[float]) -> Holds:
    """The rhythm of the drawings in a clip's small pictures with their times in seconds and changes between them."""
    onsets = drawing_onsets(smalls, quiet, changes)
    if len(times) < 2:
        return Holds(onsets, 0.0, 0, 0.0, False)
    frame_s = frame_period(times)
    seconds = np.diff(times[onsets])[1:]  # the first drawing may have begun before the clip
    seconds = seconds[seconds * 24 < PAUSE_24]
    # where the rate varies a hold may be shorter than half the usual frame; it is still a frame
    frames = np.maximum(np.round(seconds / frame_s).astype(int), 1)
    if len(frames) < 3:
        return Holds(onsets, frame_s, 0, 0.0, is_distinct(changes, onsets))
    usual = int(np.bincount(frames).argmax())
    clock_s = _clock(frames, seconds, usual * frame_s)
    even = usual if not clock_s and (frames == usual).mean() >= EVEN else 0
    return Holds(onsets, frame_s, even, clock_s, is_distinct(changes, onsets))


def _clock(frames: np.ndarray, seconds: np.ndarray, usual_s: float) -> float:
    """1/24, 2/24 or 3/24 s where holds of n and n + 1 frames alternate around it, else 0."""
    low = int(np.percentile(frames, 10))
    for first in (low, low - 1):
        inside = (frames == first) | (frames == first + 1)
        if inside.mean() < EVEN or (frames[inside] == frames[inside][0]).all():
            continue
        mean_s = float(seconds[inside].mean())
        ticks = min((1, 2, 3), key=lambda count: abs(mean_s - count / 24))
        # one frame more or less at the ends shifts the mean by that frame's share
        allowed = 0.02 + (seconds / frames).mean() / seconds.sum()
        off = abs(mean_s * 24 / ticks - 1)
        if off < allowed and off < abs(mean_s / usual_s - 1):
            return ticks / 24
    return 0.0


def by_conversion(holds: Holds, gap_s: float) -> bool:
    """Whether pairs span multiples of 1/4 s (6 drawings of 24 a second) rather than multiples of 6 frames."""
    if holds.clock_s:
        return True
    frames = round(spans(holds.frame_s, gap_s)[0] / holds.frame_s)
    return holds.even > 3 and frames % holds.even != 0


def true_span(times: np.ndarray, holds: Holds, first: int, second: int) -> float:
    """Seconds of motion between two frames: between their drawings' onsets where these are known, else their times.

    0 where both show one drawing.
    """
    onsets = np.asarray(holds.onsets)
    here, there = (int(np.searchsorted(onsets, frame, "right")) - 1 for frame in (first, second))
    plain = float(times[second] - times[first])
    if here == there:
        return 0.0
    if holds.clock_s:
        counted = (there - here) * holds.clock_s
        return counted if abs(counted - plain) < holds.clock_s + holds.frame_s else plain
    if not holds.distinct:
        return plain
    starts = times[onsets]
    if holds.even:  # a frame repeated before the first onset is seen only by the count
        return float(starts[there] - starts[here + 1]) + holds.even * holds.frame_s
    lengths = np.diff([*starts, times[-1] + holds.frame_s])
    if max(lengths[here], lengths[there]) * 24 > PAUSE_24:
        return plain
    begins = starts[here]
    if here == 0:  # it may have begun before the clip
        begins = starts[1] - max(lengths[0], float(np.median(lengths[lengths * 24 < PAUSE_24])))
    return float(starts[there] - begins)


def timing_of(times: np.ndarray, holds: Holds) -> str:
    """ones | twos | threes when 7 of 10 drawings are held that many 24ths of a second, else mixed; still for one.

    Judged by time: 12 drawings a second are twos at any frame rate, and faster than 24 is ones. Where every drawing is
    held equally long in a film of 20 to 31 frames a second (or of twice that, doubled), frames count: 3 of 30 are
    threes.
    """
    if len(holds.onsets) < 2:
        return "still"
    seconds = np.diff(times[holds.onsets])
    if len(seconds) > 1:
        seconds = seconds[1:]  # the first drawing may have begun before the clip
    seconds = seconds[seconds * 24 < PAUSE_24]
    unit_s = 1 / 24
    if holds.even:
        rate, doubled = 1 / holds.frame_s, 40 < 1 / holds.frame_s < 62 and holds.even % 2 == 0
        if 20 <= rate / (2 if doubled else 1) <= 31:
            unit_s = holds.frame_s * (2 if doubled else 1)
    counts = np.maximum(1, np.round(seconds / unit_s))
    if holds.clock_s:
        counts = np.full(len(seconds), round(holds.clock_s * 24))
    for count, name in ((1, "ones"), (2, "twos"), (3, "threes")):
        if len(counts) and (counts == count).mean() >= 0.7:
            return name
    return "mixed"
