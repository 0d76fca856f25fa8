"""Scoring a file: one decode a clip, the span alone, and the same clip upright."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ptta_core.config import ScoreConfig
from ptta_core.models import aesthetic
from ptta_core.models.frames import EmptyClip
from ptta_core.stages.score import ScoreItem, Scorer


def write(path: Path, frames: list[np.ndarray]) -> Path:
    """A 24 fps file of RGB frames, nearly lossless; a pts is a frame's number times 512 in 1/12288 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "8"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, 24)
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def drawn_frames(speed_px: int) -> list[np.ndarray]:
    """2 s of a blue still, then 2 s of coloured blocks that move right by `speed_px` a frame at 576 x 320."""
    blocks = np.random.default_rng(0).integers(0, 256, (10, 60, 3), dtype=np.uint8)
    wall = np.kron(blocks, np.ones((32, 32, 1), np.uint8))
    still = np.full((320, 576, 3), (30, 60, 220), np.uint8)
    moving = [wall[:, 600 - speed_px * step : 600 - speed_px * step + 576] for step in range(48)]
    return [still] * 48 + moving


def span(path: Path, start: int, end: int, **more) -> ScoreItem:
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
    pts = [int(Fraction(frame, 24) / base) for frame in (start, end)]
    return ScoreItem("clip", str(path), *pts, str(base), 0, "", start / 24, end / 24, **more)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("score") / "a.mp4", drawn_frames(2))


def test_each_span_has_its_own_score(file):
    (still, thumbnail), (moving, _) = Scorer(ScoreConfig())([span(file, 0, 48), span(file, 48, 96)])
    assert (still.timing, still.motion_px, still.palette, still.static_share) == ("still", 0.0, "blue", 1.0)
    assert moving.motion_px == pytest.approx(30, rel=0.1)  # 2 px a frame, 15 frames a gap
    assert moving.pan_x_px == pytest.approx(30, rel=0.1)
    assert moving.timing == "ones"
    assert len(moving.aesthetic_frames) == 3
    assert moving.aesthetic == pytest.approx(np.mean(moving.aesthetic_frames))
    assert (moving.motion_backend, moving.aesthetic_backend) == ("dis", "classical")
    with av.open(io.BytesIO(thumbnail.jpeg)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.shape[1] == 192
    assert aesthetic.looks(picture).palette == "blue"


def test_an_upright_clip_is_measured_upright(tmp_path):
    frames = [np.ascontiguousarray(np.rot90(frame)) for frame in drawn_frames(2)[48:]]
    path = write(tmp_path / "upright.mp4", frames)
    [[score, _]] = Scorer(ScoreConfig())([span(path, 0, 48, width=320, height=576)])
    assert score.motion_px == pytest.approx(30, rel=0.1)
    assert score.pan_y_px == pytest.approx(-30, rel=0.1)


def test_a_span_without_frames_is_named(file):
    with pytest.raises((EmptyClip, ValueError)):
        Scorer(ScoreConfig())([span(file, 960, 970)])
