"""kill -9 in the middle of a stage, triggered by row counts: the rerun ends with every value of an undisturbed run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from demo import IN_PROCESS, open_demo

from ptta_core import memo
from ptta_core.ops import report, runs, show, status
from ptta_core.rows import MEMO_COLUMNS, NOUNS, Step, value_schema
from ptta_core.store import Store

SETTINGS = {"site.split.count": 0, "site.score.count": 0, "site.split.batch": 1, "site.score.batch": 1}
SETTINGS |= {"site.caption.batch": 1, "site.commit_rows": 1}
WORK = """
import sys
from ptta_core import memo
from ptta_core.ops import runs
view = runs.open_view("demo", "laptop", {settings!r}, sys.argv[1], sys.argv[2])
for name in {names!r}:
    memo.run(view.stage(name), view)
"""
CURATE = ("gather", "split", "score", "select", "caption", "admit")


def values(workspace: Path) -> dict[str, list[str]]:
    """Every value of every noun but the time stamps."""
    store = Store(workspace / "tables")
    found = {}
    for noun in ("files", "sources", "clips", "scores", "thumbnails", "selection", "captions", "admissions"):
        names = [*MEMO_COLUMNS, *value_schema(NOUNS[noun]).names]
        found[noun] = sorted(str(row) for row in store.read(noun, names).to_pylist())
    done = ["stage", "fingerprint", "input_id", "attempt", "n_outputs"]
    return found | {"done": sorted(str(row) for row in store.read("done", done).to_pylist())}


def finish(workspace: Path, videos: Path) -> None:
    view = runs.open_view("demo", "laptop", SETTINGS, str(workspace), str(videos))
    for name in CURATE:
        memo.run(view.stage(name), view)


def kill_at(workspace: Path, videos: Path, noun: str, rows: int) -> int:
    """Run in a process of its own and kill it once `noun` holds `rows` rows; returns how many it held at the end."""
    Store(workspace.parent / "warm")  # LanceDB is imported before the clock runs
    script = WORK.format(settings=SETTINGS, names=CURATE)
    worker = subprocess.Popen([sys.executable, "-c", script, str(workspace), str(videos)], start_new_session=True)
    begun = time.monotonic()
    while worker.poll() is None and time.monotonic() - begun < 120:
        if (workspace / "tables").is_dir() and Store(workspace / "tables").read(noun, ["key"]).num_rows >= rows:
            break
        time.sleep(0.01)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    return Store(workspace / "tables").read(noun, ["key"]).num_rows


@pytest.mark.parametrize(("noun", "rows"), [("clips", 1), ("scores", 1), ("scores", 4), ("captions", 2)])
def test_a_killed_run_resumes_to_the_values_of_an_undisturbed_one(tmp_path, videos, noun, rows):
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    held = kill_at(killed, videos, noun, rows)
    finish(killed, videos)
    finish(calm, videos)
    assert values(killed) == values(calm)
    total = Store(calm / "tables").read(noun, ["key"]).num_rows
    assert rows <= held < total, "the kill came too late to mean anything"


LAST_WORD = """
import os, signal, sys
from ptta_core.store import Store
append, left = Store.append, [{after}]

def dying(store, noun, rows):
    if noun == "done" and rows["stage"][0].as_py() == {stage!r}:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    append(store, noun, rows)

