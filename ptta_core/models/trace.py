"""What motion hardly touches in the frames of a source: coarse pictures, and how much detail each frame shows."""

import numpy as np

from ptta_core.models.picture_space import BLOCK
from ptta_core.models.shot_features import CHROMA, LUMA, N_LUMA

SCALES = 3  # detail of 1, 2 and 4 thumbnail px
ACROSS, DOWN = 4, 3  # thumbnail px in a coarse cell: 8 x 6 cells of luma, 4 x 3 of Cr and Cb
CELLS = (LUMA[0] // ACROSS) * (LUMA[1] // DOWN)  # of luma, the first in a coarse picture
COARSE = CELLS + 2 * (CHROMA[0] // ACROSS) * (CHROMA[1] // DOWN)


class Trace:
    """Of the thumbnails of a source (uint8 [N,864]), black borders (where `lit`, bool [576], is False) left out."""

    def __init__(self, thumbs: np.ndarray, lit: np.ndarray) -> None:
        self.coarse = np.empty((len(thumbs), COARSE), np.float32)  # levels, root mean square over cells
        self.energy = np.empty((len(thumbs), SCALES), np.float32)  # mean square difference of neighbours, levels^2
        for at in range(0, len(thumbs), BLOCK):
            some = thumbs[at : at + BLOCK]
            luma = some[:, :N_LUMA].reshape(-1, LUMA[1], LUMA[0]).astype(np.float32)
            colour = some[:, N_LUMA:].reshape(-1, 2 * CHROMA[1], CHROMA[0]).astype(np.float32) - 128
            # a coarse cell of colour stands for four of luma; as in Space it counts twice its levels
            cells = np.concatenate([_cells(luma), np.sqrt(np.float32(2)) * _cells(colour)], axis=1)
            self.coarse[at : at + BLOCK] = cells / np.sqrt(np.float32(CELLS))
            self.energy[at : at + BLOCK] = _energies(luma, lit.reshape(LUMA[1], LUMA[0]))

    @staticmethod
    def mean(values: np.ndarray, at: np.ndarray, limit: int, way: int, count: int) -> np.ndarray:
        """[n,D]: the mean of `count` frames from each one in `at` on, backwards or forwards, none beyond `limit`."""
        frames = at[:, None] + way * np.arange(count)
        return values[np.maximum(frames, limit) if way < 0 else np.minimum(frames, limit)].mean(axis=1)


def _cells(planes: np.ndarray) -> np.ndarray:
    """The means of cells of planes [n,H,W], [n, cells]."""
    count, height, width = planes.shape
    return planes.reshape(count, height // DOWN, DOWN, width // ACROSS, ACROSS).mean(axis=(2, 4)).reshape(count, -1)


def _energies(luma: np.ndarray, lit: np.ndarray) -> np.ndarray:
    """Mean square differences of lit neighbours in pictures [n,H,W], as they are, halved and halved again; [n,3]."""
    found = []
    for _ in range(SCALES):
        inside = lit[:-1, :-1] & lit[1:, :-1] & lit[:-1, 1:]
        across, down = np.diff(luma, axis=2)[:, :-1][:, inside], np.diff(luma, axis=1)[:, :, :-1][:, inside]
        found.append((across**2 + down**2).sum(axis=1) / max(1, inside.sum()))
        height, width = luma.shape[1] // 2, luma.shape[2] // 2
        luma = luma[:, : 2 * height, : 2 * width].reshape(-1, height, 2, width, 2).mean(axis=(2, 4))
        lit = lit[: 2 * height, : 2 * width].reshape(height, 2, width, 2).min(axis=(1, 3))
    return np.stack(found, axis=1)
