"""Lines of JSON beside a run, one a step: appended, cut back to where a run resumes, and read again."""

import json
import os
from pathlib import Path
from typing import Any

from ptta_core.whole import write_whole


def append(path: Path, line: dict[str, Any], sync: bool) -> None:
    """Add a line; `sync`: be sure that it and those before are on the disk."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        if sync:
            os.fsync(file.fileno())


def truncate(path: Path, step: int) -> None:
    """Drop the lines of steps that will be done again, and a last line cut short by a kill."""
    write_whole(path, b"".join(_until(path, step)))


def until(path: Path, step: int) -> list[dict[str, Any]]:
    """The lines of the first `step` steps."""
    return [json.loads(line) for line in _until(path, step)]


def final_loss(losses: list[float]) -> float:
    """The mean over the last tenth of the steps."""
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


def summary(metrics: Path, held_out: Path, steps: int) -> dict[str, Any]:
    """What a run of `steps` steps came to, for the adapter's file: final_loss, and the last held-out losses, if any."""
    found: dict[str, Any] = {"steps": steps, "final_loss": final_loss([line["loss"] for line in until(metrics, steps)])}
    measured = until(held_out, steps)
    return found | ({"held_out": measured[-1]} if measured else {})


def _until(path: Path, step: int) -> list[bytes]:
    kept: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        if not line.endswith(b"\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    return kept
