"""Subtitles and logos burnt into pictures: found where they are, and not where there are none."""

import sys

import cv2
import numpy as np
import pytest

from ptta_core.config import HOME
from ptta_core.models import logo_net, overlay

DATA = HOME.parent / "shared/data"

sys.path.append(str(HOME / "benchmarks"))  # its own subtitles and logos, drawn styles, and the network in torch
import stamps as overlays  # noqa: E402
import styles  # noqa: E402


def scene(seed: int, moves_px: float = 3.0) -> list[np.ndarray]:
    """Twelve looks at discs with outlines on a gradient, RGB 320 x 576, that all move to the left."""
    random = np.random.default_rng(seed)
    wide = np.repeat(np.linspace(90, 170, 1400)[None, :, None], 320, 0).repeat(3, 2).astype(np.uint8)
    for _ in range(50):
        centre, radius = (int(random.integers(1400)), int(random.integers(320))), int(random.integers(25, 80))
        cv2.circle(wide, centre, radius, [int(value) for value in random.integers(30, 220, 3)], -1, cv2.LINE_AA)
        cv2.circle(wide, centre, radius, (15, 15, 15), 2, cv2.LINE_AA)
    lefts = [round(moves_px * 15 * look) for look in range(overlay.LOOKS)]
    return [np.ascontiguousarray(wide[:, left : left + 576]) for left in lefts]


def gray(images: list[np.ndarray]) -> list[np.ndarray]:
    """As the score stage sees them, with the noise of coding."""
    random = np.random.default_rng(9)
    lumas = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    return [np.clip(luma + random.normal(0, 2, luma.shape), 0, 255).astype(np.uint8) for luma in lumas]


def box_of(stamp) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero((stamp.opacity > 0.2).any(1)), np.flatnonzero((stamp.opacity > 0.2).any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_subtitles_are_found_where_they_are():
    hits = 0
    for seed in range(20):
        stamp = overlays.subtitle(320, 576, seed)
        x1, y1, x2, y2 = box_of(stamp)
        found = overlay.measure(gray([stamp.on(image) for image in scene(seed)]))
        hits += found.text_box is not None
        if found.text_box is not None:
            left, top, right, bottom = found.text_box
            assert x1 - 20 <= left and right <= x2 + 20 and y1 - 20 <= top and bottom <= y2 + 20
            assert found.text_share * 320 * 576 <= 2 * (x2 - x1) * (y2 - y1)
    assert hits >= 18


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_text_at_two_looks_counts_and_at_one_does_not(seed):
    stamp, images = overlays.subtitle(320, 576, seed), scene(seed)
    twice = [stamp.on(image) if at in (5, 6) else image for at, image in enumerate(images)]
    once = [stamp.on(image) if at == 5 else image for at, image in enumerate(images)]
    assert overlay.measure(gray(twice)).text_share > 0
    assert overlay.measure(gray(once)).text_share == 0


def test_nothing_is_found_over_plain_scenes():
    for seed in range(12):
        found = overlay.measure(gray(scene(seed)))
        assert found.text_share == 0 and found.text_box is None
        assert found.overlay < 0.5 and found.static_box is None


def test_logos_in_corners_are_found_over_moving_pictures():
    hits = 0
    for seed in range(20):
        stamp = overlays.logo(320, 576, seed)
        found = overlay.measure(gray([stamp.on(image) for image in scene(seed)]))
        x1, y1, x2, y2 = box_of(stamp)
        hits += found.overlay > 0.5
        if found.static_box is not None:
            left, top, right, bottom = found.static_box
            assert min(right, x2) > max(left, x1) and min(bottom, y2) > max(top, y1)
    assert hits >= 18


def test_one_frame_black_frames_and_odd_sizes_are_no_trouble():
    black = overlay.measure([np.zeros((320, 576), np.uint8)] * 3)
    assert black._replace(overlay=0.0) == (0.0, None, 0.0, None) and black.overlay < 0.01
    assert overlay.measure([np.full((64, 64), 200, np.uint8)]) == (0.0, None, 0.0, None)
    portrait = overlay.measure([np.rot90(look).copy() for look in gray(scene(1))])
    assert 0 <= portrait.overlay < 0.5
    titled = np.zeros((320, 576), np.uint8)
    cv2.putText(titled, "The End of the Story", (120, 170), 0, 1.0, 255, 2, cv2.LINE_AA)
    assert overlay.measure([titled]).text_share > 0.01  # one look is judged by form alone


def coded(images: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(grays, three pictures) of a drawn shot at 320 x 576, with the noise of coding."""
    small = [cv2.resize(image, (576, 320), interpolation=cv2.INTER_AREA) for image in images]
    return gray(small), [small[at] for at in (1, 6, 10)]


def test_logos_are_found_over_still_cameras_and_drawn_shots_have_none():
    """Shots and logos of seeds that the fit has not drawn; over a camera that stands still only a logo's look tells."""
    found, alarms = [], []
    for seed in range(900, 906):
        for style in ("fence", "hatched", "snow", "bricks"):
            images = styles.shot(style, seed, overlay.LOOKS, "still")
            stamp = overlays.logo(*images[0].shape[:2], seed)
            alarms.append(overlay.measure(*coded(images)).static_box is not None)
            found.append(overlay.measure(*coded([stamp.on(image) for image in images])).static_box is not None)
    # 0.67 and 0.21 when fitted; edges alone find 0.54 with 0.29 of alarms: both bounds fail without the network
    assert np.mean(found) >= 0.6 and np.mean(alarms) <= 0.25, (found, alarms)


def test_the_network_in_numpy_is_the_one_in_torch():
    import fit_logos
    import torch

    net = fit_logos.Net()
    net.load_state_dict({name: torch.from_numpy(values) for name, values in logo_net.weights().items()})
    seen = np.random.default_rng(3).integers(0, 256, (7, *logo_net.WINDOW)).astype(np.uint8)
    for low, right in ((False, False), (True, True)):
        given = logo_net.corner(seen, low, right)
        with torch.no_grad():
            wanted = net(torch.from_numpy(given)[None])[0].numpy()
        assert np.abs(logo_net.answer(given, logo_net.weights()) - wanted).max() < 1e-3 * max(1, np.abs(wanted).max())


@pytest.mark.skipif(not DATA.is_dir(), reason="the real clips of ../shared/data are not here")
def test_real_titles_are_text():
    """A title card of the trailer."""
    from ptta_core import video

    path = DATA / "clips/sintel_trailer_480x204.mp4"
    frames = video.read_frames(path, width=576, height=320, pixel="gray")
    cards = [frame.image for frame in frames if frame.index in range(230, 284, 5)]
    x1, y1, x2, y2 = overlay.measure(cards).text_box or (0, 0, 0, 0)
    assert x2 - x1 > 100 and y2 - y1 < 60
