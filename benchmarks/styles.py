"""Short drawn shots in many styles, for measures that must not mistake a style: no text and no logo is in any of them.

Outlines, flat shapes, foliage, bricks, pen hatching, lit windows, screentone, shelves, snow, water, grass, fences.
A shot holds still, pans, zooms, or stands still while a figure walks and talks in front. All follows from the seed.
"""

from collections.abc import Callable

import cv2
import numpy as np

WIDTH, HEIGHT = 960, 540  # px of a frame
WIDE = 1440  # px of a background, for pans
CAMERAS = ("frozen", "still", "still", "pan", "zoom")

Random = np.random.Generator
Colour = tuple[int, int, int]


def shot(style: str, seed: int, frames: int, camera: str = "") -> list[np.ndarray]:
    """Frames of one shot, a quarter of a second apart: uint8 RGB [540,960,3]. KeyError for an unknown style.

    camera: frozen | still | pan | zoom; by default one that the seed chooses.
    """
    random = np.random.default_rng([seed, *style.encode()])
    camera = camera or str(random.choice(CAMERAS))
    scene, ink = STYLES[style](random), _ink(random)
    figure, left, speed = _Figure(random, ink), float(random.uniform(200, 500)), float(random.uniform(-28, 28))
    travel = float(random.uniform(4, 38)) * (1 if random.random() < 0.5 else -1)
    made = []
    for at in range(frames):
        if camera == "pan":
            x = (WIDE - WIDTH) / 2 + travel * (at - frames / 2)
            made.append(_view(scene, float(np.clip(x, 0, WIDE - WIDTH)), 1.0))
        elif camera == "zoom":
            made.append(_view(scene, (WIDE - WIDTH) / 2, 1 + 0.025 * at))
        else:
            made.append(_view(scene, (WIDE - WIDTH) / 2, 1.0))
        if camera != "frozen":
            figure.on(made[-1], left + speed * at, at)
        if style in MOVING:
            MOVING[style](made[-1], np.random.default_rng([seed, at]))
    return made


