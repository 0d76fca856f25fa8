"""Films with known boundaries: shots of single-shot stretches and of the drawn cartoon, joined in every way.

A film's truth has the form of shots.json; `split` halves the films into those to tune on and those held out.
"""

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ptta_core import cartoon, video

SIZES = ((640, 360), (480, 270), (854, 480), (480, 360), (360, 480))
RATES = (24.0, 23.976, 25.0, 30.0, 12.0)
QUALITIES = (18, 23, 28, 33)
SHOTS = 9  # in a film
CLEAN = 8  # pictures of a shot that no transition touches
LONGEST = 110  # pictures of a stretch that are read
# clip, first frame, last frame of stretches that hold one shot
STRETCHES = (
    ("clips/big_buck_bunny_wakeup_1280x720.mp4", 0, 131), ("clips/sintel_bowl_1280x544.mp4", 0, 91),
    ("clips/sintel_desert_1280x544.mp4", 0, 114), ("clips/sintel_perched_dragon_1280x544.mp4", 0, 44),
    ("clips/sintel_wing_1280x544.mp4", 0, 44), ("clips/sintel_dragon_lands_1280x544.mp4", 0, 29),
    ("clips/big_buck_bunny_opening_1280x720.webm", 60, 280), ("clips/big_buck_bunny_opening_1280x720.webm", 286, 374),
    ("clips/big_buck_bunny_opening_1280x720.webm", 553, 718), ("clips/popeye_sinbad_a_1440x1074.mkv", 76, 329),
    ("clips/popeye_sinbad_a_1440x1074.mkv", 333, 528), ("clips/popeye_sinbad_a_1440x1074.mkv", 532, 736),
    ("clips/popeye_sinbad_a_1440x1074.mkv", 1073, 1334), ("clips/popeye_sinbad_b_1440x1074.mkv", 2, 565),
    ("clips/popeye_sinbad_b_1440x1074.mkv", 663, 992), ("clips/popeye_sinbad_b_1440x1074.mkv", 996, 1438),
    ("clips/sintel_citadel_848x480.mp4", 2, 74), ("clips/sintel_citadel_848x480.mp4", 123, 317),
    ("clips/sintel_citadel_848x480.mp4", 321, 455), ("clips/sintel_citadel_848x480.mp4", 459, 543),
    ("clips/sintel_trailer_480x204.mp4", 575, 621), ("clips/sintel_trailer_480x204.mp4", 625, 658),
)  # fmt: skip
Picture = np.ndarray  # uint8 [H,W,3], RGB


@dataclass
class Film:
    """Pictures so far and what is known of them."""

    pictures: list[Picture] = field(default_factory=list)
    hard_cuts: list[int] = field(default_factory=list)
    gradual: list[dict[str, Any]] = field(default_factory=list)


def compose(folder: Path, data: Path, films: int = 44, seed: int = 0) -> list[dict[str, Any]]:
    """Write the films and truth.json into `folder`, unless they are there; the truths, each with its `path`."""
    truth = folder / "truth.json"
    if not truth.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        stock = stretches(data)
        told = [one for number in range(films) for one in (_film(folder, stock, number, seed),)]
        told += [one for number in range(12) for one in (_negative(folder, stock, number, seed),)]
        truth.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return [one | {"path": folder / one["file"]} for one in json.loads(truth.read_text(encoding="utf-8"))]


def split(films: Sequence[dict[str, Any]], held_out: bool) -> list[dict[str, Any]]:
    """One half of the films: those of even numbers to tune on, those of odd ones held out."""
    return [one for number, one in enumerate(films) if (number % 2 == 1) == held_out]


def stretches(data: Path) -> list[list[Picture]]:
    """Shots at 480 px wide: of the real clips where `data` holds them, and of the drawn cartoon."""
    found = []
    for name, first, last in STRETCHES:
        if (data / name).is_file():
            frames = itertools.islice(video.read_frames(str(data / name), width=640), min(last, first + LONGEST) + 1)
            found.append([frame.image for frame in frames if frame.index >= first])
    rng = random.Random(7)
    for number, kind in enumerate(("pan", "walk", "still", "zoom", "pan", "walk", "pan", "zoom")):
        shot = cartoon.Shot(kind, 96, rng.choice((-9.0, -3.0, 2.0, 6.0, 14.0)))
        palette = cartoon.PALETTES[number % len(cartoon.PALETTES)]
        found.append([np.asarray(one) for one in cartoon.shot_frames(shot, palette, random.Random(number))])
    return found


