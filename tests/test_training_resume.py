"""What a run goes on from: damaged checkpoints, a full disk, a word to stop, and another attempt on the same folder."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_training import adapter, base, kill_in_step, metrics, settings  # noqa: F401  (fixtures)

from ptta_core.training import checkpoint, loop, notice, passes


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("name", "harm", "why"),
    [
        ("optimizer.safetensors", flip, "optimizer.safetensors is not as it was written"),
        ("adapter.safetensors", truncate, "adapter.safetensors is not as it was written"),
        ("gates.safetensors", Path.unlink, "gates.safetensors is missing"),
        ("state.json", truncate, "unreadable"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before_it(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch,  # noqa: F811
    caplog: pytest.LogCaptureFixture, name: str, harm: Callable[[Path], None], why: str,
) -> None:  # fmt: skip
    whole, broken = settings("whole"), settings("broken", checkpoint_every=2)
    loop.train_loop(whole)
    kill_in_step(monkeypatch, broken, 6)
    folder = Path(broken.run_folder) / loop.CHECKPOINTS
    harm(folder / "step-00000004" / name)
    loop.train_loop(broken)
    assert adapter(broken) == adapter(whole) and len(metrics(broken)) == 6
    assert why in caplog.text and "going on from step 2" in caplog.text
    assert sorted(path.name for path in folder.iterdir()) == [
        ".step-00000004.damaged", "step-00000004", "step-00000006"]  # fmt: skip


def test_no_whole_checkpoint_is_an_error_that_says_what_to_do(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    run = settings("run", checkpoint_every=2)
    kill_in_step(monkeypatch, run, 6)
    folder = Path(run.run_folder) / loop.CHECKPOINTS
    for path in folder.glob("*/adapter.safetensors"):
        flip(path)
    with pytest.raises(checkpoint.CheckpointError, match=r"step-00000004: adapter.*step-00000002: .*--fresh begins"):
        loop.train_loop(run)
    assert len(list(folder.glob("step-*"))) == 2  # nothing was moved or lost


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of so many kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted: list[int] = []

    def make(size_kb: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "none", str(place)]
        if not shutil.which("mount") or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("no file system of its own size can be mounted here (only root may)")
        mounted.append(size_kb)
        return place

    yield make
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


def kilobytes(folder: Path) -> int:
    """As a file system counts it, in pages."""
    return sum(-(-path.stat().st_size // 4096) * 4 for path in folder.rglob("*") if path.is_file())


def test_a_full_disk_ends_the_run_with_a_word_and_costs_nothing_saved(
    settings: Callable[..., passes.Settings], small_disk: Callable[[int], Path]  # noqa: F811
) -> None:
    """Room for four and a half checkpoints of six."""
    whole, full = settings("whole", rank=4), settings("full", rank=4, checkpoint_every=1, keep_every=1)
    loop.train_loop(whole)
    one = checkpoint.latest(Path(whole.run_folder) / loop.CHECKPOINTS)
    assert one
    disk = small_disk(kilobytes(Path(full.run_folder)) + kilobytes(one) * 9 // 2)
    shutil.copytree(full.run_folder, disk / "run")
    run = dataclasses.replace(full, run_folder=str(disk / "run"))
    with pytest.raises(checkpoint.NotSaved, match=r"the checkpoint of step 5 .*No space left.*Make room") as caught:
        loop.train_loop(run)
    assert caught.value.kind == "not_saved"
    folder = disk / "run" / loop.CHECKPOINTS
    assert sorted(path.name for path in folder.iterdir()) == [f"step-0000000{number}" for number in range(1, 5)]
    for number in (1, 2):
        shutil.rmtree(folder / f"step-0000000{number}")
    loop.train_loop(run)
    assert (disk / "run" / loop.ADAPTER).read_bytes() == adapter(whole)


# ------------------------------------------------------------------------------------------- words, and who may write


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Do something after so many steps of this process."""
    real, seen = loop._Training.step, []

    def step(self: loop._Training, *given: Any) -> dict[str, Any]:
        line = real(self, *given)
        seen.append(line)
        if len(seen) == number:
            act()
        return line

    monkeypatch.setattr(loop._Training, "step", step)


def test_a_run_told_to_stop_saves_and_goes_on_later(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    whole, stopped = settings("whole"), settings("stopped")
    loop.train_loop(whole)
    folder = Path(stopped.run_folder)
    notice.begin(folder, "one")
    stopped = dataclasses.replace(stopped, attempt="one")
    with monkeypatch.context() as patch:
        at_step(patch, 3, (folder / notice.STOP).touch)
        loop.train_loop(stopped)
    assert (folder / notice.STOPPED).read_text() == "3\n" and not (folder / loop.ADAPTER).exists()
    assert checkpoint.step_of(checkpoint.latest(folder / loop.CHECKPOINTS)) == 3 and len(metrics(stopped)) == 3
    notice.begin(folder, "two")
    loop.train_loop(dataclasses.replace(stopped, attempt="two"))
    assert adapter(stopped) == adapter(whole)


def test_a_run_on_a_machine_that_is_about_to_go_saves_once_and_goes_on(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    monkeypatch.setattr(notice, "ASK_S", 0.0)
    run, asked = settings(checkpoint_every=50, apart=("sample0",)), []
    saved: list[int] = []
    real = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, *rest: (saved.append(step), real(folder, step, *rest)))

    def preempted() -> bool:
        asked.append(1)
        return len(asked) >= 2

    loop.train_loop(run, None, preempted)
    assert saved == [2, 4] and len(asked) == 2  # the last one is the run's own
    assert len((Path(run.run_folder) / loop.HELD_OUT).read_text().splitlines()) == 1  # no time for that in between


def test_workers_of_an_earlier_driver_write_no_more(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    run = dataclasses.replace(settings(checkpoint_every=1), attempt="one")
    folder = Path(run.run_folder)
    notice.begin(folder, "one")
    at_step(monkeypatch, 3, lambda: notice.begin(folder, "two"))
    with pytest.raises(notice.Superseded):
        loop.train_loop(run)
    assert len(metrics(run)) == 2 and checkpoint.step_of(checkpoint.latest(folder / loop.CHECKPOINTS)) == 2


def test_nobody_waits_for_a_worker_that_is_gone(tmp_path: Path) -> None:
    notice.begin(tmp_path, "one")
    began = time.monotonic()
    assert not notice.ask_to_stop(tmp_path, 30.0)  # none has begun
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    told = notice._here() | {"pid": int(ended.stdout)}
    (tmp_path / notice.WORKER).write_text(json.dumps(told))
    assert not notice.ask_to_stop(tmp_path, 30.0) and time.monotonic() - began < 20
    (tmp_path / notice.WORKER).write_text(json.dumps(notice._here()))
    (tmp_path / notice.STOPPED).touch()
    assert notice.ask_to_stop(tmp_path, 30.0)
