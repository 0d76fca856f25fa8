"""Part a of the learning benchmark: four unseen styles, HydraLoRA against plain LoRA of equal rank and of equal size.

All arms see the same clips, prompts (which name the style), order, noise and number of steps, through train_loop. Each
has its own rate, chosen on validation clips; what decides is the loss on test clips, from the adapter file as written.
"""

import functools
import math
from pathlib import Path
from typing import Any

import learning_base as bases
import learning_styles as styles
import torch
from learning_cells import Bench, base_losses, learn, mean_score, parameters, swept
from learning_plan import BRANCHES, StylesPlan, common

from ptta_core.config import TrainConfig
from ptta_core.models import hunyuan, hydralora, lora_files, lora_reading
from ptta_core.training.loop import ADAPTER

NAMES = [style.name for style in styles.UNSEEN]
EQUAL_SIZE = "lora, equal size"
ARMS = ("hydra token", "hydra label", "lora, equal rank", EQUAL_SIZE)


@functools.cache
def equal_rank(base: Path, rank: int) -> int:
    """The least rank at which a plain LoRA has at least as many parameters as token-gated HydraLoRA of `rank`."""
    sizes = []
    for given, branches in ((rank, BRANCHES), (1, 1)):
        model = hunyuan.load_transformer(str(base), None, "float32", "cpu")
        hydralora.inject(model, placement="non_attention", rank=given, alpha=given, branches=branches, gate="token",
                         seed=0)  # fmt: skip
        sizes.append(parameters(model))
    return math.ceil(sizes[0] / sizes[1])


def config_of(bench: Bench, arm: str, rate: float, seed: int) -> TrainConfig:
    """The train section of a cell."""
    plan: StylesPlan = bench.plan.styles
    rank = equal_rank(bench.base, plan.rank) if arm == EQUAL_SIZE else plan.rank
    gate = "label" if arm == "hydra label" else "token"
    return common(rank=rank, lora_alpha=float(rank), branches=BRANCHES if "hydra" in arm else 1, gate=gate,
                  learning_rate=rate, epochs=plan.epochs, seed=seed, ema_decay=0.95)  # fmt: skip


class Sets:
    """The clips of part a; the ids of test clips say their style."""

    def __init__(self, bench: Bench) -> None:
        plan, base = bench.plan.styles, bench.base
        self.learned = [bases.encoded(base, f"train {seed}", plan.a_style, NAMES) for seed in range(plan.seeds)]
        self.validation = bases.encoded(base, "validation", plan.validation_a_style, NAMES)
        self.test = bases.read(bases.encoded(base, "test", plan.test_a_style, NAMES))
        self.shares_BN = torch.tensor([one.shares(NAMES) for one, _ in self.test])

    def of_style(self, number: int) -> list[int]:
        """Places of the test clips of a style."""
        return [place for place, shares in enumerate(self.shares_BN.tolist()) if shares[number]]


def run_of(bench: Bench, sets: Sets, arm: str, rate: float, seed: int) -> dict[str, Any]:
    """One cell: train, then measure the test clips; its record."""
    config = config_of(bench, arm, rate, seed)

    def compute(run: Path) -> dict[str, Any]:
        told = learn(bench, run, [sets.learned[seed]], config, NAMES, sets.validation)
        if told["stopped"]:
            return told
        model = bench.adapted(run)
        found = told | {"parameters": parameters(model), "test": measured(model, sets, sets.shares_BN).tolist()}
        return found | {"run": run.name}

    return bench.cell({"part": "a", "arm": arm, "rate": rate, "seed": seed, "sets": sizes(bench),
                       "config": config.model_dump(exclude_unset=True)}, compute)  # fmt: skip


def sizes(bench: Bench) -> dict[str, int]:
    """What the sets depend on, beside their names."""
    plan = bench.plan.styles
    return {"learn": plan.a_style, "validation": plan.validation_a_style, "test": plan.test_a_style}


