"""The learning benchmark: its encoder, its measures, its sweep and its resume. A smoke run's figures mean nothing."""

import dataclasses
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_benchmarks import ROOT, figures

sys.path.append(str(ROOT / "benchmarks"))

import learning_base
import learning_cells
import learning_figures
import learning_plan
import learning_styles as styles
import learning_vae

from ptta_core.training.objective import velocity_loss


def clips(count: int, of: tuple[styles.Style, ...] = styles.SEEN) -> list[np.ndarray]:
    rng = random.Random(5)
    return [styles.clip(styles.scene(rng), of[number % len(of)]) for number in range(count)]


def test_the_encoder_is_linear_and_keeps_the_picture() -> None:
    """Its latents of a clip explain nearly all of the clip's pixels, and half-way between two clips lie half-way."""
    drawn = clips(18)
    vae = learning_vae.linear_vae(drawn[:12])
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mode() * learning_vae.SCALING
        between = vae.encode((pixels[:1] + pixels[1:2]) / 2).latent_dist.mode() * learning_vae.SCALING
    assert latents.shape[1:] == (16, 3, 8, 8)
    assert latents[:12].std((0, 2, 3, 4)).sub(1).abs().max() < 0.02
    torch.testing.assert_close(between[0], latents[:2].mean(0), atol=0.02, rtol=0.02)
    frames = torch.cat([pixels[:, :, :1].repeat(1, 1, 3, 1, 1), pixels], 2).unflatten(2, (3, 4))
    wanted = frames.unflatten(5, (8, 8)).unflatten(4, (8, 8)).permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(0, 3)
    known = torch.nn.functional.pad(latents.permute(0, 2, 3, 4, 1).flatten(0, 3), (0, 1), value=1.0)
    half = len(wanted) * 2 // 3
    weights = torch.linalg.lstsq(known[:half], wanted[:half]).solution
    left = (wanted[half:] - known[half:] @ weights).square().sum()
    assert left / (wanted[half:] - wanted[:half].mean(0)).square().sum() < 0.1


def test_unseen_styles_look_unlike_each_other_and_unlike_the_seen() -> None:
    shown = styles.scene(random.Random(1))
    pictures = [styles.clip(shown, style).astype(float) for style in (*styles.SEEN, *styles.UNSEEN)]
    for number, style in enumerate(styles.UNSEEN, len(styles.SEEN)):
        others = [np.abs(pictures[number] - one).mean() for place, one in enumerate(pictures) if place != number]
        assert min(others) > 8, style.name
        assert (styles.clip(shown, style) == pictures[number]).all()


def test_a_batch_of_clips_has_the_losses_of_each_alone() -> None:
    model = learning_base.transformer(learning_plan.QUICK.base)
    generator = torch.Generator().manual_seed(0)
    samples = [
        {"latents": torch.randn(16, 3, 8, 8, generator=generator), "text": torch.randn(length, 32, generator=generator),
         "pooled": torch.randn(16, generator=generator)} for length in (3, 7)
    ]  # fmt: skip
    noise, t = torch.randn(2, 16, 3, 8, 8, generator=generator), torch.tensor([0.3, 0.8])
    with torch.no_grad():
        both = learning_base.errors(model, samples, noise, t)
        alone = [velocity_loss(model, one, noise[at], float(t[at]), 1.0, torch.float32, "cpu")
                 for at, one in enumerate(samples)]  # fmt: skip
    torch.testing.assert_close(both, torch.stack(alone), rtol=1e-4, atol=1e-5)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Differences with a spread between seeds and one between clips; five seeds cover somewhat less than 95 %."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        values = 0.3 + 0.1 * rng.normal(size=(5, 1)) + 0.2 * rng.normal(size=(1, 24)) + 0.1 * rng.normal(size=(5, 24))
        _, low, high = learning_figures.crossed(values, [0] * 12 + [1] * 12)
        hits += low < 0.3 < high
    assert 48 <= hits <= 60


@pytest.mark.parametrize(("best", "expected"), [(1e-2, 3), (1e-1, 4), (1e-3, 4), (10.0, 5)])
def test_a_sweep_goes_on_where_the_best_rate_is_at_its_end(best: float, expected: int) -> None:
    def score(arm: str, rate: float) -> float:
        return abs(np.log(rate / (best if arm == "first" else 1e-2)))

    tried, found = learning_cells.swept({"first": (1e-3, 1e-2, 1e-1), "other": (1e-3, 1e-2, 1e-1)}, 2, score)
    assert len(tried["first"]) == len(tried["other"]) == expected
    assert found["other"] == 1e-2 and found["first"] == min(tried["first"], key=lambda rate: score("first", rate))


def test_what_gates_tell_of_a_style() -> None:
    even = np.full((4, 2, 4), 0.25)
    assert learning_figures.information(even) == pytest.approx(0)
    assert learning_figures.information(np.stack([np.eye(4)] * 2, 1)) == pytest.approx(1)


def test_a_finished_cell_is_kept_and_a_torn_line_is_not(tmp_path: Path) -> None:
    base = learning_base.tiny.hunyuan(tmp_path / "base", 0)
    calls: list[Path] = []

    def compute(run: Path) -> dict:
        calls.append(run)
        return {"validation": len(calls)}

    first = learning_cells.Bench(tmp_path, base, None).cell({"arm": "x"}, compute)
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write('{"key": "to')
    again = learning_cells.Bench(tmp_path, base, None)
    assert again.cell({"arm": "x"}, compute) == first and len(calls) == 1
    again.cell({"arm": "y"}, compute)
    assert [json.loads(line)["arm"] for line in (tmp_path / "results.jsonl").read_text().splitlines()] == ["x", "y"]


def test_a_plan_is_a_base_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[learning_plan.BasePlan] = []
    monkeypatch.setattr(learning_base, "_write", lambda new, plan: (new.mkdir(), made.append(plan)))
    plan = learning_plan.BasePlan()
    first = learning_base.make(tmp_path, plan)
    assert learning_base.make(tmp_path, plan) == first
    assert learning_base.make(tmp_path, dataclasses.replace(plan, steps=7)) != first
    assert len(made) == 2


def test_a_smoke_run() -> None:
    found, table = figures("learning.py")
    arms = {"hydra token", "hydra label", "lora, equal rank", "lora, equal size"}
    assert set(found["best_rates"]) == arms and all(0 < found[f"loss {arm}"] < 9 for arm in arms)
    assert found["hydra_share_of_full"]["mean"] > 0 and not found["b_real"]
    assert "share of full fine-tuning's fall" in table and "the drawn cartoon" in table
