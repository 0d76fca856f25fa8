"""Small cartoons drawn for the learning benchmark: one subject that moves, in a style; everything is known by name.

A clip is 9 frames of 64 x 64 px: a horizon with hills, and one subject before it. What is shown (subject, colour, way,
size, place, hills) is drawn at random and the same in all styles; how it is shown is the style. The base sees SEEN
only; the four UNSEEN ones are what adapters learn, one label each.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

SIDE, FRAMES, SCALE = 64, 9, 2  # px; frames; drawn at this many times the size
SUBJECTS = ("ball", "box", "star", "fish", "house")
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "nowhere": (0, 0)}
COLOURS = {"red": (222, 52, 46), "orange": (244, 140, 40), "yellow": (248, 214, 64), "green": (70, 170, 72),
           "blue": (52, 104, 214), "purple": (140, 72, 176)}  # fmt: skip

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Style:
    """How a scene is painted. Widths in px of the finished picture."""

    name: str
    sky: Colour
    land: Colour
    tint: Colour = (0, 0, 0)  # what the subject's colour is mixed with ...
    mix: float = 0.0  # ... and how much, 0..1
    filled: bool = True
    line: float = 0.0  # outline's width; 0: none
    ink: Colour | None = (24, 20, 28)  # outline's colour; None: the subject's own
    grain: float = 0.0  # standard deviation, gray levels
    finish: str = ""  # "grid" | "blocks" | "hatch" | "glow"


SEEN = (
    Style("flat", (150, 206, 240), (150, 200, 110)),
    Style("cel", (206, 232, 250), (122, 190, 96), line=1.5),
    Style("pastel", (250, 232, 238), (226, 236, 208), (255, 255, 255), 0.5),
    Style("night", (24, 30, 66), (30, 52, 62), (20, 26, 60), 0.45),
    Style("crayon", (246, 240, 222), (206, 196, 150), (246, 240, 222), 0.2, line=1.0, ink=None, grain=16.0),
    Style("poster", (250, 206, 120), (196, 96, 70), (60, 20, 30), 0.15, line=2.5, ink=(70, 24, 34)),
)
UNSEEN = (
    Style("blueprint", (28, 70, 150), (28, 70, 150), filled=False, line=1.2, ink=(226, 238, 252), finish="grid"),
    Style("mosaic", (170, 214, 232), (160, 186, 120), finish="blocks"),
    Style("hatching", (244, 242, 236), (244, 242, 236), (244, 242, 236), 1.0, line=1.2, finish="hatch"),
    Style("neon", (8, 6, 16), (8, 6, 16), filled=False, line=1.5, ink=None, finish="glow"),
)
STYLES = {style.name: style for style in (*SEEN, *UNSEEN)}


@dataclass(frozen=True)
class Scene:
    """What is shown; lengths in px, speed in px a frame."""

    subject: str
    colour: str
    way: str
    size: float
    x: float  # of the subject's middle in the middle frame
    y: float
    speed: float
    hills: tuple[tuple[float, float], ...]  # (height, phase) of each wave of the horizon
    horizon: float
    light: float  # added to the colours of sky and land, gray levels

    def prompt(self, style: str) -> str:
        """What a caption says of it."""
        return f"a {self.colour} {self.subject} moves {self.way}, {style} style"


def scene(rng: random.Random) -> Scene:
    """A scene at random."""
    return Scene(
        rng.choice(SUBJECTS), rng.choice(list(COLOURS)), rng.choice(list(WAYS)), rng.uniform(9, 14),
        rng.uniform(24, 40), rng.uniform(24, 40), rng.uniform(0.8, 1.8),
        tuple((rng.uniform(1, 5), rng.uniform(0, 6.3)) for _ in range(2)), rng.uniform(38, 50),
        rng.uniform(-20, 20),
    )  # fmt: skip


def clip(shown: Scene, style: Style) -> np.ndarray:
    """The frames, uint8 [9,64,64,3] RGB; the same scene and style give the same bytes."""
    return np.stack([frame(shown, style, at) for at in range(FRAMES)])


def frame(shown: Scene, style: Style, at: int) -> np.ndarray:
    """One frame, uint8 [64,64,3] RGB."""
    dx, dy = WAYS[shown.way]
    travelled = shown.speed * (at - FRAMES // 2)
    middle = (shown.x + dx * travelled, shown.y + dy * travelled)
    image = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE), lit(style.sky, shown.light))
    pen = ImageDraw.Draw(image)
    own = mixed(COLOURS[shown.colour], style.tint, style.mix)
    ink, width = style.ink or own, round(style.line * SCALE)
    ridge = [(x, SCALE * height(shown, x / SCALE)) for x in range(0, SIDE * SCALE + 1, 4)]
    pen.polygon([*ridge, (SIDE * SCALE, SIDE * SCALE), (0, SIDE * SCALE)], fill=lit(style.land, shown.light))
    if style.line:
        pen.line(ridge, fill=ink, width=width)
    parts = [[(SCALE * x, SCALE * y) for x, y in part] for part in outline(shown, middle)]
    mask = Image.new("L", image.size, 0)
    for part in parts:
        ImageDraw.Draw(mask).polygon(part, fill=255)
    if style.filled:
        image.paste(own, (0, 0), mask)
    if style.line:
        for part in parts:
            pen.line([*part, part[0]], fill=ink, width=width, joint="curve")
    return finished(np.asarray(image), np.asarray(mask), style, at)


def height(shown: Scene, x: float) -> float:
    """Where the land begins at `x` px."""
    waves = enumerate(shown.hills)
    return shown.horizon + sum(high * math.sin(x * (0.1 + 0.07 * number) + phase) for number, (high, phase) in waves)


def outline(shown: Scene, middle: tuple[float, float]) -> list[list[tuple[float, float]]]:
    """The subject's closed outlines, in px."""
    x, y, r = *middle, shown.size

    def ring(radii: Sequence[float], turn: float = 0.0, flat: float = 1.0) -> list[tuple[float, float]]:
        step = 2 * math.pi / len(radii)
        return [(x + r * one * math.cos(turn + step * k), y + flat * r * one * math.sin(turn + step * k))
                for k, one in enumerate(radii)]  # fmt: skip

    match shown.subject:
        case "ball":
            return [ring([1.0] * 32)]
        case "box":
            return [ring([1.2] * 4, math.pi / 4)]
        case "star":
            return [ring([1.2, 0.5] * 5, -math.pi / 2)]
        case "fish":
            back = -1 if shown.way == "right" else 1  # it swims ahead
            tail = [(x + back * r * far, y + r * high) for far, high in ((0.9, 0.0), (1.5, -0.6), (1.5, 0.6))]
            return [tail, ring([1.0] * 32, flat=0.6)]
        case _:  # house
            walls = [(x + r * far, y + r * high) for far, high in ((-0.8, 0), (0.8, 0), (0.8, 1.0), (-0.8, 1.0))]
            return [walls, [(x - 1.1 * r, y), (x, y - 1.0 * r), (x + 1.1 * r, y)]]


