"""What training workers write into a run's folder, taken into the tables while the run goes on.

Workers append lines to files and know nothing of tables. After a worker's death the steps since the last checkpoint are
done again: their lines are cut off and come anew, and what was taken in of them is taken back.
"""

import contextlib
import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptta_core.lease import LeaseHeld, LeaseLost
from ptta_core.rows import HeldOut, Preview, Router, Step
from ptta_core.training import checkpoint, previews
from ptta_core.training.board import Board
from ptta_core.training.loop import ADAPTER, CHECKPOINTS, HELD_OUT, METRICS, ROUTERS

FILES: dict[type, str] = {Step: METRICS, HeldOut: HELD_OUT, Router: ROUTERS}
AT_ONCE: dict[type, int] = {Step: 2000, HeldOut: 500, Router: 10}  # lines in one commit; a router's is many rows
LONGEST_S = 60.0  # between two looks, of a run of days
SHARE = 0.01  # of the time so far: the tables of a long run get few commits, those of a short one are fresh

log = logging.getLogger("ptta")

Placed = tuple[str, Any]  # a word on a row's place among the run's, and the row
Publish = Callable[[Sequence[Placed]], None]
Retract = Callable[[type, int], None]  # a noun, and the last step whose rows stay


class Tail:
    """Reads a file of JSON lines on from where it stopped, and notices when lines were cut off and written anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode, self._offset = 0, 0
        self._seen: list[int] = []  # a checksum a line
        self._last = 0  # where the last line begins

    def news(self) -> tuple[int, list[dict[str, Any]]]:
        """(how many of the lines told before still stand, the lines after them). A line cut short is not told yet."""
        try:
            with open(self.path, "rb") as file:
                return self._read(file)
        except FileNotFoundError:
            return len(self._seen), []

    def _read(self, file: Any) -> tuple[int, list[dict[str, Any]]]:
        before: list[int] = []  # of a file that must be read from its beginning again
        if not self._same(file):
            before, self._seen, self._offset = self._seen, [], 0
            self._inode = os.fstat(file.fileno()).st_ino
        file.seek(self._offset)
        lines = file.read().rpartition(b"\n")[0].splitlines()
        known = len(self._seen)
        for line in lines:
            self._last, self._offset = self._offset, self._offset + len(line) + 1
            self._seen.append(zlib.crc32(line))
        stand = known
        while stand < min(len(before), len(self._seen)) and before[stand] == self._seen[stand]:
            stand += 1
        return stand, [json.loads(line) for line in lines[stand - known :]]

    def _same(self, file: Any) -> bool:
        """Whether it is the file as it was left, only longer. A new file may have an old one's number."""
        status = os.fstat(file.fileno())
        if not self._seen or status.st_ino != self._inode or status.st_size < self._offset:
            return False
        file.seek(self._last)
        return zlib.crc32(file.read(self._offset - self._last)[:-1]) == self._seen[-1]


class Importer:
    """One run's files as rows. Call it again and again: what could not be committed, it tries again."""

    def __init__(
        self, run: Path, train_id: str, publish: Publish, retract: Retract, board: Board | None = None
    ) -> None:
        self.run, self.train_id, self.publish, self.retract, self.board = run, train_id, publish, retract, board
        # by names, damaged ones too: what is done again after all is noticed when its lines change
        saved = max(checkpoint.by_step(run / CHECKPOINTS), default=0)
        self.previews: set[int] = set()  # by the step at which they were due; what was made is never made again
        self.files = {noun: _File(Tail(run / name)) for noun, name in FILES.items()}
        if not (run / ADAPTER).exists():
            for file in self.files.values():  # what an earlier driver took in of steps that will be done again
                file.back_to = saved

    def __call__(self) -> None:
        """Take in what is new. Raises LeaseHeld, LeaseLost, OSError."""
        for noun, file in self.files.items():
            lines, again = file.look()
            if self.board:
                self.board.show(noun, lines, again)
            if file.back_to is not None:
                self.retract(noun, file.back_to)
                file.back_to = None
            while some := file.waiting[: AT_ONCE[noun]]:
                self.publish([placed for line in some for placed in rows_of(noun, self.train_id, line)])
                del file.waiting[: len(some)]
        for due, preview in previews.told(self.run).items():
            if due not in self.previews:
                self.publish(list(preview_rows(self.train_id, f"{self.run.parent.name}/{self.run.name}", preview)))
                self.previews.add(due)


@dataclass
class _File:
    """What is known of one file, and what of it is not in the tables yet."""

    tail: Tail
    steps: list[int] = field(default_factory=list)  # of the lines told
    waiting: list[dict[str, Any]] = field(default_factory=list)
    back_to: int | None = None  # rows of later steps are to be taken back

    def look(self) -> tuple[list[dict[str, Any]], bool]:
        """New lines, and whether they take the place of others."""
        stand, lines = self.tail.news()
        again = stand < len(self.steps)
        if again:
            last = self.steps[stand - 1] if stand else 0
            self.back_to = last if self.back_to is None else min(last, self.back_to)
            self.waiting = [line for line in self.waiting if line["step"] <= last]
        self.steps = [*self.steps[:stand], *(line["step"] for line in lines)]
        self.waiting += lines
        return lines, again


def rows_of(noun: type, train_id: str, line: dict[str, Any]) -> Iterator[Placed]:
    """The rows of one line."""
    step = line["step"]
    if noun is Step:
        yield f"{step}", Step(train_id=train_id, **line)
    elif noun is HeldOut:
        for quarter, (t, loss) in enumerate(zip(line["t"], line["loss"])):
            yield f"{step} {quarter}", HeldOut(train_id, step, quarter, t, loss, line["samples"])
    else:
        for place, label in enumerate(line["labels"]):
            for at, layer in enumerate(line["layers"]):
                yield f"{step} {layer} {label}", Router(
                    train_id, step, layer, label, line["samples"][place], line["gate_mean"][place][at],
                    line["gate_entropy"][place][at], line["branch_cosine"][at], line["dead_branches"][at],
                )  # fmt: skip


def preview_rows(train_id: str, folder: str, told: dict[str, Any]) -> Iterator[Placed]:
    """The rows of one preview: a video each, or one row with the reason why there is none."""
    due, step, seconds, note = (told[name] for name in ("due", "step", "seconds", "note"))
    for place, one in enumerate(told["videos"]):
        video = one | {"path": f"{folder}/{one['path']}"}
        yield f"{due} {place}", Preview(train_id=train_id, due=due, step=step, seconds=seconds, note=note, **video)
    if not told["videos"]:
        yield f"{due}", Preview(train_id, due, step, "", 0, "", "", 0, 0, 0, 0.0, "", seconds, note)


@contextlib.contextmanager
def meanwhile(importer: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call the importer from a thread while the body runs, at first every `every_s`; and once more at its end.

    What goes wrong on the way is told and tried again: a run of days does not end for a table that is busy. Only the
    last call raises, and not where the body did.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_repeat, args=(importer, every_s, stop), name="importer", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        _end(stop, thread)
        with _told():
            importer()
        raise
    _end(stop, thread)
    importer()


def _repeat(importer: Callable[[], None], every_s: float, stop: threading.Event) -> None:
    begun = time.monotonic()
    while not stop.wait(min(LONGEST_S, max(every_s, SHARE * (time.monotonic() - begun)))):
        with _told():
            importer()


def _end(stop: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    thread.join()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, LeaseHeld, LeaseLost) as error:
        log.warning("train: what was measured is not in the tables yet, only in the run's folder: %s", error)
