"""A run that stops by itself: it says so when it should, only then, and again after a resume."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from test_training import metrics, samples

from ptta_core.config import TrainConfig
from ptta_core.models import hydralora, tiny
from ptta_core.training import checkpoint, dataset, loop, passes, stops


def lines(losses: list[float], evenness: float = 1.0) -> list[dict[str, Any]]:
    return [{"step": step, "loss": loss, "gate_evenness": evenness} for step, loss in enumerate(losses, start=1)]


def stops_at(config: TrainConfig, steps: list[dict[str, Any]], known: int = 0) -> tuple[int, str]:
    """The step that stops the run and why; (0, "") for none. The first `known` steps are another attempt's."""
    watch = stops.Stops(config, steps[:known])
    for line in steps[known:]:
        try:
            watch.see(line)
        except stops.Stopped as error:
            return line["step"], f"{error.kind}: {error}"
    return 0, ""


def test_a_loss_that_stays_far_above_its_median_stops_the_run() -> None:
    usual = [0.5 + 0.4 * (step % 3) for step in range(30)]  # median 0.9
    config = TrainConfig(stop_on_divergence=5.0, stop_after=4)
    for known in (0, 25, 32):
        step, why = stops_at(config, lines([*usual, *[4.6] * 10]), known)
        assert step == 34 and why.startswith("training_diverged: step 34: the loss was above 5 times") and "0.9" in why
    assert stops_at(config, lines([*usual, *[4.4] * 10])) == (0, "")
    assert stops_at(config, lines([*usual, 9, 9, 9, 1, 9, 9, 9, 1])) == (0, "")  # single bad batches
    assert stops_at(config, lines([0.1] * 15 + [9.0] * 8)) == (0, "")  # too early to know what is usual
    assert stops_at(TrainConfig(stop_on_divergence=0), lines([*usual, *[99.0] * 50])) == (0, "")


def test_routers_that_choose_one_branch_stop_the_run() -> None:
    config = TrainConfig(stop_on_collapse=0.02, stop_after=4)
    step, why = stops_at(config, lines([1.0] * 9, 0.01))
    assert step == 4 and why.startswith("router_collapsed: ") and "train.balance_weight" in why
    assert stops_at(config, lines([1.0] * 9, 0.03)) == (0, "")
    assert stops_at(TrainConfig(gate="label", stop_after=4), lines([1.0] * 9, 0.0)) == (0, "")
    assert stops_at(TrainConfig(stop_on_collapse=0, stop_after=4), lines([1.0] * 9, 0.0)) == (0, "")


def test_a_run_whose_routers_count_as_collapsed_stops_and_goes_on_when_told_so(tmp_path: Path) -> None:
    base = str(tiny.hunyuan(tmp_path / "base", 0))
    dataset.pin(tmp_path / "run", samples())
    config = TrainConfig(rank=2, branches=2, batch=2, stop_on_collapse=0.999999999, stop_after=3, checkpoint_every=2)
    run = passes.Settings(str(tmp_path / "run"), base, None, "float32", "cpu", 1, config.model_dump(), {})
    for _ in range(2):  # again at the same step when it is tried again
        with pytest.raises(stops.RouterCollapsed, match="step 3: "):
            loop.train_loop(run)
        assert [line["step"] for line in metrics(run)] == [1, 2, 3]
    assert checkpoint.step_of(checkpoint.latest(tmp_path / "run" / loop.CHECKPOINTS)) == 2
    loop.train_loop(dataclasses.replace(run, config=run.config | {"stop_on_collapse": 0.0}))
    assert len(metrics(run)) == 6


def unevenness(run: Path) -> float:
    """Mean square distance of the usual gates from even, over the layers that read video."""
    path = checkpoint.latest(run / loop.CHECKPOINTS)
    assert path
    names = sorted(key.removesuffix(".lora_B") for key in checkpoint.load_adapter(path) if key.endswith(".lora_B"))
    usual_LN = checkpoint.load_gates(path)
    assert usual_LN is not None and len(usual_LN) == len(names)
    video = [place for place, name in enumerate(names) if not hydralora.TEXT_ONLY.search(name)]
    return float((usual_LN[video] - 0.5).square().mean())


@pytest.mark.parametrize("gate", ["token", "sample"])
def test_balance_evens_the_use_of_branches(tmp_path: Path, gate: str) -> None:
    base = str(tiny.hunyuan(tmp_path / "base", 0))
    uneven = []
    for weight in (0.0, 3.0):
        dataset.pin(tmp_path / f"run{weight}", samples())
        config = TrainConfig(rank=2, branches=2, batch=2, learning_rate=2e-3, epochs=15, balance_weight=weight,
                             gate=gate)  # fmt: skip
        run = passes.Settings(str(tmp_path / f"run{weight}"), base, None, "float32", "cpu", 1, config.model_dump(), {})
        loop.train_loop(run)
        uneven.append(unevenness(tmp_path / f"run{weight}"))
        assert all(-1 <= line["branch_cosine"] <= 1 and line["dead_branches"] == 0 for line in metrics(run))
        assert metrics(run)[0]["branch_cosine"] != 0.0
    assert uneven[1] < 0.6 * uneven[0]
    with pytest.raises(ValueError, match="balance_weight needs a router"):
        TrainConfig(gate="label", balance_weight=0.1)
