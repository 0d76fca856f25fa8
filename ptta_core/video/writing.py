"""Writing MP4 and JPEG."""

import io
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame


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
