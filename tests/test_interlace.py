"""One drawn animation as progressive, telecined and interlaced master: after cleanup the same cuts and motion."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import masters
import numpy as np
import pytest

from ptta_core import video
from ptta_core.config import ScoreConfig, SplitConfig
from ptta_core.models import interlace, motion, shots

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NTSC, PAL = Fraction(30000, 1001), Fraction(25)
FIELDS_60, FIELDS_50 = Fraction(60000, 1001), Fraction(50)
TELECINED = ("telecined", "hard_telecined", "telecined_bff")
INTERLACED = ("interlaced_50", "interlaced_60", "interlaced_bff")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The masters by name."""
    folder = tmp_path_factory.mktemp("masters")
    film = masters.film()
    plans = {
        "progressive": (film, masters.FILM, ""),
        "telecined": (masters.telecined(film), NTSC, "tff"),
        "hard_telecined": (masters.telecined(film, phase=3), NTSC, ""),
        "telecined_bff": (masters.telecined(film, phase=1, bottom_first=True), NTSC, "bff"),
        "interlaced_50": (masters.interlaced(FIELDS_50), PAL, "tff"),
        "interlaced_60": (masters.interlaced(FIELDS_60), NTSC, "tff"),
        "interlaced_bff": (masters.interlaced(FIELDS_50, bottom_first=True), PAL, ""),  # flagged as progressive
    }
    return {
        name: masters.write(folder / f"{name}.mp4", pictures, rate, flag=flag)
        for name, (pictures, rate, flag) in plans.items()
    }


def expected(name: str) -> str:
    if name in TELECINED:
        return "detelecine"
    return {"progressive": "", "interlaced_bff": "deinterlace bff"}.get(name, "deinterlace")


@pytest.mark.parametrize("name", ["progressive", *TELECINED, *INTERLACED])
def test_what_a_master_is(made: dict[str, Path], name: str) -> None:
    assert interlace.detect(str(made[name]), video.probe(made[name])) == expected(name)


def real_clips() -> list[Path]:
    return [path for part in ("clips", "shots", "flow") for path in sorted((DATA / part).glob("*.*"))
            if path.suffix in (".mp4", ".mkv", ".webm")]  # fmt: skip


@pytest.mark.skipif(not real_clips(), reason="needs the test material beside the repository (shared/data)")
@pytest.mark.parametrize("path", real_clips(), ids=lambda path: path.name)
def test_no_false_alarm_on_real_films(path: Path) -> None:
    assert interlace.detect(str(path), video.probe(path)) == ""


def test_no_false_alarm_on_the_drawn_cartoon(videos: Path) -> None:
    found = {path.name: interlace.detect(str(path), video.probe(path)) for path in sorted(videos.glob("*.mp4"))}
    assert found and set(found.values()) == {""}


