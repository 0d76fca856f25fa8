"""Video files in and out: the only module that opens one. PyAV (FFmpeg's libraries), and Pillow for JPEG.

Files are untrusted: only the containers in `CONTAINERS` and only local files are opened, so that a playlist or a
script of file names cannot make FFmpeg read something else. Pictures are always given as they are shown: turned
upright and with square pixels.
"""

import io
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg"
OPEN_OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
MAGIC = (b"\x1aE\xdf\xa3", b"RIFF", b"FLV", b"OggS", b"\x00\x00\x01\xba", b"\x30\x26\xb2\x75", b"G@")
MAX_PIXELS = 2**27  # a picture of 16384 x 8192; a header that claims more is an attack or damage
MIN_BYTES_PER_S = 200  # below it a declared duration is checked: 24 fps of empty H.264 frames are some 500
MAX_FPS = 480.0  # above it a declared rate is a clock's tick, not a frame rate
MAX_ERRORS = 200  # unreadable places in a row after which the rest of a file is given up
MAX_MOOV = 2**26  # bytes of an MP4 index that are looked at
NOT_PICTURES = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
ENCRYPTED = re.compile(rb"stsd.{12}encv", re.DOTALL)  # sample description: version, count, size, then the format

Kind = Literal["missing", "unreadable", "not_video", "encrypted", "no_frames"]


class VideoError(Exception):
    """A file that gives no video; `kind` says why, the message names the file."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(kind, message)  # both, so that it survives the way between processes
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return self.message


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


@dataclass(frozen=True)
class Frame:
    """One shown picture."""

    index: int  # 0 for the first one delivered
    pts: int  # in the stream's time base
    time_s: float  # pts in seconds
    image: np.ndarray  # uint8 [H,W,3] RGB or [H,W] luma


# ------------------------------------------------------------------------------------------------- what it is


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """What the file's real video stream is; its first picture is decoded. Raises VideoError.

    A duration or a rate that the container leaves out, or that cannot be true, is measured from the packets.
    """
    path = os.fspath(path)
    container = _open(path)
    try:
        stream = _video_stream(container, path, None)
        first = next(_timed(_pictures(container, stream, None), stream), None)
        if first is None:
            raise VideoError("no_frames", f"{path}: no picture can be decoded")
        start_pts, frame = first
        width, height = _shown_size(frame, stream)
        declared_s = _declared_s(container, stream)
        info = VideoInfo(
            duration_s=declared_s, fps=_declared_fps(stream), width=width, height=height, frames=stream.frames,
            codec=stream.codec_context.codec.canonical_name, container=container.format.name, stream=stream.index,
            time_base=str(stream.time_base), start_pts=start_pts, rotation=_rotation(frame),
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
    container = _open(path)
    try:
        stream = _video_stream(container, path, info.stream)
        seen = [(_pts_of(packet), packet.duration or 0) for packet in _packets(container, stream)]
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


# ---------------------------------------------------------------------------------------------------- reading


def read_frames(
    path: str | os.PathLike[str], *, stream: int | None = None, start_pts: int | None = None,
    end_pts: int | None = None, width: int | None = None, height: int | None = None,
    pixel: Literal["rgb24", "gray"] = "rgb24", threads: int = 1,
) -> Iterator[Frame]:  # fmt: skip
    """The pictures with start_pts <= pts < end_pts, in order, pts strictly rising; None means an open end.

    width and height in px as shown; with one of them the other follows the shown aspect ratio (even), with neither
    the first picture's size holds for all. Damaged places are skipped. A span may be empty; a whole file may not.
    Two pictures that claim one time stay apart by a tick only where decoding began before them both.
    Raises VideoError.
    """
    path = os.fspath(path)
    container = _open(path)
    delivered = 0
    try:
        source = _video_stream(container, path, stream)
        _set_threads(source, threads)
        base = source.time_base or Fraction(1, av.time_base)
        shape = _Shaper(source, width, height, pixel)
        for pts, frame in _timed(_pictures(container, source, start_pts), source):
            if start_pts is not None and pts < start_pts:
                continue
            if end_pts is not None and pts >= end_pts:
                break
            yield Frame(delivered, pts, float(pts * base), shape(frame))
            delivered += 1
    finally:
        container.close()
    if not delivered and start_pts is None and end_pts is None:
        raise VideoError("no_frames", f"{path}: no picture can be decoded")


class _Shaper:
    """Turns decoded pictures into arrays of one size; keeps the scaler between pictures."""

    def __init__(self, stream: VideoStream, width: int | None, height: int | None, pixel: str) -> None:
        self.stream, self.width, self.height, self.pixel = stream, width, height, pixel
        self.scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """uint8 [H,W,3] or [H,W], upright, contiguous."""
        rotation = _rotation(frame)
        if self.width is None or self.height is None:
            self.width, self.height = _fit(*_shown_size(frame, self.stream), self.width, self.height)
        across, down = (self.width, self.height) if rotation % 180 == 0 else (self.height, self.width)
        shrinks = across * down < frame.width * frame.height
        scaled = self.scaler.reformat(
            frame, width=across, height=down, format=self.pixel, interpolation="AREA" if shrinks else "BILINEAR",
            threads=1,
        )  # fmt: skip
        return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), rotation // 90))  # rot90 turns counter-clockwise


def _fit(shown_width: int, shown_height: int, width: int | None, height: int | None) -> tuple[int, int]:
    if width is not None:
        return width, max(2, round(width * shown_height / shown_width / 2) * 2)
    if height is not None:
        return max(2, round(height * shown_width / shown_height / 2) * 2), height
    return shown_width, shown_height


def _rotation(frame: VideoFrame) -> int:
    return round(frame.rotation / 90) * 90 % 360


def _shown_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """(width, height) after squaring the pixels, by stretching the width, and turning upright."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 20) <= aspect <= 20:  # damage: no real format is that far from square
        aspect = Fraction(1)
    width, height = max(1, round(frame.width * aspect)), frame.height
    return (width, height) if _rotation(frame) % 180 == 0 else (height, width)


