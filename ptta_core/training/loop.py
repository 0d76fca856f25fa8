"""The training loop: the same function in this process and in every Ray worker. It knows torch, not Ray.

Every worker holds the frozen base and the adapter, or a part of every weight (sharding.py); the gradients of a step are
summed over the workers once its backward passes are done (passes.py). A worker without a sample adds zeros.
"""

import contextlib
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ptta_core.config import TrainConfig
from ptta_core.models import hydralora, lora_reading
from ptta_core.models.hunyuan import pick_device
from ptta_core.training import checkpoint, held_out, records, stops
from ptta_core.training.average import Average
from ptta_core.training.checkpoint import CheckpointError
from ptta_core.training.dataset import (
    Batch,
    DatasetError,
    Sample,
    epoch_batches,
    label_mean,
    split,
    steps_an_epoch,
    sync_folder,
)
from ptta_core.training.passes import Passes, Settings
from ptta_core.training.sharding import shard
from ptta_core.training.workers import World, as_rank_0, summed, together

ADAPTER, METRICS, HELD_OUT = "adapter.safetensors", "metrics.jsonl", "held_out.jsonl"
CHECKPOINTS, INIT = "checkpoints", "init.safetensors"
FINISHED = -1
GATE_MEMORY = 0.95  # how much of a layer's usual gates a step leaves
DEAD = 0.1  # of an even share: a branch used less counts as dead

log = logging.getLogger(__name__)


def total_steps(index: Sequence[Sample], config: TrainConfig) -> int:
    """Optimizer steps of the whole run; samples that are held out make none."""
    return config.epochs * steps_an_epoch(split(index)[0], config.batch)


def train_loop(settings: Settings, world: World | None = None) -> None:
    """Train from the newest checkpoint, if any, to the end; rank 0 leaves RUN/adapter.safetensors.

    RUN/init.safetensors, if there, is the adapter that a new run begins with.
    A finished run returns at once. `world` None: alone, on the settings' device. RUN/metrics.jsonl has one line a step:
    {step (from 1), loss, grad_norm (before clipping), lr, gate_mean, gate_entropy, gate_evenness, branch_cosine,
    dead_branches, step_s}. Where samples are held out,
    RUN/held_out.jsonl has one a checkpoint: {step, t, loss (one a t), samples}.
    Raises DatasetError, CheckpointError, stops.Stopped: on every worker alike, as OtherWorker where it is another's.
    """
    world = world or World(device=pick_device(settings.device))
    run = Path(settings.run_folder)
    done = FINISHED if (run / ADAPTER).exists() else checkpoint.step_of(checkpoint.latest(run / CHECKPOINTS))
    start = as_rank_0(done, world)  # one worker looks, so all agree whatever the file system shows them
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
    errors = (DatasetError, CheckpointError)
    training = together(world, errors, _Training, settings, world, start)
    if training.sharded:
        shard(training.model, world)
        training.adopt()
    together(world, errors, training.resume)
    return training


