"""Scoring a file: one decode a clip, the span alone, and the same clip upright."""

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest

from ptta_core.config import ModelRef, ScoreConfig
from ptta_core.models import aesthetic, phash, tiny_vlm
from ptta_core.models.frames import EmptyClip
from ptta_core.rows import Embedding, to_arrow, value_schema
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


def test_black_freezes_and_copies_are_columns(file, tmp_path):
    (still, _), (moving, _) = Scorer(ScoreConfig())([span(file, 0, 48), span(file, 48, 96)])
    assert still.longest_hold_s == pytest.approx(2, abs=0.01)
    assert moving.longest_hold_s == pytest.approx(1 / 24, abs=0.01)
    assert (still.black_share, moving.black_share) == (0, 0)
    assert moving.text_share == 0 and moving.text_box == ""
    copy = write(tmp_path / "copy.mp4", [frame[::2, ::2] for frame in drawn_frames(2)[48:]])
    [[again, _]] = Scorer(ScoreConfig())([span(copy, 0, 48)])
    assert phash.groups([still.phash, moving.phash, again.phash]) == [[1, 2]]


def test_text_over_a_cropped_clip_is_placed_in_the_whole_picture(tmp_path):
    ink = np.zeros((400, 576, 3), np.uint8)
    cv2.putText(ink, "Where are you going?", (130, 330), 0, 0.9, (255, 255, 255), 2, cv2.LINE_AA)
    around = cv2.dilate(ink, np.ones((7, 7), np.uint8)) > 0
    rows, columns = np.flatnonzero(ink.any((1, 2))), np.flatnonzero(ink.any((0, 2)))
    frames = [np.zeros_like(ink) for _ in range(48)]
    for frame, picture in zip(frames, drawn_frames(2)[48:]):
        frame[40:360] = picture // 2
        frame[around] = ink[around]
    path = write(tmp_path / "text.mp4", frames)
    item = replace(span(path, 0, 48, width=576, height=400), crop="0,40,576,320")
    [[score, _]] = Scorer(ScoreConfig())([item])
    x, y, w, h = (int(part) for part in score.text_box.split(","))
    assert (x, y, x + w, y + h) == pytest.approx((columns[0], rows[0], columns[-1], rows[-1]), abs=10)
    assert 0.01 < score.text_share < 0.06


def test_the_next_clip_decoded_ahead_changes_nothing(file):
    items = [span(file, 0, 48), span(file, 48, 96), span(file, 24, 72)]
    assert Scorer(ScoreConfig(), threads=2)(items) == Scorer(ScoreConfig())(items)
    with pytest.raises((EmptyClip, ValueError)):
        Scorer(ScoreConfig(), threads=2)([span(file, 0, 48), span(file, 960, 970)])


def test_clip_embeddings_are_stored_beside_the_score(file, tmp_path):
    clip, head = tiny_vlm.clip(tmp_path / "clip", 0), tiny_vlm.laion_head(tmp_path / "head", 1)
    config = ScoreConfig(
        aesthetic="laion-v2", aesthetic_model=ModelRef(id=str(clip)), aesthetic_head=ModelRef(id=str(head))
    )
    [[score, _, embedding]] = Scorer(config)([span(file, 48, 96)])
    assert isinstance(embedding, Embedding) and embedding.model == score.aesthetic_backend
    table = to_arrow([embedding], value_schema(Embedding))
    assert table["vector"].type == pa.list_(pa.float32(), 768)
    assert np.linalg.norm(table["vector"][0].as_py()) == pytest.approx(1, abs=1e-5)


def test_an_upright_clip_is_measured_upright(tmp_path):
    frames = [np.ascontiguousarray(np.rot90(frame)) for frame in drawn_frames(2)[48:]]
    path = write(tmp_path / "upright.mp4", frames)
    [[score, _]] = Scorer(ScoreConfig())([span(path, 0, 48, width=320, height=576)])
    assert score.motion_px == pytest.approx(30, rel=0.1)
    assert score.pan_y_px == pytest.approx(-30, rel=0.1)


def test_a_span_without_frames_is_named(file):
    with pytest.raises((EmptyClip, ValueError)):
        Scorer(ScoreConfig())([span(file, 960, 970)])