def _film(folder: Path, stock: Sequence[list[Picture]], number: int, seed: int) -> dict[str, Any]:
    rng = random.Random(f"{seed} film {number}")
    size, fps, crf = rng.choice(SIZES), rng.choice(RATES), rng.choice(QUALITIES)
    film = Film()
    order = rng.sample(range(len(stock)), SHOTS)
    for place, index in enumerate(order):
        shot = [fitted(one, size) for one in _some(stock[index], rng)]
        if place == 0:
            film.pictures = shot
        else:
            _join(film, shot, rng)
    if rng.random() < 0.3:
        _fade_end(film, rng)
    return _write(folder / f"film{number:02}.mp4", film, fps, crf)


def _some(shot: Sequence[Picture], rng: random.Random) -> list[Picture]:
    """40 to 90 pictures of a shot, or 12 to 40, sometimes mirrored."""
    count = min(len(shot), rng.randrange(40, 90) if rng.random() < 0.75 else rng.randrange(12, 40))
    first = rng.randrange(len(shot) - count + 1)
    some = list(shot[first : first + count])
    return [one[:, ::-1] for one in some] if rng.random() < 0.5 else some


def fitted(picture: Picture, size: tuple[int, int]) -> Picture:
    """The middle of a picture at a size (width, height)."""
    height, width = picture.shape[:2]
    scale = max(size[0] / width, size[1] / height)
    wide, high = round(size[0] / scale), round(size[1] / scale)
    left, top = (width - wide) // 2, (height - high) // 2
    cut = np.ascontiguousarray(picture[top : top + high, left : left + wide])
    return cv2.resize(cut, size, interpolation=cv2.INTER_AREA)


def _join(film: Film, shot: list[Picture], rng: random.Random) -> None:
    """Put a shot behind the film by a cut (60 %), a dissolve or a fade."""
    chance = rng.random()
    last = max([0, *film.hard_cuts, *(one["end"] + 1 for one in film.gradual)])
    clean = len(film.pictures) - last - CLEAN  # what a transition may use of the shot before it
    if chance < 0.6 or clean < 20:
        film.hard_cuts.append(len(film.pictures))
        film.pictures += shot
    elif chance < 0.83 and len(shot) > CLEAN + 26:
        _dissolve(film, shot, min(rng.randrange(6, 41), len(shot) - CLEAN - 20, clean))
    elif len(shot) > CLEAN + 20:
        _fade(film, shot, rng)
    else:
        film.hard_cuts.append(len(film.pictures))
        film.pictures += shot


def _dissolve(film: Film, shot: list[Picture], length: int) -> None:
    """Both shots go on moving while one turns into the other."""
    tail = film.pictures[-length:]
    del film.pictures[-length:]
    first = len(film.pictures)
    film.pictures += [mixed(a, b, (n + 1) / (length + 1)) for n, (a, b) in enumerate(zip(tail, shot))]
    film.pictures += shot[length:]
    film.gradual.append({"type": "dissolve", "start": first, "end": first + length - 1})


def mixed(first: Picture, second: Picture, share: float) -> Picture:
    """`first` and `second`, the latter with `share` 0..1."""
    return np.rint(first * (1.0 - share) + second * share).astype(np.uint8)


def _fade(film: Film, shot: list[Picture], rng: random.Random) -> None:
    """Through black or white; either side may be cut hard."""
    flat = np.full_like(shot[0], rng.choice((0, 0, 255)))
    down, middle, up = rng.randrange(6, 20), rng.randrange(0, 20), rng.randrange(6, 20)
    first = len(film.pictures) - down
    film.pictures[first:] = [mixed(one, flat, (n + 1) / down) for n, one in enumerate(film.pictures[first:])]
    film.pictures += [flat] * middle
    resume = len(film.pictures)
    film.pictures += [mixed(one, flat, 1 - n / up) for n, one in enumerate(shot[:up])] + shot[up:]
    film.gradual.append({"type": "fade", "start": first, "end": resume + up - 1})


