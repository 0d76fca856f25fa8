"""Channel bugs and watermarks of many forms, to fit on: wider than the logos that the figures are measured with.

Words in several letters with an outline, a shadow or a plate, rings, polygons, stars, plain and cut-out emblems, thin
drawings, and combinations of a sign and a word. White, gray, coloured or dark; 30 to 100 % opaque.
"""

import string

import cv2
import numpy as np
from stamps import FILLS, Stamp, write_text

Random = np.random.Generator


def mark(height: int, width: int, seed: int) -> Stamp:
    """One mark near a corner of a picture, 4 to 18 % of its width."""
    random = np.random.default_rng([7, seed])
    short = min(height, width)
    wide = max(16, round(width * random.uniform(0.04, 0.18)))
    tall = max(12, round(min(wide * random.uniform(0.25, 1.1), 0.2 * short)))
    scale = max(1, round(160 / tall))  # drawn large, so that edges are smooth
    shape = np.zeros((tall * scale, wide * scale), np.uint8)
    FORMS[int(random.integers(len(FORMS)))](shape, random)
    shape = cv2.resize(shape, (wide, tall), interpolation=cv2.INTER_AREA)
    body = shape.astype(np.float32) / 255
    colour = np.zeros((tall, wide, 3), np.float32) + _colour(random)
    if random.random() < 0.2:  # in two colours
        colour[:, : wide // int(random.integers(2, 4))] = random.integers(0, 256, 3)
    under, dark = _behind(body, random)
    opacity = body + under * (1 - body)
    colour = (colour * body[..., None] + dark * (under * (1 - body))[..., None]) / np.maximum(opacity, 1e-3)[..., None]
    return _placed(colour, opacity * random.uniform(0.3, 1.0), height, width, random)


def _placed(colour: np.ndarray, opacity: np.ndarray, height: int, width: int, random: Random) -> Stamp:
    tall, wide = opacity.shape
    margin_x, margin_y = round(width * random.uniform(0.015, 0.07)), round(height * random.uniform(0.02, 0.09))
    left = margin_x if random.random() < 0.5 else width - margin_x - wide
    top = margin_y if random.random() < 0.5 else height - margin_y - tall
    whole = Stamp(np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32))
    whole.colour[top : top + tall, left : left + wide] = colour
    whole.opacity[top : top + tall, left : left + wide] = opacity
    return whole


def _colour(random: Random) -> np.ndarray:
    kind = random.random()
    if kind < 0.6:
        return np.array(FILLS[int(random.integers(len(FILLS)))], np.float32)
    if kind < 0.75:
        return np.full(3, random.uniform(150, 250), np.float32)
    return random.integers(0, 256, 3).astype(np.float32)


def _behind(body: np.ndarray, random: Random) -> tuple[np.ndarray, float]:
    """(opacity, gray level) of an outline, a shadow or a plate behind a mark; mostly nothing."""
    kind = random.random()
    thick = max(1, round(body.shape[0] * 0.04))
    if kind < 0.15:
        return cv2.dilate(body, np.ones((2 * thick + 1,) * 2, np.uint8)), 10.0
    if kind < 0.3:
        return np.roll(body, (thick, thick), (0, 1)) * 0.7, 10.0
    if kind < 0.4:
        return np.full_like(body, random.uniform(0.3, 0.9)), float(random.choice([0, 30, 230]))
    return np.zeros_like(body), 0.0


# ------------------------------------------------------------------------------------------------------- forms


def _word(shape: np.ndarray, random: Random) -> None:
    letters = list(string.ascii_uppercase * 2 + string.ascii_lowercase + string.digits + ".+")
    text = "".join(random.choice(letters, int(random.integers(2, 9))))
    font = str(random.choice(["sans", "sans", "italic", "hershey"]))
    high, wide = shape.shape
    large = np.zeros((200, 200 * len(text)), np.uint8)
    write_text(large, text, 40, 140, font, 100)
    rows, columns = np.flatnonzero(large.any(1)), np.flatnonzero(large.any(0))
    large = large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if random.random() < 0.4:
        large = cv2.dilate(large, np.ones((9, 9), np.uint8))
    ratio = min(wide / large.shape[1], high / large.shape[0])
    size = (max(1, int(large.shape[1] * ratio)), max(1, int(large.shape[0] * ratio)))
    small = cv2.resize(large, size, interpolation=cv2.INTER_AREA)
    left, top = (wide - size[0]) // 2, (high - size[1]) // 2
    shape[top : top + size[1], left : left + size[0]] = small


