"""Words that reach a run while it trains: save now, because a machine is about to go; save and stop.

    RUN/stop        a file that the driver writes when it is told to end; the workers save, write RUN/stopped, and end
    preempted       what the cluster says of its machines: the workers save once, and go on while they can
    RUN/attempt     who may write here; workers of an earlier driver that still run find another name in it, and end
    RUN/worker      which process is rank 0 of how many, so that nobody waits for one that is gone

All workers hear the same word after the same step: rank 0 looks, and tells the others.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from ptta_core.lease import process_start
from ptta_core.training.workers import World, as_rank_0
from ptta_core.whole import write_whole

STOP, STOPPED, ATTEMPT, WORKER = "stop", "stopped", "attempt", "worker"
ASK_S = 2.0  # between two questions to the cluster, each of which all workers wait for


class Word(IntEnum):
    """What to do after a step."""

    GO_ON = 0
    ASK = 1  # ask the cluster first: all workers at once
    SAVE = 2
    STOP = 3
    NOT_OURS = 4


class Superseded(RuntimeError):
    """Another attempt trains in this folder by now."""


class Told:
    """Where a worker hears. `preempted`: asks the cluster, called by all workers at the same step; None: nobody to ask.

    attempt: the name under which this worker may write; "" where nobody else can be there.
    """

    def __init__(
        self, folder: Path, world: World, attempt: str = "", preempted: Callable[[], bool] | None = None
    ) -> None:
        self.folder, self.world, self.attempt, self.preempted = folder, world, attempt, preempted
        self.asked, self.saved = time.monotonic(), False
        if attempt and world.rank == 0:
            write_whole(folder / WORKER, json.dumps(_here() | {"workers": world.size}).encode())

    def word(self) -> Word:
        """GO_ON, SAVE or STOP; SAVE once only. Raises Superseded."""
        word = Word(as_rank_0(self._seen() if self.world.rank == 0 else 0, self.world))
        if word == Word.NOT_OURS:
            raise Superseded(f"another attempt has taken over {self.folder}")
        if word == Word.ASK and self.preempted is not None:
            word = Word.SAVE if self.preempted() and not self.saved else Word.GO_ON
            self.saved = self.saved or word == Word.SAVE
        return word

    def _seen(self) -> Word:
        if self.attempt and current_attempt(self.folder) != self.attempt:
            return Word.NOT_OURS
        if (self.folder / STOP).exists():
            return Word.STOP
        if self.preempted is not None and not self.saved and time.monotonic() - self.asked > ASK_S:
            self.asked = time.monotonic()
            return Word.ASK
        return Word.GO_ON

    def stopped(self, step: int) -> None:
        """Rank 0 says that everything until `step` is saved."""
        if self.world.rank == 0:
            write_whole(self.folder / STOPPED, f"{step}\n".encode())


def begin(folder: Path, attempt: str) -> None:
    """A new driver's first act: earlier words are void, and so are earlier workers."""
    write_whole(folder / ATTEMPT, attempt.encode())
    for name in (STOP, STOPPED, WORKER):
        (folder / name).unlink(missing_ok=True)


def current_attempt(folder: Path) -> str:
    """Who may write in a run's folder; "" where nobody said so."""
    try:
        return (folder / ATTEMPT).read_text()
    except FileNotFoundError:
        return ""


def ask_to_stop(folder: Path, wait_s: float) -> bool:
    """Ask the workers to save and end; whether they said so within `wait_s`. At once False where none is there."""
    write_whole(folder / STOP, b"")
    ends = time.monotonic() + wait_s
    while time.monotonic() < ends and not _gone(folder):
        if (folder / STOPPED).exists():
            return True
        time.sleep(0.1)
    return (folder / STOPPED).exists()


def _here() -> dict[str, str | int | None]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": process_start(os.getpid())}


def _gone(folder: Path) -> bool:
    """Whether rank 0 has not begun yet, or has ended on this machine; of another machine nothing is known."""
    try:
        told = json.loads((folder / WORKER).read_text())
    except FileNotFoundError:
        return True
    return told["host"] == socket.gethostname() and process_start(told["pid"]) != told["started"]
