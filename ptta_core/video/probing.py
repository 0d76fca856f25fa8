"""What a file holds, from its headers, its first picture and, where those cannot be true, its packets."""

import os
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from ptta_core.video.opening import VideoError, open_file, video_stream
from ptta_core.video.reading import packets_of, pictures, pts_of, timed
from ptta_core.video.shaping import rotation_of, shown_size

MIN_BYTES_PER_S = 200  # below it a declared duration is checked: 24 fps of empty H.264 frames are some 500
END_S, END_SHARE = 2.0, 0.05  # seconds, and share of the declared length, by which packets may end elsewhere
MAX_TAIL = 5000  # packets that are looked at behind the last key frame
JUMP_S, JUMPS = 60.0, 100.0  # a step longer than both this and so many usual ones is a damaged timestamp
MAX_FPS = 480.0  # above it a declared rate is a clock's tick, not a frame rate


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds, as read from its headers and its first picture."""

    duration_s: float
    fps: float  # average, 1/s; 0 where it cannot be known (a single frame without a rate)
    width: int  # px as shown: upright, square pixels
    height: int
    frames: int  # as the container claims; 0 when it does not say
    codec: str
    container: str
    stream: int  # index in the file of the stream described here
    time_base: str  # seconds a tick, "1/12288"
    start_pts: int  # of the first shown picture
    rotation: int  # degrees counter-clockwise by which pictures are turned to be upright: 0, 90, 180 or 270


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """What the file's real video stream is; its first picture is decoded. Raises VideoError.

    A duration or a rate that the container leaves out, or that cannot be true, is measured from the packets.
    """
    path = os.fspath(path)
    container = open_file(path)
    try:
        stream = video_stream(container, path, None)
        first = next(timed(pictures(container, stream, None), stream), None)
        if first is None:
            raise VideoError("no_frames", f"{path}: no picture can be decoded")
        start_pts, frame = first
        width, height = shown_size(frame, stream)
        declared_s = _declared_s(container, stream)
        info = VideoInfo(
            duration_s=declared_s, fps=_declared_fps(stream), width=width, height=height, frames=stream.frames,
            codec=stream.codec_context.codec.canonical_name, container=container.format.name, stream=stream.index,
            time_base=str(stream.time_base), start_pts=start_pts, rotation=rotation_of(frame),
        )  # fmt: skip
        doubtful = (not _plausible(declared_s, path) or _cut_off(stream, path) or not 0 < info.fps <= MAX_FPS
                    or _ends_elsewhere(container, stream, start_pts, declared_s))  # fmt: skip
    finally:
        container.close()
    return _measured(info, path) if doubtful else info


def _declared_s(container: InputContainer, stream: VideoStream) -> float:
    """The length in seconds that the stream claims, or else the file; 0 for none."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _declared_fps(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 0)


def _plausible(duration_s: float, path: str) -> bool:
    return duration_s > 0 and os.path.getsize(path) / duration_s >= MIN_BYTES_PER_S


def _cut_off(stream: VideoStream, path: str) -> bool:
    """Whether the container's index points behind the end of the file."""
    entries = stream.index_entries
    return len(entries) > 0 and entries[-1].pos + entries[-1].size > os.path.getsize(path)


def _ends_elsewhere(container: InputContainer, stream: VideoStream, start_pts: int, declared_s: float) -> bool:
    """Whether the last packets are not where the declared length says; reads those behind the last key frame."""
    base = stream.time_base or Fraction(1, av.time_base)
    end_pts = start_pts + int(declared_s / base)
    try:
        container.seek(end_pts, stream=stream, backward=True, any_frame=False)
    except av.error.FFmpegError:
        return True
    last: int | None = None
    for count, packet in enumerate(packets_of(container, stream)):
        if count == MAX_TAIL:
            return True
        pts = pts_of(packet)
        last = pts if last is None or (pts is not None and pts > last) else last
    return last is None or abs(end_pts - last) * base > max(END_S, END_SHARE * declared_s)


def _measured(info: VideoInfo, path: str) -> VideoInfo:
    """The same with duration and rate from the packets that are really there; nothing is decoded."""
    container = open_file(path)
    try:
        stream = video_stream(container, path, info.stream)
        seen = [(pts_of(packet), packet.duration or 0) for packet in packets_of(container, stream)]
        times = [(pts, duration) for pts, duration in seen if pts is not None]
    finally:
        container.close()
    if not times:
        return info
    base = Fraction(info.time_base)
    span = _span(sorted(pts for pts, _ in times), base)
    step = span / (len(times) - 1) if len(times) > 1 else 0.0
    last = max(times)[1]
    fps = min(MAX_FPS, 1 / (step * float(base))) if step > 0 else min(info.fps, MAX_FPS)
    length = span + (last if 0 < last * base <= 10 else step)
    return VideoInfo(**{**info.__dict__, "duration_s": float(length * base), "fps": fps})


def _span(starts: list[int], base: Fraction) -> float:
    """From the first to the last of rising pts, in ticks; a jump that only damage explains counts as one usual step."""
    steps = [later - earlier for earlier, later in pairwise(starts)]
    usual = sorted(steps)[len(steps) // 2] if steps else 0
    return float(sum(usual if step * base > JUMP_S and step > JUMPS * usual else step for step in steps))
