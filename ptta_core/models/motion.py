"""How much a clip moves: optical flow between drawings, in px per gap, and what the camera does.

Units: frames of 320 x 576 px (H x W; portrait transposed); a pair begins every `gap_s` (0.625 s), spans 12 frames at
24 a second (holds.py says why) and its displacement is scaled to `gap_s` by the true time between its two drawings.
Flow lengths are averaged, never signed flow: opposite motions would cancel.
"""

import itertools
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ptta_core.models.camera import settle, similarity
from ptta_core.models.flow import Flow, Raft, dis, make_flow, raft, warp_error
from ptta_core.models.holds import (
    CELL_PX,
    QUIET,
    Holds,
    Noise,
    by_conversion,
    change,
    differences,
    frame_period,
    holds_of,
    noise,
    quiet_level,
    small,
    spans,
    spatial_noise,
    timing_of,
    true_span,
)

__all__ = [
    "CELL_PX", "STILL", "Flow", "Meter", "Motion", "Raft", "dis", "make_flow", "measure", "quiet_level", "raft",
    "warp_error",
]  # fmt: skip

Pair = tuple[int, int]  # frame indices

SATURATED_PX = 80.0  # DIS reads 108 px as 92 at a width of 576; up to 80 it is accurate
UNMOVED_PX = (0.02, 0.1)  # per gap: less is noise (the second where drawings do not change at once), so timing is still
STATIC_PX = 0.5  # per gap; Open-Sora's "very low"
FLICKER_S = 0.25  # length of the running mean that luma is compared with
SETTLED = 8  # frames after which the distance between frames is known


class Motion(NamedTuple):
    """Motion of one clip; lengths in px per gap. Fields as in rows.Score."""

    motion_px: float  # mean over pixels and pairs of the flow's length
    motion_p95_px: float  # 95th percentile over pixels, mean over pairs
    object_px: float  # mean length of what is left of the flow without the camera's motion
    pairs: int
    static_share: float  # 0..1 of the pairs whose mean flow is below 0.5 px
    saturated: bool  # some pair's mean or 99th percentile is above 80 px
    timing: str  # ones | twos | threes | mixed | still
    pan_x_px: float  # net global translation, mean over pairs; positive: the picture moves right
    pan_y_px: float  # positive: the picture moves down
    zoom: float  # scale factor per second, geometric mean over pairs; 1 = none
    rotation_deg_s: float  # of the picture, mean over pairs; positive: clockwise
    flicker: float  # mean deviation of the frames' mean luma from its running mean over 0.25 s, gray levels


STILL = Motion(0.0, 0.0, 0.0, 0, 1.0, False, "still", 0.0, 0.0, 1.0, 0.0, 0.0)


def measure(images: Sequence[np.ndarray], times_s: Sequence[float], flow: Flow, gap_s: float = 0.625) -> Motion:
    """The motion of one clip from all its frames (gray uint8 [H,W]) and their times in seconds, in order.

    Raises ValueError when frames and times differ in number, or times do not increase.
    """
    if len(images) != len(times_s):
        raise ValueError(f"{len(images)} frames but {len(times_s)} times")
    meter = Meter(flow, gap_s)
    for image, time_s in zip(images, times_s):
        meter.offer(image, time_s)
    return meter.result()


