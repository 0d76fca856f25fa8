"""A machine, a worker or the driver goes while workers train: the run ends where an undisturbed one would have.

Real Ray, for machines two nodes of it on this one. Minutes each, most of it waiting: run by `pytest -m campaign`.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from lost_machine import CONFIG
from safetensors.torch import load_file
from test_training import samples

from ptta_core.models import tiny
from ptta_core.training import checkpoint, dataset, launch, loop, notice, passes

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(3000)]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / loop.METRICS).read_text().splitlines()]


@pytest.mark.parametrize("how", ["announced", "silent"])
def test_a_lost_machine_costs_no_more_than_the_steps_since_the_last_checkpoint(
    alone: Path, tmp_path: Path, how: str
) -> None:
    """Announced: saved between two checkpoints, and no restart is spent (none is allowed)."""
    script, base = Path(__file__).with_name("lost_machine.py"), str(alone.parent / "base")
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "run"), base, how], cwd=script.parent,
                          capture_output=True, text=True, timeout=580, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads([line for line in done.stdout.splitlines() if line.startswith('{"')][-1])
    assert told["lost_after"] >= 12 and ("saved" in told) == (how == "announced")
    assert (told["before"], told["after"]) == (2, 1)
    assert [line["step"] for line in lines(tmp_path / "run")] == list(range(1, 241)) and told["lost_after"] < 240
    compare(alone, tmp_path / "run")


DRIVER = """
import signal, sys
from pathlib import Path
from flows.cli import _terminate
from lost_machine import CONFIG
from ptta_core import fleet
from ptta_core.config import TrainWorkers
from ptta_core.training import launch, passes

signal.signal(signal.SIGTERM, _terminate)  # as the ptta command does
config = CONFIG.model_dump() | {"checkpoint_every": int(sys.argv[3])}
run = passes.Settings(sys.argv[1], sys.argv[2], None, "float32", "cpu", 1, config, {})
try:
    launch.fit(run, TrainWorkers(count=2, cpus=0.5))
finally:
    fleet.stop()
"""


class Drivers:
    """Drivers of one run, one after the other, each a process group of its own."""

    def __init__(self, folder: Path, base: str, checkpoint_every: int) -> None:
        self.folder, self.given = folder, [str(folder), base, str(checkpoint_every)]
        self.told = folder.with_name("told.txt")  # what the drivers said

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", DRIVER, *self.given], cwd=Path(__file__).parent,
                                start_new_session=True, stderr=self.told.open("ab"))  # fmt: skip

    def until(self, driver: subprocess.Popen[bytes], step: int) -> None:
        """Wait for a step that this driver's workers have done."""
        begun = time.time()
        while True:
            line = launch.last_line(self.folder)
            path = self.folder / loop.METRICS
            if line and line["step"] >= step and path.stat().st_mtime > begun:
                return
            assert driver.poll() is None and time.time() - begun < 580, "the driver ended, or took too long"
            time.sleep(0.01)


def workers_of(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Its training workers, in the order of their ranks."""
    children = psutil.Process(driver.pid).children(recursive=True)
    return sorted((one for one in children if "RayTrainWorker" in " ".join(one.cmdline())), key=lambda one: one.pid)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run in this process, beside its base."""
    folder = tmp_path_factory.mktemp("lost")
    base = str(tiny.hunyuan(folder / "base", 0))
    dataset.pin(folder / "alone", samples())
    loop.train_loop(passes.Settings(str(folder / "alone"), base, None, "float32", "cpu", 1, CONFIG.model_dump(), {}))
    return folder / "alone"


def test_a_driver_that_is_told_to_end_saves_and_the_next_one_goes_on(alone: Path, tmp_path: Path) -> None:
    dataset.pin(tmp_path / "run", samples())
    drivers = Drivers(tmp_path / "run", str(alone.parent / "base"), 100_000)
    first = drivers.start()
    drivers.until(first, 20)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=240) != 0
    saved = int((tmp_path / "run" / notice.STOPPED).read_text())
    assert saved >= 20 and len(lines(tmp_path / "run")) == saved
    assert checkpoint.step_of(checkpoint.latest(tmp_path / "run" / loop.CHECKPOINTS)) == saved
    assert drivers.start().wait(timeout=580) == 0
    assert (tmp_path / "run" / loop.ADAPTER).read_bytes() == (alone / loop.ADAPTER).read_bytes()
    assert [line["loss"] for line in lines(tmp_path / "run")] == [line["loss"] for line in lines(alone)]


def test_workers_told_to_end_and_everything_killed_at_random_steps(alone: Path, tmp_path: Path) -> None:
    """SIGTERM to a worker: one run goes on, not two. Then kill -9 of driver, workers and Ray, again and again."""
    dataset.pin(tmp_path / "run", samples())
    drivers = Drivers(tmp_path / "run", str(alone.parent / "base"), 6)  # two epochs: kills at their border too
    dice, driver, step = random.Random(3), drivers.start(), 20
    drivers.until(driver, step)
    workers_of(driver)[0].terminate()
    drivers.until(driver, step + 20)
    assert len(workers_of(driver)) == 2
    for _ in range(3):
        step = launch.last_line(tmp_path / "run")["step"] + dice.randrange(5, 40)
        drivers.until(driver, min(step, 230))
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        assert not (tmp_path / "run" / loop.ADAPTER).exists()
        driver = drivers.start()
    assert driver.wait(timeout=580) == 0
    assert (tmp_path / "run" / loop.ADAPTER).read_bytes() == (alone / loop.ADAPTER).read_bytes()
    assert [line["loss"] for line in lines(tmp_path / "run")] == [line["loss"] for line in lines(alone)]


def compare(alone: Path, run: Path) -> None:
    """Losses of the first 50 steps within 1e-5, the adapters within 1e-3 of each other."""
    for one, two in zip(lines(alone)[:50], lines(run)[:50]):
        assert abs(one["loss"] - two["loss"]) < 1e-5
    first, second = (load_file(folder / loop.ADAPTER) for folder in (alone, run))
    one, two = (torch.cat([each[key].flatten() for key in sorted(each)]) for each in (first, second))
    assert float((two - one).norm() / one.norm()) < 1e-3
