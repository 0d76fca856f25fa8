"""A small cartoon with known cuts and known motion: what to try the whole river on without footage.

Backgrounds are drawn once, wide and at twice the size; pans and zooms are crops of them. Everything follows from the
seed. `truth.json` beside the files says where the shots lie and how far each pan moves.
"""

import functools
import json
import math
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT, FPS = 640, 360, 24
SCALE = 2  # backgrounds are drawn at this many times the size, for smooth edges and sub-pixel pans
GROUND = 0.74  # where the ground begins, as a share of the height
GAP_S, MEASURED_WIDTH = 0.625, 576  # the units of motion_px: see rows.Score
HOLD = 2  # frames a drawing of the figure is shown ("on twos")
RAMP, BLACK = 10, 8  # frames of a fade's each side, and of the black between
FLASH = 2  # frames
MARGIN = 40  # px of background beyond what a pan needs
VERSION = 1  # of the drawing: a folder with another one is drawn again

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Palette:
    """The colours of a scene."""

    sky_top: Colour
    sky_low: Colour
    sun: Colour
    cloud: Colour
    hills: tuple[Colour, Colour, Colour]
    ground: Colour
    leaf: Colour
    wall: Colour
    roof: Colour


PALETTES = (
    Palette((92, 172, 236), (214, 238, 250), (255, 236, 140), (250, 252, 255),
            ((142, 196, 150), (104, 176, 112), (76, 152, 88)),
            (128, 196, 92), (58, 132, 70), (248, 232, 206), (206, 84, 70)),
    Palette((92, 62, 128), (252, 166, 110), (255, 222, 150), (246, 150, 140),
            ((164, 98, 134), (128, 72, 112), (92, 52, 92)),
            (112, 70, 84), (70, 42, 76), (206, 140, 130), (96, 46, 78)),
    Palette((246, 214, 150), (254, 242, 210), (250, 150, 80), (255, 250, 232),
            ((226, 176, 104), (206, 142, 74), (178, 108, 56)),
            (222, 182, 92), (196, 92, 44), (250, 240, 220), (132, 76, 56)),
    Palette((20, 30, 74), (66, 92, 150), (240, 240, 214), (86, 108, 164),
            ((48, 70, 122), (36, 54, 100), (26, 42, 82)),
            (34, 66, 84), (20, 50, 66), (84, 92, 140), (46, 40, 88)),
    Palette((186, 206, 226), (244, 248, 252), (255, 250, 224), (255, 255, 255),
            ((214, 224, 236), (196, 210, 228), (178, 196, 218)),
            (240, 244, 250), (96, 132, 140), (196, 120, 96), (228, 236, 246)),
    Palette((70, 190, 176), (230, 250, 214), (255, 178, 150), (244, 255, 244),
            ((250, 176, 170), (236, 138, 148), (206, 104, 132)),
            (246, 208, 160), (44, 140, 132), (252, 244, 222), (84, 104, 176)),
)  # fmt: skip


@dataclass(frozen=True)
class Shot:
    """What is planned for one shot; lengths in frames, speed in px a frame at 640 wide."""

    kind: str  # pan | walk | still | zoom
    frames: int
    speed: float = 0.0  # of a pan; positive: the picture moves left
    flash_at: int | None = None  # frame within the shot
    fade_in: bool = False
    fade_out: bool = False


# px of motion per 0.625 s at a width of 576, slow to fast; a seed changes each by up to a tenth
PLANS: dict[str, tuple[tuple[str, float], ...]] = {
    "hills.mp4": (("pan", 6.0), ("walk", 0.0), ("pan", 24.0), ("still", 0.0), ("pan", 56.0)),
    "town.mp4": (("walk", 0.0), ("pan", 36.0), ("zoom", 0.0), ("pan", 12.0), ("walk", 0.0)),
    "forest.mp4": (("pan", 18.0), ("still", 0.0), ("pan", 46.0), ("walk", 0.0), ("pan", 30.0)),
}
FLASHED = ("hills.mp4", 1)  # file and shot
FADED = ("town.mp4", 3)  # the fade lies before this shot