def _timed(frames: Iterator[VideoFrame], stream: VideoStream) -> Iterator[tuple[int, VideoFrame]]:
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


def _pictures(container: InputContainer, stream: VideoStream, start_pts: int | None) -> Iterator[VideoFrame]:
    """Decoded pictures from the key frame before start_pts on; packets that do not decode are skipped."""
    packets = _packets(container, stream) if start_pts is None else _packets_from(container, stream, start_pts)
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
            return (yield from _packets(container, stream))
        stream.codec_context.flush_buffers()
        packets = _packets(container, stream)
        key = next((packet for packet in packets if packet.is_keyframe), None)
        shown = None if key is None else _pts_of(key)
        if target <= begin or (key is not None and (shown is None or shown <= start_pts)):
            break
        target, back = target - back, back * 4
    if key is not None:
        yield key
    yield from packets


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
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


def _pts_of(packet: Packet) -> int | None:
    return packet.pts if packet.pts is not None else packet.dts


# ---------------------------------------------------------------------------------------------------- opening


def _open(path: str) -> InputContainer:
    """The file, opened as one of CONTAINERS and nothing else. Raises VideoError."""
    _check_file(path)
    try:
        container = av.open(os.path.abspath(path), "r", options=dict(OPEN_OPTIONS), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        with open(path, "rb") as file:
            head = file.read(12)
        damaged = head.startswith(MAGIC) or head[4:8] in (b"ftyp", b"moov", b"mdat")
        kind: Kind = "unreadable" if damaged else "not_video"
        said = "damaged" if damaged else "no video"
        raise VideoError(kind, f"{path}: {said} ({error.__class__.__name__})") from error
    if "mp4" in container.format.name.split(",") and ENCRYPTED.search(_moov(path)):
        container.close()
        raise VideoError("encrypted", f"{path}: encrypted")
    return container


def _check_file(path: str) -> None:
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # a pipe would block for ever
            raise VideoError("unreadable", f"{path}: not a regular file")
        with open(path, "rb"):
            pass
    except FileNotFoundError as error:
        raise VideoError("missing", f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise VideoError("unreadable", f"{path}: {error.__class__.__name__}") from error
    if not found.st_size:
        raise VideoError("not_video", f"{path}: empty")


def _moov(path: str) -> bytes:
    """The MP4 index (box "moov", ISO 14496-12), wherever in the file it lies; empty when there is none."""
    with open(path, "rb") as file:
        for _ in range(1000):
            head = file.read(16)
            if len(head) < 8:
                break
            size, header = struct.unpack(">I", head[:4])[0], 8
            if size == 1 and len(head) == 16:
                size, header = struct.unpack(">Q", head[8:])[0], 16
            file.seek(header - len(head), os.SEEK_CUR)
            if head[4:8] == b"moov":
                return file.read(min(size, MAX_MOOV))
            if size < header or size > 2**62:
                break
            file.seek(size - header, os.SEEK_CUR)
    return b""


def _video_stream(container: InputContainer, path: str, index: int | None) -> VideoStream:
    """Stream `index`, or the first that is moving pictures, not a cover. Raises VideoError."""
    streams = [one for one in container.streams.video if not one.disposition & NOT_PICTURES]
    if index is not None:
        streams = [one for one in container.streams.video if one.index == index]
    if not streams:
        raise VideoError("not_video", f"{path}: no video stream" + ("" if index is None else f" {index}"))
    usable = [one for one in streams if getattr(one, "codec_context", None) is not None]
    if not usable:
        raise VideoError("unreadable", f"{path}: no decoder for its video")
    usable[0].codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    _set_threads(usable[0], 1)
    return usable[0]


def _set_threads(stream: VideoStream, threads: int) -> None:
    stream.codec_context.thread_count = max(1, threads)
    stream.codec_context.thread_type = "SLICE"  # frame threads can hang on damaged files


# ---------------------------------------------------------------------------------------------------- writing


def write_mp4(
    path: str | os.PathLike[str], images: Iterable[np.ndarray], fps: float, *,
    metadata: dict[str, str] | None = None, crf: int = 18,
) -> int:  # fmt: skip
    """Write an H.264 MP4 (yuv420p, BT.709) whole or not at all; its size in bytes.

    images: uint8 RGB [H,W,3] each, all of one size, or one array [T,H,W,3]; an odd last row or column is cut off.
    The same images and arguments give the same bytes. metadata: `title` and `comment` are kept by MP4.
    Raises ValueError for no images or unfit ones, OSError.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _encode(part, images, Fraction(fps).limit_denominator(10_000), metadata or {}, crf)
        size = part.stat().st_size
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return size


def _encode(part: Path, images: Iterable[np.ndarray], rate: Fraction, metadata: dict[str, str], crf: int) -> None:
    images = iter(images)
    first = next(images, None)
    if first is None:
        raise ValueError("no images to write")
    height, width = _even(first).shape[:2]
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with av.open(str(part), "w", format="mp4", options=options) as container:
        container.metadata.update(metadata)
        # one thread: with more, x264's rate control and so the bytes depend on timing
        settings = {"crf": str(crf), "preset": "medium", "threads": "1", "flags": "+bitexact"}
        stream: Any = container.add_stream("libx264", rate=rate, options=settings)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # limited
        for index, image in enumerate(_and_then(first, images)):
            frame = _yuv(_even(image), width, height)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _and_then(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _yuv(image: np.ndarray, width: int, height: int) -> VideoFrame:
    if image.shape != (height, width, 3):
        raise ValueError(f"images of {image.shape} and {(height, width, 3)} in one video")
    rgb = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame = rgb.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
    frame.colorspace, frame.color_range = 1, 1
    return frame


def _even(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 2:
        raise ValueError(f"an image must be uint8 [H,W,3] of at least 2 x 2, not {image.dtype} {list(image.shape)}")
    return image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]


def jpeg(image: np.ndarray, width: int = 192, quality: int = 80) -> bytes:
    """A JPEG of uint8 [H,W,3] RGB or [H,W], at most `width` px wide: shrunk with its aspect ratio, never enlarged."""
    from PIL import Image

    picture = Image.fromarray(image)
    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.BOX)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()
