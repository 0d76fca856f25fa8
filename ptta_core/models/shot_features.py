"""What the shot finder keeps of each frame: a thumbnail, its brightness, and where black borders begin.

Every number belongs to one frame alone, so chunks of a source measured apart and joined are exactly one pass.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ptta_core.config import SplitConfig

if TYPE_CHECKING:
    from ptta_core.video import Frame

LUMA = (32, 18)  # px: thumbnails of luma ...
CHROMA = (16, 9)  # px: ... and of Cr and Cb; 864 bytes a frame, 75 MB an hour
RGB = (48, 27)  # px: pictures for TransNetV2; 3888 bytes a frame, 336 MB an hour
N_LUMA, N_CHROMA = LUMA[0] * LUMA[1], CHROMA[0] * CHROMA[1]
LIT_LEVELS = 24  # luma above which a pixel is no part of a black border


@dataclass(frozen=True)
class Features:
    """One row a frame, in order; N may be 0."""

    pts: np.ndarray  # int64 [N]
    times_s: np.ndarray  # float64 [N]
    thumbs: np.ndarray  # uint8 [N,864]: luma, Cr, Cb
    mean: np.ndarray  # float32 [N]: mean luma, levels 0..255
    low: np.ndarray  # uint8 [N]: the darkest pixel
    high: np.ndarray  # uint8 [N]: the brightest pixel
    extents: np.ndarray  # int16 [N,4]: lit columns and rows as left, top, right, bottom, ends exclusive; 0 for none
    content: np.ndarray  # float32 [N]: mean change of hue, saturation and value; 0 unless asked for
    size: tuple[int, int]  # (width, height) in px of the frames measured
    # uint8 [N,27,48,3]: small RGB pictures; without rows unless asked for
    rgb: np.ndarray = field(default_factory=lambda: np.zeros((0, RGB[1], RGB[0], 3), np.uint8))

    def __len__(self) -> int:
        return len(self.pts)


def measure_for(frames: "Iterable[Frame]", config: SplitConfig) -> Features:
    """What `config.detector` goes by, of frames as in `measure`."""
    return measure(frames, content=config.detector in ("adaptive", "content"), rgb=config.detector == "transnetv2")


def measure(frames: "Iterable[Frame]", content: bool = False, rgb: bool = False) -> Features:
    """What is kept of frames (rgb24 uint8 [H,W,3], in order, all of one size).

    content: also what PySceneDetect's detectors go by, which speaks of two frames: such a source is measured whole.
    rgb: also the small pictures that TransNetV2 sees.
    """
    rows: list[tuple[int, float, float, int, int]] = []
    thumbs: list[np.ndarray] = []
    extents: list[tuple[int, int, int, int]] = []
    changes: list[float] = []
    pictures: list[np.ndarray] = []
    size, last = (0, 0), None
    for frame in frames:
        gray = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        size = gray.shape[1], gray.shape[0]
        across, down = gray.max(0), gray.max(1)
        rows.append((frame.pts, frame.time_s, cv2.mean(gray)[0], int(gray.min()), int(across.max())))
        thumbs.append(thumbnail(frame.image))
        extents.append(_lit(across, down))
        if rgb:
            pictures.append(cv2.resize(frame.image, RGB, interpolation=cv2.INTER_AREA))
        if content:
            hsv = cv2.cvtColor(frame.image, cv2.COLOR_RGB2HSV)
            changes.append(0.0 if last is None else float(np.mean(cv2.absdiff(hsv, last))))
            last = hsv
    columns = list(zip(*rows)) if rows else [()] * 5
    kinds = (np.int64, np.float64, np.float32, np.uint8, np.uint8)
    pts, times_s, mean, lows, highs = (np.array(column, kind) for column, kind in zip(columns, kinds))
    return Features(
        pts, times_s, np.array(thumbs, np.uint8).reshape(-1, N_LUMA + 2 * N_CHROMA), mean, lows, highs,
        np.array(extents, np.int16).reshape(-1, 4), np.array(changes or [0.0] * len(rows), np.float32), size,
        np.array(pictures, np.uint8).reshape(-1, RGB[1], RGB[0], 3),
    )  # fmt: skip


def thumbnail(image: np.ndarray) -> np.ndarray:
    """uint8 [864]: luma 18 x 32, then Cr and Cb 9 x 16 each, of an RGB picture uint8 [H,W,3]; linear in the pixels."""
    small = cv2.cvtColor(cv2.resize(image, LUMA, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2YCrCb)
    chroma = cv2.resize(small[..., 1:], CHROMA, interpolation=cv2.INTER_AREA)
    return np.concatenate([small[..., 0].ravel(), chroma[..., 0].ravel(), chroma[..., 1].ravel()])


def join(parts: Sequence[Features]) -> Features:
    """The features of a source from those of its chunks, in order, without overlap."""
    filled = [part for part in parts if len(part)]
    if not filled:
        return parts[0]
    names = ("pts", "times_s", "thumbs", "mean", "low", "high", "extents", "content", "rgb")
    joined = {name: np.concatenate([getattr(part, name) for part in filled]) for name in names}
    return Features(**joined, size=filled[0].size)


def _lit(across: np.ndarray, down: np.ndarray) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(across > LIT_LEVELS), np.flatnonzero(down > LIT_LEVELS)
    if not len(columns) or not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
