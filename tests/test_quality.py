"""Black, frozen and blurred pictures whose values are known by construction."""

import cv2
import numpy as np
import pytest

from ptta_core.models.quality import QualityMeter, blur


def drawing(seed: int = 0) -> np.ndarray:
    """A flat gray picture with discs and outlines."""
    random, picture = np.random.default_rng(seed), np.full((320, 576), 190, np.uint8)
    for _ in range(30):
        centre, radius = (int(random.integers(576)), int(random.integers(320))), int(random.integers(10, 60))
        cv2.circle(picture, centre, radius, int(random.integers(40, 256)), -1)
        cv2.circle(picture, centre, radius, 10, 2)
    return picture


def measured(frames: list[np.ndarray], fps: float = 24.0):
    meter = QualityMeter()
    for index, frame in enumerate(frames):
        meter.add(frame, 5 + index / fps)
    return meter.result()


def panned(count: int) -> list[np.ndarray]:
    wide = np.hstack([drawing(1), drawing(2)])
    return [np.ascontiguousarray(wide[:, 4 * step : 4 * step + 576]) for step in range(count)]


def test_a_moving_clip_holds_one_frame():
    found = measured(panned(24))
    assert found.black_share == 0
    assert found.longest_hold_s == pytest.approx(1 / 24)


def test_holds_are_measured_in_seconds_whatever_the_rate():
    on_threes = [frame for frame in panned(16) for _ in range(3)]
    assert measured(on_threes).longest_hold_s == pytest.approx(3 / 24)
    frozen = panned(12) + [panned(12)[-1]] * 30 + panned(30)[13:]
    assert measured(frozen).longest_hold_s == pytest.approx(31 / 24)
    assert measured([frame for frame in frozen for _ in range(2)], 48).longest_hold_s == pytest.approx(31 / 24)
    assert measured([drawing()] * 48).longest_hold_s == pytest.approx(2)


def test_coding_noise_is_a_hold_and_a_small_moving_part_is_not():
    random, still = np.random.default_rng(0), drawing()
    noisy = [np.clip(still + random.normal(0, 2, still.shape), 0, 255).astype(np.uint8) for _ in range(24)]
    assert measured(noisy).longest_hold_s == pytest.approx(1)
    blinking = [still.copy() for _ in range(24)]
    for frame in blinking[::2]:
        cv2.circle(frame, (300, 150), 5, 255, -1)
    assert measured(blinking).longest_hold_s == pytest.approx(1 / 24)


def test_a_slow_drift_is_no_freeze():
    fading = [np.full((320, 576), 60 + step // 4, np.uint8) for step in range(96)]  # one level in 4 frames
    assert measured(fading).longest_hold_s < 0.6


def test_black_is_black_and_night_is_not():
    black, night = np.full((320, 576), 4, np.uint8), (drawing() // 6).astype(np.uint8)
    assert measured([black] * 6 + [night] * 18).black_share == pytest.approx(0.25)
    title = black.copy()
    title[150:170, 200:400] = 230  # a card with text is not black
    assert measured([title] * 4).black_share == 0


def test_one_frame_and_none():
    assert measured([drawing()]) == (0.0, 0.0)
    with pytest.raises(ValueError, match="no frames"):
        QualityMeter().result()


def test_blur_rises_with_blur_and_flat_cels_are_sharp():
    levels = [blur(cv2.GaussianBlur(drawing(), (0, 0), sigma)) for sigma in (0.5, 1, 2, 4, 8)]
    assert levels == sorted(levels)
    assert blur(drawing()) < 0.35 < 0.6 < levels[-1] <= 1
    few = np.full((320, 576), 200, np.uint8)
    few[100:200, 100:200] = 20  # one flat square: a low Laplacian variance, and perfectly sharp
    assert blur(few) < 0.35
    assert blur(np.zeros((32, 32), np.uint8)) == 1
