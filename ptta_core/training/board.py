"""A run for TensorBoard: event files in RUN/tensorboard, written from the same lines as the tables.

tensorboardX comes with Ray Train and needs neither TensorBoard nor TensorFlow. Its writer of events is used without the
queue and process around it: what `show` was given is on the disk when it returns.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from ptta_core.rows import HeldOut, Router, Step

FOLDER = "tensorboard"
GROUPS = {"data_s": "seconds", "forward_s": "seconds", "backward_s": "seconds", "sync_s": "seconds",
          "optimizer_s": "seconds", "step_s": "seconds", "gate_entropy": "routers", "gate_evenness": "routers",
          "branch_cosine": "routers", "dead_branches": "routers"}  # fmt: skip


class Board:
    """The event files of one run, begun anew with this object: what it is given first is the whole run so far."""

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER
        self.writer: EventsWriter | None = None
        self.files = 0

    def show(self, noun: type, lines: Sequence[dict[str, Any]], again: bool) -> None:
        """Write the lines of a noun's file. again: steps were taken back, and what TensorBoard has of them goes."""
        if not lines:
            return
        if self.writer is None or (again and noun is Step):
            self.writer = self._new(lines[0]["step"] if again else 0)
        at = time.time() - sum(line.get("step_s", 0.0) for line in lines)
        for line in lines:
            at += line.get("step_s", 0.0)
            for name, value in scalars(noun, line):
                self.writer.write_event(Event(wall_time=at, step=line["step"], summary=scalar(name, value)))
        self.writer.flush()

    def close(self) -> None:
        """Nothing more will come."""
        if self.writer is not None:
            self.writer.close()

    def _new(self, step: int) -> EventsWriter:
        """A new file; readers drop what they have of `step` and later steps."""
        self.close()
        if not self.files:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        self.files += 1
        writer = EventsWriter(str(self.folder / "events"), f".{self.files:04d}")
        start = SessionLog(status=SessionLog.SessionStatus.START)
        writer.write_event(Event(wall_time=time.time(), step=step, session_log=start))
        return writer


def scalars(noun: type, line: dict[str, Any]) -> list[tuple[str, float]]:
    """(tag, value) of a line: numbers of a step, the held-out loss of each quarter, the mean gates of each label."""
    if noun is Step:
        found = [(f"{GROUPS.get(name, 'train')}/{name}", value) for name, value in line.items()
                 if name not in ("step", "gate_mean")]  # fmt: skip
        return found + [(f"gates/branch{branch + 1}", value) for branch, value in enumerate(line["gate_mean"])]
    if noun is HeldOut:
        return [(f"held_out/quarter{place + 1}", loss) for place, loss in enumerate(line["loss"])]
    assert noun is Router
    return [(f"gates_of_{label}/branch{branch + 1}", sum(layer[branch] for layer in gates) / len(gates))
            for label, gates in zip(line["labels"], line["gate_mean"]) if label
            for branch in range(len(gates[0]))]  # fmt: skip