def draw(folder: Path, seed: int = 0) -> list[dict]:
    """Draw three films of about 10 s (640 x 360, 24 fps) into `folder` and return the truth, one dict a file.

    A truth: file, fps, frames, cuts (first frame of each new shot), fades (first and last darkened frame), black
    (first and last wholly black frame), flashes (first and last frame), shots (first, last, kind and motion_px: px
    per 0.625 s at a width of 576, None where it is not known). Nothing is drawn again when truth.json is complete.
    """
    from ptta_core import video

    folder = Path(folder)
    truth_path = folder / "truth.json"
    if (known := _complete(truth_path, seed)) is not None:
        return known
    folder.mkdir(parents=True, exist_ok=True)
    truth_path.unlink(missing_ok=True)
    truths = []
    for number, name in enumerate(PLANS):
        shots = plan(name, seed)
        video.write_mp4(folder / name, film(name, shots, seed, number), FPS)
        truths.append(truth_of(name, shots))
    part = truth_path.with_suffix(".part")
    part.write_text(json.dumps({"version": VERSION, "seed": seed, "files": truths}, indent=1), encoding="utf-8")
    os.replace(part, truth_path)
    return truths


def _complete(truth_path: Path, seed: int) -> list[dict] | None:
    try:
        stored = json.loads(truth_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(stored, dict) or (stored.get("version"), stored.get("seed")) != (VERSION, seed):
        return None
    files = stored["files"]
    there = all((truth_path.parent / one["file"]).is_file() for one in files)
    return files if there and [one["file"] for one in files] == list(PLANS) else None


def plan(name: str, seed: int) -> list[Shot]:
    """The shots of one film."""
    rng = random.Random(f"plan {seed} {name}")
    shots = []
    for number, (kind, motion_px) in enumerate(PLANS[name]):
        faded = name == FADED[0]
        fade_in, fade_out = faded and number == FADED[1], faded and number == FADED[1] - 1
        frames = rng.randrange(40, 58) + RAMP * (fade_in or fade_out)
        flash_at = rng.randrange(16, frames - 16) if (name, number) == FLASHED else None
        per_frame = motion_px * (WIDTH / MEASURED_WIDTH) / (GAP_S * FPS)
        speed = per_frame * rng.uniform(0.9, 1.1) * rng.choice((-1, 1))
        shots.append(Shot(kind, frames, speed, flash_at, fade_in, fade_out))
    return shots


def truth_of(name: str, shots: list[Shot]) -> dict:
    """Where everything lies in a film of these shots."""
    cuts: list[int] = []
    fades: list[list[int]] = []
    black: list[list[int]] = []
    flashes: list[list[int]] = []
    told: list[dict] = []
    here = 0
    for shot in shots:
        if shot.fade_in:
            black.append([here, here + BLACK - 1])
            fades.append([here - RAMP, here + BLACK + RAMP - 1])
            here += BLACK
        elif here:
            cuts.append(here)
        if shot.flash_at is not None:
            flashes.append([here + shot.flash_at, here + shot.flash_at + FLASH - 1])
        told.append({"first": here, "last": here + shot.frames - 1, "kind": shot.kind, "motion_px": motion_of(shot)})
        here += shot.frames
    return {
        "file": name, "fps": FPS, "frames": here, "cuts": cuts, "fades": fades, "black": black, "flashes": flashes,
        "shots": told,
    }  # fmt: skip


def motion_of(shot: Shot) -> float | None:
    """px per 0.625 s at a width of 576: exact for pans and stills, None else."""
    if shot.kind == "still":
        return 0.0
    if shot.kind == "pan":
        return round(abs(shot.speed) * GAP_S * FPS * MEASURED_WIDTH / WIDTH, 3)
    return None


# ------------------------------------------------------------------------------------------------------ frames


def film(name: str, shots: list[Shot], seed: int, number: int = 0) -> Iterator[np.ndarray]:
    """The frames of a film: uint8 [360,640,3], RGB."""
    palettes = list(PALETTES)
    random.Random(f"palettes {seed}").shuffle(palettes)
    for index, shot in enumerate(shots):
        if shot.fade_in:
            yield from (np.zeros((HEIGHT, WIDTH, 3), np.uint8) for _ in range(BLACK))
        # one film's shots never share a palette, so that every cut is a change of colour
        palette = palettes[(index + number) % len(palettes)]
        for at, image in enumerate(shot_frames(shot, palette, random.Random(f"{seed} {name} {index}"))):
            yield _lit(np.asarray(image), shot, at)


def _lit(image: np.ndarray, shot: Shot, at: int) -> np.ndarray:
    """The frame `at` with its share of a flash or a fade."""
    if shot.flash_at is not None and shot.flash_at <= at < shot.flash_at + FLASH:
        return np.full_like(image, 250)
    light = 1.0
    if shot.fade_in:
        light = min(light, (at + 1) / (RAMP + 1))
    if shot.fade_out:
        light = min(light, (shot.frames - at) / (RAMP + 1))
    return image if light == 1.0 else (image * light).astype(np.uint8)


def shot_frames(shot: Shot, palette: Palette, rng: random.Random) -> Iterator[Image.Image]:
    """The frames of one shot, before flashes and fades."""
    travel = abs(shot.speed) * (shot.frames - 1) if shot.kind == "pan" else 0.0
    scene = background(palette, WIDTH + math.ceil(travel) + MARGIN, rng)
    start = MARGIN / 2 + (travel if shot.speed < 0 else 0.0)
    still = view(scene, MARGIN / 2)
    step = rng.uniform(2.2, 3.0) * rng.choice((-1, 1))
    shirt = rng.choice(((220, 70, 60), (60, 110, 200), (240, 190, 60), (120, 80, 170)))
    for at in range(shot.frames):
        if shot.kind == "pan":
            yield view(scene, start + shot.speed * at)
        elif shot.kind == "zoom":
            yield view(scene, MARGIN / 2, 1.0 + 0.35 * at / (shot.frames - 1))
        elif shot.kind == "walk":
            drawing = at // HOLD * HOLD
            yield with_figure(still, WIDTH / 2 + step * (drawing - shot.frames / 2), drawing, step > 0, shirt)
        else:
            yield still


def view(scene: Image.Image, x: float, zoom: float = 1.0) -> Image.Image:
    """The 640 x 360 picture whose left edge is `x` px into the scene, enlarged about its middle."""
    width, height = WIDTH / zoom, HEIGHT / zoom
    left, top = x + (WIDTH - width) / 2, (HEIGHT - height) / 2
    box = (SCALE * left, SCALE * top, SCALE * (left + width), SCALE * (top + height))
    return scene.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box=box)


