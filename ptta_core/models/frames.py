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
        self._last_pts: int | None = None

    def may_be_nearest(self, pts: int) -> bool:
        """Whether the next frame is worth offering, for frames that are costly to make; called once a frame, in order.

        The first frame is, and around each place the first frame not before it, and any that is less than three
        quarters of the last distance before it. Where the distances vary, the one before a long pause may be left
        out although it is nearer than the one after.
        """
        last, self._last_pts = self._last_pts, pts
        if last is None:
            return True
        return any(last < wanted and pts >= wanted - 0.75 * (pts - last) for wanted in self.wanted_pts)

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