@pytest.mark.parametrize("name", ["testsrc2", "mandelbrot", "life"])
def test_no_false_alarm_on_fast_fine_patterns(tmp_path: Path, name: str) -> None:
    """Where nothing fits its neighbours in time, no weave is better than another for a reason."""
    import av.filter

    graph = av.filter.Graph()
    nodes = [graph.add(name, "size=480x270:rate=30000/1001"), graph.add("format", "yuv420p"), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    with av.open(str(tmp_path / "p.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=NTSC, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 480, 270, "yuv420p"
        for number in range(60):
            frame = graph.vpull()
            frame.pts, frame.time_base = number, 1 / NTSC
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert interlace.detect(str(tmp_path / "p.mp4"), video.probe(tmp_path / "p.mp4")) == ""


def test_a_real_interlaced_film() -> None:
    path = DATA / "nasty" / "interlaced_pal.mp4"
    if not path.exists():
        pytest.skip("needs shared/data/nasty/interlaced_pal.mp4 beside the repository")
    assert interlace.detect(str(path), video.probe(path)) == "deinterlace"


@pytest.mark.parametrize("size", [(400, 288), (640, 480), (960, 720)])
def test_combing_that_was_scaled_is_refused_and_scaled_film_is_not(tmp_path: Path, size: tuple[int, int]) -> None:
    import cv2

    def scaled(pictures: list[np.ndarray]) -> list[np.ndarray]:
        return [cv2.resize(one, size, interpolation=cv2.INTER_CUBIC) for one in pictures[:110]]

    combed = masters.write(tmp_path / "c.mp4", scaled(list(masters.interlaced(FIELDS_50))), PAL)
    with pytest.raises(interlace.Combed) as caught:
        interlace.detect(str(combed), video.probe(combed))
    assert caught.value.kind == "combed" and "c.mp4" in str(caught.value)
    plain = masters.write(tmp_path / "p.mp4", scaled(masters.film()), masters.FILM)
    assert interlace.detect(str(plain), video.probe(plain)) == ""


# ------------------------------------------------------------------------------------------------- telecine


@pytest.fixture(scope="module")
def film(made: dict[str, Path]) -> list[np.ndarray]:
    return [frame.image.astype(np.int16) for frame in video.read_frames(made["progressive"], pixel="gray")]


@pytest.mark.parametrize(("name", "left_out"), [("telecined", 0), ("hard_telecined", 2), ("telecined_bff", 1)])
def test_telecine_undone_is_the_film(made: dict[str, Path], film: list[np.ndarray], name: str, left_out: int) -> None:
    """Each film picture once, in order, whole. `left_out`: film pictures before the first one, within one."""
    frames = list(video.read_frames(made[name], pixel="gray", cleanup="detelecine"))
    assert len(film) - 3 <= len(frames) <= len(film)
    found = [closest(film, frame.image, index) for index, frame in enumerate(frames)][2:-2]
    assert max(error for error, _ in found) < 1
    shifts = {shift for _, shift in found if shift is not None}  # of pictures unlike their neighbours
    assert len(shifts) == 1 and abs(shifts.pop() - left_out) <= 1
    assert sum(shift is not None for _, shift in found) > 100
    as_it_is = list(video.read_frames(made[name], pixel="gray"))[:200]
    assert max(min(np.abs(frame.image - one).mean() for one in film[::3]) for frame in as_it_is[::10]) > 1


def closest(film: list[np.ndarray], image: np.ndarray, index: int) -> tuple[float, int | None]:
    """(least mean difference, how much later in the film that is; None where several are as close)."""
    errors = [float(np.abs(image - one).mean()) for one in film[index : index + 4]]
    best = min(errors)
    close = [shift for shift, error in enumerate(errors) if error < best + 0.3]
    return best, close[0] if len(close) == 1 else None


@pytest.mark.parametrize("name", TELECINED)
def test_film_pts_are_even_and_exact(made: dict[str, Path], name: str) -> None:
    info = video.probe(made[name])
    times = [frame.pts for frame in video.read_frames(made[name], width=32, cleanup="detelecine")]
    film_picture = 1 / (masters.FILM * Fraction(info.time_base))
    assert times == [info.start_pts + round(index * film_picture) for index in range(len(times))]


@pytest.mark.parametrize("name", ["telecined", "hard_telecined", "telecined_bff", "interlaced_50", "interlaced_bff"])
def test_a_span_is_cleaned_as_in_the_whole(made: dict[str, Path], name: str) -> None:
    how = expected(name)
    whole = list(video.read_frames(made[name], cleanup=how))
    for first, end in ((0, 2), (1, 9), (35, 38), (46, 60), (47, 49), (61, 80), (100, 103), (160, len(whole))):
        stop = whole[end].pts if end < len(whole) else None
        span = list(video.read_frames(made[name], cleanup=how, start_pts=whole[first].pts, end_pts=stop))
        assert [frame.pts for frame in span] == [frame.pts for frame in whole[first:end]]
        for one, other in zip(span, whole[first:end], strict=True):
            np.testing.assert_array_equal(one.image, other.image)
        assert all(one.pts < two.pts for one, two in pairwise(span))


@pytest.mark.parametrize(("suffix", "codec"), [(".ts", "mpeg2video"), (".mkv", "libx264"), (".avi", "mpeg4")])
def test_other_containers_count_time_otherwise(film: list[np.ndarray], tmp_path: Path, suffix: str, codec: str) -> None:
    """90 kHz from a later start, whole milliseconds, one tick a picture."""
    path = masters.write(tmp_path / f"t{suffix}", list(masters.telecined(masters.film(), 2))[:110], NTSC, codec=codec)
    info = video.probe(path)
    assert interlace.detect(str(path), info) == "detelecine"
    whole = list(video.read_frames(path, pixel="gray", cleanup="detelecine"))
    assert len(whole) == pytest.approx(88, abs=1)
    assert max(min(np.abs(one.image - film[at]).mean() for at in range(one.index, one.index + 5)) for one in whole) < 1
    ticks = 1 / (masters.FILM * Fraction(info.time_base))
    assert all(abs(one.pts - whole[0].pts - one.index * ticks) <= 1 for one in whole)
    for first, end in ((0, 3), (1, 9), (30, 40), (61, 80)):
        span = video.read_frames(path, pixel="gray", cleanup="detelecine", start_pts=whole[first].pts,
                                 end_pts=whole[end].pts)  # fmt: skip
        for one, other in zip(span, whole[first:end], strict=True):
            assert one.pts == other.pts and np.array_equal(one.image, other.image)


def test_an_edit_after_telecine_shows_no_combing(film: list[np.ndarray], tmp_path: Path) -> None:
    """Cut out of the middle, so that the cycle breaks; every picture is still a film picture."""
    pictures = list(masters.telecined(masters.film()))
    path = masters.write(tmp_path / "edit.mp4", pictures[:63] + pictures[111:], NTSC)
    frames = list(video.read_frames(path, pixel="gray", cleanup="detelecine"))
    near = range(40, 60)  # film picture 50, and 38 pictures of it left out
    far = [index for index in near if min(np.abs(frames[index].image - one).mean() for one in film[35:105]) > 1]
    assert len(frames) == pytest.approx(0.8 * (len(pictures) - 48), abs=1)
    assert len(far) <= 1  # the very picture of the edit may hold two films' fields


def test_pictures_of_no_cycle_stay_whole(made: dict[str, Path], film: list[np.ndarray]) -> None:
    """A progressive passage in a telecined source is thinned out, not woven."""
    for frame in list(video.read_frames(made["progressive"], pixel="gray", cleanup="detelecine"))[::4]:
        begin = max(0, round(1.25 * frame.index) - 3)
        assert min(np.abs(frame.image - one).mean() for one in film[begin : begin + 7]) < 0.1


# -------------------------------------------------------------------------------- what the river makes of it


def seen(path: Path, cleanup: str) -> tuple[list[float], list[float]]:
    """(times of the cuts in s, motion of each shot in px a gap)."""
    found = shots.find_boundaries(video.read_frames(path, width=320, cleanup=cleanup), SplitConfig())
    edges = [found.first_pts, *(one.pts for one in found.boundaries), found.end_pts]
    flow = motion.dis()
    moved = []
    for start, end in pairwise(edges):
        frames = list(video.read_frames(path, width=ScoreConfig().width, height=ScoreConfig().height, pixel="gray",
                                        start_pts=start, end_pts=end, cleanup=cleanup))  # fmt: skip
        moved.append(motion.measure([one.image for one in frames], [one.time_s for one in frames], flow).motion_px)
    return [one.time_s for one in found.boundaries], moved


@pytest.fixture(scope="module")
def truth(made: dict[str, Path]) -> tuple[list[float], list[float]]:
    return seen(made["progressive"], "")


@pytest.mark.parametrize("name", [*TELECINED, *INTERLACED])
def test_the_same_cuts_and_motion(made: dict[str, Path], truth: tuple[list[float], list[float]], name: str) -> None:
    cuts, moved = seen(made[name], expected(name))
    left_out = {"hard_telecined": 3, "telecined_bff": 1}.get(name, 0) / NTSC
    assert truth[0] == pytest.approx([float(masters.SHOT * (shot + 1) / masters.FILM) for shot in range(5)], abs=0.001)
    assert [cut + float(left_out) for cut in cuts] == pytest.approx(truth[0], abs=0.045)  # a picture of 23.976
    assert np.mean(moved) == pytest.approx(np.mean(truth[1]), rel=0.05)
    if name in TELECINED:
        assert moved == pytest.approx(truth[1], rel=0.05)
    else:  # fields are other moments than film pictures, and every other line is made up
        assert moved == pytest.approx(truth[1], rel=0.15, abs=1.0)
