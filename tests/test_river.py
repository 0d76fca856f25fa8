"""The river on the drawn cartoon, on the core without Prefect: twice, then with one thing changed at a time."""

import json
import shutil
from pathlib import Path

import pytest
from demo import IN_PROCESS, computed, go, open_demo

from ptta_core import cartoon, looks, memo, stages
from ptta_core.memo import StageError
from ptta_core.ops import plan, report, runs, show, status
from ptta_core.view import Options


def test_a_second_run_computes_nothing(workspace, videos):
    assert computed(go(open_demo(workspace, videos))) == {}


def test_the_cartoon_shows_both_kept_and_rejected_clips(finished):
    rows = show.rows("selection", str(finished))
    assert {row["kept"] for row in rows} == {True, False}
    assert all(row["reason"] for row in rows)


def test_base_and_adapter_differ_and_every_video_is_judged(finished):
    made = show.rows("generations", str(finished))
    base = {row["prompt"]: row["video_sha"] for row in made if row["variant"] == "base"}
    adapted = {row["prompt"]: row["video_sha"] for row in made if row["variant"] == "adapter"}
    assert base.keys() == adapted.keys() and all(base[prompt] != adapted[prompt] for prompt in base)
    assert {row["generation_id"] for row in show.rows("verdicts", str(finished))} == {r["generation_id"] for r in made}


def test_a_new_theta_touches_only_the_selection_and_what_it_newly_admits(workspace, videos):
    kept = {row["clip_id"] for row in show.rows("selection", str(workspace)) if row["kept"]}
    view = open_demo(workspace, videos, **{"select.theta": 3.0})
    outcomes = go(view, (*stages.CURATE, "encode"))
    now_kept = {row["clip_id"] for row in view.rows("select").to_pylist() if row["kept"]}
    new = len(now_kept - kept)
    assert new > 0 and kept <= now_kept
    shown = outcomes["encode"].computed - new  # latents decoded to look at: the few of each bucket have changed
    assert 0 <= shown <= 2 * looks.A_BUCKET
    assert computed(outcomes) == {"select": 1, "caption": new, "admit": 1, "encode": new + shown}


def test_one_more_video_costs_one_video(workspace, videos, tmp_path):
    more = Path(shutil.copytree(videos, tmp_path / "more"))
    before = {row["source_id"] for row in show.rows("sources", str(workspace))}
    other = tmp_path / "other"
    cartoon.draw(other, 8)
    shutil.copy(next(iter(sorted(other.glob("*.mp4")))), more / "added.mp4")
    view = open_demo(workspace, more)
    outcomes = go(view, ("gather", "split", "score"))
    clips = view.rows("split").to_pylist()
    assert outcomes["split"].computed == 1 and outcomes["split"].reused == len(before)
    assert outcomes["score"].computed == sum(row["source_id"] not in before for row in clips)


def test_a_changed_split_keeps_the_scores_of_unchanged_spans(workspace, videos):
    old = {row["clip_id"] for row in show.rows("clips", str(workspace))}
    view = open_demo(workspace, videos, **{"split.min_clip_s": 1.8})
    outcomes = go(view, ("gather", "split", "score"))
    spans = {row["clip_id"] for row in view.rows("split").to_pylist()}
    assert spans != old and spans & old
    assert outcomes["score"].computed == len(spans - old)


def test_a_caption_rule_decides_without_captioning_again(workspace, videos):
    outcomes = go(open_demo(workspace, videos, **{"admit.min_words": 4}), stages.CURATE)
    assert computed(outcomes) == {"admit": 1}


def test_an_empty_selection_says_what_each_theta_would_keep(workspace, videos):
    from ptta_core.stages.select import require_some

    view = open_demo(workspace, videos, **{"select.theta": 999})
    memo.run(view.stage("select"), view)
    with pytest.raises(StageError, match=r"none of \d+ clips passes select.theta = 999.*theta 1 keeps \d+"):
        require_some(view)


def test_a_bad_file_among_good_ones_is_a_failure_row(workspace, videos, tmp_path):
    mixed = Path(shutil.copytree(videos, tmp_path / "mixed"))
    (mixed / "broken <b>.mp4").write_bytes(b"not a video" * 100)
    (mixed / "empty.mp4").write_bytes(b"")
    outcomes = go(open_demo(workspace, mixed), ("gather", "split"))
    assert outcomes["gather"].failed == 2 and outcomes["split"].failed == 0
    rows = show.rows("failures", str(workspace))
    assert {Path(row["path"]).name for row in rows} == {"broken <b>.mp4", "empty.mp4"}
    assert all(row["kind"] and row["message"] for row in rows)


def test_an_absent_source_whose_rows_are_complete_is_no_failure(finished, tmp_path):
    view = runs.view_of(runs.last(show.open_store(str(finished))[0]), show.open_store(str(finished))[1])
    gone = tmp_path / "w"
    shutil.copytree(finished, gone)
    place = tmp_path / "away"
    cartoon.draw(place, 7)
    go(open_demo(gone, place), ("gather", "split", "score"))
    shutil.rmtree(place)
    outcomes = go(open_demo(gone, place), ("gather", "split", "score"))
    assert computed(outcomes) == {} and all(not one.failed for one in outcomes.values())
    assert len(view.rows("split")) > 0


def test_training_finishes_on_its_pinned_input_when_the_selection_has_changed(workspace, videos):
    other = {"train.rank": 2}
    view = open_demo(workspace, videos, **other)
    item = view.stage("train").inputs(view).make([0])[0]
    from ptta_core.stages import train

    job = memo.Job("train", view.recipe.train, view.recipe, view.site, view.home, view.fingerprint("train"),
                   lambda *a: None, lambda note: None, view.store)  # fmt: skip
    train.pin(view.home / "training" / item.train_id, item, job)
    later = open_demo(workspace, videos, **other, **{"select.theta": 3.0})
    go(later, (*stages.CURATE, "encode"))
    items = later.stage("train").inputs(later)
    assert items.input_ids == [item.input_id] and "--fresh" in items.note
    fresh = open_demo(workspace, videos, Options(fresh=True), **other, **{"select.theta": 3.0})
    assert fresh.stage("train").inputs(fresh).input_ids != [item.input_id]


def test_a_dry_run_says_why(workspace, videos):
    found = {one.stage: one for one in plan.plan(open_demo(workspace, videos, **{"score.gap_s": 0.5}))}
    assert found["split"].compute == 0 and found["score"].compute > 0
    assert "score.gap_s 0.625 -> 0.5" in found["score"].why


def test_show_status_and_report_agree(finished):
    found = status.status(str(finished))
    assert [one["recipe"] for one in found["recipes"]] == ["demo"]
    assert found["recipes"][0]["status"] == "completed"
    page = report.find(str(finished)).read_text(encoding="utf-8")
    assert "random" in page and "<html" in page
    for noun in ("files", "sources", "clips", "scores", "captions", "latents", "adapters", "steps", "verdicts", "done"):
        rows = show.rows(noun, str(finished))
        assert rows and json.dumps(rows)


def test_two_recipes_share_a_workspace(workspace, videos):
    view = runs.open_view("laptop", "laptop", IN_PROCESS | {"split.min_clip_s": 0.5}, str(workspace), str(videos))
    outcomes = go(view, ("gather", "split", "score", "select"))
    assert computed(outcomes) == {"select": 1}
    assert {one["recipe"] for one in status.status(str(workspace))["recipes"]} == {"demo", "laptop"}
