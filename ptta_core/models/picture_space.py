"""Thumbnails as vectors: distances in levels, with and without the shift that best explains a change."""

import math

import cv2
import numpy as np

from ptta_core.models.shot_features import CHROMA, LUMA, N_CHROMA, N_LUMA

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

    def unmoved(self, first: int, second: int) -> float:
        """Share (0..1) of the difference of two frames that shifting each part of the picture does not explain.

        Luma and colour shift together, unlike in `unexplained`. Measured: pans of several px 0.3 to 0.5, the two
        pictures of a dissolve 0.7 and more.
        """
        before, after = (_planes(one) for one in self.vectors([first, second]))
        still = float(((after - before) ** 2).sum(axis=2).mean())
        return math.sqrt(_least_difference(before, after) / still) if still > 0 else 0.0


def _unexplained(pair: np.ndarray) -> float:
    scale = np.float32(np.sqrt(N_LUMA))
    first, second = (one[:N_LUMA].reshape(LUMA[1], LUMA[0]) * scale for one in pair)
    chroma = float(((pair[1, N_LUMA:] - pair[0, N_LUMA:]) ** 2).sum())
    still = float(((pair[1, :N_LUMA] - pair[0, :N_LUMA]) ** 2).sum())
    luma = _least_difference(first[..., None], second[..., None])
    # colour moves with the luma: the same share of its change is explained
    return math.sqrt(luma + chroma * (luma / still if still > chroma else 1.0))


def _least_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean square difference of pictures float32 [18,32,C] when each part of the first is shifted as suits it best."""
    wide = cv2.copyMakeBorder(first, SHIFT, SHIFT, SHIFT, SHIFT, cv2.BORDER_REPLICATE).reshape(
        LUMA[1] + 2 * SHIFT, LUMA[0] + 2 * SHIFT, -1
    )
    best = np.full((LUMA[1], LUMA[0]), np.inf, np.float32)
    for down in range(2 * SHIFT + 1):
        for right in range(2 * SHIFT + 1):
            moved = wide[down : down + LUMA[1], right : right + LUMA[0]]
            best = np.minimum(best, cv2.blur(((moved - second) ** 2).sum(axis=2), (PATCH, PATCH)))
    return float(best.mean())


def _planes(vector: np.ndarray) -> np.ndarray:
    """float32 [18,32,3]: luma, Cr and Cb of one frame's vector [864] in levels; a quarter of a colour cell a pixel."""
    levels = vector * np.float32(np.sqrt(N_LUMA))
    luma, *colours = np.split(levels, (N_LUMA, N_LUMA + N_CHROMA))
    wide = [cv2.resize(one.reshape(CHROMA[1], CHROMA[0]), LUMA, interpolation=cv2.INTER_LINEAR) / 2 for one in colours]
    return np.dstack([luma.reshape(LUMA[1], LUMA[0]), *wide])