Store.append = dying
"""


@pytest.mark.parametrize(("stage", "noun", "after"), [("score", "scores", 2), ("caption", "captions", 1)])
def test_outputs_whose_done_row_was_never_written_are_computed_again_and_not_doubled(
    tmp_path, videos, stage, noun, after
):
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    script = LAST_WORD.format(after=after, stage=stage) + WORK.format(settings=SETTINGS, names=CURATE)
    worker = subprocess.run([sys.executable, "-c", script, str(killed), str(videos)], check=False, timeout=120)
    assert worker.returncode == -signal.SIGKILL
    store = Store(killed / "tables")
    done = store.read("done", ["input_id"], f"stage = '{stage}'").num_rows
    assert store.read(noun, ["key"]).num_rows == after + 1 and done == after
    finish(killed, videos)
    finish(calm, videos)
    assert values(killed) == values(calm)


# ---------------------------------------------------------------------------------------------------- training

OTHER_RUN = {"train.rank": 2, "train.epochs": 4, "train.checkpoint_every": 2, "train.router_every": 3}
KILLED_AT = 5  # between two checkpoints
NOTED = """
import sys
from ptta_core import memo
from ptta_core.ops import runs
view = runs.open_view("demo", "laptop", {settings!r}, sys.argv[1], sys.argv[2])
run_id = runs.begin(view)
memo.run(view.stage("train"), view, lambda progress: runs.note(view, run_id, []) if not progress.done else None)
"""


def train_rows(workspace: Path, videos: Path) -> tuple[list[dict], list[str]]:
    """The steps of the run without their times, and its adapter's bytes' hash."""
    view = open_demo(workspace, videos, **OTHER_RUN)
    steps = view.rows("train", noun=NOUNS["steps"]).to_pylist()
    told = [{name: value for name, value in row.items() if name != "content_id" and not name.endswith("_s")}
            for row in steps]  # fmt: skip
    return sorted(told, key=lambda row: row["step"]), view.rows("train", ["adapter_id"])["adapter_id"].to_pylist()


def test_training_killed_at_a_step_ends_with_the_losses_and_the_bytes_of_an_undisturbed_run(finished, videos, tmp_path):
    killed, calm = (Path(shutil.copytree(finished, tmp_path / name)) for name in ("killed", "calm"))
    script = NOTED.format(settings=IN_PROCESS | OTHER_RUN | {"site.commit_s": 0.1})
    before = show.rows("steps", str(killed))
    worker = subprocess.Popen([sys.executable, "-c", script, str(killed), str(videos)], start_new_session=True)
    wait_for(lambda: len(new_steps(killed, finished)) >= KILLED_AT, worker)
    wait_for(lambda: len(steps_now(killed, before)) >= KILLED_AT and show.rows("routers", str(killed)) != [], worker)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert len(new_steps(killed, finished)) >= KILLED_AT and not train_rows(killed, videos)[1]
    seen_while_it_ran(killed, before)
    for workspace in (killed, calm):
        view = open_demo(workspace, videos, **OTHER_RUN)
        assert memo.run(view.stage("train"), view).computed == 1
    resumed, undisturbed = train_rows(killed, videos), train_rows(calm, videos)
    assert len(undisturbed[0]) > KILLED_AT + 1
    assert resumed == undisturbed
    [of_killed, of_calm] = ([row | {"content_id": ""} for row in Store(place / "tables").read("routers").to_pylist()]
                            for place in (killed, calm))  # fmt: skip
    assert sorted(map(str, of_killed)) == sorted(map(str, of_calm))
    lines = {line["step"]: line["step_s"] for line in map(json.loads, new_steps(killed, finished))}
    rows = open_demo(killed, videos, **OTHER_RUN).rows("train", noun=Step).to_pylist()
    assert {row["step"]: row["step_s"] for row in rows} == lines  # those done again, not the lost ones


def steps_now(workspace: Path, before: list[dict]) -> list[dict]:
    """What another process sees of a run that trains; nothing while only an older run's steps are there."""
    rows = show.rows("steps", str(workspace))
    return [] if not rows or rows[0]["train_id"] == before[0]["train_id"] else rows


def seen_while_it_ran(workspace: Path, before: list[dict]) -> None:
    """The steps of a run that has not ended, in the tables and in a page of its own beside the last one's."""
    rows = steps_now(workspace, before)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(row["forward_s"] > 0 and row["step_s"] > row["forward_s"] for row in rows)
    [earlier] = {row["run_id"] for row in show.rows("runs", str(workspace)) if row["status"] != "running"}
    assert show.rows("steps", str(workspace), earlier) == before
    assert {row["step"] for row in show.rows("routers", str(workspace))} >= {3}
    found = status.status(str(workspace))
    assert found["recipes"][0]["lasting"]["step"]["step"] == len(rows) and "has not ended" in status.as_text(found)
    page = report.find(str(workspace))
    assert page.name == "demo-running.html" and report.find(str(workspace), earlier).name == "demo.html"
    text = page.read_text(encoding="utf-8")
    assert "This run has not ended" in text and "<figcaption>Loss</figcaption>" in text


def new_steps(workspace: Path, finished: Path) -> list[str]:
    """The metrics lines of the run that the finished workspace does not know."""
    known = {path.name for path in (finished / "training").iterdir()}
    found = [path for path in (workspace / "training").glob("*/metrics.jsonl") if path.parent.name not in known]
    return found[0].read_text().splitlines() if found else []


def wait_for(happened, worker: subprocess.Popen, limit_s: float = 500.0) -> None:
    """Until `happened`; fails when the worker ends before."""
    begun = time.monotonic()
    while not happened():
        assert worker.poll() is None, "the worker ended before it could be killed"
        assert time.monotonic() - begun < limit_s, "the worker took too long"
        time.sleep(0.02)
