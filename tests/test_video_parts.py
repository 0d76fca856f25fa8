"""Parts of pictures and chosen pictures: the same as cutting and choosing afterwards."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from material import nasty

from ptta_core import video
from ptta_core.video import looking, read_frames
from ptta_core.video.looking import Reel


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 smooth pictures of 160 x 96 px, moving; nearly lossless."""
    path = tmp_path_factory.mktemp("parts") / "scene.mp4"
    rows, columns = np.mgrid[:96, :160]
    images = [
        np.stack([128 + 100 * np.sin((columns + 3 * index) / 11), 128 + 90 * np.cos(rows / 7), 80 + rows], -1)
        for index in range(24)
    ]
    video.write_mp4(path, np.stack(images).astype(np.uint8), 24, crf=4)
    return path


@pytest.mark.parametrize("crop", ["0,0,160,96", "32,16,96,48", "33,17,95,47", "1,0,2,96", "159,95,1,1"])
def test_a_crop_is_the_picture_cut(scene: Path, crop: str) -> None:
    x, y, width, height = map(int, crop.split(","))
    for whole, part in zip(read_frames(scene), read_frames(scene, crop=crop), strict=True):
        assert part.pts == whole.pts and part.image.shape == (height, width, 3)
        expected = whole.image[y : y + height, x : x + width].astype(int)
        even = x % 2 == y % 2 == 0
        assert np.abs(part.image - expected).mean() < (1 if even else 4)  # chroma is half as fine


def test_the_size_is_the_part_s(scene: Path) -> None:
    def shape(**size: int) -> tuple[int, ...]:
        return next(iter(read_frames(scene, crop="32,16,96,48", **size))).image.shape

    assert (
        shape(width=48) == (24, 48, 3)
        and shape(height=12) == (12, 24, 3)
        and shape(width=20, height=30)[:2] == (30, 20)
    )
    gray = next(iter(read_frames(scene, crop="32,16,96,48", width=48, pixel="gray"))).image
    whole = next(iter(read_frames(scene, pixel="gray"))).image[16:64, 32:128].astype(float)
    assert np.abs(gray - whole.reshape(24, 2, 48, 2).mean((1, 3))).mean() < 1.5


@pytest.mark.parametrize("name", ["rotated_90.mp4", "anamorphic_sar.mp4", "odd_dimensions_427x241_vp9.webm",
                                  "hevc_main10.mp4", "grayscale_ffv1.mkv"])  # fmt: skip