def measured(model: Any, sets: Sets, shares_BN: torch.Tensor | None) -> torch.Tensor:
    """[clips, levels]: the losses of the test clips under these labels, style by style."""
    found = torch.zeros(len(sets.test), len(bases.levels()))
    for number in range(len(NAMES)):
        places = sets.of_style(number)
        hydralora.set_condition(model, None if shares_BN is None else shares_BN[places[:1]])
        found[places] = bases.losses(model, [sets.test[place] for place in places])
    return found


def compared(bench: Bench) -> dict[str, Any]:
    """Everything: the sweep, the records at each arm's best rate, seed by seed, the base's losses, and diagnoses."""
    plan: StylesPlan = bench.plan.styles
    sets = Sets(bench)

    def score(arm: str, rate: float) -> float:
        return mean_score([run_of(bench, sets, arm, rate, seed) for seed in range(plan.seeds)])

    tried, best = swept({arm: plan.rates for arm in ARMS}, bench.plan.more_rates, score)
    chosen = {arm: [run_of(bench, sets, arm, best[arm], seed) for seed in range(plan.seeds)] for arm in ARMS}
    curves = {arm: {rate: score(arm, rate) for rate in tried[arm]} for arm in ARMS}
    return {"curves": curves, "best": best, "cells": chosen, "base": base_losses(bench, "a", sets.test),
            "style": [shares.index(1.0) for shares in sets.shares_BN.tolist()],
            "gates": [diagnosed(bench, sets, chosen[arm][seed]) for arm in ARMS[:2] for seed in range(plan.seeds)
                      if "run" in chosen[arm][seed]]}  # fmt: skip


# ------------------------------------------------------------------------------------------------ the routers


def diagnosed(bench: Bench, sets: Sets, cell: dict[str, Any]) -> dict[str, Any]:
    """What the gates of a trained cell do.

    Token gate: the mean gate of each style, each layer, [styles, layers, branches], trained and untrained; the mean
    entropy of a token's gate, nats; the test loss with every gate at its mean over all styles. Label gate: the test
    loss under another style's label, and under none.
    """

    def compute(_: Path) -> dict[str, Any]:
        run = bench.folder / "runs" / cell["run"]
        model = bench.adapted(run)
        if cell["arm"] == "hydra label":
            swapped = measured(model, sets, sets.shares_BN.roll(1, dims=1))
            return {"swapped": swapped.tolist(), "unlabelled": measured(model, sets, None).tolist()}
        fresh = bench.clean()
        settings = hydralora.read_config(run / ADAPTER)
        hydralora.inject(fresh, **{key: settings[key] for key in hydralora.CONFIG_KEYS}, seed=cell["seed"])
        gates_SLN, entropy, names = mean_gates(model, sets)
        pairs = lora_files.merged(run / ADAPTER, dict(zip(names, gates_SLN.mean(0).tolist())))
        untrained = mean_gates(fresh, sets)[0]
        hydralora.remove(model)
        lora_reading.put(model, pairs)
        return {"gates": gates_SLN.tolist(), "untrained": untrained.tolist(), "layers": names, "entropy": entropy,
                "flattened": measured(model, sets, None).tolist()}  # fmt: skip

    return bench.cell({"part": "a gates", "of": cell["key"], "arm": cell["arm"], "seed": cell["seed"]}, compute)


def mean_gates(model: Any, sets: Sets) -> tuple[torch.Tensor, float, list[str]]:
    """[styles, layers, branches]: the mean gate over tokens, test clips and levels; the entropy of a token's gate,
    nats, averaged over all; the layers' names."""
    layers = hydralora.layers(model)
    means = []
    for number in range(len(NAMES)):
        sums = torch.zeros(len(layers), BRANCHES + 1)

        def add(*_: Any, sums: torch.Tensor = sums) -> None:
            sums += torch.stack([layer.stats for layer in layers.values() if layer.stats is not None])

        hook = model.register_forward_hook(add)
        hydralora.collect_gates(model, True)
        bases.losses(model, [sets.test[place] for place in sets.of_style(number)])
        hydralora.collect_gates(model, False)
        hook.remove()
        means.append(sums / sums[:, :-1].sum(1, keepdim=True))
    found = torch.stack(means)
    return found[..., :-1], float(found[..., -1].mean()), list(layers)
