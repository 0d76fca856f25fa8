"""Precision and recall of the overlay measures: subtitles and logos burnt into real animation, and the same without.

    python benchmarks/overlays.py DIR [--shots shots.json] [--json]

DIR holds animation videos, cut at the shots of `--shots` or every 3 seconds. Each shot is read
at its own size, left alone, given subtitles, or given a logo, encoded as H.264, and measured as the score stage does.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from stamps import Stamp, logo, subtitle

from ptta_core import video
from ptta_core.models import overlay

COLOURED = (1, 6, 10)  # of the dozen frames: those nearest to 10, 50 and 90 %

# --------------------------------------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Shot:
    """Frames of one shot at their own size, spread evenly."""

    name: str
    images: list[np.ndarray]


class Seen(NamedTuple):
    """A shot as the score stage sees it: a dozen frames in gray and three in colour."""

    grays: list[np.ndarray]
    colours: list[np.ndarray]


Example = tuple[str, str, int, Stamp | None, Seen]  # shot, kind, seed, what was burnt in, what is seen


def shots(folder: Path, known: Path | None, most: int, length_s: float = 3.0) -> Iterator[Shot]:
    """Up to `most` shots a video of at most `length_s`, as many frames of each as the score stage looks at."""
    cuts = {Path(one["file"]).name: one["shots"] for one in json.loads(known.read_text())["videos"]} if known else {}
    for path in sorted(folder.iterdir()):
        info = video.probe(path)
        frames = round(info.duration_s * info.fps)
        spans = []
        for first, last in cuts.get(path.name, [(0, frames - 1)]):
            step = round(length_s * info.fps)
            last = min(last, frames - 1)
            spans += [(at, min(last, at + step - 1)) for at in range(first, last - 13, step)]
        spans = [span for span in spans if span[1] - span[0] >= 13]
        chosen = [spans[at] for at in np.linspace(0, len(spans) - 1, min(most, len(spans))).astype(int)]
        yield from _read_shots(path, chosen)


def _read_shots(path: Path, spans: list[tuple[int, int]]) -> Iterator[Shot]:
    wanted = {span: set(np.linspace(*span, overlay.LOOKS).round().astype(int).tolist()) for span in spans}
    held: dict[tuple[int, int], list[np.ndarray]] = {span: [] for span in spans}
    for frame in video.read_frames(path):
        for span in spans:
            if frame.index in wanted[span]:
                held[span].append(frame.image)
            if frame.index == span[1] and len(held[span]) == overlay.LOOKS:
                yield Shot(f"{path.name} {span[0]}-{span[1]}", held.pop(span))
                held[span] = []
        if frame.index >= max(last for _, last in spans):
            return


def seen(images: list[np.ndarray], stamp: Stamp | None, file: Path, crf: int = 26) -> Seen:
    """The frames with a stamp on them, encoded as H.264, and read as the score stage reads them."""
    made = images if stamp is None else [stamp.on(image) for image in images]
    video.write_mp4(file, made, 6, crf=crf)
    size = {"width": 576, "height": 320} if made[0].shape[1] >= made[0].shape[0] else {"width": 320, "height": 576}
    grays = [frame.image for frame in video.read_frames(file, pixel="gray", **size)]
    short = {"height": 320} if made[0].shape[1] >= made[0].shape[0] else {"width": 320}
    colours = [frame.image for frame in video.read_frames(file, **short) if frame.index in COLOURED]
    return Seen(grays, colours)


def examples(folder: Path, known: Path | None, most: int, rounds: int, first_seed: int = 0) -> Iterator[Example]:
    """(shot, "plain" | "text" | "logo", seed, what was burnt in, frames as seen) for every shot."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "a.mp4"
        for number, shot in enumerate(shots(folder, known, most)):
            height, width = shot.images[0].shape[:2]
            yield shot.name, "plain", 0, None, seen(shot.images, None, file)
            for turn in range(rounds):
                seed = first_seed + 1000 * number + turn
                for kind, make in (("text", subtitle), ("logo", logo)):
                    stamp = make(height, width, seed)
                    yield shot.name, kind, seed, stamp, seen(shot.images, stamp, file)


# ------------------------------------------------------------------------------------------------- the figures


def judged(example: Example) -> dict[str, bool]:
    """Whether text and whether a logo was found in one example; a found logo must touch the one burnt in."""
    _, kind, _, stamp, (grays, colours) = example
    found = overlay.measure(grays, colours)
    box, logo_found = found.static_box, found.static_box is not None
    if kind == "logo" and stamp is not None and box is not None:
        opacity = cv2.resize(stamp.opacity, grays[0].shape[::-1], interpolation=cv2.INTER_AREA)
        logo_found = bool((opacity[box[1] : box[3], box[0] : box[2]] > 0.1).any())
    return {"text": found.text_share > 0, "logo": logo_found}


def figures(seen: list[tuple[str, str, dict[str, bool]]], real_text: str, real_logo: str) -> dict[str, float]:
    """Precision and recall of both measures, as many shots with as without; true overlays of the footage left out."""
    found: dict[str, float] = {}
    for what, real in (("text", real_text), ("logo", real_logo)):
        left = [(kind, one) for name, kind, one in seen if not (real and re.search(real, name))]
        hits = [one[what] for kind, one in left if kind == what]
        false = [one[what] for kind, one in left if kind == "plain"]
        recall, alarms = float(np.mean(hits)), float(np.mean(false))
        found |= {f"{what}_recall": recall, f"{what}_false_alarms": alarms,
                  f"{what}_precision": recall / max(recall + alarms, 1e-9),
                  f"{what}_with": len(hits), f"{what}_without": len(false)}  # fmt: skip
    return found


def main() -> None:
    """Measure, print a table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=Path, help="JSON of the known shots of the videos")
    parser.add_argument("--most", type=int, default=8, help="shots a video")
    parser.add_argument("--rounds", type=int, default=1, help="subtitles and logos a shot")
    parser.add_argument("--first-seed", type=int, default=500_000, help="the fit used seeds below 100000")
    parser.add_argument("--real-text", default="", help="shots whose name matches hold real text: left out")
    parser.add_argument("--real-logo", default="", help="shots whose name matches hold a real logo: left out")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    seen, spent = [], 0.0
    for example in examples(asked.folder, asked.shots, asked.most, asked.rounds, asked.first_seed):
        begun = time.monotonic()
        seen.append((example[0], example[1], judged(example)))
        spent += time.monotonic() - begun
    result = figures(seen, asked.real_text, asked.real_logo) | {"ms_a_clip": 1000 * spent / len(seen)}
    print("          precision  recall   shots with / without")
    for what in ("text", "logo"):
        numbers = [result[f"{what}_{name}"] for name in ("precision", "recall", "with", "without")]
        print(f"{what:8}  {numbers[0]:9.3f}  {numbers[1]:6.3f}   {numbers[2]} / {numbers[3]}")
    missed = [f"{name} ({kind})" for name, kind, one in seen if kind != "plain" and not one[kind]]
    print(f"{result['ms_a_clip']:.0f} ms a clip; missed: {', '.join(missed) or 'none'}")
    if asked.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
