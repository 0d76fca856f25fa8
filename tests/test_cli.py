"""The command line as a person meets it: fast help, clear errors, exit status."""

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from demo import go, open_demo

from ptta_core.ops import runs, show
from ptta_core.view import Options

PTTA = [sys.executable, "-m", "flows.cli"]


def ptta(*words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PTTA, *words], capture_output=True, text=True, timeout=timeout_s, check=False)


def test_help_answers_fast():
    seconds = []
    for _ in range(5):
        begun = time.monotonic()
        assert ptta("--help").returncode == 0
        seconds.append(time.monotonic() - begun)
    assert statistics.median(seconds) < 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "cats", "--workspace", "."), "choices: files"),
        (("show", "clips", "--workspace", "/nowhere/at/all"), "no workspace there yet"),
        (("status", "--workspace", "/nowhere/at/all"), "no workspace there yet"),
        (("report", "--workspace", "/nowhere/at/all"), "no workspace there yet"),
        (("check", "nothing"), "no recipe named 'nothing'; choices: demo"),
        (("run", "demo", "--dry-run", "--workspace", "W", "--set", "select.thta=8"), "did you mean theta?"),
    ],
)
def test_bad_words_are_one_clear_message(words, said, tmp_path):
    done = ptta(*(str(tmp_path / "w") if word == "W" else word for word in words))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert said in done.stderr and done.stderr.startswith("ptta: ") and not done.stdout
    assert not Path("/nowhere").exists()


def test_a_dry_run_names_a_folder_that_is_not_there(tmp_path):
    done = ptta("run", "laptop", "--dry-run", "--videos", "/no/such/folder", "--workspace", str(tmp_path / "w"))
    assert "no such folder" in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_an_earlier_run_shows_its_own_attempts_and_failures(tmp_path, videos):
    """After --force a later run has newer rows; the earlier one still shows what it stood on."""
    workspace, footage = tmp_path / "w", tmp_path / "footage"
    footage.mkdir()
    shutil.copy(next(iter(sorted(videos.glob("*.mp4")))), footage)
    (footage / "bad.mp4").write_bytes(b"no video")
    names = ("gather", "split", "score")
    for options in (Options(), Options(force=("score",)), Options(retry_failed=True)):
        go(open_demo(workspace, footage, options), names)
    store, site = show.open_store(str(workspace))
    ids = [row["run_id"] for row in store.read("runs").sort_by("at").to_pylist() if row["status"] == "completed"]
    views = [runs.view_of(runs.last(store, run_id=run_id), site) for run_id in ids]
    assert [set(view.rows("score", ["attempt"])["attempt"].to_pylist()) for view in views] == [{1}, {2}, {2}]
    tried = [[row["attempt"] for row in show.rows("failures", str(workspace), run_id)] for run_id in ids]
    assert tried == [[1], [1], [2]]
    assert len(show.rows("scores", str(workspace), ids[0])) == len(show.rows("scores", str(workspace), ids[2])) > 0
    assert len(show.rows("scores", str(workspace), "all")) == 2 * len(show.rows("scores", str(workspace)))


def test_check_asks_for_licences(tmp_path):
    done = ptta("check", "paper", "--workspace", str(tmp_path), "--videos", str(tmp_path))
    assert done.returncode == 1
    assert "accept_licences" in done.stdout and "FAIL" in done.stdout


def test_dry_run_of_a_new_workspace_is_json(tmp_path):
    done = ptta("run", "demo", "--dry-run", "--json", "--workspace", str(tmp_path / "w"), timeout_s=120)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["gather"]["compute"] == 3 and found["split"]["why"]
