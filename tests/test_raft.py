"""RAFT as torchvision's own class with random weights: bfloat16, batches, odd sizes, devices, and its file."""

import cv2
import numpy as np
import pytest

from ptta_core.config import ModelRef, ScoreConfig
from ptta_core.models import motion, tiny_vlm
from ptta_core.models.weight_files import WeightsError
from ptta_core.stages.score import Scorer

SIZE = (131, 138)  # neither side is a multiple of 8


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tiny_vlm.raft(tmp_path_factory.mktemp("raft") / "raft", 0) / "model.safetensors"


@pytest.fixture(scope="module")
def pairs():
    """Soft texture and the same 3 and 5 px further."""
    random = np.random.default_rng(0)
    noise = cv2.GaussianBlur(random.random(SIZE), (0, 0), 3)
    image = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return [(image, np.roll(image, shift, axis=1)) for shift in (3, 5)]


def flow(file, dtype, **words):
    config = ScoreConfig(motion="raft", motion_model=ModelRef(id=str(file)), motion_dtype=dtype)
    return motion.make_flow(config, **words)


@pytest.fixture(scope="module")
def exact(file, pairs):
    return flow(file, "fp32").many(pairs)


def test_bfloat16_is_close_to_float32_and_not_the_same(file, pairs, exact):
    half = flow(file, "bf16").many(pairs)
    for one, true in zip(half, exact, strict=True):
        assert one.dtype == np.float32 and one.shape == (*SIZE, 2)
        off, length = np.linalg.norm(one - true, axis=-1), np.linalg.norm(true, axis=-1)
        assert 0 < off.mean() < 0.03 * length.mean()
        assert np.linalg.norm(one, axis=-1).mean() == pytest.approx(length.mean(), rel=0.01)  # what motion_px averages


def test_a_pair_has_the_same_flow_alone_and_in_a_batch(file, pairs, exact):
    np.testing.assert_allclose(flow(file, "fp32")(*pairs[1]), exact[1], atol=1e-3)


def test_the_device_asked_for_is_the_devices_of_all_weights(file):
    config = ScoreConfig(motion="raft", motion_model=ModelRef(id=str(file)))
    for device in ("cpu", "meta"):
        found = Scorer(config, device=device).flow
        assert found.device == device and {one.device.type for one in found.model.parameters()} == {device}
        assert not found.model.training


def test_an_unknown_precision_and_other_weights_are_refused(file, tmp_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(ValueError, match=r"motion_dtype = 'fp8'; choices: fp32, bf16"):
        motion.Raft(flow(file, "fp32").model, dtype="fp8")
    tensors = load_file(file)
    save_file({f"module.{name}": one for name, one in tensors.items()}, tmp_path / "raft.safetensors")
    with pytest.raises(WeightsError, match=r"is not torchvision's raft_large: .* are missing .*'module\."):
        flow(tmp_path / "raft.safetensors", "fp32")
