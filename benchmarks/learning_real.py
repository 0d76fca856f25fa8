"""Part b of the learning benchmark: real clips learned by heart, by HydraLoRA and by training the whole base.

The clips come the product's way: gather, split, score, select (one clip a source), caption and encode, with the small
base. Both arms start from that base and see the same batches, noise and number of steps. What counts is how far the
loss on the learned clips falls, at fixed noise.
"""

import shutil
from pathlib import Path
from typing import Any

import footage
import learning_base as bases
import torch
from learning_cells import Bench, base_losses, learn, mean_score, parameters, swept
from learning_plan import BRANCHES, RealPlan, common

from ptta_core import memo
from ptta_core.config import TrainConfig
from ptta_core.ops import runs
from ptta_core.training import dataset
from ptta_core.training.objective import draw, velocity_loss

STAGES = ("gather", "split", "score", "select", "caption", "admit", "encode")
PLACEMENT = {"hydra": "non_attention", "hydra everywhere": "all"}


def clips(bench: Bench, data: Path) -> tuple[Path, bool]:
    """(the folder of the pinned clips, whether they are real), through the product's stages; once."""
    plan: RealPlan = bench.plan.real
    films = footage.real(data) if bench.plan.real_footage else []
    place = bench.base.parent / "sets" / f"{'real' if films else 'cartoon'}-{plan.clips}"
    if (place / "index.json").exists():
        return place, bool(films)
    videos = data / "clips" if films else footage.cartoons(bench.folder / "cartoon", [0])[0].parent
    folder = {"folder": str(videos.resolve()), "exclude": [f"{footage.NEGATIVE}*"]}
    view = runs.open_view("demo", "laptop", {
        "sources.folders": [folder], "select.max_per_source": 1, "select.target": f"{plan.clips} clips",
        "base.model": {"id": str(bench.base)}, "encode.area": 64 * 64, "encode.frames": 9,
        "site.split.count": 0, "site.score.count": 0, "site.caption.count": 0, "site.encode.count": 0,
    }, str(bench.base.parent / "workspace"))  # fmt: skip
    for name in STAGES:
        memo.run(view.stage(name), view)
    rows = view.rows("encode").to_pylist()
    if len(rows) != plan.clips:
        raise SystemExit(f"{len(rows)} clips were encoded, not {plan.clips}: see the failures in {view.home}")
    tensors = view.store.take_bytes("latents", [row["key"] for row in rows], "tensors")
    dataset.pin(place, ((row["latent_id"], row["bucket"], row["labels"], tensors[row["key"]]) for row in rows))
    return place, bool(films)


def config_of(plan: RealPlan, arm: str, rate: float, seed: int) -> TrainConfig:
    """The train section of a cell; of it full fine-tuning reads what is no adapter's."""
    return common(rank=plan.rank, lora_alpha=float(plan.rank), branches=BRANCHES, gate="token", epochs=plan.epochs,
                  placement=PLACEMENT.get(arm, "all"), learning_rate=rate, seed=seed)  # fmt: skip


def full_tuning(model: Any, place: Path, config: TrainConfig) -> None:
    """Train every weight of `model`, in place: the loop's batches, draws, loss, warm-up, clipping and optimizer."""
    samples = bases.read(place)
    index = [one for one, _ in samples]
    own = list(model.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(own, lr=config.learning_rate, weight_decay=config.weight_decay)
    step = 0
    for epoch in range(config.epochs):
        for batch in dataset.epoch_batches(index, config.batch, config.seed, epoch):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1.0, step / max(1, config.warmup_steps))
            optimizer.zero_grad(set_to_none=True)
            for at, number in batch.share(0, 1):
                tensors = samples[at][1]
                noise, t = draw(tensors["latents"].shape, config.seed, number, config.shift)
                loss = velocity_loss(model, tensors, noise, t, config.guidance, torch.float32, "cpu")
                (loss / len(batch.places)).backward()
            torch.nn.utils.clip_grad_norm_(own, config.max_grad_norm)
            optimizer.step()
    model.requires_grad_(False)


def run_of(bench: Bench, place: Path, arm: str, rate: float, seed: int) -> dict[str, Any]:
    """One cell: train on the clips, then measure the same clips; its record."""
    config = config_of(bench.plan.real, arm, rate, seed)

    def compute(run: Path) -> dict[str, Any]:
        if arm == "full":
            told, model = {"stopped": ""}, bench.clean()
            full_tuning(model, place, config)
            count = sum(one.numel() for one in model.parameters())
        else:
            told = learn(bench, run, [place], config, [])
            if told["stopped"]:
                return told
            model = bench.adapted(run)
            count = parameters(model)
            shutil.rmtree(run)
        losses = bases.losses(model, bases.read(place))
        return told | {"parameters": count, "test": losses.tolist(), "validation": float(losses.mean())}

    what = {"part": "b", "arm": arm, "rate": rate, "seed": seed, "clips": place.name,
            "config": config.model_dump(exclude_unset=True)}  # fmt: skip
    return bench.cell(what, compute)


def compared(bench: Bench, data: Path) -> dict[str, Any]:
    """Everything: the sweep, the records at each arm's best rate, seed by seed, and the base's losses."""
    plan: RealPlan = bench.plan.real
    place, real = clips(bench, data)

    def score(arm: str, rate: float) -> float:
        return mean_score([run_of(bench, place, arm, rate, seed) for seed in range(plan.seeds)])

    tried, best = swept(dict(plan.rates), bench.plan.more_rates, score)
    return {"curves": {arm: {rate: score(arm, rate) for rate in rates} for arm, rates in tried.items()}, "best": best,
            "cells": {arm: [run_of(bench, place, arm, best[arm], seed) for seed in range(plan.seeds)] for arm in tried},
            "base": base_losses(bench, "b", bases.read(place)), "real": real,
            "buckets": [one.bucket for one in dataset.read_index(place)]}  # fmt: skip
