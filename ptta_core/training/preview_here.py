"""Previews made by the training workers themselves, between two steps, within their share of the time.

One worker makes them while the others wait, who hear from it after every pass, so that nobody's patience runs out;
where the model is spread over the workers, all go through its passes and the first one decodes. When the run is told to
end, the one in the making is left for later; when a worker has ended in the middle of one twice, no more are made.
"""

import contextlib
import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ptta_core.models import hydralora
from ptta_core.models.hunyuan import Generator
from ptta_core.training.dataset import label_mean
from ptta_core.training.notice import STOP
from ptta_core.training.previews import ERRORS, FOLDER, WAITING, Painter, Plan, brief, seconds_since, tell, told
from ptta_core.training.sharding import local
from ptta_core.training.workers import as_rank_0
from ptta_core.whole import write_whole

STRIKES = 2  # attempts that ended with the worker, or failures in a row
GUESS = 1.5  # how much more than its passes the first preview is taken to cost: decoding, writing, the VAE's loading
NOTHING = -1
OVER, WORKING, LEFT = 0, 1, 2  # what rank 0 says of a preview


class Abandoned(Exception):
    """The run is told to end, and has no time for a video; it is made when the run goes on."""


log = logging.getLogger("ptta")


class Previews:
    """One worker's part. training: the loop's, after its model was spread over the workers, if it is."""

    def __init__(self, training: Any, plan: Plan, total: int) -> None:
        self.training, self.plan, self.total = training, plan, total
        self.world, self.sharded, self.run = training.world, training.sharded, training.folder
        self.painter: Painter | None = None
        self.kept: list[torch.Tensor] | None = None  # the weights before the first step
        self.trained_s = self.forward_s = 0.0  # forward_s: of one sample, the latest
        self.spent_s = 0.0
        self.cost_s: float | None = None  # of the last one
        self.failed = 0
        self.known: set[int] = set()

    def begin(self, start: int, lines: list[dict[str, Any]]) -> None:
        """Go on after `start` steps, of which `lines` tell."""
        self.trained_s = sum(line["step_s"] for line in lines)
        before = told(self.run)
        self.known = set(before)
        self.spent_s = sum(one["seconds"] for one in before.values())
        past = self.plan.due(start, self.total)
        gone = [due for due in past if due not in self.known and (due == 0 or due != past[-1])]
        if start and self.world.rank == 0 and not self.plan.apart:
            self._write_off(gone, start, f"the run goes on from step {start}: these weights are gone")
        self.cost_s = next((one["seconds"] for one in reversed(before.values()) if one["videos"]), None)
        if start == 0 and not self.plan.apart and (self.sharded or self.world.rank == 0):
            self.kept = [local(one).detach().to("cpu", copy=True) for one in self.training.parameters]
        if self.world.rank == 0:
            self._count_strike()

    def took(self, line: dict[str, Any]) -> None:
        """A step is done."""
        self.trained_s += line["step_s"]
        self.forward_s = line["forward_s"] / math.ceil(self.training.config.batch / self.world.size)

    def at(self, step: int) -> None:
        """Make the previews that are due after `step` steps and can be afforded; every worker calls this."""
        if self.plan.apart:
            self._hand_over(step)
            return
        while (due := as_rank_0(self._choose(step) if self.world.rank == 0 else NOTHING, self.world)) != NOTHING:
            if not self._make(due, step):
                return

    # ------------------------------------------------------------------------------------- which, and when

    def _choose(self, step: int) -> int:
        """The due step of the preview to make now. Those that will never be made are written off with a word."""
        due = [one for one in self.plan.due(step, self.total) if one not in self.known]
        if self.failed >= STRIKES:
            return self._write_off(due, step, "previews have failed twice; this run makes no more")
        if len(later := [one for one in due if one]) > 1:
            self._write_off(later[:-1], step, f"previews may take {self.plan.share:.0%} of the time, and took it; "
                                              f"step {later[-1]} is next")  # fmt: skip
            due = [one for one in due if one == 0 or one == later[-1]]
        if not due or (self.cost_s is None and not self.forward_s):
            return NOTHING
        if self.spent_s + self._cost() <= self.plan.share * self.trained_s:
            return due[0]
        if step == self.total:
            self._write_off(due, step, f"it would take {self._cost():.3g} s more than the {self.spent_s:.3g} s spent; "
                                       f"{self.plan.share:.0%} of the training time is "
                                       f"{self.plan.share * self.trained_s:.3g} s (train.preview_share)")  # fmt: skip
        return NOTHING

    def _cost(self) -> float:
        """Seconds that the next preview will take: as the last one; before the first, from the training's passes."""
        if self.cost_s is not None:
            return self.cost_s
        frames, height, width = (self.plan.sampling[name] for name in ("frames", "height", "width"))
        ratio = _positions(frames, height, width) / max(
            _positions(*map(int, one.bucket.split("x"))) for one in self.training.index
        )
        passes = len(self.plan.videos) * self.plan.sampling["steps"]
        return GUESS * passes * self.forward_s * (ratio if ratio < 1 else ratio**2)  # attention grows with the square

    def _write_off(self, due: list[int], step: int, note: str) -> int:
        for one in due:
            self.known.add(one)
            with _said(one):
                tell(self.run, one, step, [], 0.0, note)
        return NOTHING

    # ---------------------------------------------------------------------------------------------- making

    def _make(self, due: int, step: int) -> bool:
        """Whether it was made, or at least tried to its end."""
        begun = time.monotonic()
        shown = step if due else 0
        try:
            videos, note = self._together(due, shown) if self.sharded else self._alone(due, shown)
        except Abandoned:
            self._strikes.unlink(missing_ok=True)
            return False
        if self.world.rank == 0:
            self.known.add(due)
            self.failed = self.failed + 1 if note else 0
            seconds = self.cost_s = seconds_since(begun)
            self.spent_s += seconds
            with _said(due):
                tell(self.run, due, shown, videos, seconds, note)
                self._strikes.unlink(missing_ok=True)
        if due == 0:
            self.kept = None
        return True

    def _alone(self, due: int, step: int) -> tuple[list[dict[str, Any]], str]:
        """Rank 0 makes the videos; the others wait for its word, which comes after every pass."""
        if self.world.rank:
            while (word := as_rank_0(0, self.world)) == WORKING:
                pass
            return self._unless_abandoned(word)
        videos, note, word = [], "", OVER
        try:
            with self._weights(due), self._painting(due) as painter:
                for place, one in enumerate(self.plan.videos):
                    latents = painter.latents(one, self._adapter, self._beat)
                    videos.append(painter.write(place, latents, self._adapter, due, step))
        except ERRORS as error:
            note = brief(error)
        except Abandoned:
            word = LEFT
        as_rank_0(word, self.world)
        self._unless_abandoned(word)
        return videos, note

    def _unless_abandoned(self, word: int) -> tuple[list[dict[str, Any]], str]:
        if word == LEFT:
            raise Abandoned
        return [], ""

    def _together(self, due: int, step: int) -> tuple[list[dict[str, Any]], str]:
        """Every worker goes through the passes, which a sharded model needs; rank 0 decodes and writes."""
        videos: list[dict[str, Any]] = []
        note = ""
        with self._weights(due), self._painting(due) as painter:
            for place, one in enumerate(self.plan.videos):
                # an error in a pass is no one worker's to pass over, and all leave it together
                latents = painter.latents(one, self._adapter, self._ask)
                try:
                    if self.world.rank == 0:
                        videos.append(painter.write(place, latents, self._adapter, due, step))
                except ERRORS as error:
                    note = brief(error)
        return videos, note

    def _beat(self) -> None:
        """After every pass, on rank 0 alone: the others hear that it works."""
        if (self.run / STOP).exists():
            raise Abandoned
        as_rank_0(WORKING, self.world)

    def _ask(self) -> None:
        """After every pass, on all workers: whether to go on."""
        if as_rank_0(LEFT if self.world.rank == 0 and (self.run / STOP).exists() else WORKING, self.world) == LEFT:
            raise Abandoned

    @property
    def _adapter(self) -> dict[str, Any]:
        """What a file of the adapter would say of it."""
        training = self.training
        metadata = training.settings.metadata | {"label_mean": label_mean(training.index, training.labels)}
        return {"gate": training.config.gate, "branches": training.config.branches, "metadata": metadata}

    @contextlib.contextmanager
    def _painting(self, due: int) -> Iterator[Painter]:
        """What makes the videos; its VAE is in the device's memory meanwhile only. Counts the attempt."""
        training, device = self.training, self.world.device
        if self.world.rank == 0:
            self._try(due, True)
        if self.painter is None:
            settings = training.settings
            generator = Generator(settings.base, settings.revision, settings.dtype, device,
                                  transformer=training.model, decode=self.world.rank == 0)  # fmt: skip
            self.painter = Painter(generator, self.plan, self.run, settings.metadata.get("train_id", ""))
        vae = self.painter.generator.pipeline.vae
        try:
            if vae is not None:
                vae.to(device)
            yield self.painter
        finally:
            if device.startswith("cuda"):
                if vae is not None:
                    vae.to("cpu")
                torch.cuda.empty_cache()

    def _weights(self, due: int) -> contextlib.AbstractContextManager[None]:
        return self._first_weights() if due == 0 else self.training.exported()

    @contextlib.contextmanager
    def _first_weights(self) -> Iterator[None]:
        """The weights of before the first step, in place of those of now."""
        now = [local(one).detach().clone() for one in self.training.parameters]
        try:
            self._put(self.kept or [])
            yield
        finally:
            self._put(now)

    @torch.no_grad()
    def _put(self, weights: list[torch.Tensor]) -> None:
        for one, value in zip(self.training.parameters, weights, strict=True):
            local(one).copy_(value)

    # --------------------------------------------------------------------------------------------- strikes

    @property
    def _strikes(self) -> Path:
        """There while a preview is made: still so when workers begin, it was the last thing that they did."""
        return self.run / FOLDER / "trying.json"

    def _try(self, due: int, trying: bool) -> None:
        self._strikes.parent.mkdir(exist_ok=True)
        write_whole(self._strikes, json.dumps({"due": due, "failed": self.failed, "trying": trying}).encode())

    def _count_strike(self) -> None:
        if not self._strikes.exists():
            return
        left = json.loads(self._strikes.read_text(encoding="utf-8"))
        self.failed = left["failed"] + int(left["trying"])
        if self.failed >= STRIKES:
            self._write_off([left["due"]], left["due"], "the workers ended twice while it was made")
        self._try(left["due"], False)

    # --------------------------------------------------------------------------- a worker of the previews' own

    def _hand_over(self, step: int) -> None:
        """Leave the adapter as it is now for the previews' own worker."""
        if step not in self.plan.due(step, self.total):
            return
        path = self.run / FOLDER / WAITING / f"step-{step:08d}.safetensors"
        if not as_rank_0(int(step not in self.known and not path.exists()), self.world):
            return
        with self.training.exported():
            state = hydralora.adapter_state(self.training.model) if self.world.rank == 0 or self.sharded else {}
        if self.world.rank == 0:
            with _said(step):
                path.parent.mkdir(parents=True, exist_ok=True)
                hydralora.save_adapter(path, self.training.model, self._adapter["metadata"], state)


def _positions(frames: int, height: int, width: int) -> int:
    """Places in the latents of a video: /8 in space, /4 in time."""
    return ((frames - 1) // 4 + 1) * (height // 8) * (width // 8)


@contextlib.contextmanager
def _said(due: int) -> Iterator[None]:
    """A preview that cannot be written down ends no training."""
    try:
        yield
    except OSError as error:
        log.warning("preview of step %d: %s", due, brief(error))
