"""Clips drawn with known motion, for the motion benchmark: pans, figures on ones, twos and threes, grain."""

from dataclasses import dataclass

import cv2
import numpy as np

HEIGHT, WIDTH, GAP_S = 320, 576, 0.625
MARGIN = 60  # px around the picture
RUN = 1100  # px to the right of it that a pan may use


def textured(seed: int = 0) -> np.ndarray:
    """Soft noise at two scales: texture everywhere; float32."""
    noise = np.random.default_rng(seed).normal(size=(HEIGHT + 2 * MARGIN, WIDTH + RUN)).astype(np.float32)
    mixed = cv2.GaussianBlur(noise, (0, 0), 2) + 2 * cv2.GaussianBlur(noise, (0, 0), 12)
    return cv2.normalize(mixed, None, 30, 220, cv2.NORM_MINMAX)


def flat(seed: int = 1) -> np.ndarray:
    """Cel art: flat areas with dark outlines; float32."""
    random, scale = np.random.default_rng(seed), 2
    height, width = (HEIGHT + 2 * MARGIN) * scale, (WIDTH + RUN) * scale
    picture = np.full((height, width), 200, np.uint8)
    for _ in range(130):
        centre = (int(random.integers(width)), int(random.integers(height)))
        radius, tone = int(random.integers(30, 130)), int(random.integers(30, 240))
        cv2.circle(picture, centre, radius, tone, -1, cv2.LINE_AA)
        cv2.circle(picture, centre, radius, 10, 4, cv2.LINE_AA)
    return cv2.resize(picture, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA).astype(np.float32)


def figure(share: float, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A cel figure on `share` (0..1) of the picture: (float32 picture [H,W], float32 mask 0..1), in a margin."""
    random, side = np.random.default_rng(seed), int(np.sqrt(share * HEIGHT * WIDTH / 0.7)) + 8
    shape, mask = np.full((side, side), 230, np.uint8), np.zeros((side, side), np.uint8)
    middle, half = (side // 2, side // 2), side // 2 - 4
    cv2.ellipse(mask, middle, (half, int(half * 0.85)), 0, 0, 360, 255, -1, cv2.LINE_AA)
    cv2.ellipse(shape, middle, (half, int(half * 0.85)), 0, 0, 360, 15, 4, cv2.LINE_AA)
    for _ in range(7):
        at = [int(value) for value in random.integers(side // 4, 3 * side // 4, 2)]
        cv2.circle(shape, at, int(random.integers(side // 14 + 1, side // 7 + 2)), int(random.integers(20, 200)), -1)
        cv2.circle(shape, at, side // 10, 15, 2, cv2.LINE_AA)
    return shape.astype(np.float32), mask.astype(np.float32) / 255


@dataclass(frozen=True)
class Film:
    """How a clip is shot; speeds in px per 0.625 s."""

    fps: float = 24.0
    seconds: float = 2.5
    hold: int = 1
    phase: int = 0  # drawings' ticks that the first has been held before the clip
    clock: float = 0.0  # drawings' ticks a second; 0 = the frames' (24 in 30 is clock 24 at fps 30)
    pan_px: float = 0.0  # of the background, on ones; the picture moves left
    figure_px: float = 0.0
    share: float = 0.0  # of the picture under the figure
    grain: float = 0.0  # standard deviation, gray levels
    held_camera: bool = True  # the pan is held with the drawings
    kind: str = "flat"


DRAWN = {"textured": textured(), "flat": flat()}


def shifted(drawing: np.ndarray, x: float, y: float) -> np.ndarray:
    """The picture with `drawing` moved right by x and down by y px."""
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return cv2.warpAffine(drawing, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)


def shoot(film: Film) -> tuple[list[np.ndarray], list[float]]:
    """The frames (gray uint8 [H,W]) and times in seconds of a film."""
    images, times = [], []
    clock = film.clock or film.fps
    random = np.random.default_rng(5)
    shape = figure(film.share) if film.share else None
    for index in range(round(film.seconds * film.fps)):
        time_s = index / film.fps
        tick = int(time_s * clock + 1e-6)
        drawn_s = (tick + film.phase) // film.hold * film.hold / clock
        camera_s = drawn_s if film.held_camera else tick / clock
        picture = shifted(DRAWN[film.kind], -20 - film.pan_px * camera_s / GAP_S, -20)
        if shape:
            travelled = film.figure_px * drawn_s / GAP_S
            spread = WIDTH - shape[0].shape[1] - 20  # to and fro would change the speed: come in again at the left
            at = (10 + travelled % max(spread, 1), (HEIGHT - shape[0].shape[0]) / 2)
            mask = shifted(shape[1], *at)
            picture = picture * (1 - mask) + shifted(shape[0], *at) * mask
        if film.grain:
            picture = picture + film.grain * random.normal(size=picture.shape).astype(np.float32)
        images.append(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
        times.append(time_s)
    return images, times
