"""Holds: figures on ones, twos and threes read alike; grain, zooms and strobes; streaming keeps few frames."""

import itertools

import cv2
import numpy as np
import pytest

from ptta_core.models import holds, motion

HEIGHT, WIDTH, GAP_S = 320, 576, 0.625
NAMES = {1: "ones", 2: "twos", 3: "threes"}


@pytest.fixture(autouse=True)
def one_thread():
    cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def flow():
    return motion.dis()


def ground(seed: int = 0) -> np.ndarray:
    """Soft texture, float32 [H,W + 300]."""
    noise = np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH + 300)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 8), None, 60, 220, cv2.NORM_MINMAX)


GROUND = ground()


def walk(fps, seconds, hold, phase, *, clock=0.0, radius=48, px=12.0, pan_px=0.0, grain=0.0):
    """A disc with a pattern, moving right by `px` a gap in steps of `hold` ticks; the ground moves left on ones."""
    clock, random, images, times = clock or fps, np.random.default_rng(3), [], []
    for index in range(round(seconds * fps)):
        tick = int(index / fps * clock + 1e-6)
        left = pan_px * tick / clock / GAP_S
        frame = cv2.warpAffine(GROUND, np.array([[1, 0, -left], [0, 1, 0]], np.float32), (WIDTH, HEIGHT))
        x = 100 + px * ((tick + phase) // hold * hold) / clock / GAP_S
        for size, tone in ((radius, 20), (radius - 5, 235), (radius // 2, 90), (radius // 4, 200)):
            cv2.circle(frame, (round(x * 16), 160 * 16), size * 16, tone, -1, cv2.LINE_AA, 4)
        frame = frame + grain * random.normal(size=frame.shape)
        images.append(np.clip(np.rint(frame), 0, 255).astype(np.uint8))
        times.append(index / fps)
    return images, times


PHASES = [(hold, phase) for hold in (1, 2, 3) for phase in range(hold)]


@pytest.mark.parametrize(("fps", "clock"), [
    (23.976, 0), (24, 0), (25, 0), (30, 0), (60, 0), (30, 24), (60, 24), (25, 24),
])  # fmt: skip
def test_one_pair_reads_alike_on_ones_twos_and_threes(fps, clock, flow):
    """0.7 s, natively and with the frames of 24 a second repeated.

    24 in 25 shows one repeat a second: in 0.7 s the drawings' clock is often not to be seen, 4 % off.
    """
    found = [motion.measure(*walk(fps, 0.7, *one, clock=clock), flow).motion_px for one in PHASES]
    assert max(found) - min(found) < (0.07 if (fps, clock) == (25, 24) else 0.05) * np.mean(found), found


@pytest.mark.parametrize(("fps", "clock"), [(24, 0), (25, 24), (30, 24), (60, 24)])
def test_timing_is_told_by_the_drawings_clock(fps, clock, flow):
    for hold, phase in PHASES:
        found = motion.measure(*walk(fps, 2.0, hold, phase, clock=clock), flow)
        assert found.timing == NAMES[hold], (hold, phase)


def test_grain_and_a_moving_camera_leave_holds_alone(flow):
    for options in ({"grain": 3.0}, {"pan_px": 6.0}):
        found = [motion.measure(*walk(24, 0.7, *one, **options), flow).motion_px for one in PHASES]
        assert max(found) - min(found) < 0.05 * np.mean(found), (options, found)


def test_a_zoom_and_a_turn_of_a_still_are_camera_alone(flow):
    images = []
    for index in range(36):
        seconds = index / 24
        matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), -4 * seconds, 1.08**seconds)
        images.append(cv2.warpAffine(GROUND, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT).astype(np.uint8))
    found = motion.measure(images, np.arange(36) / 24, flow)
    assert found.zoom == pytest.approx(1.08, abs=0.01)
    assert found.rotation_deg_s == pytest.approx(4, rel=0.05)
    assert found.motion_px > 4
    assert found.object_px < 0.1 * found.motion_px


def test_a_figure_is_object_motion(flow):
    found = motion.measure(*walk(24, 1.5, 2, 0, pan_px=12.0), flow)
    assert found.pan_x_px == pytest.approx(-12, rel=0.05)
    assert 0.5 < found.object_px < 4  # 24 px apart on 4 % of the picture


@pytest.mark.parametrize("grain", [3.0, 6.0])
def test_a_grainy_still_is_still(grain, flow):
    found = motion.measure(*walk(24, 1.5, 1, 0, px=0.0, grain=grain), flow)
    assert (found.timing, found.object_px) == ("still", 0)
    assert found.motion_px < 0.3


def test_a_strobe_flickers_and_a_pan_and_a_fade_do_not(flow):
    images, times = walk(24, 1.5, 1, 0, px=0.0)
    strobe = [np.clip(image.astype(int) + (8 if index // 2 % 2 else -8), 0, 255).astype(np.uint8)
              for index, image in enumerate(images)]  # fmt: skip
    fade = [(image * (1 - index / 50)).astype(np.uint8) for index, image in enumerate(images)]
    assert motion.measure(strobe, times, flow).flicker == pytest.approx(8, rel=0.2)
    assert motion.measure(fade, times, flow).flicker < 0.5
    assert motion.measure(*walk(24, 1.5, 1, 0, pan_px=20.0), flow).flicker < 0.3


def test_a_meter_keeps_few_whole_frames_and_calls_no_flow_before_the_end():
    calls = []

    def counted(first, second):
        calls.append(1)
        return np.zeros((*first.shape, 2), np.float32)

    meter = motion.Meter(counted)
    images, times = walk(60, 4.0, 2, 0, clock=24, radius=30, px=20.0)
    kept = 0
    for image, time_s in zip(images, times):
        meter.offer(image, time_s)
        kept = max(kept, len(meter._whole))
    assert not calls
    assert kept < 70 < len(images)
    assert meter.result().pairs == len(calls) == 7


def test_frames_of_uneven_length_count_by_time(flow):
    """A film on twos whose repeated frames were dropped here and there."""
    images, times = walk(24, 2.0, 2, 0)
    random = np.random.default_rng(1)
    kept = [i for i in range(len(images)) if i % 2 == 0 or random.random() < 0.4]
    whole, sparse = (
        motion.measure(*two, flow) for two in ((images, times), zip(*[(images[i], times[i]) for i in kept]))
    )
    assert sparse.motion_px == pytest.approx(whole.motion_px, rel=0.05)
    assert (whole.timing, sparse.timing) == ("twos", "twos")


def test_spans_are_whole_holds():
    for fps, frames in ((24, 12), (25, 12), (30, 18), (60, 36)):
        assert holds.spans(1 / fps, GAP_S) == (pytest.approx(frames / fps), 0.5)
    assert holds.spans(1 / 8, GAP_S) == (GAP_S, 0.5)


def test_onsets_by_hand():
    grays = [np.full((80, 144), tone, np.uint8) for tone, count in ((10, 2), (60, 2), (120, 3)) for _ in range(count)]
    assert holds.drawing_onsets(grays, 1.0) == [0, 2, 4]
    assert all(holds.change(a, b) in (0, 50, 60) for a, b in itertools.pairwise(grays))
