"""Where the time of a training step goes: waiting for samples, forward, backward, summing over workers, the optimizer.

On a GPU work is only queued, so times are read from marks in its queue once the step is over: asking for them earlier
would make the queue run dry. The time that the GPU waits for a sample is then data, the time it works is not.
"""

import time
from typing import Any

import torch

PHASES = ("data", "forward", "backward", "sync", "optimizer")


class Clock:
    """`start()`, then `lap(phase)` at the end of every stretch of work, then `seconds()`."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device.startswith("cuda")
        self.laps: list[tuple[str, Any]] = []

    def start(self) -> None:
        """A step begins."""
        self.laps = [("", self._mark())]

    def lap(self, phase: str) -> None:
        """What was done since the last mark was of this phase, "" for none; it may come often. No-op before `start`."""
        if self.laps:
            self.laps.append((phase, self._mark()))

    def seconds(self) -> dict[str, float]:
        """Seconds of each phase since `start`, as {"data_s": ...}; waits for a GPU to have done it all."""
        if self.on_gpu:
            torch.cuda.synchronize()
        spent = dict.fromkeys((*PHASES, ""), 0.0)
        for (_, begun), (phase, ended) in zip(self.laps, self.laps[1:]):
            spent[phase] += begun.elapsed_time(ended) / 1000.0 if self.on_gpu else ended - begun
        self.laps = []
        return {f"{phase}_s": seconds for phase, seconds in spent.items() if phase}

    def _mark(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark
