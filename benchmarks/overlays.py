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

import cv2
import numpy as np

from ptta_core import video
from ptta_core.models import overlay

LINES = (
    "I never said that.", "Where are you going?", "We have to leave before the sun comes up", "Hey!  Wait for me!",
    "The dragon was here last night.", "- Who is it?  - Nobody.", "You don't know what you're talking about, do you?",
    "Once upon a time, in a land far away,", "OK", "Come on, let's go home.", "It cannot be undone.", "What?!",
)  # fmt: skip
CJK = (
    "お前はもう死んでいる", "私は行かなければならない", "どこへ行くの?", "我们必须马上离开这里", "你在说什么?",
    "ありがとう、さようなら",
)  # fmt: skip
FILLS = ((255, 255, 255), (255, 255, 255), (255, 230, 40), (240, 240, 240), (120, 230, 255))


@dataclass(frozen=True)
class Stamp:
    """What is burnt in: a colour [H,W,3] and an opacity [H,W] 0..1, the same on every frame that carries it."""

    colour: np.ndarray
    opacity: np.ndarray

    def on(self, image: np.ndarray) -> np.ndarray:
        """The picture with the stamp: uint8 [H,W,3] -> the same."""
        alpha = self.opacity[..., None]
        return np.round(image * (1 - alpha) + self.colour * alpha).astype(np.uint8)


def write_text(mask: np.ndarray, text: str, left: int, base: int, font: str, size: int) -> None:
    """Draw text as opacity 255 into a uint8 mask [H,W]; fonts: sans, italic, uni (OpenCV's own) or hershey."""
    if font == "hershey":
        scale = size / 30
        thick = max(1, round(size / 14))
        cv2.putText(mask, text, (left, base), cv2.FONT_HERSHEY_DUPLEX, scale, 255, thick, cv2.LINE_AA)
    else:
        canvas = np.zeros((*mask.shape, 3), np.uint8)
        cv2.putText(canvas, text, (left, base), (255, 255, 255), cv2.FontFace(font), size, 400)
        np.maximum(mask, canvas[..., 0], out=mask)


def text_width(text: str, font: str, size: int) -> int:
    """How wide a line is drawn, px."""
    probe = np.zeros((size * 3, size * (len(text) + 4) * 2), np.uint8)
    write_text(probe, text, size, size * 2, font, size)
    columns = np.flatnonzero(probe.any(0))
    return int(columns[-1] - columns[0]) if len(columns) else 0


def subtitle(height: int, width: int, seed: int) -> Stamp:
    """One or two lines near the bottom (sometimes the top): outline, shadow, box or nothing behind."""
    random = np.random.default_rng(seed)
    cjk = random.random() < 0.3
    font = "uni" if cjk else str(random.choice(["sans", "sans", "italic", "hershey", "uni"]))
    size = max(11, round(height * random.uniform(0.045, 0.085)))
    lines = [str(random.choice(CJK if cjk else LINES)) for _ in range(int(random.integers(1, 3)))]
    widest = max(text_width(line, font, size) for line in lines)
    size = max(9, min(size, int(size * 0.92 * width / widest)))
    mask = np.zeros((height, width), np.uint8)
    base = round(height * (0.93 if random.random() < 0.85 else 0.18))
    for line in reversed(lines):
        wide = text_width(line, font, size)
        write_text(mask, line, max(4, (width - wide) // 2), base, font, size)
        base -= round(1.25 * size)
    behind = str(random.choice(["outline", "outline", "outline", "shadow", "box", "none"]))
    fill = FILLS[int(random.integers(len(FILLS)))]
    thick = max(1, round(size * random.uniform(0.04, 0.1)))
    dark = np.zeros_like(mask)
    if behind == "outline":
        dark = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * thick + 1,) * 2))
    elif behind == "shadow":
        dark[thick + 1 :, thick + 1 :] = mask[: -thick - 1, : -thick - 1]
    elif behind == "box":
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        dark[max(0, rows[0] - 6) : rows[-1] + 7, max(0, columns[0] - 10) : columns[-1] + 11] = 150
    top = mask.astype(np.float32) / 255
    under = dark.astype(np.float32) / 255
    colour = top[..., None] * np.array(fill, np.float32)
    opacity = top + under * (1 - top)
    return Stamp(colour / np.maximum(opacity, 1e-3)[..., None], opacity)


def logo(height: int, width: int, seed: int) -> Stamp:
    """A mark in a corner: letters, a ring, or a filled emblem; 35 to 100 % opaque, 6 to 14 % of the width."""
    random = np.random.default_rng(seed)
    side = round(width * random.uniform(0.06, 0.14))
    tall = max(10, round(side * random.uniform(0.3, 0.6)))
    mark = np.zeros((tall, side), np.uint8)
    colour = np.zeros((tall, side, 3), np.float32) + FILLS[int(random.integers(len(FILLS)))]
    kind = str(random.choice(["letters", "letters", "ring", "emblem"]))
    if kind == "letters":
        word = str(random.choice(["TVA", "Veo", "STUDIO", "ch4", "HD+", "Anime"]))
        size = max(8, min(round(tall * 0.9), round(side * 1.5 / len(word))))
        write_text(mark, word, 2, min(tall - 2, (tall + size) // 2), "sans", size)
    elif kind == "ring":
        cv2.circle(mark, (side // 2, tall // 2), tall // 2 - 2, 255, max(2, tall // 8), cv2.LINE_AA)
        cv2.line(mark, (side // 2 - tall // 4, tall // 2), (side // 2 + tall // 4, tall // 2), 255, max(2, tall // 8))
    else:
        cv2.ellipse(mark, (side // 2, tall // 2), (side // 2 - 2, tall // 2 - 2), 0, 0, 360, 255, -1, cv2.LINE_AA)
        colour[:] = random.integers(0, 256, 3)
        cv2.rectangle(colour, (side // 4, tall // 4), (side // 2, 3 * tall // 4), (255, 255, 255), -1)
    margin_x, margin_y = round(width * random.uniform(0.02, 0.05)), round(height * random.uniform(0.03, 0.07))
    left = margin_x if random.random() < 0.5 else width - margin_x - side
    top = margin_y if random.random() < 0.5 else height - margin_y - tall
    whole = Stamp(np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32))
    whole.colour[top : top + tall, left : left + side] = colour
    whole.opacity[top : top + tall, left : left + side] = mark / 255 * random.uniform(0.35, 1.0)
    return whole


# --------------------------------------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Shot:
    """Frames of one shot at their own size, spread evenly."""

    name: str
    images: list[np.ndarray]


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


def seen(images: list[np.ndarray], stamp: Stamp | None, file: Path) -> list[np.ndarray]:
    """The frames with a stamp on them, encoded as H.264, and read as the score stage reads them."""
    made = images if stamp is None else [stamp.on(image) for image in images]
    video.write_mp4(file, made, 6, crf=26)
    size = {"width": 576, "height": 320} if made[0].shape[1] >= made[0].shape[0] else {"width": 320, "height": 576}
    return [frame.image for frame in video.read_frames(file, pixel="gray", **size)]


def examples(
    folder: Path, known: Path | None, most: int, rounds: int, first_seed: int = 0
) -> Iterator[tuple[str, str, int, Stamp | None, list[np.ndarray]]]:
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


def judged(example: tuple[str, str, int, Stamp | None, list[np.ndarray]]) -> dict[str, bool]:
    """Whether text and whether a logo was found in one example; a found logo must touch the one burnt in."""
    _, kind, _, stamp, grays = example
    found = overlay.measure(grays)
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
