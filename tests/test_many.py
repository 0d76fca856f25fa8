"""Very many clips: the record of a run and its report stay small, and a run is still shown as it was."""

import importlib.util
import json
from pathlib import Path

import pytest

from ptta_core import memo
from ptta_core.config import Site
from ptta_core.ops import cards, report, runs

CLIPS = 14_000


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    place = tmp_path_factory.mktemp("many")
    (place / "footage").mkdir()
    path = Path(__file__).parents[1] / "benchmarks/million.py"
    spec = importlib.util.spec_from_file_location("million", path)
    million = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(million)
    million.fill(place / "w", place / "footage", CLIPS)
    return runs.open_view("laptop", "laptop", {}, str(place / "w"), str(place / "footage"))


def test_a_run_over_many_clips_is_recorded_by_their_number_and_shown_whole(view):
    run_id = runs.begin(view)
    runs.finish(view, run_id, [memo.run(view.stage("select"), view)])
    record = runs.last(view.store, run_id=run_id)
    inputs = json.loads(record["inputs"])
    assert inputs["score"]["count"] == CLIPS and len(inputs["score"]["digest"]) == 32
    assert isinstance(inputs["gather"], list) and len(record["inputs"]) < 10_000
    then = runs.view_of(record, Site(workspace=str(view.home)))
    assert then.rows("score", ["clip_id"]).num_rows == then.rows("select", ["clip_id"]).num_rows == CLIPS


def test_the_report_counts_every_clip_and_shows_a_bounded_number(view):
    outcome = memo.run(view.stage("select"), view)
    data = report.gather(view, "r", memo.now(), [outcome], "", "completed")
    kept = int((data.columns.kept == 1).sum())
    assert len(data.clips) == cards.MOST_CARDS and len(data.columns) == CLIPS
    assert kept == sum(view.rows("select", ["kept"])["kept"].to_pylist())
    assert sum(clip.kept for clip in data.clips) == kept  # all kept ones have a card
    assert sum(many for _, many in data.rejected) == CLIPS - kept
    line = [clip.score for name in data.near for clip in data.clips if clip.clip_id == name]
    assert len(line) == 12 and line == sorted(line, reverse=True) and line[5] >= data.theta > line[6]
    page = (view.home / report.write(view, "r", memo.now(), [outcome])).read_text()
    assert f"{CLIPS:,} clips" in page and f"{CLIPS - cards.MOST_CARDS:,} more clips left out" in page
