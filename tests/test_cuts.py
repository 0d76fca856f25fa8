"""`ptta cuts` prints every boundary, whatever the length of the shots."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from flows import cli
from ptta_core import cartoon, video


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cuts at 24, 34 and 58: the second shot is shorter than any clip may be."""
    path = tmp_path_factory.mktemp("cuts") / "a.mp4"
    pictures = []
    for number, frames in enumerate((24, 10, 24, 24)):
        shot = cartoon.Shot("still", frames)
        pictures += [np.asarray(one)[::2, ::2] for one in
                     cartoon.shot_frames(shot, cartoon.PALETTES[number], random.Random(number))]  # fmt: skip
    video.write_mp4(path, pictures, 24)
    return path


def test_json_is_one_array(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cuts", str(film), "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert [(one["frame"], one["kind"]) for one in found] == [(24, "cut"), (34, "cut"), (58, "cut")]
    assert all(one["time_s"] == pytest.approx(one["frame"] / 24, abs=1e-5) for one in found)
    assert all(0 < one["confidence"] <= 1 for one in found)


def test_a_table_for_people(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cuts", str(film)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_what_is_no_video_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    assert cli.main(["cuts", str(tmp_path / "a.mp4")]) == 1
    assert capsys.readouterr().err.startswith("ptta: ")
