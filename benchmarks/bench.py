"""What the parts of the curation benchmark share: footage, fresh workspaces, and this project's stages as a child."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import footage
from measure import HERE, Ran, Result, run

HERE_ONLY = {"site.split.count": 0, "site.score.count": 0}  # both stages in the one process


@dataclass
class Bench:
    """What every part needs."""

    result: Result
    folder: Path  # scratch, gone afterwards
    kept: Path  # prepared footage
    data: Path
    rounds: int
    quick: bool
    peers: bool

    def films(self) -> list[Path]:
        """The real clips, else the drawn cartoon."""
        found = [] if self.quick else footage.real(self.data)
        return found or footage.cartoons(self.kept / "cartoon", range(1 if self.quick else 4))

    def film(self, name: str, width: int, height: int, seconds: float, films: Sequence[Path] | None = None) -> Path:
        """All films joined to one file in a folder of its own; a fiftieth of the length in a smoke run."""
        seconds = max(2.0, seconds / 50) if self.quick else seconds
        path = self.kept / f"{name}-{width}x{height}-{seconds:g}s" / "film.mp4"
        return footage.joined(films or self.films(), path, width, height, seconds)

    def workspace(self) -> Path:
        """A folder that no run has used."""
        return self.folder / f"workspace-{time.monotonic_ns()}"


def child(script: str, *words: Any, cores: int | None = 1) -> Ran:
    """One of the scripts beside this one, on one core with one thread a library."""
    return run([sys.executable, HERE / script, *words], cores, threads=1)


def curated(bench: Bench, videos: Path, cores: int | None = 1, **settings: Any) -> dict[str, Any]:
    """What gather, split and score took in one fresh process and workspace."""
    wanted = json.dumps(HERE_ONLY | settings)
    return child("ours.py", "run", bench.workspace(), videos, wanted, "gather", "split", "score", cores=cores).told()


def seconds_of(told: dict[str, Any], *stages: str) -> float:
    """Wall seconds of stages, without building their workers."""
    return sum(told[name]["seconds"] - told[name]["start_up_s"] for name in stages)
