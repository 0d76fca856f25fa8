"""Motion against ground truth: drawn pans of known speed on ones, twos and threes, grain, zooms, files."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ptta_core.config import ModelRef, ScoreConfig
from ptta_core.models import motion, tiny_vlm
from ptta_core.models.weight_files import WeightsError, weights_file

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
HEIGHT, WIDTH, GAP_S = 320, 576, 0.625
MARGIN = 60  # px around the picture that a pan may use


@pytest.fixture(autouse=True)
def one_thread():
    cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def flow():
    return motion.dis()


def textured(seed: int = 0) -> np.ndarray:
    """Soft noise at two scales: texture everywhere."""
    noise = np.random.default_rng(seed).normal(size=(HEIGHT + 2 * MARGIN, WIDTH + 440)).astype(np.float32)
    mixed = cv2.GaussianBlur(noise, (0, 0), 2) + 2 * cv2.GaussianBlur(noise, (0, 0), 12)
    return cv2.normalize(mixed, None, 30, 220, cv2.NORM_MINMAX)


def flat(seed: int = 1) -> np.ndarray:
    """Cel art: flat areas with dark outlines."""
    random, scale = np.random.default_rng(seed), 4
    height, width = (HEIGHT + 2 * MARGIN) * scale, (WIDTH + 440) * scale
    picture = np.full((height, width), 200, np.uint8)
    for _ in range(80):
        centre = (int(random.integers(width)), int(random.integers(height)))
        radius, tone = int(random.integers(60, 260)), int(random.integers(30, 240))
        cv2.circle(picture, centre, radius, tone, -1)
        cv2.circle(picture, centre, radius, 10, 8)
    return cv2.resize(picture, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA).astype(np.float32)


DRAWN = {"textured": textured(), "flat": flat()}


def shown(drawing: np.ndarray, camera: np.ndarray, grain: float = 0.0, seed: int = 0) -> np.ndarray:
    """A frame: the drawing through a 2 x 3 camera matrix (output from input), with grain, as uint8."""
    frame = cv2.warpAffine(drawing, camera.astype(np.float32), (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    if grain:
        frame = frame + grain * np.random.default_rng(seed).normal(size=frame.shape)
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def pan(drawing: np.ndarray, px_per_gap: float, *, fps=24.0, frames=48, hold=1, phase=0, grain=0.0, down=0.0):
    """Frames and times of a camera that moves right (and down): the picture moves left (and up)."""
    images = []
    for index in range(frames):
        gaps = (index + phase) // hold * hold / fps / GAP_S
        shift = np.array([[1, 0, -20 - px_per_gap * gaps], [0, 1, -20 - down * gaps]])
        images.append(shown(drawing, shift, grain, seed=index))
    return images, [index / fps for index in range(frames)]


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("px", [2.0, 6.0, 12.0, 24.0, 48.0])
def test_a_pan_reads_as_long_as_it_is(kind, px, flow):
    found = motion.measure(*pan(DRAWN[kind], px), flow, GAP_S)
    assert found.motion_px == pytest.approx(px, rel=0.1)
    assert found.pan_x_px == pytest.approx(-px, rel=0.05)
    assert found.pan_y_px == pytest.approx(0, abs=0.1)
    assert found.zoom == pytest.approx(1, abs=0.005)
    assert not found.saturated
    assert found.static_share == 0


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize(("hold", "name"), [(1, "ones"), (2, "twos"), (3, "threes")])
def test_holds_do_not_change_the_score_at_any_phase(kind, hold, name, flow):
    for phase in range(hold):
        found = motion.measure(*pan(DRAWN[kind], 12.0, hold=hold, phase=phase), flow, GAP_S)
        assert found.motion_px == pytest.approx(12.0, rel=0.05), (hold, phase)
        assert found.timing == name


@pytest.mark.parametrize(("fps", "hold", "name"), [
    (25.0, 1, "ones"), (30.0, 1, "ones"), (60.0, 1, "ones"), (12.0, 1, "twos"), (8.0, 1, "threes"), (48.0, 4, "twos"),
])  # fmt: skip
def test_time_counts_and_not_frames(fps, hold, name, flow):
    found = motion.measure(*pan(DRAWN["flat"], 12.0, fps=fps, frames=int(2.5 * fps), hold=hold), flow, GAP_S)
    assert found.motion_px == pytest.approx(12.0, rel=0.05)
    assert found.timing == name


def test_another_gap_scales_the_score(flow):
    images, times = pan(DRAWN["flat"], 12.0)
    assert motion.measure(images, times, flow, 1.0).motion_px == pytest.approx(12 / 0.625, rel=0.05)


@pytest.mark.parametrize("kind", DRAWN)
def test_a_grainy_still_does_not_move(kind, flow):
    found = motion.measure(*pan(DRAWN[kind], 0.0, grain=3.0), flow, GAP_S)
    assert found.motion_px < 0.2
    assert found.static_share == 1
    assert found.timing == "still"


def test_grain_hardly_changes_a_pan(flow):
    found = motion.measure(*pan(DRAWN["flat"], 6.0, grain=3.0, hold=2), flow, GAP_S)
    assert found.motion_px == pytest.approx(6.0, rel=0.1)
    assert found.timing == "twos"


def test_one_frame_and_no_frame_are_still(flow):
    images, times = pan(DRAWN["flat"], 6.0, frames=1)
    assert motion.measure(images, times, flow, GAP_S) == motion.STILL
    assert motion.measure([], [], flow, GAP_S) == motion.STILL


def test_a_clip_shorter_than_the_gap_is_scaled(flow):
    found = motion.measure(*pan(DRAWN["flat"], 24.0, frames=7), flow, GAP_S)
    assert found.pairs == 1
    assert found.motion_px == pytest.approx(24.0, rel=0.1)


def test_a_pause_counts_as_no_motion(flow):
    """2.5 s held, then 1.25 s of a pan: a third of the motion, in two of six pairs."""
    images, _ = pan(DRAWN["flat"], 12.0, frames=30)
    images = [images[0]] * 60 + images
    found = motion.measure(images, [index / 24 for index in range(len(images))], flow, GAP_S)
    assert found.pairs == 6
    assert found.motion_px == pytest.approx(12.0 / 3, rel=0.1)
    assert found.static_share == pytest.approx(4 / 6)


def test_opposite_motions_do_not_cancel(flow):
    there, _ = pan(DRAWN["flat"], 12.0, frames=31)
    images = there + there[-2::-1]
    found = motion.measure(images, [index / 24 for index in range(len(images))], flow, GAP_S)
    assert found.motion_px == pytest.approx(12.0, rel=0.1)
    assert abs(found.pan_x_px) < 1


def test_a_diagonal_pan_has_both_signs(flow):
    found = motion.measure(*pan(DRAWN["flat"], -4.0, down=9.0, frames=36), flow, GAP_S)
    assert (found.pan_x_px, found.pan_y_px) == (pytest.approx(4.0, rel=0.1), pytest.approx(-9.0, rel=0.1))


@pytest.mark.parametrize("per_s", [1.1, 0.93])
def test_a_zoom_is_a_factor_per_second(per_s, flow):
    drawing, centre = DRAWN["flat"], np.array([WIDTH / 2 + 200, HEIGHT / 2 + 50])
    images = []
    for index in range(36):
        scale = per_s ** (index / 24)
        left, top = np.array([288, 160]) - scale * centre
        images.append(shown(drawing, np.array([[scale, 0, left], [0, scale, top]])))
    found = motion.measure(images, [index / 24 for index in range(36)], flow, GAP_S)
    assert found.zoom == pytest.approx(per_s, abs=0.01)
    assert abs(found.pan_x_px) < 0.5


def test_a_figure_is_not_the_camera(flow):
    """A disc on 14 % of the picture moves; the camera does not."""
    still, images = shown(DRAWN["textured"], np.array([[1.0, 0, -20], [0, 1, -20]])), []
    for index in range(36):
        frame = still.copy()
        cv2.circle(frame, (150 + 4 * index, 160), 90, 40, -1)
        cv2.circle(frame, (150 + 4 * index, 160), 60, 220, 6)
        images.append(frame)
    found = motion.measure(images, [index / 24 for index in range(36)], flow, GAP_S)
    assert found.motion_px > 4
    assert abs(found.pan_x_px) < 0.3


def test_a_very_fast_pan_is_flagged(flow):
    found = motion.measure(*pan(DRAWN["flat"], 110.0, frames=40), flow, GAP_S)
    assert found.saturated


def test_bad_input_is_refused(flow):
    images, times = pan(DRAWN["flat"], 6.0, frames=3)
    with pytest.raises(ValueError, match="3 frames but 2 times"):
        motion.measure(images, times[:2], flow, GAP_S)
    with pytest.raises(ValueError, match="must increase"):
        motion.measure(images, times[::-1], flow, GAP_S)


@pytest.mark.parametrize("name", ["translate", "affine"])
def test_flow_of_known_pairs(name, flow):
    if not DATA.is_dir():
        pytest.skip("no shared/data beside the repository")
    first, second = (cv2.imread(str(DATA / "flow" / f"{name}_{side}.png"), cv2.IMREAD_GRAYSCALE) for side in "ab")
    found = flow(first, second)
    true = np.full(found.shape, (7, -4), np.float32) if name == "translate" else read_flo(DATA / "flow" / f"{name}.flo")
    inside = (slice(24, -24), slice(24, -24))
    assert np.linalg.norm(found - true, axis=2)[inside].mean() < 0.3


def read_flo(path: Path) -> np.ndarray:
    width, height = np.fromfile(path, "<i4", count=2, offset=4)
    return np.fromfile(path, "<f4", offset=12).reshape(height, width, 2)


@pytest.mark.parametrize("name", ["layered", "sintel_alley_1"])
def test_flow_of_layers_and_of_a_film_has_the_true_length(name, flow):
    """Mean length within 10 %; the hidden parts of the layers do not count."""
    if not DATA.is_dir():
        pytest.skip("no shared/data beside the repository")
    ends = ("frame_0001", "frame_0002") if name != "layered" else "ab"
    first, second = (cv2.imread(str(DATA / "flow" / f"{name}_{end}.png"), cv2.IMREAD_GRAYSCALE) for end in ends)
    true = read_flo(DATA / "flow" / (f"{name}_frame_0001.flo" if name != "layered" else "layered.flo"))
    found, valid = flow(first, second), np.ones(first.shape, bool)
    if name == "layered":
        valid = cv2.imread(str(DATA / "flow" / "layered_valid.png"), cv2.IMREAD_GRAYSCALE) > 0
    lengths = [float(np.linalg.norm(one, axis=2)[valid].mean()) for one in (found, true)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.1)


@pytest.mark.parametrize(("name", "px"), [("pan_0px", 0.0), ("pan_2px", 2.0), ("pan_8px", 8.0)])
def test_pans_of_known_speed_from_files(name, px, flow):
    """2 px a frame at 640 px is 27 px in 15 frames at 576; 8 px is 108 px, at the end of what DIS follows."""
    if not DATA.is_dir():
        pytest.skip("no shared/data beside the repository")
    import av

    with av.open(str(DATA / "flow" / f"{name}.mp4")) as container:
        frames = [(frame.to_ndarray(format="gray", width=WIDTH, height=HEIGHT), frame.time) for frame in
                  container.decode(video=0)]  # fmt: skip
    found = motion.measure(*zip(*frames), flow, GAP_S)
    close = 0.1 if px == 8 else 0.05
    assert found.motion_px == pytest.approx(px * 0.9 * 15, rel=close, abs=0.1)
    assert found.pan_x_px == pytest.approx(-px * 0.9 * 15, rel=close, abs=0.1)


@pytest.fixture(scope="module")
def raft_folder(tmp_path_factory):
    return tiny_vlm.raft(tmp_path_factory.mktemp("raft") / "raft", 0)


def test_raft_is_torchvisions_raft_on_padded_pictures(raft_folder):
    """Sides that are no multiples of 8, two pairs in a batch, against the model called by hand."""
    import torch
    from safetensors.torch import load_file
    from torchvision.models.optical_flow import raft_large

    random = np.random.default_rng(0)
    pairs = [tuple(random.integers(0, 256, (132, 139), dtype=np.uint8) for _ in "ab") for _ in range(2)]
    config = ScoreConfig(motion="raft", motion_model=ModelRef(id=str(raft_folder)))
    found = motion.make_flow(config).many(pairs)

    model = raft_large(weights=None, progress=False).eval()
    model.load_state_dict(load_file(raft_folder / "model.safetensors"))
    for (first, second), flow_HW2 in zip(pairs, found):
        padded = [np.pad(image, ((0, 4), (0, 5)), mode="edge") for image in (first, second)]
        colour = [torch.tensor(image)[None, None].repeat(1, 3, 1, 1) / 255.0 * 2 - 1 for image in padded]
        with torch.no_grad():
            true = model(*colour)[-1][0].permute(1, 2, 0).numpy()[:132, :139]
        assert flow_HW2.shape == (132, 139, 2)
        np.testing.assert_allclose(flow_HW2, true, atol=2e-2, rtol=2e-2)


def test_weights_are_safetensors_only(tmp_path):
    with pytest.raises(ValueError, match=r"score\.motion_model"):
        motion.make_flow(ScoreConfig(motion="raft"))
    with pytest.raises(WeightsError, match=r"0 \.safetensors"):
        weights_file(ModelRef(id=str(tmp_path)))
    published = tmp_path / "raft.pth"
    published.write_bytes(b"pickle")
    with pytest.raises(WeightsError, match=r"not a \.safetensors file"):
        weights_file(ModelRef(id=str(published)))
