"""Black borders: the box inside which every frame of a stretch lies, found small and made exact at full size.

Dark scenes hide an edge, so what counts is where anything was ever lit. A border is one only if the picture begins at
it abruptly and along most of its length: a night scene fades into its dark corners instead.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ptta_core.models.picture_space import median
from ptta_core.models.shot_features import LIT_LEVELS, Features

if TYPE_CHECKING:
    from ptta_core.models.shots import Span

Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom exclusive
Read = Callable[[int], np.ndarray | None]  # pts -> luma uint8 [H,W] at full size

LOOKS = 5  # frames looked at in full size
ABRUPT_LEVELS = 40.0  # luma just inside a border ...
ABRUPT_SHARE = 0.5  # ... of which this share is reached within two px
LENGTH_SHARE = 0.4  # of an edge's length along which the picture is lit
INSIDE = 6  # px inside an edge that are looked at
LEAST_AREA = 0.3  # share of the picture that a crop leaves
OWN_S = 5.0  # stretches with borders of their own last at least this long in all


def crops(features: Features, spans: Sequence["Span"], min_border: float, read: Read) -> list[str]:
    """For each span "x,y,w,h" in px at full size, or "" where the picture has no borders.

    One crop for the whole source; stretches of `OWN_S` and more that share other, larger borders have their own.
    min_border: share of a side.
    """
    everything = np.arange(len(features))
    common = crop_of(features, everything, min_border, read)
    boxes = [union(features, _frames(features, span)) for span in spans]
    whole = union(features, everything)
    found = []
    known: dict[Box, str] = {}
    for box in boxes:
        if box is None or whole is None or not _clearly_inside(box, whole, features.size, min_border):
            found.append(common)
            continue
        alike = [other for other, its in zip(spans, boxes) if its is not None and _near(its, box)]
        if box not in known:
            long = sum(other.duration_s for other in alike) >= OWN_S
            frames = np.concatenate([_frames(features, other) for other in alike])
            known[box] = (crop_of(features, frames, min_border, read) if long else "") or common
        found.append(known[box])
    return found


def crop_of(features: Features, frames: np.ndarray, min_border: float, read: Read) -> str:
    """The crop common to the frames named, "" for none."""
    box = union(features, frames)
    if box is None or not any(_bordered(box, features.size, min_border)):
        return ""
    pictures = [picture for frame in _lit_frames(features, frames, box)
                if (picture := read(int(features.pts[frame]))) is not None]  # fmt: skip
    if not pictures or len({one.shape for one in pictures}) > 1:
        return ""
    return _exact(np.stack(pictures), box, features.size, min_border)


def union(features: Features, frames: np.ndarray) -> Box | None:
    """The box around all that is ever lit in the frames named, in px of the frames measured; None for nothing."""
    lit = features.extents[frames]
    lit = lit[lit[:, 2] > 0]
    if not len(lit):
        return None
    low, high = lit.min(axis=0), lit.max(axis=0)
    return int(low[0]), int(low[1]), int(high[2]), int(high[3])


def _frames(features: Features, span: "Span") -> np.ndarray:
    first, end = np.searchsorted(features.pts, (span.start_pts, span.end_pts))
    return np.arange(first, end)


def _bordered(box: Box, size: tuple[int, int], min_border: float) -> tuple[bool, bool, bool, bool]:
    """Whether there is a border on the left, at the top, on the right and at the bottom."""
    width, height = size
    # one px less: a px at the edge may be lit by the picture beside it
    least = min_border * width - 1, min_border * height - 1
    left, top, right, bottom = box
    return left > least[0], top > least[1], width - right > least[0], height - bottom > least[1]


def _clearly_inside(box: Box, outer: Box, size: tuple[int, int], min_border: float) -> bool:
    """Whether `box` leaves out a border on two opposite sides that `outer` does not."""
    least = max(2.0, min_border * size[0]), max(2.0, min_border * size[1])
    across = min(box[0] - outer[0], outer[2] - box[2]) >= least[0]
    return across or min(box[1] - outer[1], outer[3] - box[3]) >= least[1]


def _near(first: Box, second: Box) -> bool:
    return all(abs(one - other) <= 1 for one, other in zip(first, second))


def _lit_frames(features: Features, frames: np.ndarray, box: Box) -> list[int]:
    """The frames to look at: lit up to the edges, bright, and far apart."""
    away = np.abs(features.extents[frames].astype(np.int32) - np.array(box)).max(axis=1)
    near = frames[away <= max(1, int(away.min()))]
    parts = np.array_split(near, min(LOOKS, len(near)))
    return [int(part[int(features.mean[part].argmax())]) for part in parts]


def _exact(pictures: np.ndarray, box: Box, size: tuple[int, int], min_border: float) -> str:
    """The crop at full size from pictures uint8 [n,H,W]; even, inside the picture."""
    brightest = pictures.max(axis=0)
    height, width = brightest.shape
    across, down = width / size[0], height / size[1]
    left, top, right, bottom = _bordered(box, size, min_border)
    edges = [
        _edge(brightest.T, box[0] * across, across) if left else 0,
        _edge(brightest, box[1] * down, down) if top else 0,
        _edge(brightest.T[::-1], (size[0] - box[2]) * across, across) if right else 0,
        _edge(brightest[::-1], (size[1] - box[3]) * down, down) if bottom else 0,
    ]
    least = (min_border * width, min_border * height) * 2
    if not any(edges):
        return ""
    kept = [edge if edge >= share else 0 for edge, share in zip(edges, least)]
    if not any(kept):
        return ""
    x, y = (edge + edge % 2 for edge in kept[:2])
    wide, high = ((width - kept[2]) // 2 * 2 - x, (height - kept[3]) // 2 * 2 - y)
    return f"{x},{y},{wide},{high}" if wide * high >= LEAST_AREA * width * height else ""


def _edge(picture: np.ndarray, coarse: float, scale: float) -> int:
    """The first row of the picture inside a border at its top; 0 when nothing begins abruptly near row `coarse`."""
    reach = int(np.ceil(scale)) + 2
    first, last = max(0, int(coarse) - reach), min(len(picture) - INSIDE - 1, int(np.ceil(coarse)) + reach)
    if last <= first:
        return 0
    level = np.percentile(picture[: last + INSIDE + 1], 75, axis=1)
    for row in range(first, last + 1):
        inside = float(median(level[row : row + INSIDE]))
        if level[row] > LIT_LEVELS and level[row] >= ABRUPT_SHARE * inside:
            before = float(level[max(0, row - 2)]) if row > 1 else 255.0
            lit = float((picture[row : row + INSIDE].max(axis=0) > LIT_LEVELS).mean())
            abrupt = inside >= ABRUPT_LEVELS and inside - before >= ABRUPT_SHARE * inside and before <= LIT_LEVELS
            return row if abrupt and lit >= LENGTH_SHARE else 0
    return 0