class Meter:
    """Takes a clip's frames one after the other and keeps a quarter-size copy of each and few whole ones.

    `offer` only compares pictures; all flow is computed in `result`. A whole frame is kept, uncopied, while it may
    begin or end a pair: about three in a gap.
    """

    def __init__(self, flow: Flow, gap_s: float = 0.625) -> None:
        if gap_s <= 0:
            raise ValueError(f"gap_s = {gap_s}: must be above 0")
        self._flow, self._gap_s = flow, gap_s
        self._times: list[float] = []
        self._smalls: list[np.ndarray] = []
        self._lumas: list[float] = []
        self._recent: deque[int] = deque()  # frames whose fate is open
        self._whole: dict[int, np.ndarray] = {}
        self._wanted: list[float] = []  # times of frames to keep, ascending
        self._planned = 0  # pairs whose times have been planned

    def offer(self, gray_HW: np.ndarray, time_s: float) -> None:
        """One frame (gray uint8 [H,W], not to be changed later) and its time in seconds. Raises ValueError."""
        if self._times and time_s <= self._times[-1]:
            raise ValueError(f"frame times must increase: {time_s} s after {self._times[-1]} s")
        index = len(self._times)
        self._times.append(float(time_s))
        self._smalls.append(small(gray_HW))
        self._lumas.append(float(self._smalls[-1].mean()))
        self._whole[index] = gray_HW
        self._recent.append(index)
        if index >= SETTLED:
            self._let_go()

    def _let_go(self) -> None:
        """Forgets every frame older than a gap that is not the nearest to a planned time."""
        now, start = self._times[-1], self._times[0]
        while (begin := start + self._planned * self._gap_s) <= now:
            self._wanted += [begin, *(begin + length for length in self._lengths())]
            self._planned += 1
        while self._recent and self._times[self._recent[0]] < now - self._gap_s - 0.1:
            index = self._recent.popleft()
            at = self._times[index]
            before = self._times[index - 1] if index else -np.inf
            after = self._times[index + 1]
            low, high = (before + at) / 2 - 1e-6, (at + after) / 2 + 1e-6
            if index and not any(low <= wanted <= high for wanted in self._wanted[-16:]):
                del self._whole[index]

    def _lengths(self) -> list[float]:
        return sorted(set(spans(frame_period(np.asarray(self._times)), self._gap_s)))

    def result(self) -> Motion:
        """The motion of the frames so far. A clip with fewer than two drawings is still."""
        if len(self._times) < 2:
            return STILL
        times = np.asarray(self._times)
        some = [self._whole[index] for index in sorted(self._whole)[:: max(1, len(self._whole) // 5)]]
        steps = [differences(a, b) for a, b in itertools.pairwise(self._smalls)]
        level = noise(steps, max(spatial_noise(image) for image in some))
        holds = holds_of(times, self._smalls, level.quiet, [float(step.max()) for step in steps])
        flicker = flicker_of(times, self._lumas)
        if len(holds.onsets) < 2:
            return STILL._replace(flicker=flicker)
        pairs = self._pairs(times, holds)
        parts = np.array(self._measure(pairs, times, holds, level))
        mean, p95, peak, apart, pan_x, pan_y, log_zoom, turn = parts.T
        return Motion(
            motion_px=float(mean.mean()),
            motion_p95_px=float(p95.mean()),
            object_px=float(apart.mean()),
            pairs=len(pairs),
            static_share=float((mean < STATIC_PX).mean()),
            saturated=bool((peak > SATURATED_PX).any()),
            timing="still" if mean.mean() < UNMOVED_PX[not holds.distinct] else timing_of(times, holds),
            pan_x_px=float(pan_x.mean()),
            pan_y_px=float(pan_y.mean()),
            zoom=float(np.exp(log_zoom.mean())),
            rotation_deg_s=float(turn.mean()),
            flicker=flicker,
        )

    def _pairs(self, times: np.ndarray, holds: Holds) -> list[Pair]:
        """Pairs of kept frames, one a gap; a clip too short for one gives the longest that holds do not disturb."""
        length = spans(holds.frame_s, self._gap_s)[by_conversion(holds, self._gap_s)]
        kept = np.array(sorted(self._whole))
        pairs, last, slack = [], times[-1], 0.3 * holds.frame_s

        def nearest(at: float) -> int:
            return int(kept[np.argmin(np.abs(times[kept] - at))])

        begin = times[0]
        while begin + length <= last + slack:
            pairs.append((nearest(begin), nearest(times[nearest(begin)] + length)))
            begin += self._gap_s
        if not pairs:
            frames = int((last - times[0]) / holds.frame_s + 0.3) // 6 * 6
            pairs.append((0, nearest(times[0] + frames * holds.frame_s) if frames else len(times) - 1))
        elif last - times[pairs[-1][1]] >= self._gap_s / 2:
            pairs.append((nearest(last - length), len(times) - 1))
        return pairs

    def _measure(self, pairs: list[Pair], times: np.ndarray, holds: Holds, level: Noise) -> list[tuple[float, ...]]:
        """One tuple a pair, as from measure_pair; a pair that shows one drawing does not move and costs no flow."""
        moves = {}
        for first, second in pairs:
            span_s = true_span(times, holds, first, second)
            if span_s and change(self._smalls[first], self._smalls[second]) > level.quiet:
                moves[first, second] = span_s
        pictures = [(self._whole[first], self._whole[second]) for first, second in moves]
        flows = self._flow.many(pictures) if isinstance(self._flow, Raft) else (self._flow(*two) for two in pictures)
        found = {
            pair: measure_pair(*two, flow_HW2, span_s, self._gap_s, level)
            for (pair, span_s), two, flow_HW2 in zip(moves.items(), pictures, flows)
        }
        return [found.get(pair, (0.0,) * 8) for pair in pairs]


def measure_pair(
    first: np.ndarray, second: np.ndarray, flow_HW2: np.ndarray, span_s: float, gap_s: float, level: Noise
) -> tuple[float, ...]:
    """Mean, p95, peak, object and pan x and y in px per gap, log zoom per second, degrees per second of one pair."""
    camera = similarity(flow_HW2)
    length, apart = (
        np.hypot(one[..., 0], one[..., 1]) for one in settle(first, second, flow_HW2, camera, 2.0 * level.grain + QUIET)
    )
    to_gap = gap_s / span_s
    mean = float(length.mean())
    p95, p99 = (float(value) for value in np.percentile(length, (95, 99)))
    peak = max(mean, p99) * max(1.0, to_gap)
    lengths = (mean * to_gap, p95 * to_gap, peak, float(apart.mean()) * to_gap)
    return (
        *lengths, camera.x_px * to_gap, camera.y_px * to_gap, float(np.log(camera.scale)) / span_s,
        camera.degrees / span_s,
    )  # fmt: skip


def flicker_of(times: np.ndarray, lumas: Sequence[float]) -> float:
    """Mean |L - running mean of L over 0.25 s| of the frames' mean luma L, gray levels; 0 for shorter clips.

    A strobe of +-a gives about a; a fade or a slow change gives none, for a running mean follows it.
    """
    width = max(3, round(FLICKER_S / frame_period(times)) // 2 * 2 + 1)
    if len(lumas) < width + 2:
        return 0.0
    luma = np.asarray(lumas, np.float64)
    running = np.convolve(luma, np.full(width, 1 / width), "valid")
    return float(np.abs(luma[width // 2 : len(luma) - width // 2] - running).mean())