def _fade_end(film: Film, rng: random.Random) -> None:
    last = max([0, *film.hard_cuts, *(one["end"] + 1 for one in film.gradual)])
    down = min(rng.randrange(10, 24), len(film.pictures) - last)
    first = len(film.pictures) - down
    black = np.zeros_like(film.pictures[0])
    film.pictures[first:] = [mixed(one, black, (n + 1) / down) for n, one in enumerate(film.pictures[first:])]
    film.gradual.append({"type": "fade_out", "start": first, "end": len(film.pictures) - 1})


def _write(path: Path, film: Film, fps: float, crf: int) -> dict[str, Any]:
    video.write_mp4(path, film.pictures, fps, crf=crf)
    return {"file": path.name, "frames": len(film.pictures), "hard_cuts": film.hard_cuts, "gradual": film.gradual,
            "ambiguous": []}  # fmt: skip


# ------------------------------------------------------------------------------------------- what is no boundary


def _negative(folder: Path, stock: Sequence[list[Picture]], number: int, seed: int) -> dict[str, Any]:
    """One shot with something that looks like a cut."""
    kinds: tuple[Callable[[list[Picture], random.Random], Iterator[Picture]], ...] = (
        _flashes, _strobe, _whip, _grain, _flare, _passing,
    )  # fmt: skip
    rng = random.Random(f"{seed} negative {number}")
    shot = [fitted(one, (640, 360)) for one in stock[rng.randrange(len(stock))][:90]]
    kind = kinds[number // 2 % len(kinds)]
    path = folder / f"negative{number:02}{kind.__name__}.mp4"
    return _write(path, Film(list(kind(shot, rng))), rng.choice(RATES[:4]), rng.choice(QUALITIES))


def _flashes(shot: list[Picture], rng: random.Random) -> Iterator[Picture]:
    """Two to four pictures bleached, an explosion's fading light behind them."""
    at, length = len(shot) // 3, rng.randrange(2, 5)
    white = np.full_like(shot[0], 255)
    for number, one in enumerate(shot):
        since = number - at
        share = 0.0 if since < 0 else 0.95 if since < length else 0.95 * 0.75 ** (since - length + 1)
        yield mixed(one, white, share)


def _strobe(shot: list[Picture], rng: random.Random) -> Iterator[Picture]:
    """Every third picture dark for a second."""
    for number, one in enumerate(shot):
        yield (one // 6) if len(shot) // 4 < number < len(shot) // 4 + 20 and number % 3 == 0 else one


def _whip(shot: list[Picture], rng: random.Random) -> Iterator[Picture]:
    """A pan that quickens to an eighth of the picture a frame and slows down again."""
    long = np.concatenate([shot[0], shot[0][:, ::-1]] * 3, axis=1)
    width, x = shot[0].shape[1], 0.0
    for number in range(len(shot)):
        x += width / 8 * float(np.exp(-(((number - len(shot) / 2) / 8) ** 2)))
        yield np.ascontiguousarray(long[:, int(x) : int(x) + width])


def _grain(shot: list[Picture], rng: random.Random) -> Iterator[Picture]:
    noise = np.random.default_rng(rng.randrange(1000))
    for one in shot:
        yield np.clip(one + noise.normal(0, 18, one.shape), 0, 255).astype(np.uint8)


def _flare(shot: list[Picture], rng: random.Random) -> Iterator[Picture]:
    """A lens flare that crosses the picture."""
    height, width = shot[0].shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    for number, one in enumerate(shot):
        at = width * (1.5 * number / len(shot) - 0.25)
        light = 200 * np.exp(-(((x - at) / 90) ** 2 + ((y - height / 3) / 90) ** 2))
        yield np.clip(one + light[..., None], 0, 255).astype(np.uint8)


def _passing(shot: list[Picture], rng: random.Random) -> Iterator[Picture]:
    """A dark thing, three quarters of the picture wide, passes in half a second."""
    width = shot[0].shape[1]
    for number, one in enumerate(shot):
        right = int((number - len(shot) // 3) / 12 * width * 1.75)
        shown = one.copy()
        shown[:, max(0, right - width * 3 // 4) : max(0, min(right, width))] = (70, 50, 40)
        yield shown
