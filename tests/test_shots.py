"""The shot finder against hand-checked boundaries, and the spans it makes of them."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ptta_core import video
from ptta_core.config import SplitConfig
from ptta_core.models import shots
from ptta_core.stages.split import NoClips, SplitItem, Splitter

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not (DATA / "shots.json").is_file(), reason="the hand-checked films are not here")


@dataclass(frozen=True)
class Made:
    """Stands in for video.Frame."""

    index: int
    pts: int
    time_s: float
    image: np.ndarray


def _frames(images: list[np.ndarray], fps: float = 24.0) -> list[Made]:
    return [Made(n, n * 512, n / fps, image) for n, image in enumerate(images)]


def _picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(30, 220, (6, 10, 3), dtype=np.uint8).repeat(20, axis=0).repeat(20, axis=1)


def _black() -> np.ndarray:
    return np.zeros((120, 200, 3), np.uint8)


def _find(images: list[np.ndarray], **options) -> shots.Shots:
    return shots.find_boundaries(_frames(images), SplitConfig(**options))


def _seen(found: shots.Shots) -> list[tuple[str, int]]:
    return [(one.kind, one.frame) for one in found.boundaries]


def test_a_cut_is_the_first_frame_of_the_new_shot() -> None:
    found = _find([_picture(1)] * 30 + [_picture(2)] * 30)
    assert _seen(found) == [("cut", 30)]
    assert found.boundaries[0].pts == found.boundaries[0].resume_pts == 30 * 512
    assert (found.first_pts, found.last_pts, found.end_pts) == (0, 59 * 512, 60 * 512)


def test_content_detector() -> None:
    found = _find([_picture(1)] * 30 + [_picture(2)] * 30, detector="content", threshold=27.0)
    assert _seen(found) == [("cut", 30)]


@pytest.mark.parametrize("length", [1, 2, 4, 8])
def test_a_flash_is_no_cut_but_a_short_shot_between_others_is(length: int) -> None:
    white = np.full((120, 200, 3), 250, np.uint8)
    flash = [_picture(1)] * 30 + [white] * length + [_picture(1)] * 30
    assert _seen(_find(flash)) == []
    assert len(_seen(_find(flash, flash_s=0.0))) == (2 if length > 1 else 1)
    assert len(_seen(_find([_picture(1)] * 30 + [_picture(2)] * length + [_picture(3)] * 30))) == 2


@pytest.mark.parametrize("levels", [2, 4])
def test_a_refresh_of_the_codec_is_no_cut(levels: int) -> None:
    """The blocks of a still change by some levels all at once; a change of the picture as large is a cut."""
    change = np.random.default_rng(3).integers(-levels, levels + 1, (6, 10, 3)).repeat(20, axis=0).repeat(20, axis=1)
    still = [_picture(1)] * 30 + [(_picture(1) + change).astype(np.uint8)] * 30
    assert _seen(_find(still)) == []


def test_a_cut_between_colours_of_one_luma_is_found() -> None:
    red, green = (np.full((120, 200, 3), colour, np.uint8) for colour in ((200, 60, 60), (40, 128, 80)))
    assert _seen(_find([red] * 30 + [green] * 30)) == [("cut", 30)]


def test_a_dark_flicker_is_no_fade() -> None:
    assert _seen(_find([_picture(1)] * 30 + [_black()] * 2 + [_picture(1)] * 30)) == []
    assert _seen(_find([_picture(1)] * 30 + [_black()] * 2 + [_picture(2)] * 30)) == [("cut", 30), ("cut", 32)]


def test_clips_end_where_black_begins_and_resume_where_it_ends() -> None:
    found = _find([_black()] * 5 + [_picture(1)] * 30 + [_black()] * 12 + [_picture(2)] * 30 + [_black()] * 4)
    assert _seen(found) == [("fade", 5), ("cut", 35), ("cut", 47), ("fade", 77)]
    spans = shots.to_spans(found, SplitConfig(), 1 / 24)
    assert [(span.start_pts // 512, span.end_pts // 512, span.frames) for span in spans] == [(5, 35, 30), (47, 77, 30)]
    assert [(span.begins_with, span.ends_with) for span in spans] == [("fade", "cut"), ("cut", "fade")]


def _shots(frames: int, boundaries: list[int], fps: float = 24.0) -> shots.Shots:
    pts = [n * 512 for n in range(frames)]
    times = [n / fps for n in range(frames)]
    return shots.Shots([shots.Boundary(times[n], n, pts[n], "cut", 1.0, pts[n]) for n in boundaries], pts, times)


def test_long_shots_are_cut_in_equal_parts_and_short_ones_dropped() -> None:
    spans = shots.to_spans(_shots(600, [12]), SplitConfig(max_clip_s=10.0), 1 / 24)
    assert [span.frames for span in spans] == [196, 196, 196]
    assert [(span.begins_with, span.ends_with) for span in spans] == [
        ("cut", "max_length"), ("max_length", "max_length"), ("max_length", "end"),
    ]  # fmt: skip
    assert spans[0].start_pts == 12 * 512 and spans[-1].end_pts == 600 * 512
    assert spans[-1].end_s == pytest.approx(25.0)
    assert all(a.end_pts == b.start_pts for a, b in itertools.pairwise(spans))


@pytest.mark.parametrize("fps", [23.976, 25.0, 29.97, 12.5])
@pytest.mark.parametrize("frames", [1, 2, 240, 241, 300, 599])
def test_no_part_is_too_long_and_no_frame_is_lost(fps: float, frames: int) -> None:
    config = SplitConfig(min_clip_s=0.001, max_clip_s=3.3)
    spans = shots.to_spans(_shots(frames, [], fps), config, 1 / fps)
    assert sum(span.frames for span in spans) == frames
    assert all(span.duration_s <= config.max_clip_s + 1e-6 for span in spans)
    assert max(span.frames for span in spans) - min(span.frames for span in spans) <= 1


def test_exactly_the_least_length_is_kept() -> None:
    assert len(shots.to_spans(_shots(24, []), SplitConfig(), 1 / 24)) == 1
    assert shots.to_spans(_shots(23, []), SplitConfig(), 1 / 24) == []
    assert shots.to_spans(_shots(0, []), SplitConfig(), 1 / 24) == []


def _film(path: Path, images: list[np.ndarray]) -> SplitItem:
    video.write_mp4(path, images, 24)
    return SplitItem("source", str(path))


def test_the_splitter_writes_clips(tmp_path: Path) -> None:
    item = _film(tmp_path / "a.mp4", [_picture(1)] * 30 + [_picture(2)] * 40)
    [clips] = Splitter(SplitConfig())([item])
    assert [(clip.frames, clip.begins_with, clip.ends_with) for clip in clips] == [
        (30, "start", "cut"), (40, "cut", "end"),
    ]  # fmt: skip
    assert clips[1].start_s == pytest.approx(1.25) and clips[1].end_s == pytest.approx(70 / 24)
    for clip in clips:
        read = list(video.read_frames(item.path, start_pts=clip.start_pts, end_pts=clip.end_pts, pixel="gray"))
        assert len(read) == clip.frames
    assert [one.clip_id for one in Splitter(SplitConfig(width=100))([item])[0]] == [one.clip_id for one in clips]
    [other] = Splitter(SplitConfig())([SplitItem("other", item.path)])
    assert not {one.clip_id for one in other} & {one.clip_id for one in clips}


def test_a_source_without_clips_says_why(tmp_path: Path) -> None:
    split = Splitter(SplitConfig())
    with pytest.raises(NoClips, match=r"lasts 0\.04 s, below split\.min_clip_s = 1\.0") as caught:
        split([_film(tmp_path / "one.mp4", [_picture(1)])])
    assert caught.value.kind == "no_clips"
    with pytest.raises(NoClips, match="every frame is black"):
        split([_film(tmp_path / "black.mp4", [_black()] * 30)])
    with pytest.raises(NoClips, match="equal parts"):
        Splitter(SplitConfig(min_clip_s=1.9, max_clip_s=2.0))([_film(tmp_path / "b.mp4", [_picture(1)] * 60)])


# ---------------------------------------------------------------------------------------------- hand-checked films


def _films() -> list[dict]:
    return json.loads((DATA / "shots.json").read_text())["videos"]


def _boundaries(film: dict) -> list[shots.Boundary]:
    config = SplitConfig()
    frames = video.read_frames(str(DATA / film["file"]), width=config.width, pixel="rgb24")
    found = shots.find_boundaries(frames, config)
    assert len(found.pts) == film["frames"]
    return found.boundaries


def _score(film: dict) -> tuple[int, int, int, int, int]:
    """(hard cuts found, missed, wrong detections, gradual changes found, missed) by the rule in shots.json."""
    left, wrong, seen = list(film["hard_cuts"]), 0, set()
    gradual = [(span["start"] - 5, span["end"] + 5) for span in film["gradual"]]
    ambiguous = [(span["start"], span["end"]) for span in film["ambiguous"]]
    for one in _boundaries(film):
        hits = [cut for cut in left if abs(cut - one.frame) <= 2]
        inside = [span for span in gradual if span[0] <= one.frame <= span[1]]
        seen |= set(inside)
        if hits:
            left.remove(hits[0])
        elif not inside and not any(first <= one.frame <= last for first, last in ambiguous):
            wrong += 1
            print("wrong", film["file"], one.kind, one.frame)
    if left:
        print("missed", film["file"], left)
    return len(film["hard_cuts"]) - len(left), len(left), wrong, len(seen), len(gradual) - len(seen)


@needs_data
def test_hard_cuts_of_real_animation() -> None:
    found, missed, wrong, gradual, unseen = (sum(column) for column in zip(*(_score(film) for film in _films())))
    f1 = 2 * found / (2 * found + missed + wrong)
    print(f"found {found} missed {missed} wrong {wrong} F1 {f1:.3f}")
    assert found + missed == sum(len(film["hard_cuts"]) for film in _films()) > 30
    assert f1 >= 0.97
    assert 2 * (found + gradual) / (2 * (found + gradual) + missed + unseen + wrong) >= 0.95


@needs_data
@pytest.mark.parametrize("name", ["gt_nocut_flash", "gt_nocut_occlusion"])
def test_flashes_and_occlusions_are_no_cuts(name: str) -> None:
    film = next(one for one in _films() if name in one["file"])
    assert _boundaries(film) == []