def _ring(shape: np.ndarray, random: Random) -> None:
    middle, radius = _middle(shape)
    thick = max(2, round(radius * random.uniform(0.08, 0.35)))
    cv2.circle(shape, middle, radius - thick // 2 - 1, 255, thick, cv2.LINE_AA)
    for angle in random.uniform(0, 2 * np.pi, int(random.integers(0, 4))):
        end = middle[0] + radius * 0.8 * np.cos(angle), middle[1] + radius * 0.8 * np.sin(angle)
        cv2.line(shape, middle, (round(end[0]), round(end[1])), 255, thick, cv2.LINE_AA)


def _polygon(shape: np.ndarray, random: Random) -> None:
    corners = int(random.integers(3, 9))
    inner = 1.0 if random.random() < 0.5 else float(random.uniform(0.4, 0.7))  # a star
    points = _star(shape, corners, inner, float(random.uniform(0, 7)))
    if random.random() < 0.5:
        cv2.fillPoly(shape, [points], 255, cv2.LINE_AA)
    else:
        cv2.polylines(shape, [points], True, 255, max(2, shape.shape[0] // int(random.integers(8, 20))), cv2.LINE_AA)


def _emblem(shape: np.ndarray, random: Random) -> None:
    """A disc, an ellipse or a plate, whole or with a sign cut out of it."""
    high, wide = shape.shape
    if random.random() < 0.5:
        cv2.ellipse(shape, (wide // 2, high // 2), (wide // 2 - 2, high // 2 - 2), 0, 0, 360, 255, -1, cv2.LINE_AA)
    else:
        cv2.rectangle(shape, (2, 2), (wide - 3, high - 3), 255, -1)
    if random.random() < 0.8:
        sign = np.zeros_like(shape[high // 5 : high - high // 5, wide // 6 : wide - wide // 6])
        (_word, _polygon, _ring)[int(random.integers(3))](sign, random)
        place = shape[high // 5 : high - high // 5, wide // 6 : wide - wide // 6]
        np.subtract(place, np.minimum(place, sign), out=place)


def _drawing(shape: np.ndarray, random: Random) -> None:
    """A thin line drawing: a curve or two and some strokes."""
    high, wide = shape.shape
    thick = max(2, round(min(high, wide) * random.uniform(0.03, 0.09)))
    for _ in range(int(random.integers(2, 6))):
        points = np.stack([random.uniform(0.08, 0.92, 4) * wide, random.uniform(0.08, 0.92, 4) * high], 1)
        share = np.linspace(0, 1, 24)[:, None]
        weights = (1 - share) ** 3, 3 * share * (1 - share) ** 2, 3 * share**2 * (1 - share), share**3
        curve = sum(weight * point for weight, point in zip(weights, points))
        cv2.polylines(shape, [np.round(curve).astype(np.int32)], False, 255, thick, cv2.LINE_AA)


def _signed_word(shape: np.ndarray, random: Random) -> None:
    """A sign with a word beside it, or below."""
    high, wide = shape.shape
    if wide > 1.4 * high:
        parts = shape[:, :high], shape[high // 6 : high - high // 6, high + high // 8 :]
    else:
        parts = shape[: 2 * high // 3], shape[2 * high // 3 + high // 16 :]
    (_ring, _polygon, _emblem)[int(random.integers(3))](parts[0], random)
    _word(parts[1], random)


FORMS = (_word, _word, _word, _ring, _polygon, _emblem, _drawing, _signed_word)


def _middle(shape: np.ndarray) -> tuple[tuple[int, int], int]:
    high, wide = shape.shape
    return (wide // 2, high // 2), min(high, wide) // 2 - 1


def _star(shape: np.ndarray, corners: int, inner: float, turn: float) -> np.ndarray:
    (x, y), radius = _middle(shape)
    angles = turn + np.arange(2 * corners) * np.pi / corners
    far = np.where(np.arange(2 * corners) % 2, inner if inner < 1 else np.cos(np.pi / corners), 1.0) * radius
    return np.stack([x + far * np.cos(angles), y + far * np.sin(angles)], 1).round().astype(np.int32)
