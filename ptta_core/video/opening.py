"""Opening a file: what is let in, and why something is not."""

import os
import re
import stat
import struct
from typing import Literal

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg"
OPEN_OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
MAGIC = (b"\x1aE\xdf\xa3", b"RIFF", b"FLV", b"OggS", b"\x00\x00\x01\xba", b"\x30\x26\xb2\x75", b"G@")
MAX_PIXELS = 2**27  # a picture of 16384 x 8192; a header that claims more is an attack or damage
DRAFT = {"skip_loop_filter": "all"}  # decoders without one do not mind
MAX_MOOV = 2**26  # bytes of an MP4 index that are looked at
NOT_PICTURES = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
ENCRYPTED = re.compile(rb"stsd.{12}encv", re.DOTALL)  # sample description: version, count, size, then the format
TEXT = rb"[\s\xef\xbb\xbf]*"  # blanks and a byte order mark
IMPOSTORS = (  # how a file begins that only has a video's name, and what to tell
    (rb"version https://git-lfs", "a Git LFS pointer: the video it stands for was not fetched (git lfs pull)"),
    (TEXT + rb"(<!doctype html|<html|<head)", "an HTML page, no video: a download went wrong"),
    (TEXT + rb"#EXTM3U", "a playlist that names other files; only videos themselves are read"),
    (TEXT + rb"ffconcat", "a concat script that names other files; only videos themselves are read"),
    (TEXT + rb"(<\?xml[^>]*>\s*)?<(MPD|SmoothStreamingMedia)", "a manifest that names other files, no video"),
    (TEXT + rb"v=0\r?\n", "a session description (SDP) that names an address, no video"),
    (TEXT + rb"(<\?xml|<|\{)", "XML or JSON text, no video: a download may have gone wrong"),
    (rb"\xff\xd8\xff|\x89PNG|GIF8|BM.{4}\0\0\0\0", "a picture, no video"),
    (rb"RIFF.{4}WEBP", "a picture, no video"),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive; unpack it first"),
    (rb"%PDF", "a PDF document, no video"),
    (rb"RIFF.{4}WAVE|fLaC|ID3", "sound alone, no video"),
)

Kind = Literal["missing", "unreadable", "not_video", "encrypted", "no_frames"]


class VideoError(Exception):
    """A file that gives no video; `kind` says why, the message names the file."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(kind, message)  # both, so that it survives the way between processes
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return self.message


def open_file(path: str) -> InputContainer:
    """The file, opened as one of CONTAINERS and nothing else. Raises VideoError."""
    _check_file(path)
    try:
        container = av.open(os.path.abspath(path), "r", options=dict(OPEN_OPTIONS), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _refusal(path, error) from error
    if "mp4" in container.format.name.split(",") and ENCRYPTED.search(_moov(path)):
        container.close()
        raise VideoError("encrypted", f"{path}: encrypted")
    return container


def _refusal(path: str, error: Exception) -> VideoError:
    """Why FFmpeg found nothing in a file, from its first bytes."""
    with open(path, "rb") as file:
        head = file.read(512)
    said = next((said for pattern, said in IMPOSTORS if re.match(pattern, head, re.IGNORECASE | re.DOTALL)), None)
    if said:
        return VideoError("not_video", f"{path}: {said}")
    if head.startswith(MAGIC) or head[4:8] in (b"ftyp", b"moov", b"mdat"):
        return VideoError("unreadable", f"{path}: damaged ({error.__class__.__name__})")
    if not head.strip(b"\0"):
        return VideoError("unreadable", f"{path}: begins with nothing but zeros, as a broken download does")
    return VideoError("not_video", f"{path}: no video ({error.__class__.__name__})")


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


def video_stream(container: InputContainer, path: str, index: int | None, draft: bool = False) -> VideoStream:
    """Stream `index`, or the first that is moving pictures, not a cover. Raises VideoError.

    draft: leave out the loop filter, which smooths the edges of blocks.
    """
    streams = [one for one in container.streams.video if not one.disposition & NOT_PICTURES]
    if index is not None:
        streams = [one for one in container.streams.video if one.index == index]
    if not streams:
        raise VideoError("not_video", f"{path}: no video stream" + ("" if index is None else f" {index}"))
    usable = [one for one in streams if getattr(one, "codec_context", None) is not None]
    if not usable:
        raise VideoError("unreadable", f"{path}: no decoder for its video")
    usable[0].codec_context.options = {"max_pixels": str(MAX_PIXELS)} | (DRAFT if draft else {})
    set_threads(usable[0], 1)
    return usable[0]


def set_threads(stream: VideoStream, threads: int) -> None:
    stream.codec_context.thread_count = max(1, threads)
    stream.codec_context.thread_type = "SLICE"  # frame threads can hang on damaged files
