"""Variable rates, turned and squeezed pictures through split and score; cuts on files with awkward names."""

import json
import math
import os
import random
import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from demo import go, open_demo
from PIL import Image

from flows import cli
from ptta_core import cartoon, video
from ptta_core.models import holds
from ptta_core.view import View

CUTS = (0, 48, 96, 144)
SPEEDS = (4.0, -6.0, 5.0)  # px a frame at 640 wide
WIDTH, HEIGHT, BAR = 320, 180, 24
TURNED = ("turned 90.mp4", "turned 180.mp4", "turned 270.mp4")


def film() -> list[np.ndarray]:
    """Three pans between black bars of one height."""
    pictures = []
    for number, speed in enumerate(SPEEDS):
        shot = cartoon.Shot("pan", 48, speed)
        for one in cartoon.shot_frames(shot, cartoon.PALETTES[number], random.Random(number)):
            picture = np.asarray(one.resize((WIDTH, HEIGHT))).copy()
            picture[:BAR], picture[-BAR:] = 0, 0
            pictures.append(picture)
    return pictures


def write(path: Path, pictures: list[np.ndarray], numbers: list[int], aspect: Fraction = Fraction(1)) -> Path:
    """Some of the pictures, each at its own time; `aspect` is that of a pixel."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "16", "preset": "veryfast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.sample_aspect_ratio = "yuv420p", aspect
        for number in numbers:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pictures[number]), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path, degrees: int) -> None:
    """Ask the player to turn the picture counter-clockwise: the matrix of the track's header (ISO/IEC 14496-12)."""
    data = bytearray(path.read_bytes())
    cos, sin = (round(one(math.radians(degrees))) << 16 for one in (math.cos, math.sin))
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, cos, -sin, 0, sin, cos, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def river(tmp_path_factory: pytest.TempPathFactory) -> View:
    """Gather, split and score of one film in six forms."""
    folder = tmp_path_factory.mktemp("forms")
    pictures, everything = film(), list(range(CUTS[-1]))
    write(folder / "plain.mp4", pictures, everything)
    rng = random.Random(1)
    ends = {0, 47, 48, 95, 96, 143}
    varied = [n for n in everything if n in ends or (n < 48 and n % 2 == 0) or (n >= 48 and rng.random() < 0.75)]
    write(folder / "varied.mp4", pictures, varied)
    for name in TURNED:
        degrees = int(name.split()[1].removesuffix(".mp4"))
        write(folder / name, [np.rot90(one, -degrees // 90) for one in pictures], everything)
        turn(folder / name, degrees)
    narrow = [np.asarray(Image.fromarray(one).resize((WIDTH * 3 // 4, HEIGHT))) for one in pictures]
    write(folder / "squeezed.mp4", narrow, everything, Fraction(4, 3))
    view = open_demo(tmp_path_factory.mktemp("river") / "w", folder)
    go(view, ("gather", "split", "score"))
    return view


def rows(view: View, name: str) -> list[dict]:
    """The clips of one file in order, each with its scores."""
    sources = {row["source_id"] for row in view.rows("gather").to_pylist() if Path(row["path"]).name == name}
    scores = {row["clip_id"]: row for row in view.rows("score").to_pylist()}
    clips = [row | scores[row["clip_id"]] for row in view.rows("split").to_pylist() if row["source_id"] in sources]
    return sorted(clips, key=lambda row: row["start_pts"])


@pytest.mark.parametrize("name", ["varied.mp4", *TURNED, "squeezed.mp4"])
def test_every_form_has_the_cuts_the_crop_and_the_motion_of_the_plain_one(river: View, name: str) -> None:
    plain, found = rows(river, "plain.mp4"), rows(river, name)
    assert len(plain) == len(found) == 3
    for number, (one, other) in enumerate(zip(plain, found)):
        base = Fraction(other["time_base"])
        assert other["start_pts"] * base == Fraction(CUTS[number], 24)
        if name != "varied.mp4" or number < 2:
            assert other["end_pts"] * base == Fraction(CUTS[number + 1], 24)
        assert other["start_s"] == pytest.approx(CUTS[number] / 24, abs=1e-6)
        assert [int(part) for part in other["crop"].split(",")] == pytest.approx(
            [0, BAR, WIDTH, HEIGHT - 2 * BAR], abs=2
        )
        assert other["motion_px"] == pytest.approx(one["motion_px"], rel=0.05)
        assert other["pan_x_px"] == pytest.approx(one["pan_x_px"], rel=0.05)
        known = cartoon.motion_of(cartoon.Shot("pan", 48, SPEEDS[number]))
        assert abs(one["pan_x_px"]) == pytest.approx(known, rel=0.1)


@pytest.mark.parametrize("name", ["varied.mp4", *TURNED, "squeezed.mp4"])
def test_the_part_that_is_read_is_upright(river: View, name: str) -> None:
    pictures = film()
    path = next(row["path"] for row in river.rows("gather").to_pylist() if Path(row["path"]).name == name)
    for number, clip in enumerate(rows(river, name)):
        frames = video.read_frames(river.absolute(path), start_pts=clip["start_pts"], end_pts=clip["end_pts"],
                                   crop=clip["crop"])  # fmt: skip
        image = next(iter(frames)).image.astype(int)
        x, y, width, height = (int(part) for part in clip["crop"].split(","))
        truth = pictures[CUTS[number]][y : y + height, x : x + width].astype(int)
        assert image.shape == truth.shape
        wrong = min(np.abs(image - other).mean() for other in (truth[::-1], truth[:, ::-1], truth[::-1, ::-1]))
        assert np.abs(image - truth).mean() < min(10, wrong / 3)


@pytest.mark.parametrize("name", ["a b  c.mp4", "-x.mp4", "--json", "ビデオ é.mp4", "-- -x ü.mp4"])
def test_cuts_of_a_file_with_an_awkward_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    stills = [next(iter(cartoon.shot_frames(cartoon.Shot("still", 1), cartoon.PALETTES[n], random.Random(n))))
              for n in (0, 2)]  # fmt: skip
    video.write_mp4(tmp_path / name, [np.asarray(one)[::4, ::4] for one in stills for _ in range(20)], 24)
    monkeypatch.chdir(tmp_path)
    for words in (["cuts", "--json", "--", name], ["cuts", os.path.join(".", name), "--json"]):
        assert cli.main(words) == 0
        assert [(one["frame"], one["kind"]) for one in json.loads(capsys.readouterr().out)] == [(20, "cut")]


def test_holds_shorter_than_half_the_usual_frame_are_a_frame_each() -> None:
    """Bursts of drawings 10 ms apart between long stills of 100 ms a frame: neither an error nor a rhythm of 24."""
    steps, shown, drawing = [], [], 0
    for _ in range(6):
        for seconds, frames in ((0.01, 1), (0.01, 1), (0.01, 1), (0.1, 1), (0.1, 30)):
            drawing += 1
            steps += [seconds] * frames
            shown += [np.full((4, 4), 20 * (drawing % 2), np.float32)] * frames
    times = np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    changes = [float(np.abs(b - a).max()) for a, b in pairwise(shown)]
    found = holds.holds_of(times, shown, 1.0, changes)
    assert found.frame_s == pytest.approx(0.1) and found.clock_s == 0.0 and found.even in (0, 1)
    assert len(found.onsets) == drawing