def test_a_crop_is_in_shown_pixels(name: str) -> None:
    whole = next(iter(read_frames(nasty(name)))).image.astype(int)
    height, width = whole.shape[0] // 2, whole.shape[1] // 3
    x, y = whole.shape[1] // 2 // 2 * 2, whole.shape[0] // 4 // 2 * 2
    part = next(iter(read_frames(nasty(name), crop=f"{x},{y},{width},{height}"))).image
    right, wrong = whole[y : y + height, x : x + width], whole[:height, :width]
    assert part.shape == right.shape
    assert np.abs(part - right).mean() < 4 and np.abs(part - right).mean() < np.abs(part - wrong).mean() / 4


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_every_rotation_maps_back(turn: int) -> None:
    from ptta_core.video.shaping import stored_box

    stored = np.arange(40 * 60).reshape(40, 60)
    shown = np.rot90(stored, turn // 90)
    x, y, width, height = stored_box((5, 7, 20, 11), (shown.shape[1], shown.shape[0]), turn, (60, 40))
    np.testing.assert_array_equal(
        np.rot90(stored[y : y + height, x : x + width], turn // 90), shown[7 : 7 + 11, 5 : 5 + 20]
    )


def test_a_change_of_resolution_keeps_the_part() -> None:
    shapes = {frame.image.shape for frame in read_frames(nasty("resolution_change.ts"), crop="64,36,320,180", width=64)}
    assert shapes == {(36, 64, 3)}


@pytest.mark.parametrize("crop", ["1,2,3", "a,b,c,d", "-1,0,4,4", "0,0,0,4", "100,0,61,96", "0,90,10,7"])
def test_an_impossible_crop_is_an_error(scene: Path, crop: str) -> None:
    with pytest.raises(ValueError, match="crop"):
        list(read_frames(scene, crop=crop))


def test_an_unknown_cleanup_is_an_error(scene: Path) -> None:
    with pytest.raises(ValueError, match=r"'deinterlace'.*'detelecine'"):
        list(read_frames(scene, cleanup="bob"))


def test_wanted_pictures_alone_are_made(scene: Path) -> None:
    whole = list(read_frames(scene, width=32))
    asked: list[int] = []

    def every_fifth(pts: int) -> bool:
        asked.append(pts)
        return len(asked) % 5 == 1

    few = list(read_frames(scene, width=32, start_pts=whole[3].pts, end_pts=whole[20].pts, wanted=every_fifth))
    assert asked == [frame.pts for frame in whole[3:20]]
    assert [(frame.index, frame.pts) for frame in few] == [(5 * one, whole[3 + 5 * one].pts) for one in range(4)]
    for frame in few:
        np.testing.assert_array_equal(frame.image, whole[3 + frame.index].image)
    assert list(read_frames(scene, wanted=lambda pts: False)) == []  # nothing was wanted: no error


@pytest.mark.parametrize("name", ["near_duplicate_b_original.mp4", "rotated_90.mp4", "hevc_main10.mp4", "av1.mp4",
                                  "grayscale_ffv1.mkv", "anamorphic_sar.mp4"])  # fmt: skip
def test_fast_differs_in_fine_colour_alone(name: str) -> None:
    for size in ({"width": 160}, {"width": 101, "height": 67}, {}):
        true, fast = (next(iter(read_frames(nasty(name), fast=one, **size))).image.astype(int) for one in (False, True))
        assert true.shape == fast.shape
        assert np.abs(true - fast).mean() < 2.5
        assert np.abs((true - fast).mean((0, 1))).max() < 1.5  # no other matrix, no other range
        assert np.abs(true.mean(-1) - fast.mean(-1)).mean() < 2


def test_a_crop_copies_no_picture(scene: Path) -> None:
    """The cut is a view into the decoder's picture: its lines lie as far apart."""
    from ptta_core.video.shaping import Shaper

    with av.open(str(scene)) as container:
        frame = next(container.decode(video=0))
        shaper = Shaper(container.streams.video[0], None, None, "rgb24", (32, 16, 96, 48))
        shaper(frame)
        assert shaper._cut(frame, 0).planes[0].line_size == frame.planes[0].line_size
        assert (frame.width, frame.height) == (160, 96)


def test_a_draft_has_the_same_times_and_nearly_the_same_small_pictures(tmp_path: Path) -> None:
    """Coarsely coded, so that the loop filter has much to do; a cleaned-up picture is never a draft."""
    rng = np.random.default_rng(2)
    wide = rng.integers(0, 255, (24, 60, 3), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)
    video.write_mp4(tmp_path / "a.mp4", [wide[:, n : n + 320] for n in range(40)], 24, crf=40)
    exact, draft = (list(read_frames(tmp_path / "a.mp4", width=160, draft=how)) for how in (False, True))
    assert [(one.index, one.pts) for one in exact] == [(one.index, one.pts) for one in draft]
    away = [float(np.abs(one.image.astype(int) - other.image).mean()) for one, other in zip(exact, draft)]
    assert 0 < max(away) < 6.0  # levels; the coarsest coding of all
    cleaned = [list(read_frames(tmp_path / "a.mp4", cleanup="deinterlace", draft=how)) for how in (False, True)]
    assert all(np.array_equal(one.image, other.image) for one, other in zip(*cleaned, strict=True))


def spans_of(reel: Reel, spans: list[tuple[int, int]]) -> list[list[tuple[int, int, bytes]]]:
    """(index, pts, gray) of each picture of each span."""
    return [[(one.index, one.pts, one.gray.tobytes()) for one in small(reel, *span)] for span in spans]


def small(reel: Reel, start_pts: int, end_pts: int) -> Iterator[looking.Glimpse]:
    return reel.glimpses(start_pts, end_pts, width=64, height=36, coloured=lambda pts: False, short_px=36)


@pytest.mark.parametrize("name", ["hevc_main10.mp4", "av1.mp4", "corrupt_packets.mp4", "variable_frame_rate.mp4",
                                  "interlaced_pal.mp4"])  # fmt: skip
def test_spans_of_a_reel_are_those_of_the_whole_file(name: str) -> None:
    cleanup = "deinterlace" if name == "interlaced_pal.mp4" else ""
    frames = list(read_frames(nasty(name), width=64, height=36, pixel="gray", cleanup=cleanup))
    at = [frames[len(frames) * place // 10].pts for place in range(10)]
    spans = [(at[1], at[3]), (at[3], at[4]), (at[6], at[7]), (at[2], at[3]), (at[8], frames[-1].pts + 1)]
    expected = [[one for one in frames if start <= one.pts < end] for start, end in spans]
    reel = Reel(nasty(name), video.probe(nasty(name)).stream, cleanup=cleanup)
    with closing(reel):
        found = spans_of(reel, spans)
        next(small(reel, at[1], at[2]))  # given up early
        again = spans_of(reel, spans[:2])
    wanted = [[(number, one.pts, one.image.tobytes()) for number, one in enumerate(span)] for span in expected]
    assert found == wanted and again == wanted[:2]


def test_a_reel_seeks_only_where_it_must(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeks: list[int] = []
    from_ = looking.pictures
    monkeypatch.setattr(looking, "pictures", lambda *given: seeks.append(given[2]) or from_(*given))
    pts = [frame.pts for frame in read_frames(scene)]
    with closing(Reel(scene, 0)) as reel:
        spans_of(reel, [(pts[2], pts[8]), (pts[8], pts[12]), (pts[15], pts[20]), (pts[4], pts[6])])
    assert seeks == [pts[2], pts[4]]
