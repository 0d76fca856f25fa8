"""Reading pictures: whole files and spans of them."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ptta_core.video.cleanup import cleaned
from ptta_core.video.fields import luma
from ptta_core.video.opening import VideoError, open_file, set_threads, video_stream
from ptta_core.video.shaping import Shaper, parse_crop

# damaged AV1 turns up pictures in formats that cannot be scaled (errno 95); an IndexError is a plane that is not there
UNSHAPEABLE = (av.error.FFmpegError, OSError, MemoryError, IndexError)
MAX_ERRORS = 200  # unreadable places in a row after which the rest of a file is given up


@dataclass(frozen=True)
class Frame:
    """One shown picture."""

    index: int  # 0 for the first picture of the span; pictures that nobody wants are counted too
    pts: int  # in the stream's time base
    time_s: float  # pts in seconds
    image: np.ndarray  # uint8 [H,W,3] RGB or [H,W] luma


def read_frames(
    path: str | os.PathLike[str], *, stream: int | None = None, start_pts: int | None = None,
    end_pts: int | None = None, width: int | None = None, height: int | None = None,
    pixel: Literal["rgb24", "gray"] = "rgb24", threads: int = 1, crop: str = "", cleanup: str = "",
    wanted: Callable[[int], bool] | None = None, fast: bool = False, draft: bool = False,
) -> Iterator[Frame]:  # fmt: skip
    """The pictures with start_pts <= pts < end_pts, in order, pts strictly rising; None means an open end.

    crop: "x,y,w,h" in px as shown, cut out before scaling; width and height then speak of the part cut out.
    width and height in px as shown; with one of them the other follows the shown aspect ratio (even), with neither
    the first picture's size holds for all. Damaged places are skipped. A span may be empty; a whole file may not.
    cleanup: "" | "deinterlace" | "deinterlace bff" (bottom field first) | "detelecine", as models.interlace.detect
    says; before anything else, and the same for a span as for the whole file. "detelecine" gives four pictures for
    five, at times between the source's.
    wanted: called with each pts of the span, in order; a picture it says no to is decoded but neither scaled nor
    delivered. Its place is still counted in Frame.index.
    fast: RGB whose colour is half as fine as its luma (as in 4:2:0), for some 40 % less work a picture.
    draft: decode without the loop filter, for some 20 % less work; blocks show, by some 4 levels in coarsely coded
    pictures made small. Ignored with a cleanup, which needs exact pictures. Times and number of pictures are the same.
    Two pictures that claim one time stay apart by a tick only where decoding began before them both.
    Raises VideoError, and ValueError for a crop outside the picture or an unknown cleanup.
    """
    path = os.fspath(path)
    box = parse_crop(crop)
    container = open_file(path)
    index = 0
    try:
        source = video_stream(container, path, stream, draft and not cleanup)
        set_threads(source, threads)
        base = source.time_base or Fraction(1, av.time_base)
        shape = Shaper(source, width, height, pixel, box, fast)
        for pts, frame in cleaned(lambda start: timed(pictures(container, source, start), source), source,
                                  start_pts, cleanup):  # fmt: skip
            if start_pts is not None and pts < start_pts:
                continue
            if end_pts is not None and pts >= end_pts:
                break
            if wanted is None or wanted(pts):
                try:
                    image = shape(frame)
                except UNSHAPEABLE:
                    continue
                yield Frame(index, pts, float(pts * base), image)
            index += 1
    finally:
        container.close()
    if not index and start_pts is None and end_pts is None:
        raise VideoError("no_frames", f"{path}: no picture can be decoded")


def read_luma(
    path: str | os.PathLike[str], *, stream: int, near_pts: int, count: int, cleanup: str = ""
) -> list[np.ndarray]:
    """The luma of `count` pictures in a row as stored (neither turned nor scaled), uint8 [H,W] each; fewer at the end.

    They begin where decoding can begin: at the key frame before near_pts. Raises VideoError.
    """
    path = os.fspath(path)
    container = open_file(path)
    try:
        source = video_stream(container, path, stream)
        frames = cleaned(lambda start: timed(pictures(container, source, start), source), source, near_pts, cleanup)
        return [luma(frame).copy() for _, (_, frame) in zip(range(count), frames)]
    finally:
        container.close()


def timed(frames: Iterator[VideoFrame], stream: VideoStream) -> Iterator[tuple[int, VideoFrame]]:
    """Each picture with its pts; a missing one, or one that does not rise, is put a frame after the last."""
    base, fps = stream.time_base or Fraction(1, av.time_base), stream.average_rate or Fraction(25)
    step = max(1, round(1 / (fps * base)))
    last: int | None = None
    for frame in frames:
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is None:
            pts = last + step if last is not None else stream.start_time or 0
        if last is not None and pts <= last:
            pts = last + 1 if frame.pts is not None else last + step
        last = pts
        yield pts, frame


def pictures(container: InputContainer, stream: VideoStream, start_pts: int | None) -> Iterator[VideoFrame]:
    """Decoded pictures from the key frame before start_pts on; packets that do not decode are skipped."""
    whole = start_pts is None or start_pts <= (stream.start_time or 0)  # no seek where some containers cannot seek to
    packets = packets_of(container, stream) if whole else _packets_from(container, stream, start_pts or 0)
    for packet in packets:
        try:
            yield from stream.codec_context.decode(packet)
        except (av.error.FFmpegError, MemoryError):
            continue
    try:
        yield from stream.codec_context.decode(None)
    except (av.error.FFmpegError, MemoryError):
        return


def _packets_from(container: InputContainer, stream: VideoStream, start_pts: int) -> Iterator[Packet]:
    """Packets from a key frame shown no later than start_pts.

    Containers seek by decoding time, so they can land on a key frame that is shown after start_pts while pictures
    before it are still wanted; then the seek is repeated further back, in the end to the beginning.
    """
    base = stream.time_base or Fraction(1, av.time_base)
    second = max(1, round(1 / base))
    target, back, begin = start_pts, second, (stream.start_time or 0) - 10 * second  # decoding begins before showing
    while True:
        try:
            container.seek(max(target, begin), stream=stream, backward=True, any_frame=False)
        except av.error.FFmpegError:
            return (yield from packets_of(container, stream))
        stream.codec_context.flush_buffers()
        packets = packets_of(container, stream)
        key = next((packet for packet in packets if packet.is_keyframe), None)
        shown = None if key is None else pts_of(key)
        if target <= begin or (key is not None and (shown is None or shown <= start_pts)):
            break
        target, back = target - back, back * 4
    if key is not None:
        yield key
    yield from packets


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The stream's packets from the present position on; reading goes on behind places that cannot be read."""
    errors = 0
    while errors < MAX_ERRORS:
        try:
            for packet in container.demux(stream):
                if packet.size:  # the empty ones only mark the end
                    errors = 0
                    yield packet
            return
        except (av.error.EOFError, IndexError):  # PyAV: a damaged stream that turns up new streams
            return
        except av.error.FFmpegError:
            errors += 1


def pts_of(packet: Packet) -> int | None:
    return packet.pts if packet.pts is not None else packet.dts
