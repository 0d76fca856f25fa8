"""From decoded pictures to arrays of one size: cut, scaled, turned upright."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av.filter
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

Box = tuple[int, int, int, int]  # x, y, width, height

# Gray is the picture's own luma, in full range. Where both sides bear one name, no matrix is applied: swscale's, from
# BT.709 to BT.601, changes luma by some levels and takes six times as long.
OWN_LUMA = {"src_colorspace": "ITU601", "dst_colorspace": "ITU601"}


def parse_crop(crop: str) -> Box | None:
    """(x, y, width, height) of "x,y,w,h", None for "". Raises ValueError for anything else."""
    if not crop:
        return None
    try:
        x, y, width, height = (int(part) for part in crop.split(","))
    except ValueError:
        raise ValueError(f'crop must be "x,y,w,h" in px, not {crop!r}') from None
    if min(x, y) < 0 or min(width, height) < 1:
        raise ValueError(f"crop {crop!r} needs x and y of at least 0, width and height of at least 1")
    return x, y, width, height


class Shaper:
    """Turns decoded pictures into arrays of one size; keeps the scaler between pictures.

    crop is in px of the first picture as shown. In later pictures of another size the same share is cut.
    """

    def __init__(
        self, stream: VideoStream, width: int | None, height: int | None, pixel: str, crop: Box | None = None,
        fast: bool = False,
    ) -> None:  # fmt: skip
        self.fast, self.converter = fast and pixel != "gray", VideoReformatter()
        self.stream, self.width, self.height, self.pixel, self.crop = stream, width, height, pixel, crop
        self.first_shown: tuple[int, int] | None = None  # what crop refers to
        self.scaler = VideoReformatter()
        self.cutter: Callable[[VideoFrame], VideoFrame] | None = None
        self.cutter_key: tuple[str, Box] | None = None

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """uint8 [H,W,3] or [H,W], upright, contiguous."""
        rotation = rotation_of(frame)
        self._settle(frame)
        assert self.width is not None and self.height is not None
        if self.crop is not None:
            frame = self._cut(frame, rotation)
        across, down = (self.width, self.height) if rotation % 180 == 0 else (self.height, self.width)
        shrinks = across * down < frame.width * frame.height
        how, halfway = "AREA" if shrinks else "BILINEAR", "yuv420p" if self.fast else self.pixel
        matrix: Any = OWN_LUMA if self.pixel == "gray" else {}
        scaled = self.scaler.reformat(
            frame, width=across, height=down, format=halfway, interpolation=how, threads=1, **matrix
        )
        if self.fast:  # without scaling, swscale converts about three times as fast
            scaled = self.converter.reformat(scaled, format=self.pixel, threads=1)
        return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), rotation // 90))  # rot90 turns counter-clockwise

    def _settle(self, frame: VideoFrame) -> None:
        """The size of all pictures from the first; raises ValueError for a crop that is not inside it."""
        if self.first_shown is not None:
            return
        shown = self.first_shown = shown_size(frame, self.stream)
        if self.crop is not None:
            x, y, width, height = self.crop
            if x + width > shown[0] or y + height > shown[1]:
                raise ValueError(f"crop {','.join(map(str, self.crop))} is not inside {shown[0]} x {shown[1]}")
            shown = width, height
        self.width, self.height = fit(*shown, self.width, self.height)

    def _cut(self, frame: VideoFrame, rotation: int) -> VideoFrame:
        """A view of the part that counts; no pixel is copied."""
        assert self.crop is not None and self.first_shown is not None
        box = stored_box(self.crop, self.first_shown, rotation, (frame.width, frame.height))
        if box == (0, 0, frame.width, frame.height):
            return frame
        key = (f"{frame.width}x{frame.height} {frame.format.name}", box)
        if self.cutter is None or self.cutter_key != key:
            self.cutter, self.cutter_key = _cutter(frame, box), key
        return self.cutter(frame)


def _cutter(frame: VideoFrame, box: Box) -> Callable[[VideoFrame], VideoFrame]:
    x, y, width, height = box
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))
    cut = graph.add("crop", f"{width}:{height}:{x}:{y}:exact=1")
    sink = graph.add("buffersink")
    source.link_to(cut)
    cut.link_to(sink)
    graph.configure()

    def run(frame: VideoFrame) -> VideoFrame:
        pts, frame.pts = frame.pts, None
        graph.vpush(frame)
        frame.pts = pts
        found = graph.vpull()
        assert isinstance(found, VideoFrame)
        return found

    return run


def stored_box(crop: Box, shown: tuple[int, int], rotation: int, stored: tuple[int, int]) -> Box:
    """Where `crop` of a picture shown as `shown` (width, height) lies before turning and stretching, whole px."""
    x, y, width, height = crop
    if rotation == 90:
        x, y, width, height = shown[1] - y - height, x, height, width
    elif rotation == 180:
        x, y = shown[0] - x - width, shown[1] - y - height
    elif rotation == 270:
        x, y, width, height = y, shown[0] - x - width, height, width
    turned = shown if rotation % 180 == 0 else shown[::-1]
    left, top = round(x * stored[0] / turned[0]), round(y * stored[1] / turned[1])
    right, bottom = round((x + width) * stored[0] / turned[0]), round((y + height) * stored[1] / turned[1])
    return left, top, max(1, right - left), max(1, bottom - top)


def fit(shown_width: int, shown_height: int, width: int | None, height: int | None) -> tuple[int, int]:
    """Width and height in px: those asked for, the missing one after the shown aspect ratio (even)."""
    if width is not None and height is not None:
        return width, height
    if width is not None:
        return width, max(2, round(width * shown_height / shown_width / 2) * 2)
    if height is not None:
        return max(2, round(height * shown_width / shown_height / 2) * 2), height
    return shown_width, shown_height


def rotation_of(frame: VideoFrame) -> int:
    """Degrees counter-clockwise by which a picture is turned to be upright: 0, 90, 180 or 270."""
    return round(frame.rotation / 90) * 90 % 360


def shown_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """(width, height) after squaring the pixels, by stretching the width, and turning upright."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 20) <= aspect <= 20:  # damage: no real format is that far from square
        aspect = Fraction(1)
    width, height = max(1, round(frame.width * aspect)), frame.height
    return (width, height) if rotation_of(frame) % 180 == 0 else (height, width)
