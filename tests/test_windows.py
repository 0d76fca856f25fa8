"""Which frames of a clip are learnt: every rule in exact numbers; nothing twice, and what is left out is counted."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from ptta_core import video, windows
from ptta_core.buckets import TooShort, TooSmall
from ptta_core.clips_config import EncodeConfig
from ptta_core.windows import Plan, Window, of_length

RULES = ("first", "middle", "chunks", "uniform")
MS = Fraction(1, 1000)


def rule(window: str = "first", frames: int = 33, fps: float = 24.0) -> EncodeConfig:
    return EncodeConfig(window=window, frames=frames, fps=fps)  # type: ignore[arg-type]


def frames_of(found: Plan) -> list[list[int]]:
    """Which frames of a clip at the model's own rate each window takes."""
    return [[math.floor(time * one.fps) for time in one.times_s()] for one in found.windows]


def test_each_rule_takes_its_frames() -> None:
    clip = Fraction(40, 24)
    assert frames_of(of_length(clip, rule("first", 9))) == [list(range(9))]
    assert frames_of(of_length(clip, rule("middle", 9))) == [list(range(15, 24))]  # whole frames: 15 before, 16 after
    assert frames_of(of_length(clip, rule("chunks", 9))) == [list(range(at, at + 9)) for at in (0, 9, 18, 27)]
    assert frames_of(of_length(clip, rule("uniform", 9))) == [[1, 6, 10, 15, 19, 24, 28, 33, 37]]


@pytest.mark.parametrize("name", RULES)
def test_a_clip_that_a_window_fills_is_learnt_whole(name: str) -> None:
    found = of_length(Fraction(33, 24), rule(name))
    assert frames_of(found) == [list(range(33))] and found.cut == "" and found.windows[0].speed == 1


@pytest.mark.parametrize("name", RULES)
def test_a_clip_shorter_than_encode_frames_gives_the_most_4k_plus_1_that_it_holds(name: str) -> None:
    found = of_length(Fraction(31, 24), rule(name))
    assert [one.frames for one in found.windows] == [29] and found.held == 31
    assert found.cut == ("time-lapse" if name == "uniform" else "rounding to 4k+1 frames")


