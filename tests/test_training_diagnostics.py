"""What is seen of a run while it trains: gates by layer and label, and where the time of a step goes."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import kill_in_step, metrics, samples

from ptta_core.config import TrainConfig
from ptta_core.models import hydralora, tiny
from ptta_core.training import clock, dataset, loop, passes

LABELS = [{"male": 1.0}, {"object": 1.0}, {"male": 0.25, "object": 0.75}, {}, {"male": 0.5, "female": 0.5}]
NAMES = ["male", "object", "background"]


def labelled() -> Iterator[tuple[str, str, str, bytes]]:
    for (name, bucket, _, tensors), labels in zip(samples(), LABELS):
        yield name, bucket, json.dumps(labels) if labels else "", tensors


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., passes.Settings]:
    """Five samples with different labels in batches of 2, 2 and 1."""
    folder = tmp_path_factory.mktemp("diagnostics")
    base = str(tiny.hunyuan(folder / "base", 0))

    def make(name: str, **changes: Any) -> passes.Settings:
        dataset.pin(folder / name, labelled())
        config = TrainConfig.model_validate({"rank": 2, "branches": 3, "batch": 2, "learning_rate": 1e-2, **changes})
        return passes.Settings(str(folder / name), base, None, "float32", "cpu", 1, config.model_dump(),
                               {"labels": NAMES})  # fmt: skip

    return make


def routers(settings: passes.Settings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(settings.run_folder) / loop.ROUTERS).read_text().splitlines()]


def test_gates_by_layer_and_label_are_the_weighted_means_over_the_samples(
    run: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against every sample's own gates, taken down while it passes; two epochs of three steps, a line every 4th."""
    settings = run("means", epochs=2, router_every=4)
    seen: list[tuple[str, torch.Tensor]] = []
    real, one_backward = hydralora.layer_stats, passes.Passes.one_backward

    def watched(model: Any, reset: bool = True) -> torch.Tensor:
        seen[-1] = (seen[-1][0], real(model, reset).double())
        return seen[-1][1]

    def named(self: Any, one: dataset.Sample, *rest: Any) -> torch.Tensor:
        seen.append((one.latent_id, torch.empty(0)))
        return one_backward(self, one, *rest)

    monkeypatch.setattr(hydralora, "layer_stats", watched)
    monkeypatch.setattr(passes.Passes, "one_backward", named)
    loop.train_loop(settings)
    lines = routers(settings)
    assert [line["step"] for line in lines] == [4, 6]
    index = dataset.read_index(settings.run_folder)
    sizes = [len(batch.places) for epoch in (0, 1) for batch in dataset.epoch_batches(index, 2, 0, epoch)]
    shares = {one.latent_id: dict(zip(["", *NAMES], [1.0, *one.shares(NAMES)])) for one in index}
    assert shares["sample4"] == {"": 1, "male": 1, "object": 0, "background": 0}  # among the labels that are asked for
    for line, some in zip(lines, (seen[: sum(sizes[:4])], seen[sum(sizes[:4]) :])):
        assert line["labels"] == [name for name in ("", *NAMES) if any(shares[one][name] for one, _ in some)]
        for row, label in enumerate(line["labels"]):
            weights = torch.tensor([shares[one][label] for one, _ in some]).double()
            mean = (torch.stack([gates for _, gates in some]) * weights[:, None, None]).sum(0) / weights.sum()
            assert line["samples"][row] == pytest.approx(float(weights.sum()))
            torch.testing.assert_close(torch.tensor(line["gate_mean"][row]).double(), mean[:, :-1], atol=2e-6, rtol=0)
            torch.testing.assert_close(torch.tensor(line["gate_entropy"][row]).double(), mean[:, -1], atol=2e-6, rtol=0)
    assert "background" not in lines[0]["labels"]
    assert len(lines[0]["layers"]) == len(lines[0]["branch_cosine"]) == len(lines[0]["gate_mean"][0])
    last = metrics(settings)[-1]
    assert sum(lines[-1]["branch_cosine"]) / len(lines[-1]["layers"]) == pytest.approx(last["branch_cosine"], abs=1e-5)
    assert sum(lines[-1]["dead_branches"]) / len(lines[-1]["layers"]) == pytest.approx(last["dead_branches"])


def test_cosines_are_the_branches_own() -> None:
    """Against each pair of B worked out by itself; a layer whose B are zero has none."""
    model = torch.nn.ModuleDict({
        name: hydralora.HydraLinear(torch.nn.Linear(5, 7), rank=2, alpha=2, branches=3) for name in ("a", "b", "zero")
    })  # fmt: skip
    for number, name in enumerate("ab"):
        model[name].lora_B.data = torch.randn((7, 6), generator=torch.Generator().manual_seed(number))
    found = hydralora.branch_cosines(hydralora.branch_products(model))
    for place, name in enumerate("ab"):
        parts = [part.flatten() for part in model[name].lora_B.detach().split(2, 1)]
        pairs = [torch.cosine_similarity(parts[one], parts[two], 0) for one, two in ((0, 1), (0, 2), (1, 2))]
        assert float(found[place]) == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-6)
    assert float(found[2]) == 0.0


def test_a_resumed_run_writes_the_same_diagnostics(
    run: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the line whose steps lie on both sides of the kill."""
    settings = {name: run(name, epochs=2, router_every=5, checkpoint_every=3) for name in ("whole", "broken")}
    loop.train_loop(settings["whole"])
    kill_in_step(monkeypatch, settings["broken"], 5)
    loop.train_loop(settings["broken"])
    assert [line["step"] for line in routers(settings["whole"])] == [5, 6]
    assert routers(settings["broken"]) == routers(settings["whole"])


def test_one_branch_has_no_router_to_look_at(run: Callable[..., passes.Settings]) -> None:
    settings = run("single", epochs=1, branches=1, router_every=1)
    loop.train_loop(settings)
    assert routers(settings) == []


def test_the_time_of_a_step_is_told_apart(run: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader and an optimizer that dawdle are seen where they are, and nowhere else."""
    real_read, real_sum = passes.Passes.read, passes.Passes.sum_gradients

    def slow_read(self: Any, one: dataset.Sample) -> dict[str, torch.Tensor]:
        time.sleep(0.4)
        return real_read(self, one)

    def slow_sum(self: Any) -> None:
        time.sleep(0.3)
        real_sum(self)

    settings = run("slow", epochs=1)
    monkeypatch.setattr(passes.Passes, "read", slow_read)
    monkeypatch.setattr(passes.Passes, "sum_gradients", slow_sum)
    loop.train_loop(settings)
    sizes = [len(batch.places) for batch in dataset.epoch_batches(dataset.read_index(settings.run_folder), 2, 0, 0)]
    for line, size in zip(metrics(settings), sizes):
        phases = {phase: line[f"{phase}_s"] for phase in clock.PHASES}
        assert all(seconds > 0 for seconds in phases.values())
        assert 0.8 * line["step_s"] <= sum(phases.values()) <= line["step_s"] + 1e-6
        assert 0.4 * size <= phases["data"] and phases["sync"] >= 0.3
        assert line["step_s"] - phases["data"] - phases["sync"] >= phases["forward"] + phases["backward"]
    assert passes.Clock("cpu").seconds() == {f"{phase}_s": 0.0 for phase in clock.PHASES}
