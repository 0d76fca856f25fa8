"""Mixed frames belong to no clip, chunks give what one pass gives, and black borders are told from dark pictures."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from ptta_core import cartoon, video
from ptta_core.config import SplitConfig
from ptta_core.models import shot_features, shots
from ptta_core.stages import split

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not (DATA / "shots.json").is_file(), reason="the hand-checked films are not here")
CONFIG = SplitConfig(min_clip_s=0.3)


def _shot(seed: int, frames: int = 48, kind: str = "pan") -> list[np.ndarray]:
    shot = cartoon.Shot(kind, frames, 3.0)
    pictures = cartoon.shot_frames(shot, cartoon.PALETTES[seed % len(cartoon.PALETTES)], random.Random(seed))
    return [np.asarray(one.resize((320, 180))) for one in pictures]


def _mixed(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    return np.rint(first * (1 - share) + second * share).astype(np.uint8)


def _joined(first: list[np.ndarray], second: list[np.ndarray], length: int) -> list[np.ndarray]:
    tail, head = first[len(first) - length :], second[:length]
    middle = [_mixed(a, b, (n + 1) / (length + 1)) for n, (a, b) in enumerate(zip(tail, head))]
    return first[: len(first) - length] + middle + second[length:]


def _clean(path: Path, images: list[np.ndarray], crf: int = 23) -> tuple[set[int], list[str]]:
    """The frames inside clips of a film made of these pictures, and the kinds of its boundaries."""
    video.write_mp4(path, images, 24, crf=crf)
    info = video.probe(path)
    item = split.SplitItem("a", str(path))
    features = split.measured(split.Chunk(item, split.Long(info, ""), None, None), CONFIG, 1)
    found = shots.decide(features, CONFIG)
    index = {pts: number for number, pts in enumerate(found.pts)} | {found.end_pts: len(found.pts)}
    spans = shots.whole_shots(found, 1 / 24)
    inside = {frame for span in spans for frame in range(index[span.start_pts], index[span.end_pts])}
    return inside, [one.kind for one in found.boundaries]


def test_a_long_source_on_two_threads_is_measured_as_on_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video.write_mp4(tmp_path / "a.mp4", _joined(_shot(0), _shot(3), 12), 24)
    monkeypatch.setattr(split, "THREAD_S", 1.0)
    long = split.Long(video.probe(tmp_path / "a.mp4"), "")
    whole, chunks = split.Chunk(split.SplitItem("a", str(tmp_path / "a.mp4")), long, None, None), []
    alone = split._measured_alone
    monkeypatch.setattr(split, "_measured_alone", lambda *given: chunks.append(given[-1]) or alone(*given))
    one, two = (split.measured(whole, CONFIG, threads) for threads in (1, 2))
    assert sorted(chunk.start_pts is None for chunk in chunks) == [False, True, True]  # one whole, then two halves
    assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in ("pts", "thumbs", "mean", "extents"))


@pytest.mark.parametrize("length", [6, 12, 24, 36])
@pytest.mark.parametrize("crf", [18, 30])
def test_no_frame_of_a_dissolve_is_in_a_clip(tmp_path: Path, length: int, crf: int) -> None:
    images = _joined(_shot(0), _shot(3), length)
    inside, kinds = _clean(tmp_path / "a.mp4", images, crf)
    mixed = set(range(48 - length, 48))
    assert kinds == ["dissolve"]
    assert not inside & mixed
    assert len(images) - len(inside) <= length + 12  # a margin of at least three frames on each side


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("ramp", [6, 15])
def test_no_frame_of_a_fade_is_in_a_clip(tmp_path: Path, colour: int, ramp: int) -> None:
    first, second = _shot(1), _shot(4)
    flat = np.full_like(first[0], colour)
    down = [_mixed(one, flat, (n + 1) / ramp) for n, one in enumerate(first[-ramp:])]
    up = [_mixed(one, flat, 1 - n / ramp) for n, one in enumerate(second[:ramp])]
    images = first[:-ramp] + down + [flat] * 5 + up + second[ramp:]
    inside, kinds = _clean(tmp_path / "a.mp4", images)
    assert kinds in (["fade"], ["fade", "fade"])  # nearly white frames may make the white long
    # the last share of the ramp up is 1 / ramp, the first of the ramp down too
    assert not inside & set(range(48 - ramp, 48 + 5 + ramp))
    assert len(images) - len(inside) <= 2 * ramp + 5 + 6


def test_a_blended_frame_at_a_cut_is_in_no_clip(tmp_path: Path) -> None:
    first, second = _shot(0), _shot(2)
    images = [*first, _mixed(first[-1], second[0], 0.4), *second]
    inside, kinds = _clean(tmp_path / "a.mp4", images)
    assert kinds == ["cut"]
    assert inside == set(range(len(images))) - {48}


def test_pans_and_zooms_are_no_dissolves(tmp_path: Path) -> None:
    for kind, seed in itertools.product(("pan", "zoom", "walk"), (0, 5)):
        assert _clean(tmp_path / f"{kind}{seed}.mp4", _shot(seed, 72, kind))[1] == []


def _pan(speed: float, hold: int, textured: bool, seed: int, frames: int = 60) -> list[np.ndarray]:
    """A painted picture under a moving camera (speed in px a frame of 480), each drawing shown `hold` times."""
    rng = np.random.default_rng(seed)
    wide = np.empty((270, 1200, 3), np.uint8)
    wide[:] = rng.integers(60, 200, 3)
    for _ in range(40):
        (x, y), (w, h) = rng.integers(0, [1100, 200]), rng.integers(10, 90, 2)
        wide[y : y + h, x : x + w] = rng.integers(20, 235, 3)
    if textured:
        noise = rng.normal(0, 12, (135, 600, 3)).repeat(2, axis=0).repeat(2, axis=1)
        wide = np.clip(wide + noise, 0, 255).astype(np.uint8)
    starts = [round(20 + speed * (number // hold * hold)) for number in range(frames)]
    return [wide[:, left : left + 480].copy() for left in starts]


@pytest.mark.parametrize("hold", [1, 2, 3])
@pytest.mark.parametrize("px", [2, 12, 30, 48])
def test_drawn_pans_on_ones_twos_and_threes_have_no_boundary(tmp_path: Path, hold: int, px: int) -> None:
    """2 to 48 px in 0.625 s: a shift by part of a thumbnail's pixel mixes neighbours as a dissolve does."""
    for seed, textured in ((px, False), (px + 100, True)):
        assert _clean(tmp_path / f"{seed}.mp4", _pan(px / 15, hold, textured, seed))[1] == []


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("length", [12, 30])
def test_no_frame_of_a_dissolve_between_cameras_that_move_is_in_a_clip(
    tmp_path: Path, length: int, repeated: bool
) -> None:  # fmt: skip
    """Both pictures move, so that no frame lies between the pictures at the ends; or 24 frames are shown as 25."""
    film = _joined(_pan(3.0, 1, True, 3), _pan(4.0, 2, False, 11), length)
    shown = [number * 24 // 25 for number in range(len(film) * 25 // 24)] if repeated else list(range(len(film)))
    inside, kinds = _clean(tmp_path / "a.mp4", [film[number] for number in shown])
    assert kinds == ["dissolve"]
    assert not {shown[number] for number in inside} & set(range(60 - length, 60))


@pytest.mark.parametrize("frames", [1, 6])
def test_a_lamp_and_a_title_are_no_boundaries(tmp_path: Path, frames: int) -> None:
    lit = _shot(2, 72)
    share = [min(1.0, max(0.0, (number - 30) / frames)) for number in range(72)]
    assert _clean(tmp_path / "dim.mp4", [_mixed(one, one // 3, part) for one, part in zip(lit, share)])[1] == []
    titled = [one.copy() for one in lit]
    for one in titled:
        one[60:110, 80:240] = (250, 220, 60)
    assert _clean(tmp_path / "title.mp4", [_mixed(*three) for three in zip(lit, titled, share)])[1] == []


@pytest.mark.parametrize("seed", [1, 2])
def test_pans_that_are_cut_have_their_cut(tmp_path: Path, seed: int) -> None:
    images = _pan(2.0, 2, False, seed) + _pan(1.5, 2, False, seed + 50)
    assert _clean(tmp_path / "a.mp4", images) == (set(range(120)), ["cut"])


def test_a_slow_pan_out_of_black_is_no_ramp(tmp_path: Path) -> None:
    """The ramp out of black ends where the picture is there; the cut behind the pan is found."""
    first, second = _pan(2.0, 1, False, 3), _pan(1.0, 1, False, 9)
    up = [_mixed(one, np.zeros_like(one), 1 - n / 12) for n, one in enumerate(first[:12])]
    inside, kinds = _clean(tmp_path / "a.mp4", [np.zeros_like(first[0])] * 8 + up + first[12:] + second)
    assert kinds == ["fade", "cut"]
    assert not inside & set(range(20)) and set(range(30, 128)) <= inside


def test_chunks_give_what_one_pass_gives(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    video.write_mp4(path, _joined(_shot(0), _shot(3), 12) + _shot(2) + _shot(5), 24)
    item, long = split.SplitItem("a", str(path)), split.Long(video.probe(path), "")
    whole = split.measured(split.Chunk(item, long, None, None), CONFIG, 1)
    chunks = split.chunks_of(item, long, 1.1)
    parts = [split.measured(chunk, CONFIG, 1) for chunk in chunks]
    joined = shot_features.join(parts)
    assert len(chunks) > 4 and sum(map(len, parts)) == len(whole)
    for name in ("pts", "times_s", "thumbs", "mean", "low", "high", "extents"):
        assert np.array_equal(getattr(joined, name), getattr(whole, name)), name
    assert split.clips_of(item, long, joined, CONFIG) == split.Splitter(CONFIG)([item])[0]


def _bordered(images: list[np.ndarray], top: int, left: int, light: float = 1.0) -> list[np.ndarray]:
    shown = []
    for one in images:
        framed = np.zeros_like(one)
        height, width = one.shape[:2]
        framed[top : height - top, left : width - left] = one[top : height - top, left : width - left] * light
        shown.append(framed)
    return shown


@pytest.mark.parametrize(
    ("top", "left", "light", "crop"),
    [(24, 0, 1.0, "0,24,320,132"), (0, 40, 1.0, "40,0,240,180"), (24, 0, 0.5, "0,24,320,132"), (0, 0, 1.0, ""),
     (0, 0, 0.12, "")],
)  # fmt: skip
def test_black_borders_are_recorded(tmp_path: Path, top: int, left: int, light: float, crop: str) -> None:
    path = tmp_path / "a.mp4"
    video.write_mp4(path, _bordered(_shot(0), top, left, light), 24)
    item = split.SplitItem("a", str(path))
    [clips] = split.Splitter(CONFIG)([item])
    assert [clip.crop for clip in clips] == [crop]
    [bare] = split.Splitter(SplitConfig(min_clip_s=0.3, crop_borders=False))([item])
    assert [clip.crop for clip in bare] == [""]
    assert (bare[0].clip_id == clips[0].clip_id) == (crop == "")


@needs_data
@pytest.mark.parametrize(
    ("name", "crop"),
    [("nasty/letterboxed.mp4", "0,104,640,272"), ("clips/sintel_bowl_1280x544.mp4", ""),
     ("clips/sintel_trailer_480x204.mp4", "")],
)  # fmt: skip
def test_borders_of_real_films(name: str, crop: str) -> None:
    [clips] = split.Splitter(CONFIG)([split.SplitItem("a", str(DATA / name))])
    assert {clip.crop for clip in clips} == {crop}
