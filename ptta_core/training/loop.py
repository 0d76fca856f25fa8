"""The training loop: the same function in this process and in every Ray worker. It knows torch, not Ray.

Every worker holds the frozen base and the adapter; after the backward passes the adapter's gradients are summed in one
all-reduce. A sample's loss is divided by the size of the GLOBAL batch, so the sum is the gradient of the batch mean at
any number of workers, and a worker without a sample adds zeros. Samples pass one at a time: memory is that of one
sample whatever the batch, and no text is padded.
"""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ptta_core.config import TrainConfig
from ptta_core.models import hydralora, lora_files
from ptta_core.models.hunyuan import load_transformer, pick_device, torch_dtype
from ptta_core.training import checkpoint, held_out
from ptta_core.training.average import Average
from ptta_core.training.checkpoint import CheckpointError
from ptta_core.training.dataset import (
    Batch,
    DatasetError,
    Sample,
    epoch_batches,
    label_mean,
    read_index,
    read_sample,
    split,
    steps_an_epoch,
    sync_folder,
    write_whole,
)
from ptta_core.training.objective import draw, velocity_loss

ADAPTER, METRICS, HELD_OUT = "adapter.safetensors", "metrics.jsonl", "held_out.jsonl"
CHECKPOINTS, INIT = "checkpoints", "init.safetensors"
FINISHED = -1

log = logging.getLogger(__name__)


class NotFinite(ArithmeticError):
    """The loss or the gradient became NaN or infinity; going on would spoil the adapter."""

    kind = "training_not_finite"


class OtherWorker(DatasetError):
    """Another worker cannot go on; its own error says why."""


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


@dataclass(frozen=True)
class World:
    """This worker's place among all. With size > 1 torch's default process group is up."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"


def total_steps(index: Sequence[Sample], config: TrainConfig) -> int:
    """Optimizer steps of the whole run; samples that are held out make none."""
    return config.epochs * steps_an_epoch(split(index)[0], config.batch)


def train_loop(settings: Settings, world: World | None = None) -> None:
    """Train from the newest checkpoint, if any, to the end; rank 0 leaves RUN/adapter.safetensors.

    RUN/init.safetensors, if there, is the adapter that a new run begins with.
    A finished run returns at once. `world` None: alone, on the settings' device. RUN/metrics.jsonl has one line a step:
    {step (from 1), loss, grad_norm (before clipping), lr, gate_mean, gate_entropy, step_s}. Where samples are held out,
    RUN/held_out.jsonl has one a checkpoint: {step, t, loss (one a t), samples}.
    Raises DatasetError, CheckpointError, NotFinite: on every worker alike, as OtherWorker where it is another's.
    """
    world = world or World(device=pick_device(settings.device))
    run = Path(settings.run_folder)
    done = FINISHED if (run / ADAPTER).exists() else checkpoint.step_of(checkpoint.latest(run / CHECKPOINTS))
    start = _as_rank_0(done, world)  # one worker looks, so all agree whatever the file system shows them
    if start == FINISHED:
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        _begin(settings, world, start).run(start)
    finally:
        torch.set_num_threads(threads)


def _begin(settings: Settings, world: World, start: int) -> "_Training":
    """This worker's part, resumed where `start` steps are done. Raises DatasetError, CheckpointError."""
    error: DatasetError | CheckpointError | None = None
    try:
        training = _Training(settings, world)
        if start:
            training.resume(checkpoint.path_of(training.folder / CHECKPOINTS, start))
        elif (training.folder / INIT).exists():
            training.start_from(training.folder / INIT)
    except (DatasetError, CheckpointError) as bad:
        error = bad
    _agree(error, world)
    return training


