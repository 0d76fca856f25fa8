"""Films whose shots are joined in every way that mixes frames, with the exact runs of clean frames.

Dissolves of 6 to 48 frames, fades through black and white, cuts with blended frames, shots of a few frames between
them; even, eased and in linear light; dark, flat, held and moving pictures. A frame is mixed when more than `LEAST` of
it is another picture: less is lost in 8 bits and a codec in most pictures. A film's truth is as in shots.json.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import composed
import numpy as np
import stock
from stock import HEIGHT, WIDTH, Picture, Shot

from ptta_core import video

LEAST = 0.02  # share of another picture in a mixed frame
SHOTS = 9  # in a film
CROPS = ((320, 180), (240, 180), (320, 136))
GAMMA = 2.2  # of a display: light is this power of the level


@dataclass(frozen=True)
class Join:
    """How a shot follows another."""

    kind: str  # cut | dissolve | fade | blend
    tail: int = 0  # frames of the shot before that are touched
    head: int = 0  # of the shot behind
    middle: int = 0  # blank frames between them
    curve: str = "even"  # even | eased | light: even in linear light
    level: int = 0  # of the blank frames


@dataclass
class Film:
    """Pictures so far, the runs of clean ones (first, last), and the joins (kind, first frame, end)."""

    pictures: Shot = field(default_factory=list)
    runs: list[tuple[int, int]] = field(default_factory=list)
    joins: list[tuple[str, int, int]] = field(default_factory=list)


def compose(folder: Path, data: Path, films: int, seed: int, held_out: bool) -> list[dict[str, Any]]:
    """The truths of films in `folder`, made there first unless they are there; each with its `path`."""

    def make() -> list[dict[str, Any]]:
        shots = stock.shots(data, held_out)
        return [_write(folder, shots, number, f"{seed} {held_out}") for number in range(films)]

    return stock.kept(folder, f"joins{seed}{'h' if held_out else 't'}", make)


def plan(rng: random.Random) -> Join:
    """A cut (22 %), a dissolve (40 %), a fade on both sides or one, or a cut with blended frames."""
    chance, curve = rng.random(), rng.choices(("even", "eased", "light"), (0.65, 0.2, 0.15))[0]
    level = rng.choice((0, 0, 255))
    if chance < 0.22:
        return Join("cut")
    if chance < 0.62:
        length = rng.choice((6, 8, 10, 12, 16, 20, 24, 30, 36, 42, 48))
        return Join("dissolve", length, length, curve=curve)
    if chance < 0.9:
        down, up, middle = rng.randrange(4, 31), rng.randrange(4, 31), rng.choice((0, 0, 1, 2, 4, 8, 16))
        if chance >= 0.8:  # one side is cut
            down, up, middle = rng.choice(((down, 0, 4), (down, 0, 12), (0, up, 4), (0, up, 12)))
        return Join("fade", down, up, middle or (curve == "light"), curve, level)
    length = rng.choice((1, 1, 2, 3, 4, 5))
    return Join("blend", length, length)


def shares(count: int, curve: str) -> np.ndarray:
    """The shares of the second picture in `count` mixed frames, 0..1."""
    passed = (np.arange(count) + 1) / (count + 1)
    return passed**2 * (3 - 2 * passed) if curve == "eased" else passed


def mixed(first: Picture, second: Picture, share: float, curve: str) -> Picture:
    """`first` with `share` of `second`, in levels or in light."""
    if curve == "light":
        one, other = ((picture / 255.0) ** GAMMA for picture in (first, second))
        return np.rint(255 * ((1 - share) * one + share * other) ** (1 / GAMMA)).astype(np.uint8)
    return composed.mixed(first, second, share)


def film(shots: Sequence[tuple[str, Shot]], rng: random.Random) -> Film:
    """Shots of the stock, joined."""
    made, before, name = Film(), [], ""
    joins = [Join("start"), *(plan(rng) for _ in range(SHOTS - 1)), Join("end")]
    for join, following in itertools.pairwise(joins):
        clean = rng.randrange(3, 13) if rng.random() < 0.15 else rng.randrange(20, 60)
        name, shot = stock.take(shots, join.head + clean + following.tail, rng, name)
        _add(made, join, before, shot[: join.head], rng)
        made.pictures += shot[join.head : join.head + clean]
        made.runs[-1] = (made.runs[-1][0], len(made.pictures) - 1)
        before = shot[join.head + clean :]
    return made


def _add(made: Film, join: Join, before: Shot, after: Shot, rng: random.Random) -> None:
    """Put the frames of a join behind the film, and begin the next run."""
    first, rises = len(made.pictures), shares(join.head, join.curve)
    if join.kind == "blend":
        rises = np.sort([rng.uniform(0.08, 0.92) for _ in range(join.head)])
    if join.kind in ("dissolve", "blend"):
        made.pictures += [mixed(*three, join.curve) for three in zip(before, after, rises)]
        clear = rises <= LEAST, rises >= 1 - LEAST
    else:
        blank = np.full((HEIGHT, WIDTH, 3), join.level, np.uint8)
        falls = shares(join.tail, join.curve)
        made.pictures += [mixed(one, blank, share, join.curve) for one, share in zip(before, falls)]
        made.pictures += [blank] * join.middle
        made.pictures += [mixed(blank, one, share, join.curve) for one, share in zip(after, rises)]
        clear = falls <= LEAST, rises >= 1 - LEAST
    end = len(made.pictures)
    start, resume = first + int(clear[0].sum()), end - int(clear[1].sum())
    if made.runs:
        made.runs[-1] = (made.runs[-1][0], start - 1)
        made.joins.append((join.kind, start, resume))
    made.runs.append((resume, end))


def _write(folder: Path, shots: Sequence[tuple[str, Shot]], number: int, seed: str) -> dict[str, Any]:
    """Crop, perhaps put black borders around it, encode; the truth."""
    rng = random.Random(f"{seed} joins {number}")
    made = film(shots, rng)
    width, height = rng.choice(CROPS)
    left, top = (WIDTH - width) // 2, (HEIGHT - height) // 2
    pictures = [one[top : top + height, left : left + width].copy() for one in made.pictures]
    if rng.random() < 0.2:
        border, axis = rng.choice((16, 24, 30)), rng.choice((0, 0, 1))
        for one in pictures:
            turned = np.swapaxes(one, 0, axis)
            turned[:border] = turned[-border:] = 0
    name = f"joins {seed} {number:02}.mp4".replace(" ", "-")
    fps, crf = rng.choice((24.0, 23.976, 25.0, 30.0)), rng.choice((16, 20, 24, 28))
    video.write_mp4(folder / name, pictures, fps, crf=crf)
    gradual = [{"type": kind, "start": first, "end": end - 1} for kind, first, end in made.joins if first < end]
    cuts = [first for kind, first, end in made.joins if first == end]
    return {"file": name, "frames": len(pictures), "hard_cuts": cuts, "gradual": gradual, "ambiguous": [],
            "shots": made.runs}  # fmt: skip
