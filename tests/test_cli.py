"""The command line as a person meets it: fast help, clear errors, exit status."""

import json
import subprocess
import sys
import time

import pytest

PTTA = [sys.executable, "-m", "flows.cli"]


def ptta(*words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PTTA, *words], capture_output=True, text=True, timeout=timeout_s, check=False)


def test_help_answers_fast():
    seconds = []
    for _ in range(5):
        begun = time.monotonic()
        assert ptta("--help").returncode == 0
        seconds.append(time.monotonic() - begun)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "demo", "--set", "select.thta=8"), "did you mean theta?"),
        (("run", "nothing"), "choices: "),
        (("run", "demo", "--site", "moon"), "choices: "),
        (("run", "demo", "--set", "train.gate=loud"), "train.gate"),
        (("show", "cats", "--workspace", "."), "choices: files"),
        (("show", "clips", "--workspace", "/nowhere/at/all"), "no workspace"),
        (("run", "demo", "--workspace", "/proc/no"), "cannot be written"),
        (("run", "laptop", "--dry-run", "--videos", "/no/such/folder"), ""),
    ],
)
def test_bad_input_is_one_clear_message(words, said, tmp_path):
    if "--workspace" not in words:
        words = (*words, "--workspace", str(tmp_path / "w"))
    done = ptta(*words)
    if said:
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    else:
        assert "no such folder" in done.stdout + done.stderr


def test_check_asks_for_licences(tmp_path):
    done = ptta("check", "paper", "--workspace", str(tmp_path), "--videos", str(tmp_path))
    assert done.returncode == 1
    assert "accept_licences" in done.stdout and "FAIL" in done.stdout


def test_dry_run_of_a_new_workspace_is_json(tmp_path):
    done = ptta("run", "demo", "--dry-run", "--json", "--workspace", str(tmp_path / "w"), timeout_s=120)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["gather"]["compute"] == 3 and found["split"]["why"]
