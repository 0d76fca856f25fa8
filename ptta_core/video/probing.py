"""What a file holds, from its headers, its first picture and, where those cannot be true, its packets."""

import os
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from ptta_core.video.opening import VideoError, open_file, video_stream
from ptta_core.video.reading import packets_of, pictures, pts_of, timed
from ptta_core.video.shaping import rotation_of, shown_size

MIN_BYTES_PER_S = 200  # below it a declared duration is checked: 24 fps of empty H.264 frames are some 500
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
        doubtful = not _plausible(declared_s, path) or _cut_off(stream, path)
    finally:
        container.close()
    return _measured(info, path) if doubtful or not 0 < info.fps <= MAX_FPS else info


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
    base, starts = Fraction(info.time_base), sorted(pts for pts, _ in times)
    span = starts[-1] - starts[0]
    step = span / (len(starts) - 1) if len(starts) > 1 else 0.0
    last = max(times)[1]
    fps = 1 / (step * float(base)) if step > 0 else min(info.fps, MAX_FPS)
    length = span + (last if 0 < last * base <= 10 else step)
    return VideoInfo(**{**info.__dict__, "duration_s": float(length * base), "fps": fps})
