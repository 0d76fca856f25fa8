"""Where one shot ends and the next begins, from one pass over downscaled frames.

Hard cuts come from PySceneDetect's detectors. Around them stand three rules: a run of black frames is a fade, a
change that is undone within `flash_s` is a flash, and a change of hue that a blurred picture does not show is a
codec's refresh. Dissolves are not looked for: the rolling average hides them.
"""

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from ptta_core.config import SplitConfig

if TYPE_CHECKING:
    from scenedetect.detector import SceneDetector

    from ptta_core.video import Frame

THUMB = (16, 9)  # px, what pictures are compared at: 432 bytes of colour a frame, 75 MB for two hours
ALIKE_LEVELS = 10.0  # mean absolute difference of two thumbnails, levels 0..255
ALIKE_SHARE = 0.35  # and of the difference across the cut, so that dark cuts are not mistaken for flashes
SAME_LEVELS = 6.0  # below this nothing was cut: a codec's refresh changes 3 levels, the faintest cut seen 13
SURE_LEVELS = 64.0  # levels across a cut that count as full confidence
EPSILON_S = 1e-6
NOMINAL_FPS = 24.0  # only numbers the frames for PySceneDetect; no rule here depends on it


@dataclass(frozen=True)
class Boundary:
    """The end of a shot: clips before it end at `pts` (exclusive), clips after it begin at `resume_pts`."""

    time_s: float
    frame: int  # 0-based: the first frame of the new shot, or the first black frame
    pts: int
    kind: Literal["cut", "fade", "dissolve"]
    confidence: float  # 0..1
    resume_pts: int  # equals pts for a cut; after the black for a fade


@dataclass(frozen=True)
class Shots:
    """What one pass found. `pts` and `times_s` hold every frame; both are empty for a source without frames."""

    boundaries: list[Boundary]
    pts: list[int] = field(repr=False)
    times_s: list[float] = field(repr=False)

    @property
    def first_pts(self) -> int:
        """The pts of the first frame; 0 without frames."""
        return self.pts[0] if self.pts else 0

    @property
    def last_pts(self) -> int:
        """The pts of the last frame; 0 without frames."""
        return self.pts[-1] if self.pts else 0

    @property
    def end_pts(self) -> int:
        """The exclusive end: the last pts and one usual step."""
        return _end_pts(self.pts)


@dataclass(frozen=True)
class Span:
    """Frames with start_pts <= pts < end_pts; as in rows.Clip."""

    start_pts: int
    end_pts: int
    frames: int
    start_s: float
    end_s: float
    begins_with: str  # start | cut | fade | max_length
    ends_with: str  # end | cut | fade | max_length

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


def find_boundaries(frames: "Iterable[Frame]", config: SplitConfig) -> Shots:
    """The boundaries of a source from its frames (rgb24 uint8 [H,W,3], in order, best about `config.width` wide)."""
    from scenedetect.common import FrameTimecode

    detector = make_detector(config)
    pts: list[int] = []
    times_s: list[float] = []
    thumbs: list[np.ndarray] = []
    dark: list[bool] = []
    cuts: list[int] = []
    for number, frame in enumerate(frames):
        gray = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        pts.append(frame.pts)
        times_s.append(frame.time_s)
        thumbs.append(cv2.resize(frame.image, THUMB, interpolation=cv2.INTER_AREA))
        dark.append(float(gray.mean()) < config.fade_threshold)
        bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        found = detector.process_frame(FrameTimecode(number, fps=NOMINAL_FPS), bgr)
        cuts += [cut.frame_num for cut in found]
    black = [run for run in runs_of(dark) if not _black_flash(run, thumbs, times_s, config)]
    cuts = [cut for cut in cuts if _levels(thumbs[cut - 1], thumbs[cut]) >= SAME_LEVELS and not _near_black(cut, black)]
    kept = [cut for cut in cuts if not is_flash(cut, thumbs, times_s, config.flash_s)]
    found_here = [_cut(number, thumbs, pts, times_s) for number in kept]
    found_here += [_fade(run, pts, times_s) for run in black]
    return Shots(sorted(found_here, key=lambda one: one.frame), pts, times_s)


def make_detector(config: SplitConfig) -> "SceneDetector":
    """PySceneDetect's detector as configured, without its own least shot length: `min_clip_s` decides on that."""
    from scenedetect.detectors import AdaptiveDetector, ContentDetector

    if config.detector == "adaptive":
        return AdaptiveDetector(
            adaptive_threshold=config.threshold, min_scene_len=1, min_content_val=config.min_content
        )
    return ContentDetector(threshold=config.threshold, min_scene_len=1)


