"""Episodes with one opening and one ending: of what they share one clip is kept, and none learned and measured."""

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from demo import go, open_demo

from ptta_core import cartoon, memo, video
from ptta_core.ops import edits
from ptta_core.view import View

LENGTH = 40  # frames of every shot
SHARED = (0, 1, 4)  # places in an episode: the opening's two shots and the ending's one
FORMS = ((320, 180, 18), (384, 216, 24), (256, 144, 28))  # width, height, crf
CURATE = ("gather", "split", "score", "select")
OPEN = {"select.theta": -1000.0, "select.target": "", "select.rule": "", "select.max_motion_px": None,
        "select.min_aesthetic": None, "select.max_per_source": None, "select.duplicates": "drop"}  # fmt: skip


def shot(kind: str, speed: float, palette: int, seed: int, size: tuple[int, int]) -> list[np.ndarray]:
    drawn = cartoon.shot_frames(cartoon.Shot(kind, LENGTH, speed), cartoon.PALETTES[palette], random.Random(seed))
    return [np.asarray(one.resize(size)) for one in drawn]


def episode(number: int, size: tuple[int, int]) -> list[np.ndarray]:
    opening = shot("pan", 4.0, 0, 100, size) + shot("walk", 0.0, 1, 101, size)
    middle = shot("pan", 3.0, 2, 10 * number, size) + shot("walk", 0.0, 3, 10 * number + 1, size)
    return opening + middle + shot("pan", -5.0, 4, 102, size)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a workspace in which three episodes are selected, their folder)."""
    folder = tmp_path_factory.mktemp("episodes")
    for number, (width, height, crf) in enumerate(FORMS):
        video.write_mp4(folder / f"{number}.mp4", episode(number, (width, height)), 24, crf=crf)
    workspace = tmp_path_factory.mktemp("river") / "w"
    go(open_demo(workspace, folder, **OPEN), CURATE)
    return workspace, folder


def places(view: View) -> dict[str, tuple[int, int]]:
    """clip_id -> (episode, place of the shot)."""
    episodes = {row["source_id"]: int(Path(row["path"]).stem) for row in view.rows("gather").to_pylist()}
    return {row["clip_id"]: (episodes[row["source_id"]], round(row["start_s"] * 24) // LENGTH)
            for row in view.rows("split").to_pylist()}  # fmt: skip


def verdicts(view: View) -> dict[tuple[int, int], dict]:
    """(episode, place of the shot) -> the clip's row of the selection."""
    where = places(view)
    return {where[row["clip_id"]]: row for row in view.rows("select").to_pylist()}


def test_what_is_shared_is_kept_once_and_the_middles_stay(place: tuple[Path, Path]) -> None:
    found = verdicts(open_demo(*place, **OPEN))
    assert sorted(found) == [(number, at) for number in range(3) for at in range(5)]
    assert all(found[number, at]["kept"] for number in range(3) for at in (2, 3))
    for at in SHARED:
        same = [found[number, at] for number in range(3)]
        [kept] = [row for row in same if row["kept"]]
        assert kept["score"] == max(row["score"] for row in same)
        assert {row["reason"] for row in same if not row["kept"]} == {f"near-duplicate of {kept['clip_id']}"}


def test_a_persons_word_outlives_theta_and_wins_over_the_duplicate_rule(place: tuple[Path, Path]) -> None:
    before = verdicts(open_demo(*place, **OPEN))
    order = {at: sorted(range(3), key=lambda number: (not before[number, at]["kept"], number)) for at in SHARED}
    pinned, vetoed = (order[0][1], 0), (order[4][0], 4)  # a duplicate that was dropped; one that was kept
    edits.decide(str(place[0]), pin=[before[pinned]["clip_id"]], veto=[before[vetoed]["clip_id"]], author="Ann")
    for theta in (-1000.0, 2.0, 1000.0):
        view = open_demo(*place, **OPEN | {"select.theta": theta})
        outcomes = go(view, CURATE)
        assert outcomes["split"].computed == outcomes["score"].computed == 0
        found = verdicts(view)
        assert (found[pinned]["kept"], found[pinned]["reason"]) == (True, "kept by hand (Ann)")
        assert (found[vetoed]["kept"], found[vetoed]["reason"]) == (False, "vetoed by hand (Ann)")
        kept = {at: [number for number in range(3) if found[number, at]["kept"]] for at in SHARED}
        assert kept[0] == [pinned[0]]
        if theta < 0:
            others = [found[number, 4] for number in range(3) if number != vetoed[0]]
            assert sorted(row["kept"] for row in others) == [False, True]
            assert all(re.fullmatch(r"S .*|near-duplicate of \w+", row["reason"]) for row in others)
        if theta == 1000.0:
            assert [place for place, row in found.items() if row["kept"]] == [pinned]


def test_a_repeated_opening_is_never_learned_and_measured(place: tuple[Path, Path], tmp_path: Path) -> None:
    """What training is pinned to: one episode's own shots are measured, its opening and ending are in neither part."""
    from ptta_core.stages import train

    workspace = Path(shutil.copytree(place[0], tmp_path / "w"))
    shutil.rmtree(workspace / "tables/edits.lance", ignore_errors=True)
    keep = OPEN | {"select.duplicates": "keep", "encode.frames": 5, "encode.area": 32 * 32}
    encoded = open_demo(workspace, place[1], **keep, **{"train.holdout_share": 0.15})
    go(encoded, (*CURATE, "caption", "admit", "encode"))

    items = encoded.items("train")
    [item] = items.make([0])
    assert items.note == "2 of 12 latents held out; 3 more left out: near-duplicates of learned ones"
    job = memo.Job("train", encoded.recipe.train, encoded.recipe, encoded.site, encoded.home,
                   encoded.fingerprint("train"), lambda *a: None, lambda note: None, encoded.store)  # fmt: skip
    train.pin(encoded.home / "training" / item.train_id, item, job)
    where = places(encoded)
    shot_of = {row["latent_id"]: where[row["clip_id"]] for row in encoded.rows("encode").to_pylist()}
    index = json.loads((encoded.home / "training" / item.train_id / "index.json").read_text())
    measured = {shot_of[one["latent_id"]] for one in index if one["held_out"]}
    learned = {shot_of[one["latent_id"]] for one in index if not one["held_out"]}
    [number] = {number for number, _ in measured}
    others = [one for one in range(3) if one != number]
    assert measured == {(number, 2), (number, 3)}
    assert learned == {(one, at) for one in others for at in (*SHARED, 2, 3)}
    assert open_demo(workspace, place[1], **keep).items("train").input_ids != items.input_ids  # 0: nothing held out
