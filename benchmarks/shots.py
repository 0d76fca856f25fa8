"""Shot boundaries, ours beside PySceneDetect's two detectors, on the same files: hand-checked, composed, held out.

    python benchmarks/shots.py [--data DIR] [--films FOLDER] [--json]

Composed films (composed.py) are made in FOLDER once; their even numbers were tuned on, their odd ones were not. All
three read the same small pictures here, so this compares rules; curation.py compares command lines and their speed.
With --json the last line is one object: F1 of hard cuts and of all boundaries, by detector and set.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boundaries
import composed

from ptta_core import video
from ptta_core.config import SplitConfig
from ptta_core.models import shots

ROOT = Path(__file__).resolve().parent.parent
WIDTH = {"steps": SplitConfig().width, "adaptive": 256, "content": 256}  # px; PySceneDetect shrinks to about 256


def found_by(detector: str, path: Path) -> list[int]:
    """Frames at which a detector finds boundaries; PySceneDetect's with its defaults."""
    if detector == "steps":
        frames = video.read_frames(str(path), width=WIDTH[detector])
        return [one.frame for one in shots.find_boundaries(frames, SplitConfig()).boundaries]
    from scenedetect import AdaptiveDetector, ContentDetector, detect

    made = AdaptiveDetector() if detector == "adaptive" else ContentDetector()
    return [scene[0].frame_num for scene in detect(str(path), made)[1:]]


def f1_of(detector: str, films: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """F1 of hard cuts, and of all boundaries."""
    hard = every = boundaries.Tally()
    for film in films:
        one, both = boundaries.score(film, found_by(detector, film["path"]))
        hard, every = hard + one, every + both
    return hard.f1, every.f1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--films", type=Path, help="where composed films are kept")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made = composed.compose(asked.films or Path(scratch), asked.data)
        sets = {"films": boundaries.films(asked.data), "tune": composed.split(made, held_out=False),
                "held_out": composed.split(made, held_out=True)}  # fmt: skip
        figures: dict[str, float] = {}
        print(f"{'detector':10} {'set':10} {'hard':>6} {'all':>6}")
        for name, films in sets.items():
            for detector in ("steps", "adaptive", "content") if films else ():
                hard, every = f1_of(detector, films)
                figures |= {f"{detector}_{name}_hard": round(hard, 4), f"{detector}_{name}_all": round(every, 4)}
                print(f"{detector:10} {name:10} {hard:6.3f} {every:6.3f}", flush=True)
    if asked.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
