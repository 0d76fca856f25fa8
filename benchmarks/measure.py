"""What the benchmarks share: processes on a core of their own, rounds, medians, and the table at the end."""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "RAYON_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Row:
    """One line of a table. `goal` is what is aimed at, in words; `value` and `values` share a unit."""

    part: str
    what: str
    value: float | str
    unit: str = ""
    values: tuple[float, ...] = ()  # one a round
    goal: str = ""


@dataclass
class Result:
    """What a benchmark found: lines to read, and figures by name for machines."""

    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def timed(self, part: str, what: str, seconds: Sequence[float], unit: str = "s") -> float:
        """Add a row with the median of the rounds; returns the median."""
        middle = statistics.median(seconds)
        self.rows.append(Row(part, what, middle, unit, tuple(seconds)))
        return middle

    def figure(self, part: str, name: str, value: float | None, goal: str = "", unit: str = "") -> None:
        """Add a named figure; None stands for one that could not be had."""
        self.figures[name] = value
        self.rows.append(Row(part, f"**{name}**", "none" if value is None else value, unit, (), goal))

    def note(self, part: str, what: str, text: str) -> None:
        """Add a line of words, such as why a peer gave no figure."""
        self.rows.append(Row(part, what, text))

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = ["| part | what | median | min..max | goal |", "|--|--|--|--|--|"]
        return "\n".join(lines + [f"| {' | '.join(_cells(row))} |" for row in self.rows])

    def text(self) -> str:
        """The table for a terminal."""
        cells = [("part", "what", "median", "min..max", "goal"), *(_cells(row) for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(5)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    value = row.value if isinstance(row.value, str) else f"{row.value:.4g} {row.unit}".strip()
    spread = f"{min(row.values):.4g}..{max(row.values):.4g}" if len(row.values) > 1 else ""
    return row.part, row.what, value.replace("|", "/"), spread, row.goal


# ------------------------------------------------------------------------------------------------ command line


def arguments(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="measurements of each thing; medians are shown")
    parser.add_argument("--quick", action="store_true", help="a smoke run: everything small, figures mean nothing")
    parser.add_argument("--footage", help="a folder to prepare footage in, and to find it again")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on the last line")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser


def show(result: Result, asked: argparse.Namespace) -> None:
    """Print the table and, where asked for, the figures as the last line."""
    print(result.markdown() if asked.markdown else result.text())
    if asked.json:
        print(json.dumps(result.figures))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ptta-bench-") as folder:
        yield Path(folder)


def say(text: str) -> None:
    """Progress, beside the table."""
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------ processes


@dataclass(frozen=True)
class Ran:
    """A process that has ended."""

    seconds: float  # wall, start included
    cpu_s: float  # user and system, children included
    said: str  # its standard output

    def told(self) -> Any:
        """The JSON object on its last line."""
        return json.loads(self.said.strip().splitlines()[-1])


class Died(RuntimeError):
    """A process ended badly or was stopped; the message is the end of what it said."""


def run(command: Sequence[str | Path], cores: int | None = None, threads: int | None = None, limit_s: float = 1800,
        memory: int | None = None) -> Ran:  # fmt: skip
    """Run a process to its end. Raises Died.

    cores: how many cores it may use (the last ones, so that one core means the same one every time).
    threads: 1 for one thread a library. memory: bytes of address space (RLIMIT_AS).
    """
    environment = os.environ | (ONE_THREAD if threads == 1 else {})
    before = os.times()
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit_s,
            preexec_fn=lambda: _limit(cores, memory), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Died(f"stopped after {limit_s:g} s") from error
    seconds, after = time.monotonic() - begun, os.times()
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1][:200]
        raise Died(f"exit status {done.returncode}: {last}")
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Ran(seconds, cpu_s, done.stdout)


def _limit(cores: int | None, memory: int | None) -> None:
    import resource

    if cores:
        os.sched_setaffinity(0, last_cores(cores))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def last_cores(count: int) -> list[int]:
    """The highest numbered cores that this process may use."""
    return sorted(os.sched_getaffinity(0))[-count:]


class Watch:
    """Looks at the pool's worker processes while they run: pins each to a core of its own, notes their peak memory."""

    def __init__(self, pin: bool = False) -> None:
        self.pin = pin
        self.peak_mb: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        own, cores = psutil.Process(), last_cores(os.cpu_count() or 1)
        while not self._over.wait(0.05):
            for child in own.children(recursive=True):
                try:
                    self._see(child, cores)
                except (psutil.Error, OSError):  # gone in the meantime
                    continue

    def _see(self, child: Any, cores: list[int]) -> None:
        title = child.cmdline()
        if not title or not title[0].startswith("ray::_Actor"):
            return
        if self.pin and child.pid not in self.peak_mb:
            core = cores[len(self.peak_mb) % len(cores)]
            for thread in child.threads():
                os.sched_setaffinity(thread.id, {core})
        status = Path(f"/proc/{child.pid}/status").read_text()
        high = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]  # KiB; none once dead
        self.peak_mb[child.pid] = max([self.peak_mb.get(child.pid, 0.0), *(kib / 1024 for kib in high)])


def interleave(rounds: int, **each: Callable[[], Any]) -> dict[str, list[Any]]:
    """Call each function once a round, in turn, so that a slow minute hits all of them alike."""
    found: dict[str, list[Any]] = {name: [] for name in each}
    for number in range(rounds):
        for name, call in each.items():
            begun = time.monotonic()
            found[name].append(call())
            say(f"round {number + 1} of {rounds}: {name}: {time.monotonic() - begun:.1f} s")
    return found
