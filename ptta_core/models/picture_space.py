"""Thumbnails as vectors: distances in levels, with and without the shift that best explains a change."""

import math

import cv2
import numpy as np

from ptta_core.models.shot_features import LUMA, N_LUMA

SHIFT = 2  # thumbnail px, a sixteenth of the width: how far a part of the picture may move between two frames
PATCH = 5  # thumbnail px: the parts that move alone
CHROMA_WEIGHT = 2.0  # a chroma cell stands for four of luma
BLOCK = 2048  # frames at a time, to bound memory


class Space:
    """The thumbnails of a source (uint8 [N,864]) with lengths in root-mean-square levels of luma."""

    def __init__(self, thumbs: np.ndarray) -> None:
        self.thumbs = thumbs
        self.steps = np.zeros(len(thumbs), np.float32)  # distance of each frame to the one before
        for at in range(1, len(thumbs), BLOCK):
            end = min(at + BLOCK, len(thumbs))
            some = self.vectors(np.arange(at - 1, end))
            self.steps[at:end] = np.linalg.norm(np.diff(some, axis=0), axis=1)
        self.moved: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self.thumbs)

    def vectors(self, frames: np.ndarray | list[int]) -> np.ndarray:
        """float32 [n,864] of the frames named; linear in the pixels, so a mixture of pictures mixes them too."""
        some = self.thumbs[frames].astype(np.float32)
        some[:, N_LUMA:] = (some[:, N_LUMA:] - 128.0) * CHROMA_WEIGHT
        return some / np.float32(np.sqrt(N_LUMA))

    def distance(self, first: int, second: int) -> float:
        """Root-mean-square difference of two frames, levels 0..255 (colour adds to it)."""
        pair = self.vectors([first, second])
        return float(np.linalg.norm(pair[1] - pair[0]))

    def contrast(self, frames: np.ndarray | list[int]) -> np.ndarray:
        """float32 [n]: the standard deviation of luma in each of the frames named, levels."""
        return self.thumbs[frames, :N_LUMA].astype(np.float32).std(axis=1)

    def unexplained(self, frame: int) -> float:
        """The step to `frame` from the one before, less what shifting each part of the picture explains; levels."""
        if frame not in self.moved:
            self.moved[frame] = _unexplained(self.vectors([frame - 1, frame]))
        return self.moved[frame]


def _unexplained(pair: np.ndarray) -> float:
    scale = np.float32(np.sqrt(N_LUMA))
    first, second = (one[:N_LUMA].reshape(LUMA[1], LUMA[0]) * scale for one in pair)
    chroma = float(((pair[1, N_LUMA:] - pair[0, N_LUMA:]) ** 2).sum())
    wide = cv2.copyMakeBorder(first, SHIFT, SHIFT, SHIFT, SHIFT, cv2.BORDER_REPLICATE)
    best = np.full_like(second, np.inf)
    for down in range(2 * SHIFT + 1):
        for right in range(2 * SHIFT + 1):
            moved = wide[down : down + LUMA[1], right : right + LUMA[0]]
            best = np.minimum(best, cv2.blur((moved - second) ** 2, (PATCH, PATCH)))
    still = float(((pair[1, :N_LUMA] - pair[0, :N_LUMA]) ** 2).sum())
    luma = float(best.mean())
    # colour moves with the luma: the same share of its change is explained
    return math.sqrt(luma + chroma * (luma / still if still > chroma else 1.0))