def test_no_rule_reads_beyond_a_clip_or_one_frame_twice_and_the_counts_add_up() -> None:
    for name in RULES:
        for held in range(1, 120):
            for part in (Fraction(0), Fraction(1, 3)):  # of a frame more
                config, length = rule(name, 17), (held + part) / 24
                found = of_length(length, config)
                taken = [frame for window in frames_of(found) for frame in window]
                assert found.held == held and all(one.frames % 4 == 1 for one in found.windows)
                assert taken == sorted(set(taken)) and taken[0] >= 0 and taken[-1] < held + part
                assert found.windows[-1].end_s <= length
                assert (found.cut == "") == (len(taken) == held)
                assert found.shown_s == Fraction(len(taken), 24)
                if name == "chunks":
                    assert len(taken) == (held // 17 * 17 or len(taken)) and held - len(taken) < 17
                if name == "uniform" and found.cut:
                    assert found.windows[0].end_s == length and found.windows[0].speed > 1
                assert found.cut in get_args(windows.Cut)


def test_uniform_says_how_much_faster_it_is() -> None:
    (window,) = of_length(Fraction(10), rule("uniform", 49)).windows
    assert window.shown_s == Fraction(49, 24) and window.speed == Fraction(240, 49)
    gaps = {after - before for before, after in zip(window.times_s(), window.times_s()[1:])}
    assert gaps == {Fraction(10, 49)}


def test_rounded_timestamps_do_not_cost_four_frames() -> None:
    for milliseconds in (1374, 1375, 1376):  # 33 frames at 24 fps, give or take the container's rounding
        assert of_length(milliseconds * MS, rule()).windows[0].frames == 33
    assert of_length(1333 * MS, rule()).windows[0].frames == 29


def clip(**changes: Any) -> dict[str, Any]:
    plain = {"start_pts": 100, "end_pts": 1100, "time_base": "1/1000", "crop": "", "width": 64, "height": 48}
    return plain | changes


def test_a_clip_that_is_too_short_or_too_small_says_so() -> None:
    assert [one.frames for one in windows.plan(clip(), rule()).windows] == [21]
    with pytest.raises(TooShort, match="shorter than one frame at 24 fps"):
        windows.plan(clip(end_pts=130), rule())
    for small in ({"height": 15}, {"crop": "0,0,15,48"}):
        with pytest.raises(TooSmall, match="at least 16 px"):
            windows.plan(clip(**small), rule())


def test_windows_are_called_alike_wherever_they_are_the_same() -> None:
    length = Fraction(99, 24)
    named = {name: [windows.item_id("c", one) for one in of_length(length, rule(name)).windows] for name in RULES}
    assert named["chunks"] == ["c", "c@1.375000", "c@2.750000"]
    assert named["first"] == named["uniform"] == ["c"] and named["middle"] == ["c@1.375000"]
    middle, chunk = of_length(length, rule("middle")).windows[0], of_length(length, rule("chunks")).windows[1]
    assert middle == chunk and middle.span() == ["11/8", "11/4"]
    assert windows.item_id("c", None) == "c" and {windows.clip_of(one) for one in named["chunks"]} == {"c"}


# ------------------------------------------------------------------------------------- what is on screen


def chosen(begins_s: list[Fraction], fps: int, count: int) -> list[int]:
    times = Window(Fraction(0), count, Fraction(fps)).times_s()
    return [index for index, _ in video.on_screen(enumerate(begins_s), times, lambda picture: picture[1])]


def at_rate(rate: Fraction, count: int, tick_s: Fraction | None = None) -> list[Fraction]:
    times = [index / rate for index in range(count)]
    return [round(time / tick_s) * tick_s for time in times] if tick_s else times


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (at_rate(Fraction(24), 9), list(range(9))),
        (at_rate(Fraction(24), 9, MS), list(range(9))),
        (at_rate(Fraction(24000, 1001), 9), list(range(9))),
        (at_rate(Fraction(12), 5), [0, 0, 1, 1, 2, 2, 3, 3, 4]),
        (at_rate(Fraction(48), 18), [0, 2, 4, 6, 8, 10, 12, 14, 16]),
        (at_rate(Fraction(48), 18, MS), [0, 2, 4, 6, 8, 10, 12, 14, 16]),
        (at_rate(Fraction(30), 12), [0, 1, 3, 4, 5, 6, 8, 9, 10]),
        (at_rate(Fraction(60), 24, MS), [1, 3, 6, 8, 11, 13, 16, 18, 21]),
        ([Fraction(0), Fraction(5, 24)], [0, 0, 0, 0, 0, 1, 1, 1, 1]),  # a variable rate: a hold stays a hold
        ([Fraction(2, 24)], [0] * 9),  # nothing earlier to show
        ([], []),
    ],
)
def test_on_screen(times: list[Fraction], expected: list[int]) -> None:
    assert chosen(times, 24, 9) == expected


def test_reading_stops_with_the_window() -> None:
    read = []

    def pictures() -> Any:
        for index in range(1000):
            read.append(index)
            yield Fraction(index, 24)

    list(video.on_screen(pictures(), [Fraction(1, 48), Fraction(3, 48)], lambda begins: begins))
    assert len(read) == 3


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six pictures of rising brightness in milliseconds: one is held from 0.1 s to 3 s."""
    import av

    path = tmp_path_factory.mktemp("held") / "held.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        stream.time_base = stream.codec_context.time_base = MS
        for index, at_ms in enumerate((0, 100, 3000, 3040, 3080, 3120)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64), 20 * (index + 1), np.uint8), format="gray")
            frame.pts, frame.time_base = at_ms, MS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


@pytest.mark.parametrize(
    ("times_ms", "expected"),
    [
        ([10, 99, 101], [1, 1, 2]),
        ([2000, 2999, 3001], [2, 2, 3]),  # within the hold: what is on screen began long before
        ([2700, 2800], [2, 2]),
        ([3045, 3085], [4, 5]),
        ([3130, 9000], [6, 6]),
    ],
)
def test_what_is_held_is_found_from_anywhere(held: str, times_ms: list[int], expected: list[int]) -> None:
    found = video.read_shown(held, [one * MS for one in times_ms], start_pts=0, end_pts=10_000, time_base=MS,
                             stream=0, pixel="gray")  # fmt: skip
    assert [round(frame.image.mean() / 20) for frame in found] == expected


def test_only_pictures_of_the_span_are_shown(held: str) -> None:
    how: dict[str, Any] = {"time_base": MS, "stream": 0, "pixel": "gray"}
    first, second = video.read_shown(held, [MS, 50 * MS], start_pts=3040, end_pts=3080, **how)
    assert round(first.image.mean() / 20) == 4 and first is second
    assert video.read_shown(held, [MS], start_pts=200, end_pts=2000, **how) == []
    assert video.read_shown(held, [], start_pts=0, end_pts=2000, **how) == []
    assert Path(held).is_file()