# ------------------------------------------------------------------------------------------------------ drawing


def background(palette: Palette, width: int, rng: random.Random) -> Image.Image:
    """A landscape of `width` x 360 px, drawn at twice that size: sky, sun, clouds, hills, houses, trees, flowers."""
    wide, high = width * SCALE, HEIGHT * SCALE
    share = np.linspace(0, 1, high)[:, None, None] ** 0.8
    rows = np.array(palette.sky_top) * (1 - share) + np.array(palette.sky_low) * share
    image = Image.fromarray(np.repeat(rows, wide, axis=1).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    _sun(pen, palette, rng.uniform(0.2, 0.8) * wide, rng.uniform(0.14, 0.26) * high)
    for _ in range(width // 70):
        _cloud(pen, palette.cloud, rng.uniform(0, wide), rng.uniform(0.04, 0.42) * high, rng.uniform(14, 34), rng)
    for depth, colour in enumerate(palette.hills):
        _hills(pen, colour, (0.5 + 0.09 * depth) * high, wide, rng)
    pen.rectangle((0, GROUND * high, wide, high), fill=palette.ground)
    _props(pen, palette, wide, high, rng)
    return image


def _sun(pen: ImageDraw.ImageDraw, palette: Palette, x: float, y: float) -> None:
    for radius, weight in ((104, 0.25), (80, 0.55), (58, 1.0)):
        colour = _mix(palette.sky_low, palette.sun, weight)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _cloud(pen: ImageDraw.ImageDraw, colour: Colour, x: float, y: float, size: float, rng: random.Random) -> None:
    for puff in range(5):
        at, radius = x + (puff - 2) * size, size * rng.uniform(0.7, 1.3) * (1.2 - 0.2 * abs(puff - 2))
        pen.ellipse((at - radius, y - radius * 0.7, at + radius, y + radius * 0.6), fill=colour)


def _hills(pen: ImageDraw.ImageDraw, colour: Colour, y: float, wide: int, rng: random.Random) -> None:
    waves = [(rng.uniform(6, 34), rng.uniform(150, 520), rng.uniform(0, 7)) for _ in range(3)]
    line = [(x, y + sum(a * math.sin(x / w + p) for a, w, p in waves)) for x in range(0, wide + 16, 16)]
    pen.polygon([*line, (wide + 16, HEIGHT * SCALE), (0, HEIGHT * SCALE)], fill=colour)
    for x, top in line[:: rng.randrange(4, 8)]:  # far bushes, so that every layer has detail to follow
        size, down = rng.uniform(5, 12), rng.uniform(14, 60)
        y = top + down
        pen.ellipse((x - size, y - size, x + size, y + size * 0.5), fill=_mix(colour, (0, 0, 0), 0.14))


def _props(pen: ImageDraw.ImageDraw, palette: Palette, wide: int, high: int, rng: random.Random) -> None:
    """Houses and trees along the ground, tufts and flowers on it."""
    x = rng.uniform(20, 120)
    while x < wide:
        if rng.random() < 0.42:
            x += _house(pen, palette, x, (GROUND + rng.uniform(0.0, 0.05)) * high, rng.uniform(80, 140), rng)
        else:
            _tree(pen, palette, x, (GROUND + rng.uniform(0.0, 0.07)) * high, rng.uniform(36, 70), rng)
        x += rng.uniform(70, 210)
    tuft, flowers = _mix(palette.ground, palette.leaf, 0.5), (palette.sun, palette.roof, palette.cloud)
    for _ in range(wide // 5):
        x, y = rng.uniform(0, wide), rng.uniform(GROUND + 0.05, 1.0) * high
        size = 3 + 12 * (y / high - GROUND)
        pen.line((x - size, y - 2 * size, x, y, x + size, y - 2 * size), fill=tuft, width=3)
        if rng.random() < 0.3:
            pen.ellipse((x - size, y - 3 * size, x + size, y - size), fill=rng.choice(flowers))


def _house(
    pen: ImageDraw.ImageDraw, palette: Palette, x: float, y: float, size: float, rng: random.Random
) -> float:  # fmt: skip
    """A house whose lower left corner is (x, y); returns its width."""
    wide, tall = size * rng.uniform(1.0, 1.5), size * rng.uniform(0.8, 1.1)
    edge = _mix(palette.roof, (20, 16, 30), 0.6)
    pen.rectangle((x, y - tall, x + wide, y), fill=palette.wall, outline=edge, width=3)
    roof = [(x - 14, y - tall), (x + wide / 2, y - tall - size * 0.55), (x + wide + 14, y - tall)]
    pen.polygon(roof, fill=palette.roof, outline=edge, width=3)
    glass = _mix(palette.sun, palette.sky_top, 0.35)
    for column in (0.12, 0.66):
        left, top = x + column * wide, y - tall * 0.78
        pen.rectangle((left, top, left + wide * 0.2, top + tall * 0.3), fill=glass, outline=edge, width=3)
    pen.rectangle((x + wide * 0.4, y - tall * 0.48, x + wide * 0.6, y), fill=edge)
    return wide


def _tree(
    pen: ImageDraw.ImageDraw, palette: Palette, x: float, y: float, size: float, rng: random.Random
) -> None:  # fmt: skip
    trunk, dark = _mix(palette.roof, (60, 40, 30), 0.7), _mix(palette.leaf, (0, 0, 20), 0.25)
    pen.rectangle((x - size * 0.12, y - size * 1.6, x + size * 0.12, y), fill=trunk)
    if rng.random() < 0.5:
        for tier in range(3):
            half, top = size * (0.85 - 0.2 * tier), y - size * (0.8 + 0.6 * tier)
            pen.polygon([(x - half, top), (x, top - size), (x + half, top)], fill=palette.leaf, outline=dark, width=3)
        return
    for dx, dy, radius in ((-0.5, 1.7, 0.55), (0.5, 1.75, 0.55), (0.0, 2.2, 0.7), (0.05, 1.6, 0.5)):
        at, up, r = x + dx * size, y - dy * size, radius * size
        pen.ellipse((at - r, up - r, at + r, up + r), fill=palette.leaf)
    pen.arc((x - size * 0.4, y - size * 2.6, x + size * 0.5, y - size * 1.9), 20, 150, fill=dark, width=4)


def _mix(first: Colour, second: Colour, weight: float) -> Colour:
    """`first` and `second`, the latter with `weight` 0..1."""
    red, green, blue = (round(a + (b - a) * weight) for a, b in zip(first, second))
    return red, green, blue


def with_figure(picture: Image.Image, x: float, at: int, rightward: bool, shirt: Colour) -> Image.Image:
    """The picture with a walker standing at `x` px, in the pose of frame `at`."""
    sprite = figure(at % FPS, rightward, shirt)
    shown = picture.copy()
    bob = 2 * abs(math.sin(2 * math.pi * at / FPS))
    shown.paste(sprite, (round(x - sprite.width / 2), round(HEIGHT * 0.94 - sprite.height - bob)), sprite)
    return shown


@functools.cache
def figure(pose: int, rightward: bool, shirt: Colour) -> Image.Image:
    """A walker 90 x 160 px on a clear ground; `pose` 0..23 is the place in a stride of one second."""
    image = Image.new("RGBA", (360, 640), (0, 0, 0, 0))  # four times the size, for smooth edges
    pen = ImageDraw.Draw(image)
    swing = math.sin(2 * math.pi * pose / FPS)
    ink, skin, trousers = (44, 36, 52), (246, 206, 172), (64, 72, 112)
    _limb(pen, (180, 270), -0.75 * swing, 90, 34, _mix(shirt, ink, 0.35), bend=0.5)
    _limb(pen, (180, 400), 0.6 * swing, 112, 46, _mix(trousers, ink, 0.35), bend=-0.5 * max(0.0, -swing))
    _limb(pen, (180, 400), -0.6 * swing, 112, 46, trousers, bend=-0.5 * max(0.0, swing))
    pen.rounded_rectangle((128, 226, 232, 430), 48, fill=shirt, outline=ink, width=7)
    _limb(pen, (180, 270), 0.75 * swing, 90, 34, _mix(shirt, (255, 255, 255), 0.2), bend=0.5)
    pen.ellipse((108, 60, 262, 226), fill=skin, outline=ink, width=7)
    pen.pieslice((100, 44, 264, 214), 170, 330, fill=ink)
    pen.ellipse((214, 128, 232, 156), fill=ink)
    pen.arc((190, 150, 246, 196), 20, 110, fill=ink, width=7)
    if not rightward:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.resize((90, 160), Image.Resampling.LANCZOS)


def _limb(
    pen: ImageDraw.ImageDraw, joint: tuple[float, float], angle: float, length: float, thick: int, colour: Colour,
    bend: float,
) -> None:  # fmt: skip
    """Two round-ended pieces from `joint`; angles in radians from straight down, positive to the right."""
    x, y = joint
    for turn in (angle, angle + bend):
        to_x, to_y = x + length * math.sin(turn), y + length * math.cos(turn)
        pen.line((x, y, to_x, to_y), fill=colour, width=thick)
        for at_x, at_y in ((x, y), (to_x, to_y)):
            pen.ellipse((at_x - thick / 2, at_y - thick / 2, at_x + thick / 2, at_y + thick / 2), fill=colour)
        x, y = to_x, to_y
