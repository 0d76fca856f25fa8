"""Reading a clip once for all measures: every picture small and gray, a few of them in colour."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ptta_core.video.cleanup import cleaned
from ptta_core.video.opening import open_file, set_threads, video_stream
from ptta_core.video.reading import UNSHAPEABLE, pictures, timed
from ptta_core.video.shaping import Shaper, parse_crop


@dataclass(frozen=True)
class Glimpse:
    """One shown picture of a clip."""

    index: int  # 0 for the first picture of the span
    pts: int  # in the stream's time base
    time_s: float  # pts in seconds
    gray: np.ndarray  # uint8 [H,W] luma, stretched to the size asked for
    colour: np.ndarray | None  # uint8 [H',W',3] RGB as shown, where it was asked for


def glimpses(
    path: str | os.PathLike[str], *, stream: int, start_pts: int, end_pts: int, width: int, height: int,
    coloured: Callable[[int], bool], short_px: int, threads: int = 1, crop: str = "", cleanup: str = "",
) -> Iterator[Glimpse]:  # fmt: skip
    """The pictures of a span as `read_frames` gives them, width x height px and gray; some in colour as well.

    coloured: called with each pts in order; where it says yes, the picture also comes in RGB with the shown aspect
    ratio and its shorter side short_px long. Scaling and conversion are done in one step by the scaler, and only for
    what is delivered. Raises VideoError, and ValueError for a crop outside the picture or an unknown cleanup.
    """
    box = parse_crop(crop)
    container = open_file(os.fspath(path))
    try:
        source = video_stream(container, os.fspath(path), stream)
        set_threads(source, threads)
        base = source.time_base or Fraction(1, 1_000_000)
        across, down = (None, short_px) if width >= height else (short_px, None)
        gray, colour = Shaper(source, width, height, "gray", box), Shaper(source, across, down, "rgb24", box)
        index = 0
        for pts, frame in cleaned(lambda start: timed(pictures(container, source, start), source), source,
                                  start_pts, cleanup):  # fmt: skip
            if pts < start_pts:
                continue
            if pts >= end_pts:
                break
            try:
                luma, rgb = gray(frame), colour(frame) if coloured(pts) else None
            except UNSHAPEABLE:
                continue
            yield Glimpse(index, pts, float(pts * base), luma, rgb)
            index += 1
    finally:
        container.close()
