"""The cartoon says what it shows: its truth against its files, and its files against the shot finder."""

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest

from ptta_core import cartoon, video
from ptta_core.config import ScoreConfig, SplitConfig
from ptta_core.models import motion, shots

Drawn = tuple[Path, list[dict]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("cartoon")
    return folder, cartoon.draw(folder, seed=0)


def _small(path: Path, **options) -> list[video.Frame]:
    return list(video.read_frames(str(path), width=320, pixel="rgb24", **options))


def test_three_films_of_about_ten_seconds(drawn: Drawn) -> None:
    folder, truths = drawn
    assert len(truths) == 3
    for truth in truths:
        info = video.probe(str(folder / truth["file"]))
        assert (info.width, info.height, info.fps) == (cartoon.WIDTH, cartoon.HEIGHT, cartoon.FPS)
        assert info.frames == truth["frames"] == len(_small(folder / truth["file"]))
        assert 8.0 < info.duration_s < 13.0
        for first, second in itertools.pairwise(truth["shots"]):
            assert first["last"] < second["first"]
        assert all(36 <= shot["last"] - shot["first"] + 1 <= 72 for shot in truth["shots"])
    assert [sum(len(truth[key]) for truth in truths) for key in ("fades", "flashes")] == [1, 1]
    assert {shot["kind"] for truth in truths for shot in truth["shots"]} == {"pan", "walk", "still", "zoom"}


def test_every_boundary_is_found_and_no_other(drawn: Drawn) -> None:
    folder, truths = drawn
    for truth in truths:
        found = shots.find_boundaries(_small(folder / truth["file"]), SplitConfig()).boundaries
        cuts = [one.frame for one in found if one.kind == "cut"]
        assert len(cuts) == len(truth["cuts"]), (truth["file"], cuts, truth["cuts"])
        assert all(abs(seen - true) <= 1 for seen, true in zip(cuts, truth["cuts"]))
        fades = [one for one in found if one.kind == "fade"]
        assert len(fades) == len(truth["fades"])
        for one, (first, last) in zip(fades, truth["fades"]):
            assert first <= one.frame <= last


@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_have_clear_cuts_too(seed: int) -> None:
    """Straight from the drawing, without the codec, every second pixel."""
    name = "town.mp4"
    plan = cartoon.plan(name, seed)
    pictures = (np.ascontiguousarray(image[::2, ::2]) for image in cartoon.film(name, plan, seed, 1))
    frames = (video.Frame(n, n, n / cartoon.FPS, image) for n, image in enumerate(pictures))
    found = shots.find_boundaries(frames, SplitConfig())
    truth = cartoon.truth_of(name, plan)
    assert len(found.pts) == truth["frames"]
    assert [one.frame for one in found.boundaries if one.kind == "cut"] == truth["cuts"]
    [(first, last)] = truth["black"]
    [fade] = [one for one in found.boundaries if one.kind == "fade"]
    assert first <= fade.frame <= last + 1
    # the ramps belong to no clip; up to three clean frames may be lost beside them
    [(first, last)] = truth["fades"]
    assert first - 3 <= fade.pts <= first and last < fade.resume_pts <= last + 4


def test_the_flash_would_be_a_cut_without_the_rule(drawn: Drawn) -> None:
    """Else the test above could not fail on it."""
    folder, truths = drawn
    truth = next(one for one in truths if one["flashes"])
    bare = shots.find_boundaries(_small(folder / truth["file"]), SplitConfig(flash_s=0.0)).boundaries
    first, last = truth["flashes"][0]
    assert {first, last + 1} <= {one.frame for one in bare}


def test_still_shots_stand_still_and_pans_move_as_told(drawn: Drawn) -> None:
    folder, truths = drawn
    config = ScoreConfig()
    flow = motion.make_flow(config, "cpu", "")
    told, measured = [], []
    for truth in truths:
        frames = list(
            video.read_frames(str(folder / truth["file"]), width=config.width, height=config.height, pixel="gray")
        )
        for shot in truth["shots"]:
            if shot["motion_px"] is None or truth["fades"]:
                continue
            inside = frames[shot["first"] : shot["last"] + 1]
            seen = motion.measure([one.image for one in inside], [one.time_s for one in inside], flow, config.gap_s)
            told.append(shot["motion_px"])
            measured.append(seen.motion_px)
    pans = np.array([(a, b) for a, b in zip(told, measured) if a > 0])
    assert all(b < 0.5 for a, b in zip(told, measured) if a == 0)
    assert len(pans) == 6 and pans[:, 0].min() < 10 and pans[:, 0].max() > 50
    assert pans[:, 1] == pytest.approx(pans[:, 0], rel=0.1)


def test_the_walker_is_drawn_on_twos() -> None:
    shot = cartoon.Shot("walk", 12)
    images = [np.asarray(one) for one in cartoon.shot_frames(shot, cartoon.PALETTES[0], random.Random(1))]
    changes = [not np.array_equal(a, b) for a, b in itertools.pairwise(images)]
    assert changes == [False, True] * 5 + [False]


def test_drawn_once_and_again_for_another_seed(drawn: Drawn, tmp_path: Path) -> None:
    folder, truths = drawn
    before = [(folder / one["file"]).stat().st_mtime_ns for one in truths]
    assert cartoon.draw(folder, seed=0) == truths
    assert [(folder / one["file"]).stat().st_mtime_ns for one in truths] == before
    assert json.loads((folder / "truth.json").read_text())["files"] == truths
    assert cartoon.plan("hills.mp4", 0) == cartoon.plan("hills.mp4", 0) != cartoon.plan("hills.mp4", 1)
    first, same, other = (next(cartoon.film("hills.mp4", cartoon.plan("hills.mp4", s), s)) for s in (0, 0, 1))
    assert np.array_equal(first, same) and not np.array_equal(first, other)


def test_an_incomplete_folder_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def write(path, images, fps, **options) -> None:
        written.append(Path(path).name)
        Path(path).write_bytes(b"x")

    monkeypatch.setattr(video, "write_mp4", write)
    cartoon.draw(tmp_path, seed=3)
    cartoon.draw(tmp_path, seed=3)
    assert written == list(cartoon.PLANS)
    (tmp_path / "town.mp4").unlink()
    cartoon.draw(tmp_path, seed=3)
    assert len(written) == 2 * len(cartoon.PLANS)
    cartoon.draw(tmp_path, seed=4)
    assert len(written) == 3 * len(cartoon.PLANS)
