"""Reading a clip once for all measures: every picture small and gray, a few of them in colour."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame

from ptta_core.video.cleanup import cleaned
from ptta_core.video.opening import open_file, set_threads, video_stream
from ptta_core.video.reading import UNSHAPEABLE, pictures, timed
from ptta_core.video.shaping import Shaper, parse_crop

SOON_S = 4  # a seek goes back to a key frame, in most files some seconds


@dataclass(frozen=True)
class Glimpse:
    """One shown picture of a clip."""

    index: int  # 0 for the first picture of the span
    pts: int  # in the stream's time base
    time_s: float  # pts in seconds
    gray: np.ndarray  # uint8 [H,W] luma, stretched to the size asked for
    colour: np.ndarray | None  # uint8 [H',W',3] RGB as shown, where it was asked for


class Reel:
    """One file, read span by span: a span that begins soon after the last one ended is read on to, without a seek.

    Its pictures are those of the whole file either way. Where a clip begins between key frames, a seek costs the
    pictures from the key frame on; spans in order of time need few.
    """

    def __init__(self, path: str | os.PathLike[str], stream: int, threads: int = 1, cleanup: str = "") -> None:
        """Open stream `stream`. Raises VideoError, and ValueError for an unknown cleanup."""
        self.path, self.stream, self.threads, self.cleanup = os.fspath(path), stream, threads, cleanup
        self._frames: Iterator[tuple[int, VideoFrame]] | None = None
        self._next: tuple[int, VideoFrame] | None = None  # read already, behind the last span
        self._open()

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def _open(self) -> None:
        self.container = open_file(self.path)
        try:
            self.source = video_stream(self.container, self.path, self.stream)
        except BaseException:
            self.container.close()
            raise
        set_threads(self.source, self.threads)
        self.base = self.source.time_base or Fraction(1, 1_000_000)

    def _from(self, start_pts: int) -> Iterator[tuple[int, VideoFrame]]:
        """Pictures from start_pts on, perhaps with a few before it."""
        held, self._next = self._next, None  # an early end of this span leaves none: then the next one seeks
        if held is not None and self._frames is not None and 0 <= start_pts - held[0] <= SOON_S / self.base:
            return itertools.chain([held], self._frames)
        if self._frames is not None:  # a decoder that has been used may remember
            self.container.close()
            self._open()
        self._frames = cleaned(lambda start: timed(pictures(self.container, self.source, start), self.source),
                               self.source, start_pts, self.cleanup)  # fmt: skip
        return self._frames

    def glimpses(
        self, start_pts: int, end_pts: int, *, width: int, height: int, coloured: Callable[[int], bool], short_px: int,
        crop: str = "",
    ) -> Iterator[Glimpse]:  # fmt: skip
        """The pictures of a span as `read_frames` gives them, width x height px and gray; some in colour as well.

        coloured: called with each pts in order; where it says yes, the picture also comes in RGB with the shown aspect
        ratio and its shorter side short_px long. Scaling and conversion are done in one step by the scaler, and only
        for what is delivered. Raises ValueError for a crop outside the picture.
        """
        box, index = parse_crop(crop), 0
        across, down = (None, short_px) if width >= height else (short_px, None)
        frames = self._from(start_pts)
        gray, colour = (Shaper(self.source, *size, box) for size in ((width, height, "gray"), (across, down, "rgb24")))
        for pts, frame in frames:
            if pts >= end_pts:
                self._next = pts, frame
                break
            if pts < start_pts:
                continue
            try:
                luma, rgb = gray(frame), colour(frame) if coloured(pts) else None
            except UNSHAPEABLE:
                continue
            yield Glimpse(index, pts, float(pts * self.base), luma, rgb)
            index += 1
