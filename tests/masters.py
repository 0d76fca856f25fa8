"""One drawn animation as different masters: progressive, telecined, interlaced. The truth is known by construction."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

FILM = Fraction(24000, 1001)  # pictures a second
WIDTH, HEIGHT = 480, 360
SHOT = 36  # film pictures; a number that puts cuts on every phase of a telecine cycle
SHOTS = 6
Draw = Callable[[float, float], np.ndarray]  # (time of the camera, time of the drawing), film pictures -> [H,W,3]


@cache
def background(shot: int) -> np.ndarray:
    """A wide painted picture: flat areas, edges, and fine horizontal lines one and two px high."""
    rng = np.random.default_rng(shot)
    wide = np.empty((HEIGHT, 2 * WIDTH, 3), np.uint8)
    wide[:] = rng.integers(60, 200, 3)
    for _ in range(24):
        (x, y), (w, h) = rng.integers(0, [2 * WIDTH - 90, HEIGHT - 90]), rng.integers(10, 90, 2)
        wide[y : y + h, x : x + w] = rng.integers(20, 235, 3)
    for y in range(40 + 10 * shot, HEIGHT - 30, 90):
        wide[y, 100 : 2 * WIDTH - 100] = 10
        wide[y + 4 : y + 6, 150 : 2 * WIDTH - 300] = 245
    for line in range(290, 310, 2):  # a venetian blind: every other line
        wide[line, 300:420] = 20
    return wide


def draw(camera: float, drawing: float) -> np.ndarray:
    """The animation at some time of the camera and of the drawing, both counted in film pictures."""
    shot = min(SHOTS - 1, int(camera // SHOT))
    speed = (1.5, -2.0, 0.0, 1.0, -1.25, 2.0)[shot]  # px a film picture
    at = camera - shot * SHOT
    left = (20 if speed >= 0 else WIDTH - 40) + speed * at
    whole = int(left)
    near = background(shot)[:, whole : whole + WIDTH + 1].astype(np.float32)
    image = near[:, :-1] + (near[:, 1:] - near[:, :-1]) * (left - whole)
    step = drawing - shot * SHOT
    x, y = int(120 + 1.5 * step), int(100 + 20 * np.sin(step / 12))
    image[y : y + 140, x : x + 120] = (230, 60, 50)
    image[y + 20 : y + 60, x + 30 : x + 90] = (250, 230, 200)
    return image.astype(np.uint8)


def film() -> list[np.ndarray]:
    """Every film picture: the camera on ones, the drawing on twos."""
    return [draw(at, at // 2 * 2) for at in range(SHOTS * SHOT)]


def telecined(pictures: list[np.ndarray], phase: int = 0, bottom_first: bool = False) -> Iterator[np.ndarray]:
    """Video pictures with 3:2 pulldown; the first `phase` ones are left out."""
    fields = [picture for number, picture in enumerate(pictures) for _ in range(2 + number % 2)]
    for number in range(phase, len(fields) // 2):
        yield woven(fields[2 * number], fields[2 * number + 1], bottom_first)


def interlaced(fields_a_second: Fraction, bottom_first: bool = False) -> Iterator[np.ndarray]:
    """Video pictures whose fields are moments of their own: the camera moves from field to field."""
    count = int(SHOTS * SHOT / FILM * fields_a_second) // 2
    for number in range(count):
        times = [float(field / fields_a_second * FILM) for field in (2 * number, 2 * number + 1)]
        yield woven(*(draw(time, time // 2 * 2) for time in times), bottom_first=bottom_first)


def woven(first: np.ndarray, second: np.ndarray, bottom_first: bool) -> np.ndarray:
    """A picture of two moments: the first one in the field that comes first."""
    picture = (second if bottom_first else first).copy()
    picture[1::2] = (first if bottom_first else second)[1::2]
    return picture


def write(path: Path, pictures: Iterator[np.ndarray] | list[np.ndarray], rate: Fraction, *, flag: str = "",
          crf: int = 16, codec: str = "libx264") -> Path:  # fmt: skip
    """H.264, `flag` "tff" or "bff" for interlaced coding; chroma is thinned out within each field."""
    options = {"crf": str(crf), "preset": "veryfast", "g": "48"}
    if flag:
        options["x264-params"] = f"{flag}=1"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options if codec == "libx264" else {"b": "6000000"})
        first = True
        for number, picture in enumerate(pictures):
            if first:
                stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
                first = False
            frame = fieldwise(picture)
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def fieldwise(picture: np.ndarray) -> VideoFrame:
    """yuv420p whose chroma lines alternate between the fields, as interlaced video has them."""
    out = VideoFrame(picture.shape[1], picture.shape[0], "yuv420p")
    halves = [
        VideoFrame.from_ndarray(np.ascontiguousarray(picture[parity::2]), format="rgb24").reformat(format="yuv420p")
        for parity in (0, 1)
    ]
    for index, plane in enumerate(out.planes):
        lines = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)
        for parity, half in enumerate(halves):
            source = np.frombuffer(half.planes[index], np.uint8).reshape(half.planes[index].height, -1)
            lines[parity::2, : plane.width] = source[: lines[parity::2].shape[0], : plane.width]
    return out
