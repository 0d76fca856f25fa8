"""kill -9 in the middle of a stage, triggered by row counts: the rerun ends with every value of an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptta_core import cartoon, memo
from ptta_core.ops import runs
from ptta_core.rows import MEMO_COLUMNS, NOUNS, value_schema
from ptta_core.store import Store

SETTINGS = {"site.split.count": 0, "site.score.count": 0, "site.split.batch": 1, "site.score.batch": 1}
SETTINGS |= {"site.commit_rows": 1}
WORK = """
import sys
from ptta_core import memo
from ptta_core.ops import runs
view = runs.open_view("demo", "laptop", {settings!r}, sys.argv[1], sys.argv[2])
for name in {names!r}:
    memo.run(view.stage(name), view)
"""
CURATE = ("gather", "split", "score", "select", "caption", "admit")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    cartoon.draw(folder, 7)
    return folder


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


@pytest.mark.parametrize(("noun", "rows"), [("clips", 1), ("scores", 1), ("scores", 4)])
def test_a_killed_run_resumes_to_the_values_of_an_undisturbed_one(tmp_path, videos, noun, rows):
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    held = kill_at(killed, videos, noun, rows)
    finish(killed, videos)
    finish(calm, videos)
    assert values(killed) == values(calm)
    total = Store(calm / "tables").read(noun, ["key"]).num_rows
    assert rows <= held < total, "the kill came too late to mean anything"
