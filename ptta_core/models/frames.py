"""The few frames of a clip that a model looks at, picked while the clip is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class EmptyClip(ValueError):
    """A clip's span holds no frames."""

    kind = "no_frames"


class Decoded(Protocol):
    """What is needed of a decoded frame; video.Frame is one."""

    @property
    def index(self) -> int: ...
    @property
    def pts(self) -> int: ...
    @property
    def image(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Look:
    """A decoded frame with another picture in its place: its luma, say."""

    index: int
    pts: int
    image: np.ndarray


class Nearest:
    """Keeps, of all frames offered, the ones nearest to some places of a clip; the earlier one of two equally near."""

    def __init__(self, start_pts: int, end_pts: int, shares: Sequence[float]) -> None:
        """`shares`: places as shares (0..1) of the clip's length."""
        self.wanted_pts = [start_pts + share * (end_pts - start_pts) for share in shares]
        self.kept: list[Decoded | None] = [None] * len(shares)

    def offer(self, frame: Decoded) -> None:
        """Look at one frame; frames come in order."""
        for slot, wanted in enumerate(self.wanted_pts):
            kept = self.kept[slot]
            if kept is None or abs(frame.pts - wanted) < abs(kept.pts - wanted):
                self.kept[slot] = frame

    def images(self) -> list[np.ndarray]:
        """The picture nearest to each place, in the places' order. Raises EmptyClip when no frame was offered."""
        return [frame.image for frame in self._found()]

    def distinct(self) -> list[np.ndarray]:
        """The same pictures in order of time, each once. Raises EmptyClip when no frame was offered."""
        by_index = {frame.index: frame.image for frame in self._found()}
        return [by_index[index] for index in sorted(by_index)]

    def _found(self) -> list[Decoded]:
        found = [frame for frame in self.kept if frame is not None]
        if not found:
            raise EmptyClip(f"no frames between pts {self.wanted_pts[0]:.0f} and {self.wanted_pts[-1]:.0f}")
        return found


def square_pixels(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture [H,W,3] squeezed into some other shape, stretched to the aspect ratio of `width` to `height`.

    The shorter side stays. A picture within 2 % of that ratio, or with no known one (0), is given back as it is.
    """
    import cv2

    if not width or not height:
        return image
    short = min(image.shape[:2])
    size = (max(short, round(short * width / height)), max(short, round(short * height / width)))
    stretched = (size[0] / size[1]) / (image.shape[1] / image.shape[0])
    return image if 0.98 < stretched < 1.02 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
