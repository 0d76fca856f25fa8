"""The training loop: the same function in this process and in every Ray worker. It knows torch, not Ray.

Every worker holds the frozen base and the adapter, or a part of every weight (sharding.py); the gradients of a step are
summed over the workers once its backward passes are done (passes.py). A worker without a sample adds zeros.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ptta_core.config import TrainConfig
from ptta_core.models import hydralora, lora_reading
from ptta_core.models.hunyuan import pick_device
from ptta_core.training import checkpoint, held_out, records, stops
from ptta_core.training.adamw8bit import AdamW8bit
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
from ptta_core.training.diagnostics import dead_branches
from ptta_core.training.notice import Told, Word
from ptta_core.training.passes import Passes, Settings
from ptta_core.training.preview_here import Previews
from ptta_core.training.sharding import shard
from ptta_core.training.workers import World, as_rank_0, summed, together

ADAPTER, METRICS, HELD_OUT = "adapter.safetensors", "metrics.jsonl", "held_out.jsonl"
ROUTERS = "routers.jsonl"
LINES = (METRICS, HELD_OUT, ROUTERS)  # files of a line a step
CHECKPOINTS, INIT = "checkpoints", "init.safetensors"
FINISHED = -1
GATE_MEMORY = 0.95  # how much of a layer's usual gates a step leaves

log = logging.getLogger(__name__)


def total_steps(index: Sequence[Sample], config: TrainConfig) -> int:
    """Optimizer steps of the whole run; samples that are held out make none."""
    return config.epochs * steps_an_epoch(split(index)[0], config.batch)


def train_loop(
    settings: Settings, world: World | None = None, preempted: Callable[[], bool] | None = None
) -> None:
    """Train from the newest checkpoint, if any, to the end; rank 0 leaves RUN/adapter.safetensors.

    RUN/init.safetensors, if there, is the adapter that a new run begins with.
    A finished run returns at once. One that is told to stop (see notice.py) returns after a checkpoint; `preempted`
    asks whether a machine is about to go. `world` None: alone, on the settings' device.
    RUN/metrics.jsonl has one line a step:
    {step (from 1), loss, grad_norm (before clipping), lr, gate_mean, gate_entropy, gate_evenness, branch_cosine,
    dead_branches, step_s, and the seconds of clock.PHASES}. RUN/routers.jsonl has one every `router_every` steps (see
    Diagnostics.line). Where samples are held out,
    RUN/held_out.jsonl has one a checkpoint: {step, t, loss (one a t), samples}.
    Raises DatasetError, CheckpointError, stops.Stopped: on every worker alike, as OtherWorker where it is another's.
    """
    world = world or World(device=pick_device(settings.device))
    run = Path(settings.run_folder)
    done = together(world, (CheckpointError,), _done, run, world)
    start = as_rank_0(done, world)  # one worker looks, so all agree whatever the file system shows them
    if start == FINISHED:
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    told = Told(run, world, settings.attempt, preempted)
    try:
        _begin(settings, world, start).run(start, told)
    finally:
        torch.set_num_threads(threads)


def _done(run: Path, world: World) -> int:
    """The steps to go on from, as rank 0 sees them. Raises CheckpointError."""
    if (run / ADAPTER).exists() or world.rank:
        return FINISHED
    return checkpoint.step_of(checkpoint.newest_whole(run / CHECKPOINTS))


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
        make = AdamW8bit if config.optimizer == "adamw8bit" else torch.optim.AdamW
        self.optimizer = make(self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
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
        if state := checkpoint.load_part(self.origin, "routers"):
            self.routers.load(state)

    def run(self, start: int, told: Told) -> None:
        """From `start` finished steps, loaded before, to the end."""
        config, total = self.config, total_steps(self.index, self.config)
        if self.world.rank == 0:
            for name in LINES:
                records.truncate(self.folder / name, start)
        an_epoch = steps_an_epoch(self.index, config.batch)
        previews = Previews(self, self.settings.previews, total) if self.settings.previews else None
        if previews:
            previews.begin(start, records.until(self.folder / METRICS, start))
            previews.at(start)
        batches: list[Batch] = []
        for step in range(start, total):
            epoch, place = divmod(step, an_epoch)
            if not batches or place == 0:
                batches = epoch_batches(self.index, config.batch, config.seed, epoch)
            line = self.step(step, batches[place])
            due = (step + 1) % config.checkpoint_every == 0 or step + 1 == total
            measured = self.measure(step + 1) if due and self.held_out else None
            looked = self.look_at_routers(step + 1, step + 1 == total)
            word = told.word()
            together(self.world, (CheckpointError,), self.record, line, due or word >= Word.SAVE, measured, looked)
            self.stops.see(line)
            if word == Word.STOP and step + 1 < total:
                told.stopped(step + 1)
                return
            if previews:
                previews.took(line)
                if word == Word.GO_ON:  # while a machine is about to go, there is no time for a video
                    previews.at(step + 1)
        together(self.world, (CheckpointError,), self.finish)

    def step(self, step: int, batch: Batch) -> dict[str, Any]:
        """One optimizer step; its line of metrics."""
        began = time.monotonic()
        self.clock.start()
        lr = self.config.learning_rate * min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        sums = together(self.world, (DatasetError,), self.backward, batch)
        sums = summed(sums, self.world)
        loss, gates_LG = float(sums[0]) / len(batch.places), self.routers.take(sums[1:])
        self.sum_gradients()
        self.clock.lap("sync")
        norm = float(hydralora.whole(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)))
        stops.finite(step + 1, loss, norm, [self.index[place].latent_id for place in batch.places])
        self.optimizer.step()
        if self.average:
            self.average.update(step + 1)
        self.clock.lap("optimizer")
        line = {"step": step + 1, "loss": loss, "grad_norm": norm, "lr": lr} | self.diagnose(gates_LG)
        return line | self.clock.seconds() | {"step_s": time.monotonic() - began}

    def diagnose(self, gates_LG: torch.Tensor) -> dict[str, Any]:
        """Take a step's gates [L, N+1] into the usual ones; how the branches are used, and how alike they are."""
        *gate_mean, gate_entropy = gates_LG.mean(0).tolist()
        self.usual_LN = GATE_MEMORY * self.usual_LN + (1 - GATE_MEMORY) * gates_LG[:, :-1].float()
        branches = self.config.branches
        even = torch.special.entr(self.usual_LN).sum(1).mean() / math.log(branches) if branches > 1 else 1.0
        products = hydralora.branch_products(self.model)
        self.cosines_L = hydralora.branch_cosines(summed(products, self.world) if self.sharded else products)
        return {"gate_mean": gate_mean, "gate_entropy": gate_entropy, "gate_evenness": float(even),
                "branch_cosine": float(self.cosines_L.mean()),
                "dead_branches": float(dead_branches(self.usual_LN).float().mean())}  # fmt: skip

    def look_at_routers(self, step: int, last: bool) -> dict[str, Any] | None:
        """What every layer's gates were since the last time, where there are gates and the time has come."""
        if self.config.branches == 1 or not (last or step % self.config.router_every == 0):
            return None
        return self.routers.line(step, self.usual_LN, self.cosines_L)

    def measure(self, step: int) -> dict[str, Any]:
        """The held-out loss after `step` steps, of the weights that would be exported now."""
        with self.exported():
            sums = together(self.world, (DatasetError,), self.held_out_losses)
        losses = (summed(sums, self.world) / len(self.held_out)).tolist()
        return {"step": step, "t": held_out.times(self.config.shift), "loss": losses, "samples": len(self.held_out)}

    def exported(self) -> contextlib.AbstractContextManager[None]:
        """The weights that are exported: their average, where one is kept."""
        return self.average.in_place() if self.average else contextlib.nullcontext()

    def record(
        self, line: dict[str, Any], due: bool, measured: dict[str, Any] | None, looked: dict[str, Any] | None
    ) -> None:
        """Append the lines, on the disk before the checkpoint that counts them. Rank 0 writes; all may gather."""
        parts = self.parts() if due and (self.world.rank == 0 or self.sharded) else {}
        if self.world.rank:
            return
        with checkpoint.writing(f"the line of step {line['step']}"):
            if measured:
                records.append(self.folder / HELD_OUT, measured, sync=True)
            if looked:
                records.append(self.folder / ROUTERS, looked, sync=True)
            records.append(self.folder / METRICS, line, sync=due)
        if due:
            loss = sum(measured["loss"]) / len(measured["loss"]) if measured else None
            checkpoint.save(self.folder / CHECKPOINTS, line["step"], parts, loss, self.config.keep_every)

    def parts(self) -> checkpoint.Parts:
        """What a checkpoint holds."""
        parts = {"adapter": hydralora.adapter_state(self.model), "optimizer": checkpoint.moments(self.optimizer),
                 "gates": {"usual": self.usual_LN}, "routers": self.routers.state()}  # fmt: skip
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
            with checkpoint.writing("the adapter"):
                hydralora.save_adapter(self.folder / ADAPTER, self.model, about, state)
            sync_folder(self.folder)
