"""Previews in a Ray worker of their own, with a base of its own: they cost the training no time but its adapter's copy.

The training's first worker leaves adapter files in RUN/previews/waiting; a thread of the driver hands them on, the
first step's first and then always the newest. At the end it waits for what is under way, within the previews' share.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptta_core import fleet
from ptta_core.config import PreviewWorker, RaySite, TrainWorkers, Workers
from ptta_core.models import hydralora
from ptta_core.models.hunyuan import Generator
from ptta_core.training.passes import Settings
from ptta_core.training.previews import ERRORS, Painter, brief, seconds_since, tell, waiting

POLL_S = 0.5
STRIKES = 2  # failures in a row

log = logging.getLogger("ptta")


class Renderer:
    """The worker: the base, and adapters one after the other."""

    def __init__(self, settings: Settings, threads: int, device: str) -> None:
        import torch

        torch.set_num_threads(threads)
        assert settings.previews is not None
        self.run = Path(settings.run_folder)
        generator = Generator(settings.base, settings.revision, settings.dtype, device, settings.storage)
        self.painter = Painter(generator, settings.previews, self.run, settings.metadata.get("train_id", ""))

    def make(self, path: str, due: int) -> None:
        """All videos of one adapter file, written down also where that fails."""
        begun, videos, note = time.monotonic(), [], ""
        try:
            hydralora.load_adapter(path, self.painter.generator.pipeline.transformer)
            adapter = hydralora.read_config(path)
            for place, one in enumerate(self.painter.plan.videos):
                videos.append(self.painter.write(place, self.painter.latents(one, adapter), adapter, due, due))
        except ERRORS as error:
            note = brief(error)
        tell(self.run, due, due, videos, seconds_since(begun), note)


@contextlib.contextmanager
def beside(
    settings: Settings, own: PreviewWorker | None, training: TrainWorkers, ray_site: RaySite | None
) -> Iterator[None]:
    """Make the previews that come up while the body runs. No-op without previews, or without a place for them.

    Raises FleetError where the cluster cannot hold training and previews at once.
    """
    if settings.previews is None or own is None:
        yield
        return
    fleet.start(ray_site)
    fleet.must_fit(Workers(count=training.min_count or training.count, cpus=training.cpus, gpus=training.gpus),
                   beside=Workers(count=1, cpus=own.cpus, gpus=own.gpus))  # fmt: skip
    driver = _Driver(settings, own)
    thread = threading.Thread(target=driver.work, name="previews", daemon=True)
    begun = time.monotonic()
    thread.start()
    try:
        yield
        driver.until = time.monotonic() + settings.previews.share * seconds_since(begun)
    finally:
        driver.stop.set()
        thread.join()


class _Driver:
    """Hands adapters to the worker."""

    def __init__(self, settings: Settings, own: PreviewWorker) -> None:
        assert settings.previews is not None
        self.settings, self.own, self.run = settings, own, Path(settings.run_folder)
        self.plan = settings.previews
        self.stop = threading.Event()
        self.until = 0.0  # how long to go on once stopped; of the monotonic clock
        self.actor: Any = None
        self.failed = 0

    def work(self) -> None:
        """Until told to stop, and then as long as may be waited."""
        try:
            while self.failed < STRIKES:
                if (chosen := self._choose()) is not None:
                    self._make(*chosen)
                elif self.stop.wait(POLL_S):
                    break
                if self._over():
                    break
            why = "previews have failed twice; this run makes no more" if self.failed >= STRIKES else (
                "training was over first")  # fmt: skip
            for due, path in [*waiting(self.run)]:
                self._write_off(due, path, why)
        except OSError as error:
            log.warning("no more previews: %s", brief(error))
        finally:
            self._dismiss()

    def _over(self) -> bool:
        return self.stop.is_set() and time.monotonic() >= self.until

    def _choose(self) -> tuple[int, Path] | None:
        """The adapter to show next; those that newer ones have overtaken are written off with a word."""
        left = [*waiting(self.run)]
        if not left or left[0][0] == 0:
            return left[0] if left else None
        for due, path in left[:-1]:
            self._write_off(due, path, f"the previews' worker was busy; step {left[-1][0]} is next")
        return left[-1]

    def _write_off(self, due: int, path: Path, note: str) -> None:
        tell(self.run, due, due, [], 0.0, note)
        path.unlink(missing_ok=True)

    def _make(self, due: int, path: Path) -> None:
        import ray
        from ray import exceptions

        if self.actor is None:
            self.actor = self._hire()
        call = self.actor.make.remote(str(path), due)
        while not (done := ray.wait([call], timeout=POLL_S)[0]) and not self._over():
            pass
        try:
            if done:
                ray.get(call)
                self.failed = 0
                path.unlink(missing_ok=True)
        except exceptions.RayError as error:
            self.failed += 1
            self._dismiss()
            self._write_off(due, path, f"the previews' worker ended: {brief(error)}")

    def _hire(self) -> Any:
        import ray

        on_gpu = self.own.gpus > 0 and self.settings.device != "cpu"
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = dict.fromkeys(names, str(self.own.threads)) | ({} if on_gpu else {"CUDA_VISIBLE_DEVICES": ""})
        hired: Any = ray.remote(Renderer).options(num_cpus=self.own.cpus, num_gpus=self.own.gpus,
                                                  runtime_env={"env_vars": environment})  # fmt: skip
        return hired.remote(self.settings, self.own.threads, "cuda" if on_gpu else "cpu")

    def _dismiss(self) -> None:
        import ray

        if self.actor is not None and ray.is_initialized():
            ray.kill(self.actor, no_restart=True)
        self.actor = None
