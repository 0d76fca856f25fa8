"""Training on Ray workers: the numbers of one process, progress told, and an end that is not retried."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training import samples

from ptta_core.config import TrainConfig, TrainWorkers
from ptta_core.models import tiny
from ptta_core.training import dataset, launch, loop


def test_two_ray_workers_train_what_one_process_trains(ray_session: None, tmp_path: Path) -> None:
    """Batches of 2, 2 and 1: in the last one a worker has no sample."""
    base = str(tiny.hunyuan(tmp_path / "base", 0))
    config = TrainConfig(rank=2, branches=2, batch=2, learning_rate=1e-3, epochs=2, checkpoint_every=2).model_dump()
    adapters, losses = [], []
    told: list[tuple[int, int, str]] = []
    for name in ("alone", "together"):
        run = tmp_path / name
        dataset.pin(run, samples())
        settings = loop.Settings(str(run), base, None, "float32", "cpu", 1, config, {})
        if name == "alone":
            loop.train_loop(settings)
        else:
            launch.fit(settings, TrainWorkers(count=2, cpus=0.5), on_progress=lambda *news: told.append(news))
        adapters.append(load_file(run / loop.ADAPTER))
        losses.append([json.loads(line)["loss"] for line in (run / loop.METRICS).read_text().splitlines()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) and len(losses[0]) == 6
    alone, together = (torch.cat([one[key].flatten().float() for key in sorted(one)]) for one in adapters)
    assert float((together - alone).norm() / alone.norm()) < 1e-3
    assert told[-1][:2] == (6, 6)
    assert not (tmp_path / "together" / "ray").exists()
