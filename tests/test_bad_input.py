"""What goes wrong outside the code: one clear message, a non-zero exit, and what was computed is kept.

Every test runs the real `ptta` command in a process of its own, on a real Prefect server.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import PTTA, free_port, wait_for
from test_kill import finish, values

from ptta_core.ops.status import status as status_of
from ptta_core.store import Store

# curation in the command's own process, committed row by row: there is a middle to disturb
CURATION = ("--set", "until=admit", "--set", "site.split.count=0", "--set", "site.score.count=0",
            "--set", "site.score.batch=1", "--set", "site.commit_rows=1", "--json")  # fmt: skip


def command(workspace: Path, videos: Path, *more: str) -> tuple[str, ...]:
    return ("run", "demo", "--workspace", str(workspace), "--videos", str(videos), *CURATION, *more)


def refused(done: subprocess.CompletedProcess[str], *said: str) -> dict:
    """Exit status 1, one message that holds the words, no traceback; the JSON line of what was done, if any."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ptta: ") and all(word in message for word in said), done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}


def computed(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    assert done.returncode == 0, done.stderr
    return {name: counts["computed"] for name, counts in json.loads(done.stdout.splitlines()[-1])["stages"].items()}


@pytest.fixture(scope="module")
def calm(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that nothing disturbed."""
    workspace = tmp_path_factory.mktemp("calm") / "w"
    finish(workspace, videos)
    return workspace


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1.5 MB: the clips fit, their scores do not."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(place)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root and mount(2)")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


# ---------------------------------------------------------------------------------- refused before anything starts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing",), "no recipe named 'nothing'; choices: demo"),
        (("no/such.yaml",), "no such recipe file: no/such.yaml"),
        (("demo", "--set", "select.thta=8"), "unknown field select.thta = 8; did you mean theta?"),
        (("demo", "--set", "selct.theta=8"), "did you mean select?"),
        (("demo", "--set", "select.alpha=2"), "select.alpha = 2: Input should be less than or equal to 1"),
        (("demo", "--set", "train.gate=loud"), "'token', 'sample', 'label' or 'static'"),
        (("demo", "--set", "theta"), "override 'theta' is not of the form section.field=value"),
        (("demo", "--set", "site.score.cuont=1"), "did you mean count?"),
        (("demo", "--site", "moon"), "no site named 'moon'; choices: cluster, laptop, one-gpu"),
        (("laptop",), "no videos found in no folder"),
        (("laptop", "--videos", "/no/such/folder"), "no such folder: /no/such/folder"),
        (("laptop", "--videos", "EMPTY"), "no videos found in"),
    ],
)
def test_bad_words_are_refused_before_anything_starts(words, said, tmp_path):
    (tmp_path / "empty").mkdir()
    words = [str(tmp_path / "empty") if word == "EMPTY" else word for word in words]
    begun = time.monotonic()
    done = subprocess.run([*PTTA, "run", *words, "--workspace", str(tmp_path / "w")], capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    refused(done, said)
    assert "starting Prefect" not in done.stderr and time.monotonic() - begun < 15


@pytest.mark.parametrize("words", [("--limit", "0"), ("--only", "cook"), ("--from-stage", "cook")])
def test_bad_options_are_a_usage_error(words, tmp_path):
    done = subprocess.run([*PTTA, "run", "demo", "--workspace", str(tmp_path), *words], capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 2 and words[0] in done.stderr and "Traceback" not in done.stderr


def test_a_workspace_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "w").write_text("a file")
    for place in (tmp_path / "w", tmp_path / "w" / "below"):
        done = subprocess.run([*PTTA, "run", "demo", "--workspace", str(place)], capture_output=True, text=True,
                              timeout=60, check=False)  # fmt: skip
        refused(done, f"site.workspace = {place}: cannot be written")
    assert (tmp_path / "w").read_text() == "a file"


def test_a_read_only_workspace_is_refused(small_disk):
    remount(small_disk, "ro")
    done = subprocess.run([*PTTA, "run", "demo", "--workspace", str(small_disk / "w")], capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    refused(done, "site.workspace = ", "cannot be written: Read-only file system")


def test_an_unreachable_prefect_server_is_named_with_what_to_do(tmp_path, videos):
    address = f"http://127.0.0.1:{free_port()}/api"
    begun = time.monotonic()
    done = subprocess.run([*PTTA, *command(tmp_path / "w", videos)], env=os.environ | {"PREFECT_API_URL": address},
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    refused(done, f"no Prefect server answers at PREFECT_API_URL = {address}", "prefect server start")
    assert time.monotonic() - begun < 30


# ------------------------------------------------------------------------------------------- stopped in the middle


def test_an_unreachable_ray_is_named_and_what_came_before_is_kept(prefect_server, tmp_path, videos, calm):
    address = f"127.0.0.1:{free_port()}"
    far = ("--set", f"site.ray.address={address}", "--set", "site.split.count=1")
    told = refused(prefect_server.run(*command(tmp_path / "w", videos, *far)), f"ray.address '{address}'")
    assert told["stages"]["gather"]["computed"] == 3 and address in told["error"]
    assert Path(told["report"]).is_file()
    finish(tmp_path / "w", videos)
    assert values(tmp_path / "w") == values(calm)


def test_an_empty_selection_says_what_each_theta_would_keep(prefect_server, tmp_path, videos, calm):
    workspace = shutil.copytree(calm, tmp_path / "w")
    done = prefect_server.run(*command(workspace, videos, "--set", "select.theta=999"))
    scores = Store(calm / "tables").read("selection", ["score"])["score"].to_pylist()
    kept = [f"{theta:g} keeps {sum(score >= theta for score in scores)}" for theta in (1.0, 5.0, 10.0, 20.0)]
    told = refused(done, f"none of {len(scores)} clips passes select.theta = 999", *kept)
    assert told["stages"]["score"] == told["stages"]["score"] | {"computed": 0, "reused": len(scores)}
    back = computed(prefect_server.run(*command(workspace, videos)))
    assert not any(back.values())


def test_a_full_disk_stops_the_run_and_more_room_lets_it_go_on(prefect_server, small_disk, videos, calm):
    workspace = small_disk / "w"
    done = prefect_server.run(*command(workspace, videos))
    told = refused(done, "disk", "full", "what was committed is kept", "run again")
    clips = told["stages"]["split"]["computed"]
    held = Store(workspace / "tables").read("scores", ["key"]).num_rows
    assert clips == 3 and held < Store(calm / "tables").read("scores", ["key"]).num_rows
    remount(small_disk, "size=64m")
    again = computed(prefect_server.run(*command(workspace, videos)))
    assert again["gather"] == again["split"] == 0 and again["score"] > 0
    assert values(workspace) == values(calm)


@pytest.mark.parametrize(("word", "status", "alone"), [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)])
def test_ctrl_c_and_termination_keep_what_was_computed(prefect_server, tmp_path, videos, calm, word, status, alone):
    workspace = tmp_path / "w"

    def some_scores() -> bool:
        assert process.poll() is None, process.communicate()
        return (workspace / "tables").is_dir() and Store(workspace / "tables").read("scores", ["key"]).num_rows > 0

    with prefect_server.running([*PTTA, *command(workspace, videos)], alone) as process:
        wait_for(some_scores, 90, "the first score")
        os.killpg(process.pid, word)  # as a terminal does: the whole group
        _, told = process.communicate(timeout=60)
    assert process.returncode == status, told
    assert "what was computed is kept" in told and "Traceback" not in told
    record = status_of(str(workspace))["recipes"][0]
    assert record["status"] == "failed" and record["stages"]["split"]["computed"] == 3
    held = Store(workspace / "tables").read("scores", ["key"]).num_rows
    total = Store(calm / "tables").read("scores", ["key"]).num_rows
    assert 0 < held < total, "the signal came too late to mean anything"
    finish(workspace, videos)
    assert values(workspace) == values(calm)


def test_two_runs_at_once_share_the_work_and_double_nothing(prefect_server, tmp_path, videos, calm):
    words = [*PTTA, *command(tmp_path / "w", videos)]
    with prefect_server.running(words) as one, prefect_server.running(words) as other:
        told = [process.communicate(timeout=120) for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], told
    assert values(tmp_path / "w") == values(calm)
    counts = [json.loads(out.splitlines()[-1])["stages"] for out, _ in told]
    total = Store(calm / "tables").read("scores", ["key"]).num_rows
    assert sum(stages["score"]["computed"] for stages in counts) == total
