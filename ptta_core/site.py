"""Site: where and how fast, nothing that changes a result. Read through config.py, which loads it."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ptta_core.section import Section


class Workers(Section):
    """How a stage is spread: `count` Ray actors, or 0 for this process."""

    count: int = Field(0, ge=0)
    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)
    batch: int = Field(4, ge=1)
    timeout_s: float = Field(600.0, gt=0)  # for one item; a hung worker is replaced after batch * timeout_s
    threads: int = Field(1, ge=1)  # torch and OpenCV threads of one worker


class TrainWorkers(Section):
    """How training is spread over Ray Train workers."""

    count: int = Field(1, ge=1)
    min_count: int | None = Field(None, ge=1)  # go on with as few when machines go, and with more when they come back
    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)
    threads: int = Field(1, ge=1)
    max_restarts: int = Field(3, ge=0)  # after a worker dies, from the last checkpoint; a preempted one is not counted
    memory_gb: float | None = Field(None, gt=0)  # of a worker's device, for `ptta check`; None asks this machine's
    tflops: float | None = Field(None, gt=0)  # that a worker reaches in training, for `ptta check`: 1e12 a second
    stop_s: float = Field(60.0, ge=0)  # how long a run that is told to end (SIGTERM) may take to save
    shard: bool = False  # several workers: each holds a part of every weight (FSDP2), not all of them
    offload: bool = False  # the inputs of checkpointed blocks wait in the host's memory
    compile: bool = False  # the transformer's blocks, which takes minutes at the start and for every new size


    @model_validator(mode="after")
    def _counts(self) -> "TrainWorkers":
        if self.min_count is not None and self.min_count > self.count:
            raise ValueError(f"min_count {self.min_count} is above count {self.count}")
        return self


class PreviewWorker(Section):
    """A place of its own for training's previews, which then cost the training no time: a Ray worker with the base."""

    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)
    threads: int = Field(1, ge=1)


class RaySite(Section):
    """The Ray cluster: none named means one of our own on this machine."""

    address: str | None = None
    dashboard: bool = False


class Site(Section):
    """Where and how fast."""

    name: str = ""
    workspace: str = "workspace"
    roots: dict[str, str] = {}  # name -> folder: recipes say "nas:season1", the site says where the NAS is mounted
    ray: RaySite = RaySite()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    commit_rows: int = Field(64, ge=1)
    commit_s: float = Field(5.0, gt=0)
    split: Workers = Workers()
    score: Workers = Workers()
    caption: Workers = Workers()
    encode: Workers = Workers()
    train: TrainWorkers = TrainWorkers()
    preview: PreviewWorker | None = None  # None: previews are made by the training workers
    generate: Workers = Workers()
    evaluate: Workers = Workers()

    @property
    def home(self) -> Path:
        """The workspace as an absolute path."""
        return Path(self.workspace).expanduser().resolve()
