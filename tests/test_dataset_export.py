"""The dataset in the layouts of other trainers: read back, and held against the pictures of the source."""

import csv
import json
import tarfile
import tomllib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from flows.cli import main
from ptta_core import video
from ptta_core.config import ConfigError
from ptta_core.ops import dataset, layouts, runs, show


def all_pieces(workspace: Path) -> list[dataset.Piece]:
    """What there is to be exported."""
    store, site = show.open_store(str(workspace))
    return list(dataset.pieces(runs.view_of(runs.last(store), site)))


def test_the_pictures_are_those_of_the_span_and_the_neighbours_stay_out(curated: Path) -> None:
    done = dataset.dataset(str(curated), "csv")
    pieces = all_pieces(curated)
    assert done.made == len(pieces) > 1 and not done.failed
    for piece in pieces[:4]:
        found = list(video.read_frames(Path(done.folder) / layouts.CLIPS / f"{piece.key}.mp4"))
        assert len(found) == piece.window.frames == piece.facts["frames"]
        clip, base = piece.clip, Fraction(piece.clip["time_base"])
        source = [one for one in video.read_frames(clip["path"], crop=clip["crop"], cleanup=clip["cleanup"])
                  if clip["start_pts"] <= one.pts < clip["end_pts"]]  # fmt: skip
        for frame, at in zip(found, piece.window.times_s()):
            shown = [one for one in source if (one.pts - clip["start_pts"]) * base <= at][-1]
            assert dataset.psnr_db(frame.image, shown.image[: frame.image.shape[0], : frame.image.shape[1]]) > 30
        assert piece.facts["start_s"] >= clip["start_s"]
        assert piece.facts["end_s"] <= clip["end_s"] + 0.05 / piece.facts["fps"]


@pytest.mark.parametrize("format", layouts.FORMATS)
def test_each_layout_reads_back_and_names_no_place(curated: Path, tmp_path: Path, format: str) -> None:
    out = tmp_path / "out"
    pieces = all_pieces(curated)[:2]
    done = dataset.Made(str(out), format)
    (out / layouts.CLIPS).mkdir(parents=True)
    assert all(dataset._made(one, out / layouts.CLIPS, done) for one in pieces)
    entries = [layouts.Entry(one.key, one.caption, one.facts) for one in pieces]
    store, site = show.open_store(str(curated))
    recipe = runs.view_of(runs.last(store), site).recipe
    layouts.write(format, out, entries, recipe.encode)
    captions, files = read_back(format, out)
    assert captions == [one.caption for one in pieces]
    assert all(not Path(name).is_absolute() for name in files)
    for path in out.rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes()
        assert not path.is_file() or str(Path(pieces[0].clip["path"]).parent).encode() not in path.read_bytes()


def read_back(format: str, out: Path) -> tuple[list[str], list[str]]:
    """Captions and names as the format's reader sees them; every named file must be there."""

    def lines(name: str) -> list[dict]:
        return [json.loads(line) for line in (out / name).read_text().splitlines()]

    if format == "webdataset":
        with tarfile.open(out / "00000.tar") as tar:
            keys = [name[:-4] for name in tar.getnames() if name.endswith(".mp4")]
            assert all(json.load(tar.extractfile(f"{key}.json"))["frames"] > 0 for key in keys)
            return [tar.extractfile(f"{key}.txt").read().decode() for key in keys], keys
    if format == "hf":
        pairs = [(row["text"], row["file_name"]) for row in lines("metadata.jsonl")]
    elif format == "musubi":
        config = tomllib.loads((out / "dataset.toml").read_text())["datasets"][0]
        assert (config["max_frames"] - 1) % 4 == 0
        pairs = [(row["caption"], row["video_path"]) for row in lines(config["video_jsonl_file"])]
    elif format == "diffusion-pipe":
        config = tomllib.loads((out / "dataset.toml").read_text())
        assert all((one - 1) % 4 == 0 for one in config["frame_buckets"])
        files = [row["file"] for row in lines("about.jsonl")]
        assert {Path(one).parent.name for one in files} == {config["directory"][0]["path"]}
        pairs = [((out / one).with_suffix(".txt").read_text(), one) for one in files]
    elif format == "finetrainers":
        pairs = list(zip(*((out / name).read_text().splitlines() for name in ("prompts.txt", "videos.txt"))))
    else:
        with open(out / "dataset.csv", newline="") as file:
            pairs = [(row["caption"], row["file"]) for row in csv.DictReader(file)]
    assert all((out / name).is_file() for _, name in pairs)
    return [text for text, _ in pairs], [name for _, name in pairs]


def test_what_is_there_is_not_made_again_and_a_lost_source_stops_nothing(
    curated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:  # fmt: skip
    pieces = all_pieces(curated)[:3]
    gone = pieces[1].clip | {"path": str(tmp_path / "gone.mp4")}
    lost = dataset.Piece(pieces[1].key, gone, pieces[1].window, pieces[1].caption, pieces[1].facts)
    monkeypatch.setattr(dataset, "pieces", lambda view: iter([pieces[0], lost, pieces[2]]))
    ask = ["export", "dataset", "-w", str(curated), "--format", "webdataset", "--out", str(tmp_path / "o"), "--json"]
    assert main(ask) == 1
    first = json.loads(capsys.readouterr().out)
    assert first["made"] == 2 and len(first["failed"]) == 1 and "gone" in first["failed"][0]
    assert str(tmp_path) not in first["failed"][0]
    packed = (tmp_path / "o" / "00000.tar").read_bytes()
    assert main(ask) == 1
    again = json.loads(capsys.readouterr().out)
    assert (again["made"], again["reused"]) == (0, 2)
    assert (tmp_path / "o" / "00000.tar").read_bytes() == packed


def test_another_picture_is_found_out(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (5, 1, 1, 3), np.uint8).repeat(32, 1).repeat(32, 2)
    video.write_mp4(tmp_path / "a.mp4", images, 24.0, crf=dataset.CRF)
    dataset.check(tmp_path / "a.mp4", 5, images[0], images[-1])
    with pytest.raises(ValueError, match="5 pictures"):
        dataset.check(tmp_path / "a.mp4", 6, images[0], images[-1])
    with pytest.raises(ValueError, match="last picture"):
        dataset.check(tmp_path / "a.mp4", 5, images[0], images[0])


def test_an_unknown_format_is_named_with_the_choices(curated: Path) -> None:
    with pytest.raises(ConfigError, match=r"kohya.*hf, webdataset"):
        dataset.dataset(str(curated), "kohya")
