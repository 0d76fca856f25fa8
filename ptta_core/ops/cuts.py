"""`ptta cuts VIDEO`: every boundary of one video, before any length filter; no workspace is needed."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptta_core.config import SplitConfig


def cuts(path: str | os.PathLike[str], config: SplitConfig | None = None) -> list[dict[str, Any]]:
    """Boundaries in order, each {"time_s", "frame", "kind": "cut" | "fade" | "dissolve", "confidence"}.

    frame: 0-based among the pictures shown: the first of the new shot, the first of a fade's black or white and the
    first after it (the middle of one of at most 10 frames), the middle of a dissolve. time_s: when it is shown.
    confidence: 0..1. Raises video.VideoError, and interlace.Combed for combing that cannot be undone.
    """
    from ptta_core import video
    from ptta_core.models import shots
    from ptta_core.stages import split

    config = config or SplitConfig()
    path = str(Path(path).absolute())
    info = video.probe(path)
    long = split.Long(info, split.cleanup_of(path, info, config))
    whole = split.Chunk(split.SplitItem("", path), long, None, None)
    found = shots.decide(split.measured(whole, config, threads=len(os.sched_getaffinity(0))), config)
    return [
        {"time_s": round(one.time_s, 6), "frame": one.frame, "kind": one.kind, "confidence": round(one.confidence, 3)}
        for one in found.boundaries
    ]


def as_text(found: Sequence[dict[str, Any]]) -> str:
    """A table for people."""
    lines = [f"{one['time_s']:10.3f}  {one['frame']:7}  {one['kind']:8}  {one['confidence']:.2f}" for one in found]
    return "\n".join([f"{'time_s':>10}  {'frame':>7}  {'kind':8}  confidence", *lines])


def as_json(found: Sequence[dict[str, Any]]) -> str:
    """One JSON array on one line."""
    return json.dumps(list(found))
