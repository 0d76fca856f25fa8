"""Thumbnails as vectors: distances in levels, with and without the shift that best explains a change."""

import functools
import math

import cv2
import numpy as np

from ptta_core.models.shot_features import CHROMA, LIT_LEVELS, LUMA, N_CHROMA, N_LUMA

SHIFT = 2  # thumbnail px, a sixteenth of the width: how far a part of the picture may move between two frames
PATCH = 5  # thumbnail px: the parts that move alone
CHROMA_WEIGHT = 2.0  # a chroma cell stands for four of luma
LIT_SHARE = 0.02  # of the frames in which a pixel of the picture is lit
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
        self._unexplained: dict[int, float] = {}
        self.lit = lit_pixels(thumbs)  # bool [576]: of luma, no black border
        whole = cv2.erode(self.lit.reshape(LUMA[1], LUMA[0]).astype(np.uint8), np.ones((3, 3), np.uint8))
        self.inside = whole.ravel() > 0  # ... nor beside one

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
        return self.luma(frames).std(axis=1)

    def levels_inside(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 [N], [N]: the mean and the darkest pixel of each thumbnail's luma, black borders left out."""
        luma = self.thumbs[:, :N_LUMA][:, self.inside]
        return luma.mean(axis=1, dtype=np.float32), luma.min(axis=1).astype(np.float32)

    def unexplained(self, frame: int) -> float:
        """The step to `frame` from the one before, less what shifting each part of the picture explains; levels."""
        if frame not in self._unexplained:
            self._unexplained[frame] = _unexplained(self.vectors([frame - 1, frame]))
        return self._unexplained[frame]

    def luma(self, frames: np.ndarray | list[int]) -> np.ndarray:
        """float32 [n,576] of the frames named, levels."""
        return self.thumbs[frames, :N_LUMA].astype(np.float32)

    def planes(self, frame: int) -> np.ndarray:
        """float32 [18,32,3]: luma, Cr and Cb of a frame in levels; a quarter of a colour cell a pixel."""
        return _planes(self.vectors([frame])[0])

    def apart(self, first: int, second: int) -> tuple[float, float]:
        """Mean square difference of two frames, as they are and with each part of the first shifted as suits it best.

        Luma and colour shift together, unlike in `unexplained`.
        """
        before, after = self.planes(first), self.planes(second)
        return float(((after - before) ** 2).sum(axis=2).mean()), _least_difference(before, after)

    def moved_distance(self, first: int, second: int) -> float:
        """Root-mean-square difference of two frames, each part of the first shifted as suits it best; levels."""
        return math.sqrt(self.apart(first, second)[1])

    def unmoved(self, first: int, second: int) -> float:
        """Share (0..1) of the difference of two frames that shifting each part of the picture does not explain.

        Measured: pans of several px 0.3 to 0.5, the two pictures of a dissolve 0.7 and more.
        """
        still, moved = self.apart(first, second)
        return math.sqrt(moved / still) if still > 0 else 0.0


def lit_pixels(thumbs: np.ndarray) -> np.ndarray:
    """bool [576]: the luma pixels of thumbnails that are no black border in at least `LIT_SHARE` of the frames."""
    often = np.zeros(N_LUMA)
    for at in range(0, len(thumbs), BLOCK):
        often += (thumbs[at : at + BLOCK, :N_LUMA] > LIT_LEVELS).sum(axis=0)
    return often >= max(1.0, LIT_SHARE * len(thumbs))


def median(values: np.ndarray) -> np.ndarray:
    """The median along the last axis, as numpy's, which imports numpy.ma first: a tenth of what short films cost."""
    ordered, count = np.sort(values), np.shape(values)[-1]
    return (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2


def mixture(
    frames: np.ndarray, before: np.ndarray, way: np.ndarray, square: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(share, residual) of frames [n,D] as before + share * way: least squares; the residual as a share of |way|.

    square: |way|^2, where it is known already.
    """
    square = np.maximum((way**2).sum(axis=-1), 1e-6) if square is None else square
    off = frames - before
    share = (off * way).sum(axis=-1) / square
    rest = off - share[..., None] * way
    return share, np.sqrt((rest**2).sum(axis=-1) / square)


def correlation(first: np.ndarray, second: np.ndarray, lit: np.ndarray | None = None) -> np.ndarray:
    """Pearson's correlation of luma in pictures [n,864], -1..1; 0 for a flat one. lit: bool [576], where to look."""
    one, two = (some[:, :N_LUMA] if lit is None else some[:, :N_LUMA][:, lit] for some in (first, second))
    one, two = (some - some.mean(axis=1, keepdims=True) for some in (one, two))
    both = np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    return np.where(both > 1.0, (one * two).sum(axis=1) / np.maximum(both, 1e-6), 0.0)


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
    shifts = np.lib.stride_tricks.sliding_window_view(wide, (LUMA[1], LUMA[0]), axis=(0, 1))  # [5,5,C,18,32]
    off = shifts - np.moveaxis(second, 2, 0)
    off *= off
    square = functools.reduce(np.add, np.moveaxis(off, 2, 0)).reshape(-1, LUMA[1], LUMA[0])  # faster than sum
    return float(cv2.blur(np.ascontiguousarray(np.moveaxis(square, 0, 2)), (PATCH, PATCH)).min(axis=2).mean())


def _planes(vector: np.ndarray) -> np.ndarray:
    """float32 [18,32,3]: luma, Cr and Cb of one frame's vector [864] in levels; a quarter of a colour cell a pixel."""
    levels = vector * np.float32(np.sqrt(N_LUMA))
    luma, *colours = np.split(levels, (N_LUMA, N_LUMA + N_CHROMA))
    wide = [cv2.resize(one.reshape(CHROMA[1], CHROMA[0]), LUMA, interpolation=cv2.INTER_LINEAR) / 2 for one in colours]
    return np.dstack([luma.reshape(LUMA[1], LUMA[0]), *wide])
