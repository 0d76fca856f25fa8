"""Training on Ray workers: the numbers of one process, a killed worker, progress, and an end that is not retried."""

import dataclasses
import functools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from test_training import samples

from ptta_core import fleet
from ptta_core.config import PreviewWorker, TrainConfig, TrainWorkers, Workers
from ptta_core.models import tiny
from ptta_core.training import dataset, launch, loop, passes, preview_apart, previews

CONFIG = TrainConfig(rank=2, branches=2, batch=2, learning_rate=1e-3, epochs=6, checkpoint_every=2)
STEPS = 18  # batches of 2, 2 and 1: in the last one a worker has no sample
TWO = TrainWorkers(count=2, cpus=0.5)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], passes.Settings]:
    folder = tmp_path_factory.mktemp("training")
    base = str(tiny.hunyuan(folder / "base", 0))

    def make(name: str) -> passes.Settings:
        dataset.pin(folder / name, samples())
        return passes.Settings(str(folder / name), base, None, "float32", "cpu", 1, CONFIG.model_dump(), {})

    return make


@pytest.fixture(scope="module")
def together(ray_session: None, settings: Callable[[str], passes.Settings]) -> tuple[Path, list[tuple[int, int, str]]]:
    """An undisturbed run of two workers, and the progress it told."""
    run, told = settings("together"), []
    launch.fit(run, TWO, on_progress=lambda *news: told.append(news))
    return Path(run.run_folder), told


def metrics(run: Path) -> list[dict[str, Any]]:
    """Every line without its times."""
    lines = [json.loads(line) for line in (run / loop.METRICS).read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith("_s")} for line in lines]


def test_two_ray_workers_train_what_one_process_trains(
    together: tuple[Path, list[tuple[int, int, str]]], settings: Callable[[str], passes.Settings]
) -> None:
    (folder, told), alone = together, settings("alone")
    loop.train_loop(alone)
    losses = [[line["loss"] for line in metrics(Path(run))] for run in (alone.run_folder, folder)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) and len(losses[0]) == STEPS
    first, second = (load_file(Path(run) / loop.ADAPTER) for run in (alone.run_folder, folder))
    one, two = (torch.cat([each[key].flatten().float() for key in sorted(each)]) for each in (first, second))
    assert float((two - one).norm() / one.norm()) < 1e-3
    assert told[-1][:2] == (STEPS, STEPS)
    assert not (folder / "ray").exists()


def train_workers() -> list[psutil.Process]:
    """The live training workers among this process's own descendants."""
    return [one for one in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(one.cmdline())]


def test_a_killed_worker_changes_nothing(
    together: tuple[Path, list[tuple[int, int, str]]], settings: Callable[[str], passes.Settings]
) -> None:
    run = settings("killed")
    folder, killed = Path(run.run_folder), []

    def kill_one() -> None:
        while not (line := launch.last_line(folder)) or line["step"] < 5:
            time.sleep(0.01)
        worker = train_workers()[0]
        assert not (folder / loop.ADAPTER).exists()
        worker.kill()
        killed.append(worker.pid)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    launch.fit(run, TWO)
    killer.join()
    assert len(killed) == 1
    assert (folder / loop.ADAPTER).read_bytes() == (together[0] / loop.ADAPTER).read_bytes()
    assert metrics(folder) == metrics(together[0])


def test_a_sample_that_cannot_be_read_ends_all_workers_at_once_and_is_named(
    together: tuple[Path, list[tuple[int, int, str]]], settings: Callable[[str], passes.Settings]
) -> None:
    """Only one worker reads it: the other one neither waits nor is restarted."""
    run = settings("torn")
    (Path(run.run_folder) / "data" / "sample1.safetensors").write_bytes(b"torn")
    with pytest.raises(dataset.DatasetError, match="sample sample1 cannot be read"):
        launch.fit(run, TWO)
    assert not (Path(run.run_folder) / loop.ADAPTER).exists()
    assert len(list(Path(run.run_folder).glob(launch.ERRORS))) == 1


def test_previews_in_a_worker_of_their_own(ray_session: None, settings: Callable[[str], passes.Settings]) -> None:
    """They come while training goes on, which learns what it learns without them; what was overtaken is told."""
    sampling = {"steps": 2, "guidance": 6.0, "shift": 7.0, "frames": 5, "height": 32, "width": 48}
    plan = previews.Plan(6, 1e9, (("a girl runs", ""),), (3,), sampling, 24.0, "tiny", apart=True)
    alone, run = settings("lone"), dataclasses.replace(settings("previewed"), previews=plan)
    folder = Path(run.run_folder)
    embedder = functools.partial(previews.PromptEmbedder, run.run_folder, run.base, None, "float32", "cpu")
    previews.embed(plan, embedder, folder, Workers(), None)
    one = TrainWorkers(count=1, cpus=0.5)
    large = preview_apart.beside(run, PreviewWorker(cpus=1.75), one, None)
    with pytest.raises(fleet.FleetError, match="and beside them 1 worker"), large:
        pytest.fail("it does not fit")
    with preview_apart.beside(run, PreviewWorker(cpus=0.5), one, None):
        launch.fit(run, one)
    loop.train_loop(alone)
    assert (folder / loop.ADAPTER).read_bytes() == (Path(alone.run_folder) / loop.ADAPTER).read_bytes()
    found = previews.told(folder)
    assert list(found) == [0, 6, 12, 18] and not list(previews.waiting(folder))
    assert [len(found[due]["videos"]) for due in (0, 18)] == [1, 1]
    assert all(found[due]["videos"] or "step 18 is next" in found[due]["note"] for due in (6, 12))
    shas = {(folder / one["videos"][0]["path"]).read_bytes() for one in found.values() if one["videos"]}
    assert len(shas) == len([one for one in found.values() if one["videos"]])
