"""Training over Ray Train workers: who runs the loop where. What training is, is in loop.py.

Ray restarts the workers when one dies; the loop then resumes from its own newest checkpoint. Ray Train's own run state
is not used (a fresh run name every time), so a rerun after any kind of end is the same call.
"""

import contextlib
import contextvars
import dataclasses
import json
import logging
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ptta_core import fleet
from ptta_core.config import RaySite, TrainConfig, TrainWorkers, Workers
from ptta_core.training import notice
from ptta_core.training.checkpoint import CheckpointError, NotSaved
from ptta_core.training.dataset import DatasetError, read_index
from ptta_core.training.loop import ADAPTER, METRICS, total_steps, train_loop
from ptta_core.training.passes import Settings
from ptta_core.training.stops import Diverged, NotFinite, RouterCollapsed
from ptta_core.training.workers import OtherWorker, World
from ptta_core.whole import write_whole

POLL_S = 1.0
MESSAGE_CHARS = 2000
ERRORS = "error-*.json"  # a worker's error that would only come again
LASTING: tuple[type[Exception], ...] = (NotFinite, Diverged, RouterCollapsed, DatasetError, CheckpointError,
                                         NotSaved)

log = logging.getLogger("ptta")

OnProgress = Callable[[int, int, str], None]  # steps done, steps in all, a line for people


class TrainingFailed(RuntimeError):
    """Training did not finish, restarts included; the message has the last cause."""

    kind = "training_failed"


def fit(
    settings: Settings, workers: TrainWorkers, ray_site: RaySite | None = None, on_progress: OnProgress | None = None
) -> None:
    """Run `train_loop` on `workers.count` Ray workers until RUN/adapter.safetensors is there; blocks.

    The samples are pinned in `settings.run_folder` (absolute; every machine of the cluster sees it) before. Resumes
    what an earlier call left, and returns at once for a finished run. `on_progress` is called from a thread, about
    once a second when there is news, with the caller's context variables.
    Raises stops.Stopped, DatasetError and CheckpointError, which no restart can mend and none is spent on,
    TrainingFailed, fleet.FleetError.
    """
    run = Path(settings.run_folder)
    if not run.is_absolute():
        raise ValueError(f"run_folder {settings.run_folder!r} must be absolute: workers run in another folder")
    if (run / ADAPTER).exists():
        return
    total = total_steps(read_index(run), TrainConfig(**settings.config))
    fleet.start(ray_site)
    fleet.must_fit(Workers(count=workers.min_count or workers.count, cpus=workers.cpus, gpus=workers.gpus))
    settings = dataclasses.replace(settings, attempt=uuid.uuid4().hex)
    notice.begin(run, settings.attempt)
    for left in run.glob(ERRORS):
        left.unlink()
    shutil.rmtree(run / "ray", ignore_errors=True)  # what a killed attempt left
    with watch(run, total, on_progress):
        _fit(settings, workers, run / "ray")
    shutil.rmtree(run / "ray", ignore_errors=True)
    _raise_lasting(run)
    if (run / notice.STOPPED).exists():
        raise TrainingFailed(f"training was told to stop by {run / notice.STOP}; it is saved, the same command goes on")
    if not (run / ADAPTER).exists():
        raise TrainingFailed(f"the workers ended without {ADAPTER}: is {run} one folder for all of them?")


def _raise_lasting(run: Path) -> None:
    """The error that a worker left in RUN/error-RANK.json, as it was raised there."""
    for path in sorted(run.glob(ERRORS)):
        told = json.loads(path.read_text(encoding="utf-8"))
        raise next(kind for kind in LASTING if kind.__name__ == told["kind"])(told["message"])


def _fit(settings: Settings, workers: TrainWorkers, storage: Path) -> None:
    """Ray Train's part. Raises TrainingFailed."""
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    gpu = workers.gpus > 0 and settings.device != "cpu"
    count = workers.count if workers.min_count is None else (workers.min_count, workers.count)
    resources = {"CPU": workers.cpus} | ({"GPU": workers.gpus} if gpu else {})
    trainer = TorchTrainer(
        work,
        train_loop_config={"settings": settings, "gpu": gpu},
        torch_config=TorchConfig(backend="nccl" if gpu and workers.gpus >= 1 else "gloo"),  # nccl: no two on one GPU
        scaling_config=ScalingConfig(num_workers=count, use_gpu=gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=workers.max_restarts),
            worker_runtime_env={"env_vars": _environment(workers.threads, gpu)},
        ),
    )
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit()
    except TrainingFailedError as error:
        causes = getattr(error, "worker_failures", None) or {0: error}
        cause = str(next(iter(causes.values())))[-MESSAGE_CHARS:]
        raise TrainingFailed(f"training stopped after {workers.max_restarts} restart(s) allowed: {cause}") from error
    except Exception:
        raise
    except BaseException:  # told to end; Ray is still there until this is handled
        if workers.stop_s and not notice.ask_to_stop(Path(settings.run_folder), workers.stop_s):
            log.warning("training could not save within train.stop_s = %g s; its last checkpoint stays", workers.stop_s)
        raise
    finally:  # Ray Train leaves its own handler behind, which swallows the next Ctrl-C
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt or signal.SIG_DFL)


def work(config: dict[str, Any]) -> None:
    """What one Ray Train worker does."""
    from ray import train
    from ray.train import get_preemption_info
    from ray.train.torch import get_device

    settings: Settings = config["settings"]
    context = train.get_context()
    device = str(get_device()) if config["gpu"] else "cpu"
    world = World(context.get_world_rank(), context.get_world_size(), device)
    try:
        train_loop(settings, world, lambda: get_preemption_info() is not None)
    except (OtherWorker, notice.Superseded):
        pass  # the other one says why, or goes on
    except LASTING as error:  # raised, Ray would start the workers again for the same end
        told = {"kind": type(error).__name__, "message": str(error)}
        name = ERRORS.replace("*", str(world.rank))
        write_whole(Path(settings.run_folder) / name, json.dumps(told).encode())


def _environment(threads: int, gpu: bool) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads)) | ({} if gpu else {"CUDA_VISIBLE_DEVICES": ""})


# ------------------------------------------------------------------------------------------------ progress


@contextlib.contextmanager
def watch(run_folder: Path, total: int, on_progress: OnProgress | None) -> Iterator[None]:
    """Tell `on_progress` of every new last line of RUN/metrics.jsonl meanwhile, and once more at the end."""
    if on_progress is None:
        yield
        return
    stop = threading.Event()
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(_follow, run_folder, total, on_progress, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(run_folder: Path, total: int, on_progress: OnProgress, stop: threading.Event) -> None:
    told = 0
    while True:
        ended = stop.wait(POLL_S)
        line = last_line(run_folder)
        if line and line["step"] != told:
            told = line["step"]
            on_progress(told, total, f"loss {line['loss']:.4f}, {line['step_s']:.2f} s a step")
        if ended:
            return


def last_line(run_folder: Path) -> dict[str, Any] | None:
    """The last whole line of RUN/metrics.jsonl, or None."""
    try:
        with open(run_folder / METRICS, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 65536))  # a line is far shorter
            whole = file.read().rpartition(b"\n")[0]
    except OSError:
        return None
    line = whole.rpartition(b"\n")[2]
    return json.loads(line) if line else None