class _Training:
    """One worker's model, optimizer and samples."""

    def __init__(self, settings: Settings, world: World) -> None:
        self.settings, self.world, self.folder = settings, world, Path(settings.run_folder)
        self.config = config = TrainConfig(**settings.config)
        self.index, self.held_out = split(read_index(self.folder))
        self.labels = _label_names(settings, config, self.index)
        self.dtype = torch_dtype(settings.dtype)
        self.model: Any = load_transformer(settings.base, settings.revision, settings.dtype, world.device)
        hydralora.inject(
            self.model, placement=config.placement, rank=config.rank, alpha=config.lora_alpha,
            branches=config.branches, gate=config.gate, seed=config.seed,
        )  # fmt: skip
        if config.checkpointing:
            self.model.enable_gradient_checkpointing()
        self.parameters: list[torch.nn.Parameter] = list(hydralora.adapter_parameters(self.model))
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.average = Average(self.parameters, config.ema_decay) if config.ema_decay else None

    def run(self, start: int) -> None:
        """From `start` finished steps, loaded before, to the end."""
        config, total = self.config, total_steps(self.index, self.config)
        if self.world.rank == 0:
            _truncate(self.folder / METRICS, start)
            _truncate(self.folder / HELD_OUT, start)
        an_epoch = steps_an_epoch(self.index, config.batch)
        batches: list[Batch] = []
        for step in range(start, total):
            epoch, place = divmod(step, an_epoch)
            if not batches or place == 0:
                batches = epoch_batches(self.index, config.batch, config.seed, epoch)
            line = self.step(step, batches[place])
            due = (step + 1) % config.checkpoint_every == 0 or step + 1 == total
            measured = self.measure(step + 1) if due and self.held_out else None
            if self.world.rank == 0:
                self.record(line, due, measured)
        if self.world.rank == 0:
            self.finish()

    def resume(self, path: Path) -> None:
        log.info("resuming from %s", path.name)
        hydralora.load_adapter_state(self.model, checkpoint.load_adapter(path))
        checkpoint.load_optimizer(path, self.optimizer)
        if self.average:
            self.average.load(checkpoint.load_average(path))

    def start_from(self, path: Path) -> None:
        """Begin with the weights of another adapter. Raises CheckpointError where they do not fit."""
        try:
            lora_files.start_from(self.model, path)
        except ValueError as error:
            raise CheckpointError(f"train.init_from: {error}") from error
        if self.average:
            self.average.restart()

    def step(self, step: int, batch: Batch) -> dict[str, Any]:
        """One optimizer step; its line of metrics."""
        began = time.monotonic()
        lr = self.config.learning_rate * min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss, gate_entropy, *gate_mean = self.means(self.together(self.backward, batch), len(batch.places))
        self.sum_gradients()
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            samples = ", ".join(self.index[place].latent_id for place in batch.places)
            raise NotFinite(f"step {step + 1}: loss {loss}, gradient norm {norm}; samples: {samples}. "
                            "Lower train.learning_rate, or check these samples.")  # fmt: skip
        self.optimizer.step()
        if self.average:
            self.average.update(step + 1)
        return {"step": step + 1, "loss": loss, "grad_norm": norm, "lr": lr, "gate_mean": gate_mean,
                "gate_entropy": gate_entropy, "step_s": time.monotonic() - began}  # fmt: skip

    def backward(self, batch: Batch) -> torch.Tensor:
        """Gradients of this worker's samples, each its part of the global mean.

        Returns the sums over its samples of (loss, gate entropy in nats, mean weight of each branch), float64.
        """
        config = self.config
        sums = torch.zeros(2 + config.branches, dtype=torch.float64)
        for place, sample_index in batch.share(self.world.rank, self.world.size):
            sample = read_sample(self.folder, self.index[place])
            noise_CTHW, t = draw(sample["latents"].shape, config.seed, sample_index, config.shift)
            self.condition(self.index[place], sample)
            hydralora.collect_gates(self.model, True)
            shares = self.supervise(self.index[place], sample)
            loss = self.loss(sample, noise_CTHW, t)
            whole = loss + config.router_label_weight * hydralora.label_loss(self.model, shares) if shares else loss
            (whole / len(batch.places)).backward()
            if shares:
                hydralora.keep_live_gates(self.model, 0)
            mean, entropy = hydralora.gate_stats(self.model, reset=True)
            sums += torch.tensor([float(loss.detach()), entropy, *mean], dtype=torch.float64)
        return sums

    def condition(self, one: Sample, sample: dict[str, torch.Tensor]) -> None:
        """What the gates read of a sample."""
        shares, device = one.shares(self.labels), self.world.device
        labels_1N = torch.tensor([shares], device=device) if any(shares) else None  # None: all branches alike
        hydralora.set_condition(self.model, labels_1N, sample["pooled"][None].to(device).float())

    def supervise(self, one: Sample, sample: dict[str, torch.Tensor]) -> list[float]:
        """The labels that the routers are pulled towards in the coming pass; [] for none, or a clip without labels."""
        shares = one.shares(self.labels) if self.config.router_label_weight else []
        if not any(shares):
            return []
        patch, patch_t = self.model.config.patch_size, self.model.config.patch_size_t
        _, frames, height, width = sample["latents"].shape
        hydralora.keep_live_gates(self.model, (frames // patch_t) * (height // patch) * (width // patch))
        return shares

    def loss(self, sample: dict[str, torch.Tensor], noise_CTHW: torch.Tensor, t: float) -> torch.Tensor:
        """See velocity_loss."""
        return velocity_loss(self.model, sample, noise_CTHW, t, self.config.guidance, self.dtype, self.world.device)

    def together(self, compute: Callable[..., torch.Tensor], *given: Any) -> torch.Tensor:
        """`compute(*given)` on all workers, or DatasetError on all: one stopped alone would leave others waiting."""
        error, sums = None, torch.empty(0)
        try:
            sums = compute(*given)
        except DatasetError as bad:
            error = bad
        _agree(error, self.world)
        return sums

    def means(self, sums: torch.Tensor, samples: int) -> list[float]:
        """Sums over this worker's samples, added up over all workers, a sample."""
        if self.world.size > 1:
            sums = sums.to(self.world.device)
            dist.all_reduce(sums)
        return (sums / samples).tolist()

    def measure(self, step: int) -> dict[str, Any]:
        """The held-out loss after `step` steps, of the weights that would be exported now."""
        with self.exported():
            losses = self.means(self.together(self.held_out_losses), len(self.held_out))
        return {"step": step, "t": held_out.times(self.config.shift), "loss": losses, "samples": len(self.held_out)}

    @torch.no_grad()
    def held_out_losses(self) -> torch.Tensor:
        """The sums over this worker's held-out samples, one a quarter of the noise scale, float64."""
        sums = torch.zeros(held_out.QUANTILES, dtype=torch.float64)
        for one in self.held_out[self.world.rank :: self.world.size]:
            sample = read_sample(self.folder, one)
            self.condition(one, sample)
            for place, t in enumerate(held_out.times(self.config.shift)):
                noise_CTHW = held_out.noise(sample["latents"].shape, self.config.seed, one, place)
                sums[place] += float(self.loss(sample, noise_CTHW, t))
        return sums

    def exported(self) -> contextlib.AbstractContextManager[None]:
        """The weights that are exported: their average, where one is kept."""
        return self.average.in_place() if self.average else contextlib.nullcontext()

    def sum_gradients(self) -> None:
        """Add up all workers' gradients in one flat all-reduce; a parameter that was not used has a gradient of 0."""
        for one in self.parameters:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        if self.world.size == 1:
            return
        gradients = [one.grad for one in self.parameters if one.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view_as(gradient))

    def record(self, line: dict[str, Any], due: bool, measured: dict[str, Any] | None) -> None:
        """Append the lines, on the disk before the checkpoint that counts them."""
        if measured:
            _append(self.folder / HELD_OUT, measured, sync=True)
        _append(self.folder / METRICS, line, sync=due)
        if due:
            checkpoint.save(
                self.folder / CHECKPOINTS, line["step"], hydralora.adapter_state(self.model), self.optimizer,
                self.average.state() if self.average else None,
                sum(measured["loss"]) / len(measured["loss"]) if measured else None, self.config.keep_every,
            )  # fmt: skip

    def finish(self) -> None:
        """The adapter file, whole or not at all: its presence says that the run is finished."""
        mean = {"label_mean": label_mean(self.index, self.labels)} if self.labels else {}
        with self.exported():
            hydralora.save_adapter(self.folder / ADAPTER, self.model, self.settings.metadata | mean)
        sync_folder(self.folder)


def _label_names(settings: Settings, config: TrainConfig, index: Sequence[Sample]) -> list[str]:
    """The labels that the label gate or the routers' supervision reads, one a branch, in order; else none."""
    if config.gate != "label" and not config.router_label_weight:
        return []
    names = list(settings.metadata.get("labels") or [])
    if len(names) != config.branches:
        raise DatasetError(f"one label a branch is needed: {config.branches} branches, {len(names)} labels {names}")
    if not any(any(one.shares(names)) for one in index):
        raise DatasetError(f"none of the {len(index)} samples has any of the labels {names}")
    return names


def _agree(error: Exception | None, world: World) -> None:
    """Every worker calls this; when one brings an error, it raises it and all others raise OtherWorker."""
    failed = torch.tensor([0.0 if error is None else 1.0], device=world.device)
    if world.size > 1:
        dist.all_reduce(failed)
    if error is not None:
        raise error
    if failed.item():
        raise OtherWorker("another training worker stopped; its error says why")


def _as_rank_0(value: int, world: World) -> int:
    """Rank 0's value, on every worker."""
    if world.size == 1:
        return value
    told = torch.tensor([value], dtype=torch.int64, device=world.device)
    dist.broadcast(told, src=0)
    return int(told.item())


def _append(path: Path, line: dict[str, Any], sync: bool) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _truncate(path: Path, step: int) -> None:
    """Drop the lines of steps that will be done again, and a last line cut short by a kill."""
    kept = b""
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        if not line.endswith(b"\n") or json.loads(line)["step"] > step:
            break
        kept += line
    write_whole(path, kept)
