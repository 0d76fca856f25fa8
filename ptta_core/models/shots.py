"""Where one shot ends and the next begins, in two steps: measure (shot_features) each frame, then decide here.

A hard cut is a change that no shift of the picture explains, larger than the changes beside it, and not undone within
`flash_s`. Fades and dissolves are stretches of mixed frames (`gradual`): they belong to no shot, and nor does a frame
at a cut that is a blend of both sides. PySceneDetect's detectors are options in place of the rule for hard cuts, and
TransNetV2 (transnet) is one in place of all rules.
"""

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from ptta_core.config import SplitConfig
from ptta_core.models import gradual
from ptta_core.models.fades import fades as find_fades
from ptta_core.models.hard_cuts import hard_cuts
from ptta_core.models.picture_space import Space, median
from ptta_core.models.shot_features import Features, measure_for
from ptta_core.models.trace import Trace

if TYPE_CHECKING:
    from ptta_core.video import Frame

EPSILON_S = 1e-6
SURE_LEVELS = 40.0  # levels across a cut that count as full confidence
CUT_FRAMES = 2  # a network's transition of at most so many frames is a cut

# uint8 [N,27,48,3] -> float32 [N,2] in 0..1: that a transition's middle is here (of a cut, the last frame before it),
# and that the frame is part of a transition
Network = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Boundary:
    """The end of a shot: clips before it end at `pts` (exclusive), clips after it begin at `resume_pts`."""

    time_s: float  # of `frame`
    frame: int  # 0-based: the first frame of the new shot; the first or last of a fade's black; a dissolve's middle
    pts: int
    kind: Literal["cut", "fade", "dissolve"]
    confidence: float  # 0..1
    resume_pts: int  # equals pts for a clean cut


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
    begins_with: str  # start | cut | fade | dissolve | max_length
    ends_with: str  # end | cut | fade | dissolve | max_length

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


def find_boundaries(frames: "Iterable[Frame]", config: SplitConfig) -> Shots:
    """The boundaries of a source from its frames (rgb24 uint8 [H,W,3], in order, best about `config.width` wide)."""
    return decide(measure_for(frames, config), config)


def decide(features: Features, config: SplitConfig, network: Network | None = None) -> Shots:
    """The boundaries of a source from what was measured on all of its frames.

    network: of detector transnetv2, which decides alone. Raises ValueError when it is missing.
    """
    pts, times_s = features.pts.tolist(), features.times_s.tolist()
    if not pts:
        return Shots([], [], [])
    if config.detector == "transnetv2":
        if network is None:
            raise ValueError("split.detector = 'transnetv2' decides by a network, and none was given")
        return Shots(learned(network(features.rgb), config.transnet_threshold, pts, times_s), pts, times_s)
    space = Space(features.thumbs)
    trace = Trace(features.thumbs, space.lit)
    fades, flashes = find_fades(features, space, trace, config)
    dissolves, effects = gradual.mixtures(features, space, trace, fades) if config.dissolves else ([], [])
    mixed = [*fades, *dissolves]
    taken = [one.core for one in mixed] + flashes + effects
    cuts = [cut for cut in hard_cuts(features, space, trace, config) if not _inside(cut.frame, taken)]
    found = []
    for cut in cuts:
        mixed = [gradual.without(one, cut.frame) for one in mixed]
        first, end = gradual.blended(space, trace, cut.frame)
        sure = min(1.0, cut.levels / SURE_LEVELS)
        found.append(_boundary("cut", cut.frame, first, end, sure, pts, times_s))
    for one in mixed:
        found.append(_boundary(one.kind, one.frame, one.start, one.end, one.confidence, pts, times_s))
    return Shots(sorted(found, key=lambda one: (one.frame, one.pts)), pts, times_s)


def learned(likely_N2: np.ndarray, threshold: float, pts: Sequence[int], times_s: Sequence[float]) -> list[Boundary]:
    """Boundaries from a network's likelihoods [N,2], see Network, in order.

    Frames above `threshold` in either column that touch are one transition where the first column is above it too. Of
    a cut the first frame marked is the last of its shot; of a longer transition no frame belongs to a shot.
    """
    marked = np.concatenate([[False], (likely_N2 > threshold).any(1), [False]])
    edges = np.flatnonzero(marked[1:] != marked[:-1]).tolist()
    found = []
    for start, end in zip(edges[::2], edges[1::2]):
        sure = float(likely_N2[start:end, 0].max())
        if sure <= threshold:
            continue
        if end - start > CUT_FRAMES:
            found.append(_boundary("dissolve", (start + end) // 2, start, end, sure, pts, times_s))
        elif (first := start + 1 if start else 0) < len(pts):  # nothing follows a cut at the last frame
            found.append(_boundary("cut", end, first, end, sure, pts, times_s))
    return found


def _inside(frame: int, taken: Sequence[tuple[int, int]]) -> bool:
    return any(start <= frame <= end for start, end in taken)


def _boundary(
    kind: Literal["cut", "fade", "dissolve"], frame: int, first: int, end: int, confidence: float,
    pts: Sequence[int], times_s: Sequence[float],
) -> Boundary:  # fmt: skip
    """A boundary whose mixed frames are first..end-1; `end` may be the number of frames."""
    frame = min(frame, len(pts) - 1)
    resume = pts[end] if end < len(pts) else _end_pts(pts)
    return Boundary(times_s[frame], frame, pts[first], kind, confidence, resume)


def _end_pts(pts: Sequence[int]) -> int:
    if len(pts) < 2:
        return pts[0] + 1 if pts else 0
    return pts[-1] + max(1, round(float(median(np.diff(pts)))))


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
