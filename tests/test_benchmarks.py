"""The benchmarks run, print their table and end with the figures by name. What they measure here means nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))


def figures(script: str, *words: str) -> tuple[dict, str]:
    """The figures of a smoke run, and all that it printed."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--quick", "--json", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    *table, last = done.stdout.strip().splitlines()
    return json.loads(last), "\n".join(table)


@pytest.fixture(scope="module")
def footage_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Footage that the benchmarks share, so that it is drawn once."""
    return tmp_path_factory.mktemp("footage")


def test_overhead(footage_folder: Path) -> None:
    found, table = figures("overhead.py", "--footage", str(footage_folder))
    assert found["clips"] >= 10 and found["overhead_share"] < 1
    assert found["wall_s"][0] > found["compute_s"][0] > 0 and found["start_up_s"][0] > 0
    assert "overhead_share" in table and "start-up" in table


def test_curation(footage_folder: Path) -> None:
    parts = [word for part in "abcf" for word in ("--part", part)]
    found, table = figures("curation.py", *parts, "--footage", str(footage_folder), "--markdown")
    measured = ("curate_over_floor", "curate_over_decode_480p", "scenedetect_over_split", "split_f1", "one_more_share")
    assert all(found[name] > 0 for name in measured)
    absent = ("curate_over_decode_720p", "curate_over_decode_1080p", "datajuicer_over_motion", "nemo_over_curate")
    assert {name for name, value in found.items() if value is None} == set(absent)
    assert table.startswith("| part | what |") and "the drawn cartoon" in table and "not asked for" in table


def test_detections_are_scored_by_the_rule() -> None:
    import boundaries

    film = {"hard_cuts": [100, 200], "gradual": [{"start": 300, "end": 310}], "ambiguous": [{"start": 50, "end": 60}]}
    hard, every = boundaries.score(film, [55, 102, 203, 304, 315, 400])
    assert (hard.found, hard.missed, hard.wrong) == (1, 1, 2)  # 203 is too far from 200; 400 is nowhere
    assert (every.found, every.missed, every.wrong) == (2, 1, 2)
    assert hard.f1 == pytest.approx(2 / 5)
    assert boundaries.score({"hard_cuts": [], "gradual": [], "ambiguous": []}, [])[0].f1 == 1.0


def test_one_hard_cut_is_found_once() -> None:
    import boundaries

    film = {"hard_cuts": [100], "gradual": [], "ambiguous": []}
    assert boundaries.score(film, [99, 101])[0] == boundaries.Tally(1, 0, 1)


def test_scenedetects_list_is_read(tmp_path: Path, videos: Path) -> None:
    import boundaries

    film = next(one for one in boundaries.drawn(videos) if not one["gradual"])
    found, ran = boundaries.scenedetect(film["path"], tmp_path)
    assert ran.seconds > 0 and set(found) & set(film["hard_cuts"]), (found, film["hard_cuts"])


def test_copies_are_sources_of_their_own(tmp_path: Path, videos: Path) -> None:
    import footage

    from ptta_core import video

    film = next(videos.glob("*.mp4"))
    made = footage.copies([film], tmp_path, 3)
    assert len({path.read_bytes() for path in made}) == 3
    assert len({video.probe(path) for path in [film, *made]}) == 1


def test_a_child_is_pinned_limited_and_heard() -> None:
    import measure

    told = measure.run([sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"], cores=1).told()
    assert told == 1
    with pytest.raises(measure.Died, match="MemoryError"):
        measure.run([sys.executable, "-c", "bytearray(2**30)"], memory=2**29)
    with pytest.raises(measure.Died, match="stopped after"):
        measure.run([sys.executable, "-c", "import time; time.sleep(60)"], limit_s=0.5)


def test_a_peer_that_fails_is_told_and_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import against

    film = tmp_path / "film.mp4"
    monkeypatch.setattr(against.setup, "python_of", lambda name: Path(sys.executable))  # without the peer's packages
    assert "ModuleNotFoundError: No module named 'data_juicer'" in against.peer("datajuicer", [film])["failed"]
    monkeypatch.setattr(against.setup, "python_of", lambda name: tmp_path / "python")
    assert "No such file" in against.peer("nemo", [film])["failed"]


def test_the_temporal_sweep_judges_an_adapter_a_weight(workspace: Path, videos: Path) -> None:
    """On a finished workspace, whose own adapter is that of weight 0: one more is trained and judged."""
    import temporal
    from demo import open_demo

    from ptta_core.store import Store

    points = temporal.sweep(lambda changed: open_demo(workspace, videos, **changed), [0.0, 4.0])
    assert [one.name for one in points] == ["base", "0", "4"] and Store(workspace / "tables").count("adapters") == 2
    assert len({one.means["warp_error"] for one in points}) == 3 and {one.videos for one in points} == {2}
    picture = temporal.plot(points, temporal.RANDOM)
    assert picture.count("<circle") == 3 and "not a result" in picture
    result = temporal.table(points, temporal.RANDOM)
    assert result.figures["points"] == ["base", "0", "4"] and result.figures["random_base"]
    assert "not a result" in result.text() and "over 2 videos" in result.markdown()


def test_means_and_errors_are_of_the_videos() -> None:
    import temporal

    rows = [{"dimension": what, "value": value} for what in temporal.MEASURES for value in (1.0, 3.0, 5.0)]
    one = temporal.point("2", rows)
    assert one.means["flicker"] == 3.0 and one.errors["flicker"] == pytest.approx(2 / 3**0.5) and one.videos == 3
    apart = temporal.point("4", [row | {"value": 2 * row["value"]} for row in rows])
    x = temporal.axis("dynamic_degree", [one, apart], 0, 100)
    assert 0 < x.at(3.0) < x.at(6.0) < 100 and x.at(x.low) == 0 and x.at(x.high) == 100
