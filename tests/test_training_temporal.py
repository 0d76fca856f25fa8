"""The temporal term of the loss: its value from the formula, that 0 is off, and what it makes a model learn."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import samples

from ptta_core.config import TrainConfig
from ptta_core.models import tiny
from ptta_core.training import dataset, loop, objective, passes


def loss(error: torch.Tensor, weight: float) -> float:
    """The loss of a model that is wrong by `error` [C,T,h,w]."""
    generator = torch.Generator().manual_seed(1)
    clean, noise = (torch.randn(error.shape, generator=generator) for _ in range(2))
    sample = {"latents": clean, "text": torch.zeros(4, 8), "pooled": torch.zeros(6)}

    def model(**inputs: Any) -> tuple[torch.Tensor]:
        return ((noise - clean + error)[None],)

    return float(objective.velocity_loss(model, sample, noise, 0.5, 1.0, torch.float32, "cpu", weight))


def test_an_error_that_stays_costs_nothing_more_and_one_that_turns_over_four_times() -> None:
    shape = (16, 6, 4, 4)
    stays = torch.full(shape, 0.5)
    turns = stays * torch.tensor([1.0, -1.0] * 3)[:, None, None]
    for error, factor in ((stays, 0.0), (turns, 4.0)):
        assert loss(error, 0.0) == pytest.approx(0.25, rel=1e-5)
        assert loss(error, 0.7) == pytest.approx(0.25 + 0.7 * factor * 0.25, rel=1e-5)
    many = 0.5 * 2**0.5 * torch.sin(torch.arange(6001) * torch.pi / 3 + 0.3).view(1, -1, 1, 1)
    assert loss(many, 1.0) - loss(many, 0.0) == pytest.approx(0.25 * 4 * 0.5**2, rel=1e-2)  # sin(w / 2) = 1/2


def test_it_is_the_mean_over_neighbouring_frames_and_a_single_frame_has_none() -> None:
    error = torch.randn((3, 4, 2, 5), generator=torch.Generator().manual_seed(5))
    pairs = [(error[:, later] - error[:, later - 1]).square().mean() for later in range(1, 4)]
    by_hand = float(error.square().mean() + 2.5 * torch.stack(pairs).mean())
    assert loss(error, 2.5) == pytest.approx(by_hand, rel=1e-5)
    assert loss(error[:, :1], 2.5) == loss(error[:, :1], 0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("temporal")
    base = str(tiny.hunyuan(folder / "base", 0))

    def make(name: str, **changes: Any) -> passes.Settings:
        dataset.pin(folder / name, samples(0, 1))
        config = TrainConfig(rank=8, branches=2, batch=1, learning_rate=1e-2, epochs=25, **changes).model_dump()
        return passes.Settings(str(folder / name), base, None, "float32", "cpu", 1, config, {})

    return make


def test_off_is_the_plain_loss_and_on_teaches_the_changes(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample by heart: with the term, the error between frames falls further; held-out losses have no such term."""

    def same_draw(shape: torch.Size, seed: int, sample_index: int, shift: float) -> tuple[torch.Tensor, float]:
        return objective.draw(shape, seed, 0, shift)

    monkeypatch.setattr(passes, "draw", same_draw)
    between, real = {}, objective.temporal_loss

    def watched(velocity: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert velocity.shape == (16, 3, 4, 6)
        seen.append(float(real(velocity, target).detach()))
        return real(velocity, target)

    monkeypatch.setattr(objective, "temporal_loss", watched)
    adapters = []
    for weight in (0.0, 1e-12, 4.0):
        seen: list[float] = []
        settings = run(f"weight {weight}", temporal_loss_weight=weight)
        loop.train_loop(settings)
        assert bool(seen) == bool(weight)  # off: it is not even worked out
        between[weight] = seen[-1] if seen else 0.0
        adapters.append((Path(settings.run_folder) / loop.ADAPTER).read_bytes())
    assert between[4.0] < 0.95 * between[1e-12]
    assert adapters[0] != adapters[2]