def _view(scene: np.ndarray, x: float, zoom: float) -> np.ndarray:
    """The 960 x 540 picture whose left edge is x px into the scene, enlarged about its middle."""
    matrix = np.array([[zoom, 0, WIDTH / 2 - zoom * (x + WIDTH / 2)], [0, zoom, HEIGHT / 2 * (1 - zoom)]])
    return cv2.warpAffine(scene, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


class _Figure:
    """Somebody who walks and blinks, on twos: a body, a head, eyes and hair, with or without outlines."""

    def __init__(self, random: Random, ink: int) -> None:
        self.ink, self.size = ink, float(random.uniform(60, 130))
        self.skin, self.coat, self.hair = (_colour(random, 60, 250) for _ in range(3))
        self.feet = float(random.uniform(0.85, 1.0)) * HEIGHT

    def on(self, image: np.ndarray, x: float, at: int) -> None:
        size, feet = self.size, self.feet
        step = size * 0.3 * np.sin(at * 1.9)
        for side in (-1, 1):
            foot = (x + side * step, feet)
            cv2.line(image, _at(x, feet - size), _at(*foot), self.coat, round(size * 0.22), cv2.LINE_AA)
        body = cv2.ellipse2Poly(_at(x, feet - 1.5 * size), _at(size * 0.55, size * 0.8), 0, 0, 360, 8)
        _filled(image, body, self.coat, self.ink)
        for button in range(3):
            place = _at(x, feet - (1.9 - 0.3 * button) * size)
            cv2.circle(image, place, max(2, round(size * 0.05)), (245, 240, 220), -1)
        head = _at(x, feet - 2.7 * size)
        _filled(image, cv2.ellipse2Poly(head, _at(size * 0.6, size * 0.62), 0, 0, 360, 8), self.skin, self.ink)
        _filled(image, cv2.ellipse2Poly(head, _at(size * 0.66, size * 0.66), 0, 180, 360, 8), self.hair, self.ink)
        for side in (-1, 1):
            eye = _at(x + side * size * 0.24, feet - 2.6 * size)
            lid = cv2.ellipse2Poly(eye, _at(size * 0.15, size * (0.2 if at % 5 else 0.03)), 0, 0, 360, 10)
            _filled(image, lid, (250, 250, 250), self.ink)
            cv2.circle(image, eye, max(1, round(size * 0.06)), (20, 20, 30), -1, cv2.LINE_AA)


# ------------------------------------------------------------------------------------------------- backgrounds


def outlined(random: Random) -> np.ndarray:
    """Overlapping discs and polygons with dark outlines, some with a highlight."""
    image = _graded(random)
    ink = int(random.integers(2, 6))
    for _ in range(int(random.integers(40, 110))):
        x, y, size = random.uniform(0, WIDE), random.uniform(0, HEIGHT), random.uniform(18, 130)
        _filled(image, _blob(random, x, y, size), _colour(random), ink)
        if random.random() < 0.5:
            light = _at(x - size / 3, y - size / 3), _at(size / 5, size / 9)
            cv2.ellipse(image, *light, -35, 0, 360, (252, 250, 244), -1)
    return image


def flat(random: Random) -> np.ndarray:
    """Large shapes of one colour each, no outlines."""
    image = _graded(random)
    for _ in range(int(random.integers(8, 30))):
        shape = _blob(random, random.uniform(0, WIDE), random.uniform(0, HEIGHT), random.uniform(60, 260))
        cv2.fillPoly(image, [shape], _colour(random), cv2.LINE_AA)
    return image


def foliage(random: Random) -> np.ndarray:
    """Leaves in a few greens over dark, with veins and light edges."""
    base = np.array(_colour(random, 20, 110)) * np.array([0.6, 1.2, 0.5])
    image = np.full((HEIGHT, WIDE, 3), np.clip(base * 0.4, 0, 255), np.uint8)
    for layer in range(4):
        for _ in range(int(random.integers(150, 420))):
            x, y, size = random.uniform(0, WIDE), random.uniform(0, HEIGHT), random.uniform(8, 40)
            shade = np.clip(base * (0.6 + 0.5 * layer) * random.uniform(0.8, 1.25), 0, 255)
            turn = float(random.uniform(0, 360))
            cv2.ellipse(image, _at(x, y), _at(size, size * 0.4), turn, 0, 360, shade.tolist(), -1, cv2.LINE_AA)
            if layer > 1:
                tip = _at(x + size * np.cos(np.radians(turn)), y + size * np.sin(np.radians(turn)))
                cv2.line(image, _at(x, y), tip, np.clip(shade * 1.4, 0, 255).tolist(), 1, cv2.LINE_AA)
    return image


def bricks(random: Random) -> np.ndarray:
    """A wall of bricks or tiles, its joints lighter or darker, with a window or two."""
    high, long = int(random.integers(14, 44)), int(random.integers(36, 110))
    wall, joint = np.array(_colour(random, 60, 200)), _colour(random, 20, 250)
    image = np.full((HEIGHT, WIDE, 3), joint, np.uint8)
    gap = int(random.integers(2, 6))
    for row in range(HEIGHT // high + 1):
        for column in range(-1, WIDE // long + 1):
            x, y = column * long + (row % 2) * long // 2, row * high
            shade = np.clip(wall * random.uniform(0.85, 1.15), 0, 255).tolist()
            cv2.rectangle(image, (x, y), (x + long - gap, y + high - gap), shade, -1)
    for _ in range(int(random.integers(0, 4))):
        _window(image, random, int(random.integers(0, WIDE - 140)), int(random.integers(20, 260)), 120, 160)
    return image


def hatched(random: Random) -> np.ndarray:
    """Pen strokes in bundles on paper, or chalk on a board."""
    chalk = random.random() < 0.4
    paper, pen = ((34, 40, 44), (226, 226, 220)) if chalk else ((240, 232, 214), (40, 34, 40))
    image = np.full((HEIGHT, WIDE, 3), paper, np.uint8)
    for _ in range(int(random.integers(30, 80))):
        x, y, turn = random.uniform(0, WIDE), random.uniform(0, HEIGHT), random.uniform(0, np.pi)
        long, gap, count = random.uniform(20, 110), random.uniform(4, 13), int(random.integers(6, 26))
        if random.random() < 0.4:
            _filled(image, _blob(random, x, y, random.uniform(30, 110)), paper, 2, pen)
        for line in range(count):
            a = _at(x + line * gap * np.sin(turn), y - line * gap * np.cos(turn))
            b = _at(a[0] + long * np.cos(turn), a[1] + long * np.sin(turn))
            cv2.line(image, a, b, pen, int(random.integers(1, 3)), cv2.LINE_AA)
    return image


def city(random: Random) -> np.ndarray:
    """Houses at night with rows of lit windows."""
    image = _graded(random, 5, 70)
    x = 0
    while x < WIDE:
        wide, tall = int(random.integers(70, 220)), int(random.integers(120, 480))
        shade = _colour(random, 10, 80)
        cv2.rectangle(image, (x, HEIGHT - tall), (x + wide, HEIGHT), shade, -1)
        across, down = int(random.integers(5, 16)), int(random.integers(7, 22))
        lit = _colour(random, 170, 255)
        for top in range(HEIGHT - tall + 10, HEIGHT - down, 2 * down):
            for left in range(x + 8, x + wide - across, 2 * across):
                if random.random() < 0.6:
                    cv2.rectangle(image, (left, top), (left + across, top + down), lit, -1)
        x += wide + int(random.integers(0, 30))
    return image


def screentone(random: Random) -> np.ndarray:
    """Gray comics: dots, speed lines and white shapes with black outlines."""
    image = np.full((HEIGHT, WIDE, 3), 235, np.uint8)
    gap, radius = int(random.integers(7, 16)), int(random.integers(1, 4))
    for y in range(0, HEIGHT, gap):
        for x in range((y // gap % 2) * gap // 2, WIDE, gap):
            cv2.circle(image, (x, y), radius, (90, 90, 90), -1, cv2.LINE_AA)
    middle = _at(random.uniform(300, WIDE - 300), random.uniform(100, HEIGHT - 100))
    for angle in random.uniform(0, 2 * np.pi, int(random.integers(0, 130))):
        way = np.array([np.cos(angle), np.sin(angle)])
        a, b = (np.array(middle) + way * far for far in (random.uniform(150, 350), 1500))
        cv2.line(image, _at(*a), _at(*b), (15, 15, 15), int(random.integers(1, 5)), cv2.LINE_AA)
    for _ in range(int(random.integers(4, 22))):
        place = random.uniform(0, WIDE), random.uniform(0, HEIGHT), random.uniform(25, 110)
        _filled(image, _blob(random, *place), (int(random.integers(120, 256)),) * 3, 3)
    return image


def shelves(random: Random) -> np.ndarray:
    """A room: shelves with books and jars, pictures on the wall, boards on the floor."""
    image, ink = _graded(random, 80, 230), int(random.integers(0, 4))
    wood = np.array(_colour(random, 50, 170))
    for row in range(int(random.integers(2, 6))):
        y, x = 90 * row + int(random.integers(50, 90)), 0.0
        cv2.rectangle(image, (0, y), (WIDE, y + 10), wood.tolist(), -1)
        while x < WIDE:
            wide, tall = random.uniform(8, 34), random.uniform(25, 72)
            if random.random() < 0.8:
                box = np.array([(x, y - tall), (x + wide, y - tall), (x + wide, y), (x, y)]).round().astype(np.int32)
                _filled(image, box, _colour(random), ink)
                title = _at(x + wide / 2, y - tall * 0.8), _at(x + wide / 2, y - tall * 0.3)
                cv2.line(image, *title, (244, 236, 214), 2)
            x += wide + (random.uniform(20, 90) if random.random() < 0.12 else 1)
    for _ in range(int(random.integers(0, 4))):
        _window(image, random, int(random.integers(0, WIDE - 140)), int(random.integers(10, 330)), 130, 90)
    return image


def snow(random: Random) -> np.ndarray:
    """Dark firs under a dusk sky; the flakes fall in front (see MOVING)."""
    image = _graded(random, 20, 130)
    for _ in range(40):
        x, y, size = random.uniform(0, WIDE), random.uniform(200, HEIGHT), random.uniform(30, 120)
        for tier in range(3):
            tip, half = y - size * (1 + 0.5 * tier), size * (0.6 - 0.15 * tier)
            corners = [(x - half, tip + size), (x, tip), (x + half, tip + size)]
            _filled(image, np.array(corners).round().astype(np.int32), _colour(random, 10, 80), 0)
            cv2.line(image, _at(x, tip), _at(x + half * 0.6, tip + size * 0.6), (225, 232, 240), 3, cv2.LINE_AA)
    return image


def water(random: Random) -> np.ndarray:
    """Waves with bright crests, short strokes in rows."""
    image = _graded(random, 30, 160)
    for _ in range(int(random.integers(120, 420))):
        y = random.uniform(0.3, 1.0) * HEIGHT
        size, x = 6 + 40 * (y / HEIGHT - 0.25) * random.uniform(0.5, 1.5), random.uniform(0, WIDE)
        light, thick = _colour(random, 190, 255), int(random.integers(1, 4))
        cv2.ellipse(image, _at(x, y), _at(size, size * 0.25), 0, 190, 350, light, thick, cv2.LINE_AA)
    return image


def grass(random: Random) -> np.ndarray:
    """Blades and small flowers, light on dark."""
    image = _graded(random, 30, 150)
    for _ in range(int(random.integers(500, 1600))):
        x, y = random.uniform(0, WIDE), random.uniform(0.2, 1.05) * HEIGHT
        tip = _at(x + random.uniform(-14, 14), y - random.uniform(12, 46))
        green = (int(random.integers(60, 190)), int(random.integers(120, 250)), int(random.integers(30, 120)))
        cv2.line(image, _at(x, y), tip, green, int(random.integers(1, 4)), cv2.LINE_AA)
        if random.random() < 0.08:
            cv2.circle(image, tip, int(random.integers(3, 8)), _colour(random, 180, 255), -1, cv2.LINE_AA)
    return image


def fence(random: Random) -> np.ndarray:
    """Pale pickets before a house, with clouds above."""
    image, ink = _graded(random, 90, 240), int(random.integers(0, 5))
    for _ in range(8):
        cloud = _blob(random, random.uniform(0, WIDE), random.uniform(20, 200), random.uniform(30, 90))
        _filled(image, cloud, (250, 250, 252), ink)
    top, gap, wide = int(random.integers(280, 420)), int(random.integers(24, 60)), int(random.integers(8, 22))
    pale = _colour(random, 180, 255)
    cv2.rectangle(image, (0, top - 20), (WIDE, HEIGHT), _colour(random, 30, 140), -1)
    for x in range(0, WIDE, gap):
        corners = [(x, HEIGHT), (x, top), (x + wide // 2, top - wide), (x + wide, top), (x + wide, HEIGHT)]
        _filled(image, np.array(corners, np.int32), pale, ink)
    return image


STYLES: dict[str, Callable[[Random], np.ndarray]] = {
    one.__name__: one
    for one in (outlined, flat, foliage, bricks, hatched, city, screentone, shelves, snow, water, grass, fence)
}


def _flakes(image: np.ndarray, random: Random) -> None:
    for _ in range(160):
        place = _at(random.uniform(0, WIDTH), random.uniform(0, HEIGHT))
        cv2.circle(image, place, int(random.integers(1, 5)), (248, 250, 255), -1, cv2.LINE_AA)


def _glints(image: np.ndarray, random: Random) -> None:
    for _ in range(60):
        x, y = random.uniform(0, WIDTH), random.uniform(0.35, 1.0) * HEIGHT
        cv2.line(image, _at(x, y), _at(x + random.uniform(6, 26), y), (245, 250, 255), 2, cv2.LINE_AA)


MOVING: dict[str, Callable[[np.ndarray, Random], None]] = {"snow": _flakes, "water": _glints}


# ------------------------------------------------------------------------------------------------------- pens


def _at(x: float, y: float) -> tuple[int, int]:
    return round(float(x)), round(float(y))


def _ink(random: Random) -> int:
    """How thick outlines are, px; 0 for none."""
    return int(random.choice([0, 2, 3, 4, 5]))


def _colour(random: Random, low: int = 30, high: int = 245) -> Colour:
    red, green, blue = (int(value) for value in random.integers(low, high, 3))
    return red, green, blue


def _graded(random: Random, low: int = 40, high: int = 235) -> np.ndarray:
    """A wide picture whose colour changes from top to bottom."""
    share = np.linspace(0, 1, HEIGHT)[:, None, None]
    rows = np.array(_colour(random, low, high)) * (1 - share) + np.array(_colour(random, low, high)) * share
    return np.repeat(rows, WIDE, axis=1).astype(np.uint8)


def _blob(random: Random, x: float, y: float, size: float) -> np.ndarray:
    """A closed shape of about that radius, px: round, or with corners."""
    corners = int(random.choice([3, 4, 5, 6, 40, 40]))
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + random.uniform(0, 7)
    radius = size * (1 + 0.25 * np.sin(3 * angles + random.uniform(0, 7)))
    return np.stack([x + radius * np.cos(angles), y + 0.8 * radius * np.sin(angles)], 1).round().astype(np.int32)


def _filled(image: np.ndarray, shape: np.ndarray, colour: Colour, ink: int, pen: Colour = (16, 14, 20)) -> None:
    cv2.fillPoly(image, [shape], colour, cv2.LINE_AA)
    if ink:
        cv2.polylines(image, [shape], True, pen, ink, cv2.LINE_AA)


def _window(image: np.ndarray, random: Random, x: int, y: int, wide: int, tall: int) -> None:
    """A frame with four panes, or a picture."""
    cv2.rectangle(image, (x, y), (x + wide, y + tall), _colour(random, 150, 250), -1)
    pane = _colour(random, 20, 200)
    for column in range(2):
        for row in range(2):
            left, top = x + 8 + column * (wide - 8) // 2, y + 8 + row * (tall - 8) // 2
            cv2.rectangle(image, (left, top), (left + wide // 2 - 12, top + tall // 2 - 12), pane, -1)
