"""A machine goes while two workers train, announced or not: one worker goes on, and ends where one alone would have.

Two real Ray nodes on this machine. Minutes each, most of it Ray's own waiting: run by `pytest -m campaign`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lost_machine import CONFIG
from safetensors.torch import load_file
from test_training import samples

from ptta_core.models import tiny
from ptta_core.training import dataset, loop, passes

pytestmark = pytest.mark.campaign


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / loop.METRICS).read_text().splitlines()]


@pytest.mark.parametrize("how", ["announced", "silent"])
def test_a_lost_machine_costs_no_more_than_the_steps_since_the_last_checkpoint(tmp_path: Path, how: str) -> None:
    """Announced: saved between two checkpoints, and no restart is spent (none is allowed)."""
    base = str(tiny.hunyuan(tmp_path / "base", 0))
    dataset.pin(tmp_path / "alone", samples())
    loop.train_loop(passes.Settings(str(tmp_path / "alone"), base, None, "float32", "cpu", 1, CONFIG.model_dump(), {}))
    script = Path(__file__).with_name("lost_machine.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "run"), base, how], cwd=script.parent,
                          capture_output=True, text=True, timeout=550, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads([line for line in done.stdout.splitlines() if line.startswith('{"')][-1])
    assert told["lost_after"] >= 12 and ("saved" in told) == (how == "announced")
    alone, run = lines(tmp_path / "alone"), lines(tmp_path / "run")
    assert [line["step"] for line in run] == [line["step"] for line in alone] == list(range(1, len(alone) + 1))
    assert len(alone) == 240 > told["lost_after"]
    compare(tmp_path / "alone", tmp_path / "run")


def compare(alone: Path, run: Path) -> None:
    """Losses of the first 50 steps within 1e-5, the adapters within 1e-3 of each other."""
    for one, two in zip(lines(alone)[:50], lines(run)[:50]):
        assert abs(one["loss"] - two["loss"]) < 1e-5
    first, second = (load_file(folder / loop.ADAPTER) for folder in (alone, run))
    one, two = (torch.cat([each[key].flatten() for key in sorted(each)]) for each in (first, second))
    assert float((two - one).norm() / one.norm()) < 1e-3