def finished(image: np.ndarray, mask: np.ndarray, style: Style, at: int) -> np.ndarray:
    """The picture at its own size, uint8 [64,64,3], with what the style puts over it. mask: uint8, the subject."""
    if style.finish == "hatch":
        rows, columns = np.indices(mask.shape)
        strokes = ((rows + columns) % (4 * SCALE) < 1.4 * SCALE) & (mask > 127)
        image = np.where(strokes[..., None], np.uint8(style.ink or (0, 0, 0)), image)
    if style.finish == "glow":
        halo = cv2.GaussianBlur(image, (0, 0), 2.5 * SCALE)
        image = cv2.add(image, cv2.add(halo, halo))
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if style.finish == "grid":
        small[::8] = small[::8] // 4 * 3 + 50
        small[:, ::8] = small[:, ::8] // 4 * 3 + 50
    if style.finish == "blocks":
        small = cv2.resize(small, (SIDE // 4, SIDE // 4), interpolation=cv2.INTER_AREA)
        small = np.repeat(np.repeat(small // 48 * 48 + 24, 4, axis=0), 4, axis=1)
        small[::4], small[:, ::4] = small[::4] // 2, small[:, ::4] // 2
    if style.grain:  # of the paper: the same in every frame
        noise = np.random.default_rng(7).normal(size=(SIDE, SIDE, 1)) * style.grain
        small = np.clip(small + noise, 0, 255).astype(np.uint8)
    return small


def lit(colour: Colour, light: float) -> Colour:
    """A colour, brighter by `light` gray levels."""
    red, green, blue = (min(255, max(0, round(part + light))) for part in colour)
    return red, green, blue


def mixed(first: Colour, second: Colour, weight: float) -> Colour:
    """`first` and `second`, the latter with `weight` 0..1."""
    red, green, blue = (round(a + (b - a) * weight) for a, b in zip(first, second))
    return red, green, blue
