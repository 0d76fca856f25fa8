"""More epochs go on from the last checkpoint, in a folder of their own; --fresh begins again."""

import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from demo import go, open_demo
from safetensors.torch import load_file

from ptta_core import memo, stages
from ptta_core.ids import digest_file
from ptta_core.lease import Lease
from ptta_core.rows import Step
from ptta_core.stages import train
from ptta_core.training import beginning, checkpoint, launch, loop, passes
from ptta_core.view import Options, View


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[passes.Settings]:
    """Training in this process, which test_training_ray does on workers; what it was asked to train."""
    asked: list[passes.Settings] = []

    def fit(settings: passes.Settings, *rest: Any) -> None:
        asked.append(settings)
        loop.train_loop(settings)

    monkeypatch.setattr(launch, "fit", fit)
    return asked


def run(view: View) -> dict[str, Any]:
    """Train what is to train; the adapter's row, and in it the steps'."""
    assert memo.run(view.stage("train"), view).computed == 1
    row = view.rows("train").to_pylist()[0]
    steps = sorted(view.rows("train", noun=Step).to_pylist(), key=lambda step: step["step"])
    return row | {"losses": [step["loss"] for step in steps], "numbers": [step["step"] for step in steps]}


def job_of(view: View) -> memo.Job:
    return memo.Job("train", view.recipe.train, view.recipe, view.site, view.home, view.fingerprint("train"),
                    lambda *a: None, lambda note: None, view.store)  # fmt: skip


def tensors(path: Path) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in load_file(path).items()}


def test_more_epochs_go_on_and_fewer_go_back(
    workspace: Path, videos: Path, tmp_path: Path, trained: list[passes.Settings]
) -> None:
    two = open_demo(workspace, videos).rows("train").to_pylist()[0]
    view = open_demo(workspace, videos, **{"train.epochs": 4, "train.checkpoint_every": 3})
    four = run(view)
    home = view.home / "training"
    total = four["numbers"][-1]
    assert four["train_id"] != two["train_id"] and four["numbers"] == list(range(1, total + 1))
    assert total == 2 * two["steps"]
    lines = train.read_lines(home / two["train_id"] / loop.METRICS)
    assert four["losses"][: two["steps"]] == [line["loss"] for line in lines]
    assert digest_file(view.home / two["path"]) == two["adapter_id"]  # the other adapter is what it was
    made = train.read_lines(home / four["train_id"] / loop.METRICS)
    assert made[: two["steps"]] == lines  # not computed again: the very times are there
    # the same as four epochs in one go
    calm = dataclasses.replace(trained[0], run_folder=str(tmp_path / "calm"))
    (tmp_path / "calm").mkdir()
    beginning.link_samples(home / four["train_id"], tmp_path / "calm")
    loop.train_loop(calm)
    assert tensors(tmp_path / "calm" / loop.ADAPTER) == tensors(view.home / four["path"])
    assert [line["loss"] for line in train.read_lines(tmp_path / "calm" / loop.METRICS)] == four["losses"]
    # three epochs are on the way to four, and go on from the last checkpoint before them
    three = run(open_demo(workspace, videos, **{"train.epochs": 3}))
    assert three["losses"] == four["losses"][: three["numbers"][-1]] and len(trained) == 2
    assert memo.run(view.stage("train"), open_demo(workspace, videos)).computed == 0


def test_more_epochs_of_an_unfinished_run_keep_its_pinned_input(workspace: Path, videos: Path) -> None:
    other = {"train.rank": 2}
    view = open_demo(workspace, videos, **other)
    item = view.stage("train").inputs(view).make([0])[0]
    train.pin(view.home / "training" / item.train_id, item, job_of(view))
    later = open_demo(workspace, videos, **other, **{"select.theta": 3.0, "train.epochs": 5})
    go(later, (*stages.CURATE, "encode"))
    items = later.stage("train").inputs(later)
    assert items.input_ids == [item.input_id] and "--fresh" in items.note
    more = items.make([0])[0]
    assert more.train_id != item.train_id and not more.keys
    folder = later.home / "training" / more.train_id
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "torn.safetensors").write_bytes(b"half")  # as a kill may leave it
    train.pin(folder, more, job_of(later))
    mine, theirs = (later.home / "training" / one / "data" for one in (more.train_id, item.train_id))
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == {
        path.name: path.read_bytes() for path in theirs.iterdir()}  # fmt: skip
    assert json.loads((folder / train.PIN).read_text())["latents"] == item.latents
    learns_else = open_demo(workspace, videos, **other, **{"train.epochs": 5, "train.learning_rate": 1e-3})
    assert learns_else.stage("train").inputs(learns_else).make([0])[0].keys  # begins otherwise: nothing to go on from


def test_fresh_begins_the_same_run_again(workspace: Path, videos: Path, trained: list[passes.Settings]) -> None:
    settings = {"train.rank": 2, "train.checkpoint_every": 1}
    view = open_demo(workspace, videos, **settings)
    item = view.stage("train").inputs(view).make([0])[0]
    folder = view.home / "training" / item.train_id
    train.pin(folder, item, job_of(view))
    steps = folder / loop.CHECKPOINTS / "step-00000003"
    steps.mkdir(parents=True)
    (steps / "state.json").write_text("{}")
    with pytest.raises(checkpoint.CheckpointError, match="--fresh begins again"):
        run(view)
    row = run(open_demo(workspace, videos, Options(fresh=True), **settings))
    assert row["train_id"] == item.train_id and row["numbers"][0] == 1


def test_two_drivers_do_not_train_one_run_at_once(
    workspace: Path, videos: Path, trained: list[passes.Settings]
) -> None:
    view = open_demo(workspace, videos, **{"train.rank": 2})
    item = view.stage("train").inputs(view).make([0])[0]
    with Lease(view.home / "leases", f"training-{item.train_id[:16]}", 0.0, print):
        other = threading.Thread(target=run, args=(view,), daemon=True)
        other.start()
        time.sleep(1.0)
        assert not trained and other.is_alive()
    other.join(timeout=60)
    assert len(trained) == 1 and not other.is_alive()


def test_offloading_needs_checkpointing(workspace: Path, videos: Path, trained: list[passes.Settings]) -> None:
    view = open_demo(workspace, videos, **{"train.rank": 2, "site.train.offload": True})
    with pytest.raises(memo.StageError, match=r"site.train.offload = true .* train.checkpointing"):
        memo.run(view.stage("train"), view)
