"""Shot boundaries and clips, ours beside PySceneDetect's two detectors, on the same files.

    python benchmarks/shots.py [--data DIR] [--films FOLDER] [--json]

Sets: the annotated real films; films composed of known shots (composed.py), of which the even numbers were tuned on and
the odd ones were not; films of shots from files that nothing was tuned on, joined in every way that mixes frames
(joins.py); and single shots of those files with something that looks like a boundary (negatives.py). They are made in
FOLDER once. A wrong boundary is one where there is none. A bleeding frame is mixed, blank or of a neighbouring shot
and lies in a clip all the same; a clean one that lies in none is lost. All three detectors read the same files here, so
this compares rules; curation.py compares command lines and their speed. With --json the last line is one object.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boundaries
import composed
import joins
import negatives

from ptta_core import video
from ptta_core.config import SplitConfig
from ptta_core.models import shots

ROOT = Path(__file__).resolve().parent.parent
DETECTORS = ("steps", "adaptive", "content")
SEED, JOINED, EACH = 2, 60, 6  # of the films that nothing was tuned on, and of each kind of negative
NONE = boundaries.Tally()


@dataclass(frozen=True)
class Result:
    """What a detector made of some films."""

    hard: boundaries.Tally = NONE
    every: boundaries.Tally = NONE
    clean: boundaries.Clean = boundaries.Clean()  # noqa: RUF009 - it is frozen

    def __add__(self, other: "Result") -> "Result":
        return Result(self.hard + other.hard, self.every + other.every, self.clean + other.clean)


def found_by(detector: str, path: Path) -> tuple[list[int], list[tuple[int, int]]]:
    """The frames at which a detector finds boundaries, and its clips (first, end); PySceneDetect at its defaults."""
    if detector == "steps":
        found = shots.find_boundaries(video.read_frames(str(path), width=SplitConfig().width), SplitConfig())
        index = {pts: number for number, pts in enumerate(found.pts)} | {found.end_pts: len(found.pts)}
        spans = shots.whole_shots(found, 0.0)
        return [one.frame for one in found.boundaries], [(index[one.start_pts], index[one.end_pts]) for one in spans]
    from scenedetect import AdaptiveDetector, ContentDetector, detect

    made = AdaptiveDetector() if detector == "adaptive" else ContentDetector()
    scenes = [(first.frame_num, end.frame_num) for first, end in detect(str(path), made, start_in_scene=True)]
    return [first for first, _ in scenes[1:]], scenes


def result(detector: str, films: Sequence[dict[str, Any]]) -> Result:
    """Of a detector on some films."""
    total = Result()
    for film in films:
        marks, clips = found_by(detector, film["path"])
        runs = film | {"shots": film.get("shots") or boundaries.runs(film)}
        total += Result(*boundaries.score(film, marks), boundaries.cleanness(runs, clips))
    return total


def sets(data: Path, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The films by set; those without real clips hold drawn shots alone."""
    made = composed.compose(folder, data)
    return {
        "films": boundaries.films(data), "composed, tuned on": composed.split(made, held_out=False),
        "composed": composed.split(made, held_out=True), "joined": joins.compose(folder, data, JOINED, SEED, True),
        "negatives": negatives.compose(folder, data, EACH, SEED, True),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--films", type=Path, help="where composed films are kept")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        print("| detector | set | hard cuts | F1, hard | F1, all | wrong | clips | bleeding frames | clips with such |"
              " clean frames lost |\n|" + "--|" * 10)  # fmt: skip
        for name, films in sets(asked.data, asked.films or Path(scratch)).items():
            for detector in DETECTORS if films else ():
                one = result(detector, films)
                cuts, clean = sum(len(film["hard_cuts"]) for film in films), one.clean
                lost = clean.lost / max(1, clean.frames)
                scores = f"{one.hard.f1:.3f} | {one.every.f1:.3f}" if cuts else "- | -"  # there is nothing to find
                print(f"| {detector} | {name} | {cuts} | {scores} | {one.hard.wrong} | {clean.clips} |"
                      f" {clean.bleeding} | {clean.torn} | {lost:.1%} |", flush=True)  # fmt: skip
                key = f"{detector}_{name.replace(', ', '_').replace(' ', '_')}"
                figures |= {
                    f"{key}_hard": round(one.hard.f1, 4), f"{key}_all": round(one.every.f1, 4),
                    f"{key}_wrong": one.hard.wrong, f"{key}_cuts": cuts, f"{key}_bleeding": clean.bleeding,
                    f"{key}_torn": clean.torn, f"{key}_lost": round(lost, 4),
                }  # fmt: skip
    if asked.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
