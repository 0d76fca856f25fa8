"""What a run goes on from: damaged checkpoints, a full disk, a word to stop, and another attempt on the same folder."""

import dataclasses
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_training import adapter, base, kill_in_step, metrics, settings  # noqa: F401  (fixtures)

from ptta_core.training import checkpoint, loop, passes


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
