"""Training with the model's weights spread over two processes (FSDP2 on gloo) against the same in this process."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_training import samples
from torch import multiprocessing

from ptta_core.config import TrainConfig, Workers
from ptta_core.models import tiny
from ptta_core.training import checkpoint, dataset, loop, passes, previews, workers

CONFIG = TrainConfig(rank=2, branches=2, batch=2, learning_rate=1e-3, epochs=13, checkpoint_every=12, keep_every=12,
                     ema_decay=0.9, balance_weight=0.1)  # fmt: skip


PLAN = previews.Plan(9, 1e9, (("a girl runs", ""),), (3,), {"steps": 2, "guidance": 6.0, "shift": 7.0, "frames": 5,
                                                            "height": 32, "width": 48}, 24.0, "tiny")  # fmt: skip


def work(rank: int, rendezvous: str, runs: list[tuple[passes.Settings, bool]]) -> None:
    """One of two workers: the runs one after the other."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    for run, fails in runs:
        try:
            loop.train_loop(run, workers.World(rank, 2, "cpu"))
            assert not fails
        except dataset.DatasetError as error:
            assert fails, error
            (Path(run.run_folder) / f"told-{rank}").write_text(f"{type(error).__name__}: {error}")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs by name: one alone; sharded: whole, gone on from the lone one's 12th step, and with a torn sample.

    And both with an 8-bit base and an 8-bit optimizer; "narrowed" goes on alone from the sharded one's. Without and
    with previews, the model spread over two workers, and whole on each.
    """
    folder = tmp_path_factory.mktemp("sharded")
    base = str(tiny.hunyuan(folder / "base", 0))

    def make(
        name: str, storage: str = "dtype", shard: bool = True, plan: previews.Plan | None = None, **changes: Any
    ) -> passes.Settings:
        dataset.pin(folder / name, samples(4, 3), ["sample0", "sample6"])
        config = CONFIG.model_dump() | changes
        return passes.Settings(str(folder / name), base, None, "float32", "cpu", 1, config, {}, shard=shard,
                               storage=storage, previews=plan)  # fmt: skip

    def go_on(name: str, other: str) -> None:
        """Give a run the beginning of another one."""
        (folder / name / loop.CHECKPOINTS).mkdir()
        (folder / name / loop.METRICS).write_text((folder / other / loop.METRICS).read_text())
        first = sorted(path.name for path in (folder / other / loop.CHECKPOINTS).iterdir())[0]
        shutil.copytree(folder / other / loop.CHECKPOINTS / first, folder / name / loop.CHECKPOINTS / first)

    alone, sharded, resumed, torn = (make(name) for name in ("alone", "sharded", "resumed", "torn"))
    small, small_sharded, narrowed = (
        make(name, "fp8", rank=32, optimizer="adamw8bit", epochs=3, checkpoint_every=4, keep_every=None,
             learning_rate=3e-4)
        for name in ("small", "small-sharded", "narrowed"))  # fmt: skip
    shown = [make(f"{how}-{what}", shard=how == "sharded", plan=plan, epochs=4)
             for how in ("sharded", "whole") for what, plan in (("plain", None), ("shown", PLAN))]  # fmt: skip
    for run in shown:
        embedder = functools.partial(previews.PromptEmbedder, run.run_folder, base, None, "float32", "cpu")
        previews.embed(PLAN, embedder, Path(run.run_folder), Workers(), None)
    loop.train_loop(alone)
    loop.train_loop(small)
    go_on("resumed", "alone")
    (folder / "torn" / "data" / "sample1.safetensors").write_bytes(b"torn")
    runs = [(sharded, False), (resumed, False), (torn, True), (small_sharded, False), *((run, False) for run in shown)]
    multiprocessing.spawn(work, (str(folder / "rendezvous"), runs), nprocs=2)
    go_on("narrowed", "small-sharded")
    loop.train_loop(narrowed)
    return {path.name: path for path in folder.iterdir()}


def lines(run: Path, name: str = loop.METRICS) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


@pytest.mark.parametrize(("name", "other"), [("sharded", "alone"), ("resumed", "alone"), ("small-sharded", "small"),
                                             ("narrowed", "small")])  # fmt: skip
def test_sharded_workers_train_what_one_process_trains(folders: dict[str, Path], name: str, other: str) -> None:
    """Over 52 steps: 5 samples in batches of 2, 1 and 2, and 2 held out: a worker is idle now and then."""
    alone, run = folders[other], folders[name]
    assert len(lines(alone)) == len(lines(run)) == (13 if other == "alone" else 3) * len(dataset.epoch_batches(
        dataset.split(dataset.read_index(alone))[0], 2, 0, 0))  # fmt: skip
    for one, two in zip(lines(alone), lines(run)):
        for key in ("loss", "grad_norm", "gate_mean", "gate_entropy", "gate_evenness", "branch_cosine"):
            assert two[key] == pytest.approx(one[key], rel=1e-3, abs=1e-5), (one["step"], key)
        assert abs(one["loss"] - two["loss"]) < 1e-5
    one, two = (lines(folder, loop.ROUTERS)[-1] for folder in (alone, run))
    torch.testing.assert_close(*(torch.tensor(line["gate_mean"]) for line in (one, two)), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(*(torch.tensor(line["branch_cosine"]) for line in (one, two)), rtol=1e-3, atol=1e-4)
    assert lines(run, loop.HELD_OUT)[-1]["loss"] == pytest.approx(lines(alone, loop.HELD_OUT)[-1]["loss"], abs=1e-5)
    first, second = (load_file(folder / loop.ADAPTER) for folder in (alone, run))
    assert first.keys() == second.keys()
    one, two = (torch.cat([each[key].flatten() for key in sorted(each)]) for each in (first, second))
    assert float((two - one).norm() / one.norm()) < 1e-3


def test_a_sharded_checkpoint_is_whole_and_holds_the_adapter_alone(folders: dict[str, Path]) -> None:
    pairs = [("alone", "sharded", name) for name in ("adapter", "optimizer", "average", "gates")]
    for *names, file in [*pairs, ("small", "small-sharded", "optimizer")]:
        paths = [checkpoint.latest(folders[name] / loop.CHECKPOINTS) for name in names]
        one, two = (load_file(path / f"{file}.safetensors") for path in paths if path)
        assert {key: (value.shape, value.dtype) for key, value in one.items()} == {
            key: (value.shape, value.dtype) for key, value in two.items()}  # fmt: skip


def test_a_torn_sample_ends_both_workers(folders: dict[str, Path]) -> None:
    told = sorted(path.read_text() for path in folders["torn"].glob("told-*"))
    assert [one.partition(":")[0] for one in told] in (["DatasetError", "OtherWorker"], ["DatasetError"] * 2)
    assert "sample1 cannot be read" in told[0]


@pytest.mark.parametrize("how", ["sharded", "whole"])
def test_two_workers_learn_the_same_to_the_bit_with_previews(folders: dict[str, Path], how: str) -> None:
    """A sharded model's passes are every worker's; of whole models one worker makes them and the other waits."""
    plain, shown = (folders[f"{how}-{what}"] for what in ("plain", "shown"))
    assert (shown / loop.ADAPTER).read_bytes() == (plain / loop.ADAPTER).read_bytes()
    made = previews.told(shown)
    assert {due: (one["note"], len(one["videos"])) for due, one in made.items()} == dict.fromkeys((0, 9, 12), ("", 1))
    assert len({one["videos"][0]["video_sha"] for one in made.values()}) == 3


def test_a_sharded_models_preview_is_the_whole_models(folders: dict[str, Path]) -> None:
    """Of before the first step, where both have the same weights to the bit: what generate makes with the base."""
    shas = {previews.told(folders[f"{how}-shown"])[0]["videos"][0]["video_sha"] for how in ("sharded", "whole")}
    assert len(shas) == 1