class _Training(Passes):
    """One worker's part of a run: its steps from `start`, its optimizer, and what is written of them."""

    def __init__(self, settings: Settings, world: World, start: int = 0) -> None:
        super().__init__(settings, world)
        self.start = start
        self.stops = stops.Stops(self.config, records.until(self.folder / METRICS, start))
        if start:
            log.info("resuming after step %d", start)
            hydralora.load_adapter_state(self.model, checkpoint.load_adapter(self.origin))
        elif (self.folder / INIT).exists():
            try:
                lora_reading.start_from(self.model, self.folder / INIT)
            except ValueError as error:
                raise CheckpointError(f"train.init_from: {error}") from error
        self.adopt()

    @property
    def origin(self) -> Path:
        """Where the run goes on from."""
        return checkpoint.path_of(self.folder / CHECKPOINTS, self.start)

    def adopt(self) -> None:
        """Optimize the parameters that the model has now."""
        config = self.config
        self.parameters = list(hydralora.adapter_parameters(self.model))
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.average = Average(self.parameters, config.ema_decay) if config.ema_decay else None

    def resume(self) -> None:
        """Put back all but the adapter's weights. Raises CheckpointError."""
        if not self.start:
            return
        checkpoint.load_optimizer(self.origin, self.optimizer)
        if self.average:
            self.average.load(checkpoint.load_average(self.origin))
        if (usual_LN := checkpoint.load_gates(self.origin)) is not None:
            self.usual_LN = usual_LN

    def run(self, start: int) -> None:
        """From `start` finished steps, loaded before, to the end."""
        config, total = self.config, total_steps(self.index, self.config)
        if self.world.rank == 0:
            records.truncate(self.folder / METRICS, start)
            records.truncate(self.folder / HELD_OUT, start)
        an_epoch = steps_an_epoch(self.index, config.batch)
        batches: list[Batch] = []
        for step in range(start, total):
            epoch, place = divmod(step, an_epoch)
            if not batches or place == 0:
                batches = epoch_batches(self.index, config.batch, config.seed, epoch)
            line = self.step(step, batches[place])
            due = (step + 1) % config.checkpoint_every == 0 or step + 1 == total
            measured = self.measure(step + 1) if due and self.held_out else None
            self.record(line, due, measured)
            self.stops.see(line)
        self.finish()

    def step(self, step: int, batch: Batch) -> dict[str, Any]:
        """One optimizer step; its line of metrics."""
        began = time.monotonic()
        lr = self.config.learning_rate * min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        sums = together(self.world, (DatasetError,), self.backward, batch)
        means = summed(sums, self.world) / len(batch.places)
        loss, gates = float(means[0]), means[1:].view(len(self.usual_LN), -1)
        self.sum_gradients()
        norm = float(hydralora.whole(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)))
        stops.finite(step + 1, loss, norm, [self.index[place].latent_id for place in batch.places])
        self.optimizer.step()
        if self.average:
            self.average.update(step + 1)
        line = {"step": step + 1, "loss": loss, "grad_norm": norm, "lr": lr} | self.diagnose(gates)
        return line | {"step_s": time.monotonic() - began}

    def diagnose(self, gates: torch.Tensor) -> dict[str, Any]:
        """Take a step's gates [L, N+1] into the usual ones; how the branches are used, and how alike they are."""
        *gate_mean, gate_entropy = gates.mean(0).tolist()
        self.usual_LN = GATE_MEMORY * self.usual_LN + (1 - GATE_MEMORY) * gates[:, :-1].float()
        branches = self.config.branches
        even = torch.special.entr(self.usual_LN).sum(1).mean() / math.log(branches) if branches > 1 else 1.0
        products = hydralora.branch_products(self.model)
        products = summed(products, self.world) if self.sharded else products
        return {"gate_mean": gate_mean, "gate_entropy": gate_entropy, "gate_evenness": float(even),
                "branch_cosine": hydralora.branch_cosine(products),
                "dead_branches": float((self.usual_LN < DEAD / branches).sum(1).float().mean())}  # fmt: skip

    def measure(self, step: int) -> dict[str, Any]:
        """The held-out loss after `step` steps, of the weights that would be exported now."""
        with self.exported():
            sums = together(self.world, (DatasetError,), self.held_out_losses)
        losses = (summed(sums, self.world) / len(self.held_out)).tolist()
        return {"step": step, "t": held_out.times(self.config.shift), "loss": losses, "samples": len(self.held_out)}

    def exported(self) -> contextlib.AbstractContextManager[None]:
        """The weights that are exported: their average, where one is kept."""
        return self.average.in_place() if self.average else contextlib.nullcontext()

    def record(self, line: dict[str, Any], due: bool, measured: dict[str, Any] | None) -> None:
        """Append the lines, on the disk before the checkpoint that counts them. Rank 0 writes; all may gather."""
        parts = self.parts() if due and (self.world.rank == 0 or self.sharded) else {}
        if self.world.rank:
            return
        if measured:
            records.append(self.folder / HELD_OUT, measured, sync=True)
        records.append(self.folder / METRICS, line, sync=due)
        if due:
            loss = sum(measured["loss"]) / len(measured["loss"]) if measured else None
            checkpoint.save(self.folder / CHECKPOINTS, line["step"], parts, loss, self.config.keep_every)

    def parts(self) -> checkpoint.Parts:
        """What a checkpoint holds."""
        parts = {"adapter": hydralora.adapter_state(self.model), "optimizer": checkpoint.moments(self.optimizer),
                 "gates": {"usual": self.usual_LN}}  # fmt: skip
        return parts | ({"average": self.average.state()} if self.average else {})

    def finish(self) -> None:
        """The adapter file, whole or not at all: its presence says that the run is finished."""
        mean = {"label_mean": label_mean(self.index, self.labels)} if self.labels else {}
        with self.exported():
            state = hydralora.adapter_state(self.model) if self.world.rank == 0 or self.sharded else {}
        if self.world.rank == 0:
            steps = total_steps(self.index, self.config)
            metrics = records.summary(self.folder / METRICS, self.folder / HELD_OUT, steps)
            about = self.settings.metadata | mean | {"metrics": metrics}
            hydralora.save_adapter(self.folder / ADAPTER, self.model, about, state)
            sync_folder(self.folder)
