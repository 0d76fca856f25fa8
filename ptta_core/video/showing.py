"""What is on screen at given moments: pictures by time, where reading.py gives them by their own order."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, TypeVar

from ptta_core.video.reading import Frame, read_frames

Picture = TypeVar("Picture")

LOOK_BACK_S = Fraction(1, 2)  # before the first moment: the picture on screen then has begun by it, unless it is held


def read_shown(
    path: str | os.PathLike[str], times_s: Sequence[Fraction], *, start_pts: int, end_pts: int, time_base: Fraction,
    **how: Any,
) -> list[Frame]:  # fmt: skip
    """The picture on screen at each of the rising `times_s` (seconds from start_pts), see `on_screen`.

    Only pictures of the span count: start_pts <= pts < end_pts, in `time_base`. how: as for read_frames. A picture that
    is held comes as the same Frame again; Frame.index counts from where reading began. Nothing for an empty span.
    Raises VideoError.
    """

    def begin(pts: int) -> list[Frame]:
        frames = read_frames(path, start_pts=pts, end_pts=end_pts, **how)
        return list(on_screen(frames, times_s, lambda frame: (frame.pts - start_pts) * time_base))

    near = start_pts + max(0, math.floor((times_s[0] - LOOK_BACK_S) / time_base)) if times_s else start_pts
    found = begin(near)
    held = not found or (found[0].pts - start_pts) * time_base > times_s[0]  # what is shown then began earlier still
    return begin(start_pts) if held and near > start_pts else found


def on_screen(
    pictures: Iterable[Picture], times_s: Sequence[Fraction], begins_s: Callable[[Picture], Fraction]
) -> Iterator[Picture]:
    """For each of the rising `times_s` the picture then shown: the last one that began by then, else the first.

    Stops reading as soon as the last is known; a drawing held for long is held here too. Nothing for no pictures.
    """
    shown: Picture | None = None
    wanted = 0
    for picture in pictures:
        begins = begins_s(picture)
        while shown is not None and wanted < len(times_s) and times_s[wanted] < begins:
            yield shown
            wanted += 1
        if wanted == len(times_s):
            return
        shown = picture
    if shown is not None:
        for _ in times_s[wanted:]:
            yield shown