def runs_of(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """(first, end) of each run of True, end exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], np.asarray(flags, dtype=np.int8), [0]))))
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2])]


def is_flash(cut: int, thumbs: Sequence[np.ndarray], times_s: Sequence[float], flash_s: float) -> bool:
    """Whether the change at frame `cut` is undone, or undoes another, within `flash_s` seconds.

    The first cut of a flash finds the picture before it again later; the last one finds the picture after it earlier.
    """
    before, after = thumbs[cut - 1], thumbs[cut]
    limit = min(ALIKE_LEVELS, ALIKE_SHARE * _levels(before, after))
    late = bisect.bisect_right(times_s, times_s[cut] + flash_s + EPSILON_S)
    early = bisect.bisect_left(times_s, times_s[cut] - flash_s - EPSILON_S)
    returns = any(_levels(before, thumbs[index]) < limit for index in range(cut + 1, late))
    return returns or any(_levels(after, thumbs[index]) < limit for index in range(max(0, early - 1), cut - 1))


def _levels(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference over pixels and channels, levels 0..255."""
    return float(cv2.absdiff(first, second).mean())


def _black_flash(
    run: tuple[int, int], thumbs: Sequence[np.ndarray], times_s: Sequence[float], config: SplitConfig
) -> bool:
    """Whether a black run is a flicker: short, and the same bright picture stands on both sides."""
    first, end = run
    if first == 0 or end == len(thumbs) or times_s[end] - times_s[first] > config.flash_s + EPSILON_S:
        return False
    before, after = thumbs[first - 1], thumbs[end]
    # the frames beside a true fade are nearly black themselves
    bright = min(float(before.mean()), float(after.mean())) > 3 * config.fade_threshold
    return bright and _levels(before, after) < ALIKE_LEVELS


def _near_black(cut: int, black: Sequence[tuple[int, int]]) -> bool:
    return any(first - 1 <= cut <= end + 1 for first, end in black)


def _cut(number: int, thumbs: Sequence[np.ndarray], pts: Sequence[int], times_s: Sequence[float]) -> Boundary:
    confidence = min(1.0, _levels(thumbs[number - 1], thumbs[number]) / SURE_LEVELS)
    return Boundary(times_s[number], number, pts[number], "cut", confidence, pts[number])


def _fade(run: tuple[int, int], pts: Sequence[int], times_s: Sequence[float]) -> Boundary:
    first, end = run
    resume = pts[end] if end < len(pts) else _end_pts(pts)
    return Boundary(times_s[first], first, pts[first], "fade", 1.0, resume)


def _end_pts(pts: Sequence[int]) -> int:
    if len(pts) < 2:
        return pts[0] + 1 if pts else 0
    return pts[-1] + max(1, round(float(np.median(np.diff(pts)))))


# ------------------------------------------------------------------------------------------------------- spans


def whole_shots(shots: Shots, frame_s: float) -> list[Span]:
    """The shots between the boundaries, whatever their length; black stretches belong to none.

    `frame_s` is how long the last frame is shown, in seconds.
    """
    starts = [(shots.first_pts, "start"), *((one.resume_pts, one.kind) for one in shots.boundaries)]
    ends = [*((one.pts, one.kind) for one in shots.boundaries), (shots.end_pts, "end")]
    return [
        _span(shots, start, end, begins, ended, frame_s)
        for (start, begins), (end, ended) in zip(starts, ends)
        if start < end
    ]


def to_spans(shots: Shots, config: SplitConfig, frame_s: float) -> list[Span]:
    """The clips of a source: shots above `max_clip_s` in equal parts, nothing below `min_clip_s`.

    Half a frame is forgiven: containers that count in milliseconds round a shot's length.
    """
    parts = [part for shot in whole_shots(shots, frame_s) for part in _parts(shots, shot, config.max_clip_s, frame_s)]
    return [part for part in parts if part.duration_s > config.min_clip_s - max(EPSILON_S, frame_s / 2)]


def _span(shots: Shots, start_pts: int, end_pts: int, begins: str, ended: str, frame_s: float) -> Span:
    first, end = (bisect.bisect_left(shots.pts, value) for value in (start_pts, end_pts))
    return Span(start_pts, end_pts, end - first, _time(shots, first), _time(shots, end, frame_s), begins, ended)


def _time(shots: Shots, index: int, frame_s: float = 0.0) -> float:
    return shots.times_s[index] if index < len(shots.times_s) else shots.times_s[-1] + frame_s


def _parts(shots: Shots, shot: Span, max_s: float, frame_s: float) -> list[Span]:
    """A shot in the fewest equal parts of at most `max_s` seconds; parts begin at frames, so they differ by a frame."""
    count = max(1, math.ceil(shot.duration_s / max_s - EPSILON_S))
    while True:
        spans = _cut_in(shots, shot, count, frame_s)
        # a part may be a frame too long through rounding; a single frame cannot be cut
        if all(span.duration_s <= max_s + EPSILON_S or span.frames == 1 for span in spans):
            return spans
        count += 1


def _cut_in(shots: Shots, shot: Span, count: int, frame_s: float) -> list[Span]:
    """`shot` cut at the frames nearest to `count` equal parts."""
    first = bisect.bisect_left(shots.pts, shot.start_pts)
    times = np.asarray(shots.times_s[first : first + shot.frames])
    targets = [shot.start_s + shot.duration_s * part / count for part in range(1, count)]
    inner = sorted({shots.pts[first + int(np.abs(times - target).argmin())] for target in targets} - {shot.start_pts})
    edges = list(pairwise([shot.start_pts, *inner, shot.end_pts]))
    return [
        _span(
            shots,
            start,
            end,
            shot.begins_with if start == shot.start_pts else "max_length",
            shot.ends_with if end == shot.end_pts else "max_length",
            frame_s,
        )
        for start, end in edges
    ]
