"""Samples through the model: what a worker adds to the sums of a step, and to those of the held-out loss.

Samples pass one at a time: memory is that of one sample whatever the batch, and no text is padded. A sample's loss is
divided by the size of the GLOBAL batch, so the sum over workers, however many, is the gradient of the batch mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ptta_core.config import TrainConfig
from ptta_core.models import hydralora
from ptta_core.models.hunyuan import load_transformer, torch_dtype
from ptta_core.training import held_out
from ptta_core.training.clock import Clock
from ptta_core.training.dataset import Batch, DatasetError, Sample, read_index, read_sample, split
from ptta_core.training.diagnostics import Diagnostics
from ptta_core.training.memory import compile_blocks, keep_inputs_only
from ptta_core.training.objective import draw, velocity_loss
from ptta_core.training.previews import Plan
from ptta_core.training.workers import World, together


@dataclass(frozen=True)
class Settings:
    """One training run. Everything in it travels to other processes."""

    run_folder: str  # absolute, with the pinned samples; seen by every worker
    base: str  # folder or hub id
    revision: str | None
    dtype: str  # of the frozen base: "bfloat16" or "float32"
    device: str  # "auto", "cpu" or "cuda"
    threads: int  # torch threads a worker
    config: dict[str, Any]  # TrainConfig.model_dump()
    metadata: dict[str, Any]  # for the adapter file; "labels" (a list) names the label gate's inputs in order
    shard: bool = False  # several workers hold a part of every weight each
    storage: str = "dtype"  # of the base's large weights: "fp8" for 8-bit floats
    offload: bool = False  # inputs of checkpointed blocks wait in the host's memory
    compile: bool = False  # the transformer's blocks
    attempt: str = ""  # the driver's name for this attempt: see notice.py
    previews: Plan | None = None


class Passes:
    """One worker's model, adapter and samples."""

    def __init__(self, settings: Settings, world: World) -> None:
        self.settings, self.world, self.folder = settings, world, Path(settings.run_folder)
        self.config = config = TrainConfig(**settings.config)
        self.sharded = settings.shard and world.size > 1
        self.index, self.held_out = split(read_index(self.folder))
        self.labels = label_names(settings, config, self.index)
        self.dtype = torch_dtype(settings.dtype)
        device = "cpu" if self.sharded else world.device  # a model to be sharded may be too large for one device
        self.model: Any = load_transformer(settings.base, settings.revision, settings.dtype, device, settings.storage)
        hydralora.inject(
            self.model, placement=config.placement, rank=config.rank, alpha=config.lora_alpha,
            branches=config.branches, gate=config.gate, seed=config.seed,
        )  # fmt: skip
        if config.checkpointing:
            keep_inputs_only(self.model, settings.offload)
        if settings.compile:
            compile_blocks(self.model)
        layers = list(hydralora.layers(self.model))
        self.usual_LN = torch.full((len(layers), config.branches), 1 / config.branches)
        self.routers = Diagnostics(layers, config.branches, settings.metadata.get("labels") or [])
        self.clock = Clock(world.device)
        self.parameters: list[torch.nn.Parameter] = list(hydralora.adapter_parameters(self.model))

    def backward(self, batch: Batch) -> torch.Tensor:
        """Gradients of this worker's samples, each its part of the global mean.

        Returns the sums over its samples of the loss and of what Diagnostics keeps of every layer's mean gate and gate
        entropy (nats), float64: [1 + width].
        """
        own = batch.share(self.world.rank, self.world.size)
        sums = torch.zeros(1 + self.routers.width, dtype=torch.float64)
        for place, sample_index in own:
            sums += self.one_backward(self.index[place], sample_index, 1 / len(batch.places))
        for _ in range(self.idle(len(own), len(batch.places))):
            self.one_backward(self.index[batch.places[0]], batch.first, 0.0)
        return sums

    def one_backward(self, one: Sample, sample_index: int, share: float) -> torch.Tensor:
        """Add `share` of a sample's gradient; its loss and its part of the diagnostics, float64."""
        config, sample = self.config, self.read(one)
        self.clock.lap("data")
        noise_CTHW, t = draw(sample["latents"].shape, config.seed, sample_index, config.shift)
        self.condition(one, sample)
        hydralora.collect_gates(self.model, True)
        shares = self.keep_gates(one, sample)
        loss = whole = self.loss(sample, noise_CTHW, t, config.temporal_loss_weight)
        if shares:
            whole = whole + config.router_label_weight * hydralora.label_loss(self.model, shares)
        if config.balance_weight:
            usual_LN = self.usual_LN.to(self.world.device)
            whole = whole + config.balance_weight * hydralora.balance_loss(self.model, usual_LN)
        self.clock.lap("forward")
        # Sharded gradients are averaged over workers, and a batch's mean is wanted: times the workers.
        (whole * (share * self.world.size if self.sharded else share)).backward()
        hydralora.keep_live_gates(self.model, 0)
        self.clock.lap("backward")
        gates_LG = hydralora.layer_stats(self.model, reset=True)
        of_labels = self.routers.of_sample(gates_LG, one.shares(self.routers.labels[1:]))
        self.clock.lap("")
        return torch.cat([loss.detach().cpu().double()[None], of_labels])

    def read(self, one: Sample) -> dict[str, torch.Tensor]:
        """A sample; where the model is sharded, each worker's at the same time, or an error on all of them."""
        if self.sharded:
            return together(self.world, (DatasetError,), read_sample, self.folder, one)
        return read_sample(self.folder, one)

    def idle(self, own: int, samples: int) -> int:
        """Passes without effect for a worker with `own` of the samples: a sharded model waits for every worker."""
        return math.ceil(samples / self.world.size) - own if self.sharded else 0

    def condition(self, one: Sample, sample: dict[str, torch.Tensor]) -> None:
        """What the gates read of a sample."""
        shares, device = one.shares(self.labels), self.world.device
        labels_1N = torch.tensor([shares], device=device) if any(shares) else None  # None: all branches alike
        hydralora.set_condition(self.model, labels_1N, sample["pooled"][None].to(device).float())

    def keep_gates(self, one: Sample, sample: dict[str, torch.Tensor]) -> list[float]:
        """Keep the coming pass's gates for the losses on them. The labels that routers are pulled towards, or []."""
        shares = one.shares(self.labels) if self.config.router_label_weight else []
        shares = shares if any(shares) else []  # a clip without labels pulls nowhere
        if shares or self.config.balance_weight:
            patch, patch_t = self.model.config.patch_size, self.model.config.patch_size_t
            _, frames, height, width = sample["latents"].shape
            hydralora.keep_live_gates(self.model, (frames // patch_t) * (height // patch) * (width // patch))
        return shares

    def loss(
        self, sample: dict[str, torch.Tensor], noise_CTHW: torch.Tensor, t: float, temporal_weight: float = 0.0
    ) -> torch.Tensor:
        """See velocity_loss. The held-out loss has no temporal term, so runs of different weights compare."""
        config = self.config
        return velocity_loss(self.model, sample, noise_CTHW, t, config.guidance, self.dtype, self.world.device,
                             temporal_weight)  # fmt: skip

    @torch.no_grad()
    def held_out_losses(self) -> torch.Tensor:
        """The sums over this worker's held-out samples, one a quarter of the noise scale, float64."""
        sums = torch.zeros(held_out.QUANTILES, dtype=torch.float64)
        own = self.held_out[self.world.rank :: self.world.size]
        spare = self.idle(len(own), len(self.held_out))
        for number, one in enumerate([*own, *self.held_out[:spare]]):
            sample = self.read(one)
            self.condition(one, sample)
            for place, t in enumerate(held_out.times(self.config.shift)):
                noise_CTHW = held_out.noise(sample["latents"].shape, self.config.seed, one, place)
                loss = float(self.loss(sample, noise_CTHW, t))
                sums[place] += loss if number < len(own) else 0.0
        return sums

    def sum_gradients(self) -> None:
        """Add up all workers' gradients in one flat all-reduce; a parameter that was not used has a gradient of 0."""
        for one in self.parameters:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        if self.world.size == 1 or self.sharded:  # sharded: done as they were scattered
            return
        gradients = [one.grad for one in self.parameters if one.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view_as(gradient))


def label_names(settings: Settings, config: TrainConfig, index: Sequence[Sample]) -> list[str]:
    """The labels that the label gate or the routers' supervision reads, one a branch, in order; else none."""
    if config.gate != "label" and not config.router_label_weight:
        return []
    names = list(settings.metadata.get("labels") or [])
    if len(names) != config.branches:
        raise DatasetError(f"one label a branch is needed: {config.branches} branches, {len(names)} labels {names}")
    if not any(any(one.shares(names)) for one in index):
        raise DatasetError(f"none of the {len(index)} samples has any of the labels {names}")
    return names
