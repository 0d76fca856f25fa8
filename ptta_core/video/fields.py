"""The two fields of a picture: how far they are from being one moment, and how they are put together.

A field is every other line: the top one holds lines 0, 2, 4 ..., the bottom one lines 1, 3, 5 ... Fields of different
moments woven into one picture show combing wherever something moved between them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from av.video.frame import VideoFrame

COLUMNS = 360  # px: combing is measured on about so many columns of a picture
MOVED_LEVELS = 12  # of 255, above noise: how much a pixel of a field changes where something moves
ENOUGH_SHARE = 0.01  # of the pixels: less motion than that counts for less


class Fields(NamedTuple):
    """The luma of both fields, int16 [H/2,w] each, some columns left out, 0..255."""

    top: np.ndarray
    bottom: np.ndarray


class Pair(NamedTuple):
    """Combing where something moves between a picture and the next, in levels a pixel, as the fields are woven."""

    own: float  # top and bottom of the first picture
    top_later: float  # top of the second, bottom of the first: neighbours in time where the top field comes first
    bottom_later: float  # top of the first, bottom of the second
    weight: float  # 0..1: 0 where nothing moves, 1 from ENOUGH_SHARE on

    @property
    def least(self) -> float:
        """What is left in the best of the three: the picture's own fine detail, as it also adds to the others."""
        return min(self.own, self.top_later, self.bottom_later)

    @property
    def far(self) -> float:
        """How much worse the worst of the three is."""
        return max(self.own, self.top_later, self.bottom_later) - self.least

    def woven(self, bottom_first: bool) -> float:
        """Combing of the two fields that follow each other across the two pictures."""
        return self.bottom_later if bottom_first else self.top_later


class Weave(NamedTuple):
    """How well a run of pictures is woven, as shares (0..1) of the combing of the worst weaves."""

    bottom_first: bool
    whole: float  # how much better the pictures are as they are: 1 where all are whole moments
    split: float  # how much better their neighbouring fields fit, where those do: 0 where all are whole moments
    film: float  # what is left in the film pictures of the best 3:2 phase: 0 where telecine is undone


class Phase(NamedTuple):
    """Where cycles of 3:2 pulldown begin (number of the picture modulo 5), and which field comes first."""

    shift: int
    bottom_first: bool

    def combing(self, number: int, pair: Pair) -> float:
        """What video picture `number` adds to the combing of this phase's film pictures, above its detail."""
        place = (number - self.shift) % 5
        if place == 3:
            return 0.0
        return (pair.woven(self.bottom_first) if place == 2 else pair.own) - pair.least


PHASES = [Phase(shift, bottom_first) for bottom_first in (False, True) for shift in range(5)]


def weave_of(pairs: Sequence[tuple[int, Pair]]) -> Weave:
    """How numbered pictures in a row are woven; all zero where nothing moves."""
    scale = sum(pair.far * pair.weight for _, pair in pairs)
    if not scale:
        return Weave(False, 0.0, 0.0, 0.0)
    bottom_first = sum((pair.bottom_later - pair.top_later) * pair.weight for _, pair in pairs) < 0
    better = [(pair.woven(bottom_first) - pair.own) * pair.weight for _, pair in pairs]
    film = min(sum(phase.combing(number, pair) * pair.weight for number, pair in pairs) for phase in PHASES)
    whole, split = (sum(max(0.0, sign * one) for one in better) for sign in (1, -1))
    return Weave(bottom_first, whole / scale, split / scale, film / scale)


def plane(frame: VideoFrame, index: int = 0) -> np.ndarray:
    """Plane `index` of a planar picture as stored: uint8 or uint16 [H,W], a view into the picture."""
    one, wide = frame.planes[index], frame.format.components[0].bits > 8
    lines = np.frombuffer(one, np.uint16 if wide else np.uint8)  # type: ignore[call-overload]  # it is a buffer
    return lines.reshape(one.height, -1)[:, : one.width]


def luma(frame: VideoFrame) -> np.ndarray:
    """Luma as stored, 8 bits: uint8 [H,W]; not turned, not stretched. A view into the picture where it has 8 bits."""
    if not is_planar_yuv(frame):
        frame = frame.reformat(format="yuv444p")
    bits, lines = frame.format.components[0].bits, plane(frame)
    return lines if bits <= 8 else (lines >> (bits - 8)).astype(np.uint8)


def is_planar_yuv(frame: VideoFrame) -> bool:
    """Whether `plane` reads this picture, luma first."""
    return frame.format.name.startswith(("yuv4", "yuvj4", "gray")) and not frame.format.name.endswith("be")


def fields_of(lines: np.ndarray) -> Fields:
    """The fields of luma [H,W], thinned out to about COLUMNS columns."""
    step, height = max(1, round(lines.shape[1] / COLUMNS)), lines.shape[0] // 2 * 2
    thin = lines[:height, ::step].astype(np.int16)
    return Fields(thin[0::2], thin[1::2])


def measure(first: Fields, second: Fields) -> Pair:
    """Combing between a picture and the next; all zero for pictures of different sizes or of less than 4 lines."""
    if first.top.shape != second.top.shape or first.top.shape[0] < 2:
        return Pair(0.0, 0.0, 0.0, 0.0)
    moved = (np.abs(first.top - second.top) > MOVED_LEVELS) | (np.abs(first.bottom - second.bottom) > MOVED_LEVELS)
    moved = moved[:-1]
    count = int(np.count_nonzero(moved))
    if not count:
        return Pair(0.0, 0.0, 0.0, 0.0)

    def level(top: np.ndarray, bottom: np.ndarray) -> float:
        return float(combing(top, bottom)[moved].sum()) / count

    weight = min(1.0, count / moved.size / ENOUGH_SHARE)
    return Pair(
        level(first.top, first.bottom), level(second.top, first.bottom), level(first.top, second.bottom), weight
    )


def combing(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """How far each bottom line lies beyond both its neighbours, int16 [H/2-1,w]; 0 where it lies between them."""
    above, below = bottom[:-1] - top[:-1], bottom[:-1] - top[1:]
    return np.maximum(np.minimum(above, below), 0) - np.minimum(np.maximum(above, below), 0)


def weave(top: VideoFrame, bottom: VideoFrame) -> VideoFrame:
    """A new picture of the top field of one and the bottom field of another, both planar and of one format."""
    out = VideoFrame(top.width, top.height, top.format.name)
    _dress(out, top)
    for index in range(len(top.planes)):
        lines = plane(out, index)
        lines[0::2], lines[1::2] = plane(top, index)[0::2], plane(bottom, index)[1::2]
    return out


def bob(frame: VideoFrame) -> VideoFrame:
    """A new picture of the top field alone; the lines between are the mean of their neighbours."""
    out = VideoFrame(frame.width, frame.height, frame.format.name)
    _dress(out, frame)
    for index in range(len(frame.planes)):
        lines, source = plane(out, index), plane(frame, index)
        lines[0::2] = source[0::2]
        above = source[0::2][: lines[1::2].shape[0]].astype(np.uint32)
        below = np.concatenate((source[2::2], source[0::2][-1:]))[: above.shape[0]]
        lines[1::2] = (above + below + 1) // 2
    return out


def _dress(out: VideoFrame, like: VideoFrame) -> None:
    """What colours mean is taken over."""
    out.colorspace, out.color_range = like.colorspace, like.color_range
