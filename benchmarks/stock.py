"""Shots to join: stretches of real films that hold one shot each, cartoons, painted pans, and what can be done to them.

Whole files are held out: what `shots(data, held_out=False)` gives comes from other films than `held_out=True`.
"""

import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import composed
import cv2
import numpy as np

from ptta_core import cartoon, video

WIDTH, HEIGHT = 320, 180
LONGEST = 140  # pictures of a stretch
TUNED_ON = ("big_buck_bunny_opening", "popeye_sinbad_a", "sintel_citadel", "sintel_wing", "sintel_desert")
LIVE = "clips/negative_live_action_tears_of_steel_800x332.webm"
# beside those of composed.py; looked at picture by picture: no edit inside
STRETCHES = (
    ("clips/penny_and_chip_basketball.mp4", 0, 160), ("clips/penny_and_chip_reading.mp4", 60, 150),
    ("clips/penny_and_chip_splash.mp4", 0, 160), ("clips/penny_and_chip_stargazing.mp4", 75, 185),
    ("clips/penny_and_chip_rpi.mp4", 40, 120), (LIVE, 56, 118), (LIVE, 162, 218), (LIVE, 225, 304), (LIVE, 400, 640),
    (LIVE, 725, 785), (LIVE, 1000, 1120), (LIVE, 1300, 1342),
)  # fmt: skip
Picture = np.ndarray  # uint8 [HEIGHT,WIDTH,3], RGB
Shot = list[Picture]


def shots(data: Path, held_out: bool) -> list[tuple[str, Shot]]:
    """(name of the film, pictures) of every stretch of one half of the stock."""
    found = []
    for name, first, last in (*composed.STRETCHES, *STRETCHES):
        if any(one in name for one in TUNED_ON) != held_out and (data / name).is_file():
            end = min(last, first + LONGEST) + 1
            frames = itertools.islice(video.read_frames(str(data / name), width=640), end)
            found.append((Path(name).stem, [fitted(frame.image) for frame in frames if frame.index >= first]))
    for number, kind in enumerate(("pan", "walk", "still", "zoom", "pan", "walk", "pan", "zoom")):
        if (number % 2 == 1) == held_out:
            shot = cartoon.Shot(kind, 110, random.Random(number + 70).choice((-9.0, -3.0, 2.0, 6.0, 14.0)))
            palette = cartoon.PALETTES[number % len(cartoon.PALETTES)]
            pictures = cartoon.shot_frames(shot, palette, random.Random(number))
            found.append((f"cartoon {number}", [fitted(np.asarray(one)) for one in pictures]))
    return found


def fitted(picture: Picture) -> Picture:
    """The middle of a picture at the stock's size."""
    return composed.fitted(picture, (WIDTH, HEIGHT))


def take(stock: Sequence[tuple[str, Shot]], frames: int, rng: random.Random, unlike: str) -> tuple[str, Shot]:
    """(name, `frames` pictures) of some shot that is not of the film `unlike`; a quarter are painted pans."""
    if rng.random() < 0.25:
        speed = rng.choice((0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0))  # px a frame; 5 are 90 px in 0.625 s at 576
        return "painted", painted(rng, frames, speed, rng.random() < 0.5)
    name, shot = rng.choice([one for one in stock if one[0] != unlike])
    endless = list(itertools.islice(itertools.cycle([*shot, *shot[-2:0:-1]]), 500))  # to and fro, where it is short
    first = rng.randrange(max(1, len(shot) - frames + 1))
    some = endless[first : first + frames]
    if rng.random() < 0.5:
        some = [np.ascontiguousarray(one[:, ::-1]) for one in some]
    return name, _changed(some, rng)


def _changed(shot: Shot, rng: random.Random) -> Shot:
    """As it is, or dark, or of low contrast, or held, or under a camera of its own."""
    chance = rng.random()
    if chance < 0.15:
        light = rng.uniform(0.15, 0.4)
        return [(one * light).astype(np.uint8) for one in shot]
    if chance < 0.3:
        contrast, level = rng.uniform(0.2, 0.4), rng.choice((60, 128, 180))
        return [np.clip((one.astype(np.float32) - 110) * contrast + level, 0, 255).astype(np.uint8) for one in shot]
    if chance < 0.42:
        hold = rng.choice((2, 3))
        return [shot[number // hold * hold] for number in range(len(shot))]
    return _panned(shot, rng.uniform(1.2, 1.6), rng.uniform(0.3, 4.0)) if chance < 0.55 else shot


def _panned(shot: Shot, larger: float, speed: float) -> Shot:
    """Seen through a window that moves to and fro over the enlarged picture, `speed` px a frame."""
    span, found = int(WIDTH * larger) - WIDTH - 1, []
    for number, one in enumerate(shot):
        wide = cv2.resize(one, None, fx=larger, fy=larger, interpolation=cv2.INTER_LINEAR)
        x = span - abs(speed * number % (2 * span) - span)
        window = np.array([[1, 0, -x], [0, 1, -(wide.shape[0] - HEIGHT) / 2]], np.float32)
        found.append(cv2.warpAffine(wide, window, (WIDTH, HEIGHT)))
    return found


def painted(rng: random.Random, frames: int, speed: float, textured: bool) -> Shot:
    """Flat shapes under a moving camera, `speed` px a frame, drawings on ones, twos or threes."""
    random = np.random.default_rng(rng.randrange(10**9))
    wide = np.empty((HEIGHT, WIDTH * 5, 3), np.uint8)
    wide[:] = random.integers(40, 215, 3)
    for _ in range(150):
        (x, y), (w, h) = random.integers(-60, [WIDTH * 5, HEIGHT]).tolist(), random.integers(8, 90, 2).tolist()
        colour = random.integers(10, 245, 3).tolist()
        if random.random() < 0.5:
            cv2.rectangle(wide, (x, y), (x + w, y + h), colour, -1)
        else:
            cv2.circle(wide, (x, y), w // 2, colour, -1, cv2.LINE_AA)
    if textured:
        grain = cv2.resize(random.normal(0, 16, (HEIGHT // 3, WIDTH * 5 // 3, 3)), (WIDTH * 5, HEIGHT))
        wide = np.clip(wide + grain, 0, 255).astype(np.uint8)
    hold, span = rng.choice((1, 1, 2, 3)), WIDTH * 4 - 1
    places = [span - abs(speed * (number // hold * hold) % (2 * span) - span) for number in range(frames)]
    windows = [np.array([[1, 0, -x], [0, 1, 0]], np.float32) for x in places]
    return [cv2.warpAffine(wide, one, (WIDTH, HEIGHT)) for one in windows]


def kept(folder: Path, name: str, make: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The truths in `folder`/`name`.json, made first where there are none, each with its `path`."""
    told = folder / f"{name}.json"
    if not told.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        told.write_text(json.dumps(make(), indent=1), encoding="utf-8")
    return [one | {"path": folder / one["file"]} for one in json.loads(told.read_text(encoding="utf-8"))]
