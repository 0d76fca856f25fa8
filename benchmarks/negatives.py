"""Single shots with something that looks like a boundary and is none: cameras, lights, things, letters.

Each kind is a function of a shot and a random generator that gives the pictures to encode.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import stock
from composed import mixed
from stock import HEIGHT, WIDTH, Picture, Shot

from ptta_core import video

FRAMES = 84
EVENT = 28  # the frame at which most things happen
RATES = (24.0, 23.976, 25.0, 30.0)
QUALITIES = (16, 20, 24, 28)
Kind = Callable[[Shot, random.Random], Shot]


def compose(folder: Path, data: Path, each: int, seed: int, held_out: bool) -> list[dict[str, Any]]:
    """The truths of `each` films of every kind, made in `folder` unless they are there; each with its `path`."""

    def make() -> list[dict[str, Any]]:
        shots = [shot for _, shot in stock.shots(data, held_out) if len(shot) >= FRAMES]
        plans = [(kind, number) for number in range(each) for kind in KINDS]
        return [_write(folder, shots, kind, number, f"{seed}{'h' if held_out else 't'}") for kind, number in plans]

    return stock.kept(folder, f"negatives{seed}{'h' if held_out else 't'}", make)


def _write(folder: Path, shots: list[Shot], kind: Kind, number: int, seed: str) -> dict[str, Any]:
    name = kind.__name__.strip("_")
    rng = random.Random(f"{seed} {name} {number}")
    shot = rng.choice(shots)
    first = rng.randrange(len(shot) - FRAMES + 1)
    pictures = shot[first : first + FRAMES]
    if rng.random() < 0.2:
        pictures = [(one * 0.35).astype(np.uint8) for one in pictures]
    pictures = kind(pictures, rng)
    file = f"negative-{seed}-{name}-{number:02}.mp4"
    video.write_mp4(folder / file, pictures, rng.choice(RATES), crf=rng.choice(QUALITIES))
    return {"file": file, "frames": len(pictures), "hard_cuts": [], "gradual": [], "ambiguous": [], "kind": name,
            "shots": [(0, len(pictures) - 1)]}  # fmt: skip


# ------------------------------------------------------------------------------------------------------- cameras


def pan(shot: Shot, rng: random.Random) -> Shot:
    """A drawn pan, at most a twentieth of the width a frame, on ones, twos or threes."""
    speed = rng.choice((0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0))
    return stock.painted(rng, FRAMES, speed, rng.random() < 0.5)


def whip(shot: Shot, rng: random.Random) -> Shot:
    """A pan over a real picture that quickens and slows down again, on ones or twos, with or without motion blur."""
    wide = np.concatenate([shot[0], shot[0][:, ::-1]] * 4, axis=1)
    fastest, x, found = rng.choice((8, 16, 32, 40)), 0.0, []
    blurred, hold = rng.random() < 0.5, rng.choice((1, 1, 2))
    for number in range(FRAMES):
        speed = fastest * float(np.exp(-(((number - FRAMES / 2) / 8) ** 2)))
        x += speed
        part = wide[:, int(x) % (WIDTH * 6) :][:, : WIDTH + int(speed) + 1]
        if blurred:
            part = cv2.blur(part, (max(1, int(speed)), 1))
        found.append(np.ascontiguousarray(part[:, :WIDTH]))
    return [found[number // hold * hold] for number in range(FRAMES)]


def zoom(shot: Shot, rng: random.Random) -> Shot:
    """Steady, in or out, on a still or on a moving picture."""
    return _turned(shot, rng, rng.choice((1.05, 1.2, 1.5, 2.0, 3.0, 0.8)), 0.0)


def rotation(shot: Shot, rng: random.Random) -> Shot:
    """Steady, up to two thirds of a turn a second."""
    return _turned(shot, rng, 1.0, rng.choice((10.0, 30.0, 60.0, 120.0, 240.0)))


def crash_zoom(shot: Shot, rng: random.Random) -> Shot:
    """Six times nearer within half a second."""
    larger = [1 + 5 / (1 + float(np.exp(-(number - 40) / 2))) for number in range(FRAMES)]
    return [_seen(one, scale, 0.0, (WIDTH / 2 + 30, HEIGHT / 2 - 20)) for one, scale in zip(shot, larger)]


def _turned(shot: Shot, rng: random.Random, zoom_a_s: float, degrees_a_s: float) -> Shot:
    still = rng.random() < 0.5
    return [_seen(shot[0] if still else one, 1.15 * zoom_a_s ** (number / 24), degrees_a_s * number / 24)
            for number, one in enumerate(shot)]  # fmt: skip


def _seen(one: Picture, scale: float, degrees: float, at: tuple[float, float] = (WIDTH / 2, HEIGHT / 2)) -> Picture:
    matrix = cv2.getRotationMatrix2D(at, degrees, scale)
    return cv2.warpAffine(one, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT_101)


# -------------------------------------------------------------------------------------------------------- lights


def flash(shot: Shot, rng: random.Random) -> Shot:
    """One to six frames of white or of a colour, with or without an afterglow."""
    length, fading, peak = rng.randrange(1, 7), rng.choice((0.0, 0.5, 0.75, 0.88)), rng.uniform(0.6, 1.0)
    colour = rng.choice(((255, 255, 255), (255, 255, 255), (255, 60, 40), (255, 240, 160), (80, 120, 255)))
    flat = np.broadcast_to(np.array(colour, np.uint8), shot[0].shape)
    since = [number - EVENT for number in range(FRAMES)]
    share = [0.0 if one < 0 else peak * (1.0 if one < length else fading ** (one - length + 1)) for one in since]
    return [mixed(one, flat, part) for one, part in zip(shot, share)]


def lightning(shot: Shot, rng: random.Random) -> Shot:
    """Two flickers that light up the picture itself."""
    strength = {EVENT: 0.8, EVENT + 1: 0.3, EVENT + 3: 0.9, EVENT + 4: 0.4, EVENT + 5: 0.2, EVENT + 11: 0.7}
    light = [strength.get(number, 0.0) for number in range(FRAMES)]
    return [np.clip(one * (1 + 2.5 * more) + 60 * more, 0, 255).astype(np.uint8) for one, more in zip(shot, light)]


def strobe(shot: Shot, rng: random.Random) -> Shot:
    """Every second to eighth frame dark, black or nearly white, for over a second."""
    (every, dark), light = rng.choice(((2, 1), (3, 1), (4, 2), (6, 3), (8, 4))), rng.choice((0.0, 0.15, 0.4, None))
    white = np.full_like(shot[0], 255)
    other = [mixed(one, white, 0.8) if light is None else (one * light).astype(np.uint8) for one in shot]
    return [other[number] if 20 < number < 60 and number % every < dark else one for number, one in enumerate(shot)]


def dim(shot: Shot, rng: random.Random) -> Shot:
    """A lamp goes down at once or over some frames."""
    left, frames = rng.choice((0.35, 0.5, 0.7)), rng.choice((1, 6, 20))
    down = [min(1.0, max(0.0, (number - EVENT) / frames)) for number in range(FRAMES)]
    return [(one * (1 - (1 - left) * part)).astype(np.uint8) for one, part in zip(shot, down)]


def flare(shot: Shot, rng: random.Random) -> Shot:
    """A lens flare that crosses the picture slowly or in half a second."""
    radius, strength, high = rng.choice((30, 60, 110)), rng.choice((150, 255)), rng.uniform(0.2, 0.8)
    fast = rng.random() < 0.3
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    found = []
    for number, one in enumerate(shot):
        at = WIDTH * (1.5 * (number - EVENT) / 12 if fast else 1.5 * number / FRAMES - 0.25)
        light = strength * np.exp(-(((x - at) / radius) ** 2 + ((y - HEIGHT * high) / radius) ** 2))
        light += 0.3 * strength * np.exp(-(((y - HEIGHT * high) / 8) ** 2) - ((x - at) / (4 * radius)) ** 2)
        found.append(np.clip(one + light[..., None] * np.array((1, 0.9, 0.7)), 0, 255).astype(np.uint8))
    return found


def impact(shot: Shot, rng: random.Random) -> Shot:
    """One to three frames drawn as a negative in black and white."""
    frames = rng.randrange(1, 4)
    found = list(shot)
    for number in range(EVENT, EVENT + frames):
        gray = cv2.cvtColor(shot[number], cv2.COLOR_RGB2GRAY)
        found[number] = np.repeat(((gray <= 110) * 255).astype(np.uint8)[..., None], 3, axis=2)
    return found


def explosion(shot: Shot, rng: random.Random) -> Shot:
    """White for three frames, then a ball of fire that grows over the picture and thins out."""
    random = np.random.default_rng(rng.randrange(10**6))
    middle, growth, life = (rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.8)), rng.choice((6, 12, 25)), rng.choice((20, 35))
    smoke = 12 * cv2.GaussianBlur(random.normal(0, 1, (2 * HEIGHT, 3 * WIDTH)).astype(np.float32), (0, 0), 6)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    away, found = np.hypot(x - middle[0] * WIDTH, y - middle[1] * HEIGHT), list(shot)
    for since in range(FRAMES - EVENT):
        radius = growth * (since + 1) ** 0.8
        drift = smoke[since : since + HEIGHT, 2 * since : 2 * since + WIDTH]
        cover = np.clip((radius - away) / 12 + 0.3 * drift, 0, 1) * min(1.0, max(0.0, 1.6 - 1.6 * since / life))
        heat = np.clip(1 - away / (radius + 1) + 0.25 * drift, 0, 1)
        fire = np.dstack([200 + 55 * heat, 80 + 170 * heat, 20 + 180 * heat**2]) * (1 - 0.6 * min(1.0, since / life))
        lit = shot[EVENT + since] * (1 - cover[..., None]) + fire * cover[..., None]
        found[EVENT + since] = np.clip(lit * 0.3 + 178 if since < 3 else lit, 0, 255).astype(np.uint8)
    return found


# ------------------------------------------------------------------------------------------- things and letters


def passing(shot: Shot, rng: random.Random) -> Shot:
    """A thing up to as wide as nearly all of the picture passes in a quarter of a second to a second."""
    width, frames = int(WIDTH * rng.choice((0.3, 0.5, 0.75, 0.95))), rng.choice((6, 12, 24))
    colour = rng.choice(((70, 50, 40), (10, 10, 12), (180, 160, 120), (40, 80, 60)))
    grain = np.random.default_rng(rng.randrange(10**6)).normal(0, 14, (HEIGHT // 4, width // 4))
    thing = np.clip(np.array(colour) + cv2.resize(grain, (width, HEIGHT))[..., None], 0, 255).astype(np.uint8)
    found = []
    for number, one in enumerate(shot):
        left = int((number - EVENT) / frames * (WIDTH + width)) - width
        shown, first, end = one.copy(), max(0, left), min(WIDTH, left + width)
        if first < end:
            shown[:, first:end] = thing[:, first - left : end - left]
        found.append(shown)
    return found


def subtitle(shot: Shot, rng: random.Random) -> Shot:
    """Lines that pop or fade on and off three times, small below or large in the middle."""
    size, frames, colour = rng.choice((0.5, 0.8, 1.6)), rng.choice((1, 1, 6)), rng.choice(((255,) * 3, (250, 230, 40)))
    share, found = np.zeros(FRAMES), []
    for first, end in ((10, 28), (30, 55), (60, 75)):
        share[first:end] = [min(1.0, (n - first + 1) / frames, (end - n) / frames) for n in range(first, end)]
    for number, one in enumerate(shot):
        text, place = f"Wait, that is number {number // 30}", (12, HEIGHT - 14 if size < 1 else HEIGHT // 2)
        found.append(mixed(one, _written(one, [(text, place)], size, colour, 2), float(share[number])))
    return found


def title(shot: Shot, rng: random.Random) -> Shot:
    """Large letters, a disc or a band that come on over a still or moving picture, at once or slowly; some go again."""
    frames, still, stays = rng.choice((1, 4, 8, 12, 24)), rng.random() < 0.5, rng.random() < 0.5
    shape, size = rng.choice(("letters", "letters", "disc", "band")), rng.choice((1.2, 2.0, 2.8))
    colour = rng.choice(((255, 255, 255), (250, 220, 60), (30, 30, 30), (220, 40, 40)))
    words, found = rng.sample(("MOON", "River", "The End", "STAR 7", "Episode"), 2), []
    for number, one in enumerate(shot):
        ground = shot[0] if still else one
        over = ground.copy()
        if shape == "letters":
            over = _written(ground, [(word, (20, 70 + 60 * line)) for line, word in enumerate(words)], size, colour, 7)
        elif shape == "disc":
            cv2.circle(over, (WIDTH // 2, HEIGHT // 2), 60, colour, -1, cv2.LINE_AA)
        else:
            over[HEIGHT // 2 - 25 : HEIGHT // 2 + 25] = colour
        share = min(1.0, max(0.0, (number - 24 + 1) / frames))
        found.append(mixed(ground, over, share if stays else min(share, max(0.0, (64 - number) / frames))))
    return found


def _written(one: Picture, lines: list[tuple[str, tuple[int, int]]], size: float, colour: Any, thick: int) -> Picture:
    shown = one.copy()
    for text, place in lines:
        cv2.putText(shown, text, place, 0, size, (0, 0, 0), 2 * thick + 1, cv2.LINE_AA)
        cv2.putText(shown, text, place, 0, size, colour, thick, cv2.LINE_AA)
    return shown


def speed_lines(shot: Shot, rng: random.Random) -> Shot:
    """A figure before lines that are drawn anew for every drawing, on ones, twos or threes."""
    random, hold = np.random.default_rng(rng.randrange(10**6)), rng.choice((1, 2, 3))
    ground, found = rng.choice((20, 230)), []
    for number in range(FRAMES):
        shown = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
        for x, y, tone, length, thick in random.integers((-100, 0, 60, 40, 1), (WIDTH, HEIGHT, 255, 200, 4), (60, 5)):
            cv2.line(shown, (int(x), int(y)), (int(x + length), int(y)), (int(tone),) * 3, int(thick))
        at = WIDTH // 2 + int(8 * np.sin(number)), HEIGHT // 2
        cv2.circle(shown, at, 40, (200, 90, 60), -1, cv2.LINE_AA)
        cv2.circle(shown, at, 40, (10, 10, 10), 3, cv2.LINE_AA)
        found.append(shown)
    return [found[number // hold * hold] for number in range(FRAMES)]


def snow(shot: Shot, rng: random.Random) -> Shot:
    """Many bright flakes that fall."""
    random, found = np.random.default_rng(rng.randrange(10**6)), []
    places, speeds = random.uniform(0, 1, (260, 2)) * (WIDTH, HEIGHT), random.uniform(2, 9, 260)
    for number, one in enumerate(shot):
        shown = one.copy()
        for (x, y), speed in zip(places, speeds):
            at = int(x + 1.5 * number) % WIDTH, int(y + speed * number) % HEIGHT
            cv2.circle(shown, at, int(speed / 3) + 1, (240, 240, 245), -1, cv2.LINE_AA)
        found.append(shown)
    return found


def plain(shot: Shot, rng: random.Random) -> Shot:
    """As it is, or two or three times as fast."""
    return shot[:: rng.choice((1, 2, 3))]


def close(shot: Shot, rng: random.Random) -> Shot:
    """The middle of the lower half, so that all moves more, at its speed or twice that."""
    part = (slice(HEIGHT // 2, HEIGHT), slice(WIDTH // 4, 3 * WIDTH // 4))
    return [cv2.resize(one[part], (WIDTH, HEIGHT)) for one in shot[:: rng.choice((1, 2))]]


KINDS: tuple[Kind, ...] = (
    pan, whip, zoom, rotation, crash_zoom, flash, lightning, strobe, dim, flare, impact, explosion, passing, subtitle,
    title, speed_lines, snow, plain, close,
)  # fmt: skip
