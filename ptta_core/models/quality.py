"""Black and frozen pictures and blur: plain measures of a clip's frames, taken while they stream by."""

from typing import NamedTuple

import numpy as np

BLACK_LUMA = 20.0  # of 255: a pixel as bright is not black (16 is video black)
BRIGHT_SHARE = 0.02  # a frame with fewer such pixels is black
CELL_PX = 16  # two frames are compared in cells, so that a small moving part is not averaged away
SAME = 1.0  # gray levels, mean over a cell: compression changes a frozen picture by less
BLUR_PX = 9  # length of the second blur in the blur measure


class Quality(NamedTuple):
    """Fields as in rows.Score."""

    black_share: float  # 0..1 of the clip's frames
    longest_hold_s: float  # the longest time without any visible change


class QualityMeter:
    """Takes a clip's gray frames one after the other and keeps no more than one small picture."""

    def __init__(self) -> None:
        self._frames = self._black = 0
        self._held: np.ndarray | None = None  # the first frame of the present hold, small
        self._since_s = self._last_s = self._step_s = self._longest_s = 0.0

    def add(self, gray_HW: np.ndarray, time_s: float) -> None:
        """One frame, uint8 [H,W], and its time; times rise."""
        import cv2

        if self._frames:
            self._step_s = time_s - self._last_s
        self._frames += 1
        self._last_s = time_s
        height, width = gray_HW.shape
        size = (max(1, round(width / CELL_PX)), max(1, round(height / CELL_PX)))
        small = cv2.resize(gray_HW, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        # a bright speck survives no mean over a cell: the whole picture is looked at only when its cells are dark
        if small.max() < BLACK_LUMA and np.count_nonzero(gray_HW >= int(BLACK_LUMA)) < BRIGHT_SHARE * gray_HW.size:
            self._black += 1
        # compared with the hold's first frame: a drift too slow to see between two frames still adds up
        if self._held is None or float(np.abs(small - self._held).max()) > SAME:
            self._end_hold(time_s)
            self._held, self._since_s = small, time_s

    def _end_hold(self, at_s: float) -> None:
        if self._held is not None:
            self._longest_s = max(self._longest_s, at_s - self._since_s)

    def result(self) -> Quality:
        """What was seen. The last frame counts with the length of the one before. Raises ValueError for no frames."""
        if not self._frames:
            raise ValueError("no frames to measure")
        self._end_hold(self._last_s + self._step_s)
        return Quality(self._black / self._frames, self._longest_s)


def blur(gray_HW: np.ndarray) -> float:
    """How blurred a uint8 picture [H,W] is: 0 (sharp) to 1, after Crete et al., The blur effect (SPIE 2007).

    The picture is blurred again along rows and along columns; where that hardly weakens the differences between
    neighbours, it was blurred before. The larger of the two directions. Unlike the Laplacian's variance it does not
    take flat colours for blur; a picture without any edges gives 1.
    """
    import cv2

    image = gray_HW.astype(np.float32)
    found = []
    for axis in (0, 1):
        size = (1, BLUR_PX) if axis == 0 else (BLUR_PX, 1)  # OpenCV: width, height
        again = cv2.blur(image, size, borderType=cv2.BORDER_REPLICATE)
        before, after = (np.abs(np.diff(one, axis=axis)) for one in (image, again))
        total = float(before.sum())
        found.append(1.0 if total == 0 else (total - float(np.maximum(0, before - after).sum())) / total)
    return max(found)
