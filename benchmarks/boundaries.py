"""Shot boundaries found by the two command lines, and how they are scored against hand-checked truth (shots.json)."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Ran, run

NEAR = 2  # frames that a detection may lie beside a hard cut
MIXED = -1  # in place of a run's number: a frame of a gradual change
WIDE = 5  # frames by which a gradual change is widened on each side


@dataclass(frozen=True)
class Tally:
    """What was found, missed and reported wrongly over some films."""

    found: int = 0
    missed: int = 0
    wrong: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.found + other.found, self.missed + other.missed, self.wrong + other.wrong)

    @property
    def f1(self) -> float:
        """0..1; 1 where there was nothing to find and nothing was reported."""
        return 2 * self.found / total if (total := 2 * self.found + self.missed + self.wrong) else 1.0


def score(film: dict[str, Any], frames: Sequence[int]) -> tuple[Tally, Tally]:
    """(hard cuts alone, hard cuts and gradual changes) for detections at `frames`, 0-based.

    A detection counts for one hard cut within 2 frames; for a gradual change inside it, widened by 5 frames; one in a
    gradual change or an ambiguous stretch is never wrong.
    """
    left, wrong, gradual = list(film["hard_cuts"]), 0, set()
    spans = [(one["start"] - WIDE, one["end"] + WIDE) for one in film["gradual"]]
    ambiguous = [(one["start"], one["end"]) for one in film["ambiguous"]]
    for frame in sorted(frames):
        hits = [cut for cut in left if abs(cut - frame) <= NEAR]
        inside = {span for span in spans if span[0] <= frame <= span[1]}
        gradual |= inside
        if hits:
            left.remove(hits[0])
        elif not inside and not any(first <= frame <= last for first, last in ambiguous):
            wrong += 1
    hard = Tally(len(film["hard_cuts"]) - len(left), len(left), wrong)
    return hard, hard + Tally(len(gradual), len(spans) - len(gradual))


@dataclass(frozen=True)
class Clean:
    """Which frames clips hold of some films."""

    clips: int = 0
    bleeding: int = 0  # frames in a clip that are mixed, blank or of another shot than most of it
    torn: int = 0  # clips that hold such frames
    lost: int = 0  # clean frames that are in no clip
    frames: int = 0  # clean ones

    def __add__(self, other: "Clean") -> "Clean":
        return Clean(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def cleanness(film: dict[str, Any], clips: Sequence[tuple[int, int]]) -> Clean:
    """What clips (first frame and end, exclusive) hold of the film's clean runs.

    Frames that are ambiguous, or neither in a run nor in a gradual change (text cards), count for nothing.
    """
    owner: list[int | None] = [None] * film["frames"]
    for one in film["gradual"]:
        owner[one["start"] : one["end"] + 1] = [MIXED] * (one["end"] + 1 - one["start"])
    for number, (first, last) in enumerate(film["shots"]):
        owner[first : last + 1] = [number] * (last + 1 - first)
    for one in film["ambiguous"]:
        owner[one["start"] : one["end"] + 1] = [None] * (one["end"] + 1 - one["start"])
    found, held = Clean(), set()
    for first, end in clips:
        owners = [one for one in owner[first:end] if one is not None]
        own = max(set(owners) - {MIXED}, key=owners.count, default=None)
        wrong = sum(one != own for one in owners)
        held |= set(range(first, end))
        found += Clean(1, wrong, int(wrong > 0))
    clean = {frame for frame, one in enumerate(owner) if one not in (None, MIXED)}
    return found + Clean(lost=len(clean - held), frames=len(clean))


def runs(film: dict[str, Any]) -> list[tuple[int, int]]:
    """The clean runs (first, last) of a film between its hard cuts and gradual changes."""
    ends = [(cut, cut) for cut in film["hard_cuts"]] + [(one["start"], one["end"] + 1) for one in film["gradual"]]
    ends.sort()
    firsts, lasts = [0, *(resume for _, resume in ends)], [*(start for start, _ in ends), film["frames"]]
    return [(first, last - 1) for first, last in zip(firsts, lasts) if first < last]


def films(data: Path) -> list[dict[str, Any]]:
    """The films with known boundaries, each with its `path`; none where there is no shots.json."""
    truth = data / "shots.json"
    told = json.loads(truth.read_text())["videos"] if truth.is_file() else []
    return [film | {"path": data / film["file"]} for film in told]


def drawn(folder: Path) -> list[dict[str, Any]]:
    """The drawn cartoon's films in the same form; its flashes are no boundaries."""
    told = json.loads((folder / "truth.json").read_text())["files"]
    return [{"file": one["file"], "path": folder / one["file"], "hard_cuts": one["cuts"], "ambiguous": [],
             "gradual": [{"start": first, "end": last} for first, last in one["fades"]]} for one in told]  # fmt: skip


# ------------------------------------------------------------------------------------------- the command lines


def ours(path: Path, cores: int | None = None) -> tuple[list[int], Ran]:
    """The frames at which `ptta cuts` finds boundaries. Raises Died."""
    done = run([sys.executable, "-m", "flows.cli", "cuts", path, "--json"], cores)
    told = [json.loads(line) for line in done.said.splitlines() if line.startswith(("{", "["))]
    rows = [row for one in told for row in (one if isinstance(one, list) else [one])]
    return [row["frame"] for row in rows], done


def scenedetect(path: Path, folder: Path, cores: int | None = None) -> tuple[list[int], Ran]:
    """The frames at which `scenedetect` cuts: adaptive detector, every default; the list of scenes and nothing else.

    Raises Died.
    """
    command = [sys.executable, "-m", "scenedetect", "-q", "-i", path, "-o", folder, "detect-adaptive", "list-scenes"]
    done = run(command, cores)
    with next(folder.glob(f"{path.stem}-Scenes.csv")).open() as file:
        rows = list(csv.reader(file))
    head = next(number for number, row in enumerate(rows) if "Start Frame" in row)
    column = rows[head].index("Start Frame")
    starts = [int(row[column]) - 1 for row in rows[head + 1 :]]  # it counts from 1
    return starts[1:], done
