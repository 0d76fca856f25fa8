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


def _until(path: Path, step: int) -> list[bytes]:
    kept: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        if not line.endswith(b"\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    return kept
