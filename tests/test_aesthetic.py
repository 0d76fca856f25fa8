"""Looks against pictures whose values are known, and LAION V2 against a plain torch reference of the whole path."""

import cv2
import numpy as np
import pytest

from ptta_core.config import ModelRef, ScoreConfig
from ptta_core.models import aesthetic, tiny_vlm
from ptta_core.models.weight_files import WeightsError

PLAIN = {
    "black": (0, 0, 0), "white": (250, 250, 250), "gray": (128, 128, 128), "red": (220, 20, 20),
    "orange": (250, 140, 10), "yellow": (250, 230, 20), "green": (30, 160, 40), "cyan": (20, 210, 220),
    "blue": (30, 60, 220), "purple": (130, 40, 190), "pink": (250, 150, 190), "brown": (120, 70, 30),
}  # fmt: skip


def plain(colour, height=90, width=160):
    return np.full((height, width, 3), colour, np.uint8)


def rich(seed=0):
    """Many coloured discs with outlines."""
    random, picture = np.random.default_rng(seed), plain((210, 220, 240), 320, 576)
    for _ in range(60):
        centre, radius = (int(random.integers(576)), int(random.integers(320))), int(random.integers(10, 70))
        cv2.circle(picture, centre, radius, [int(value) for value in random.integers(0, 256, 3)], -1)
        cv2.circle(picture, centre, radius, (10, 10, 10), 2)
    return picture


@pytest.mark.parametrize("name", PLAIN)
def test_plain_colours_have_plain_names(name):
    assert aesthetic.looks(plain(PLAIN[name])).palette == name


def test_palette_is_most_common_first_and_leaves_specks_out():
    picture = plain(PLAIN["blue"], 100, 100)
    picture[:, 50:80] = PLAIN["white"]
    picture[:, 80:97] = PLAIN["orange"]
    picture[:, 97:] = PLAIN["green"]
    assert aesthetic.looks(picture).palette == "blue, white, orange"
    assert aesthetic.palette([picture, plain(PLAIN["white"])]) == ["white", "blue", "orange"]


def test_measures_of_known_pictures():
    assert aesthetic.brightness(plain((255, 255, 255))) == 1
    assert aesthetic.brightness(plain((0, 0, 0))) == 0
    assert aesthetic.colourfulness(plain((90, 90, 90))) == 0
    # half red, half blue: rg = 255, 0; yb = 127.5, -255
    halves = plain((255, 0, 0))
    halves[:, 80:] = (0, 0, 255)
    spread = np.hypot(127.5, 191.25) + 0.3 * np.hypot(127.5, -63.75)
    assert aesthetic.colourfulness(halves) == pytest.approx(spread, rel=1e-4)
    steps = plain((0, 0, 0))
    steps[:, 80:] = 255
    assert aesthetic.contrast(steps) == 0.5
    assert aesthetic.clipped(steps) == 1
    assert aesthetic.exposure(steps) == 0
    assert aesthetic.exposure(plain((128, 128, 128))) == 1
    assert aesthetic.sharpness(plain((7, 99, 200))) == 0


def test_classical_ranks_blank_blurred_gray_and_rich():
    picture = rich()
    blurred = cv2.GaussianBlur(picture, (0, 0), 12)
    gray = np.repeat(aesthetic.luma(picture)[..., None], 3, axis=2)
    score = aesthetic.classical(picture)
    assert 1 <= aesthetic.classical(plain((0, 0, 0))) < aesthetic.classical(blurred) < score <= 10
    assert aesthetic.classical(gray) < score
    assert aesthetic.classical(plain((0, 0, 0))) == 1


def test_make_aesthetic_classical_scores_each_picture():
    score = aesthetic.make_aesthetic(ScoreConfig())
    assert score([rich(), plain((0, 0, 0))]) == [aesthetic.classical(rich()), 1.0]
    assert score([]) == []


@pytest.fixture(scope="module")
def laion(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    clip, head = tiny_vlm.clip(folder / "clip", 0), tiny_vlm.laion_head(folder / "head", 1)
    return ScoreConfig(
        aesthetic="laion-v2", aesthetic_model=ModelRef(id=str(clip)), aesthetic_head=ModelRef(id=str(head))
    )


def reference(config: ScoreConfig, image: np.ndarray, whole: bool = False) -> float:
    """The whole path by hand: PIL's bicubic resize, centre crop, CLIP's vision tower, projection, norm, head.

    whole: all of the picture squeezed into the square instead of the crop.
    """
    import torch
    from PIL import Image
    from safetensors.torch import load_file
    from transformers import CLIPModel

    side, (height, width) = tiny_vlm.CLIP_SIDE_PX, image.shape[:2]
    shrink = side / min(height, width)
    size = (side, side) if whole else (int(width * shrink), int(height * shrink))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), np.float32)
    top, left = (size[1] - side) // 2, (size[0] - side) // 2
    crop = small[top : top + side, left : left + side] / 255
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = torch.tensor((crop - np.array(mean)) / np.array(std), dtype=torch.float32).permute(2, 0, 1)[None]
    clip = CLIPModel.from_pretrained(config.aesthetic_model.id, use_safetensors=True).eval()
    tensors = load_file(f"{config.aesthetic_head.id}/model.safetensors")
    with torch.no_grad():
        pooled = clip.vision_model(pixel_values=pixels).pooler_output
        hidden = clip.visual_projection(pooled)[0]
        hidden = hidden / hidden.square().sum().sqrt()
        for layer in (0, 2, 4, 6, 7):
            hidden = tensors[f"layers.{layer}.weight"] @ hidden + tensors[f"layers.{layer}.bias"]
    return hidden.item()


def test_laion_is_the_reference_for_every_picture_of_a_batch(laion):
    images = [rich(1), rich(2)[:, :200], plain((30, 60, 220)), rich(3)[::2, ::2]]
    found = aesthetic.make_aesthetic(laion)(images)
    true = [reference(laion, image) for image in images]
    assert np.ptp(true) > 0.2  # the pictures differ for this model, so an order mixed up would show
    np.testing.assert_allclose(found, true, atol=0.02)
    assert aesthetic.make_aesthetic(laion)(images[::-1]) == pytest.approx(found[::-1], abs=1e-4)


def test_whole_frames_are_squeezed_instead_of_cut(laion):
    images = [rich(1), rich(2)[:, :200], rich(4)]
    images[2][:, :100] = images[2][:, -100:] = (250, 30, 20)  # sides that a centre crop of 320 px never sees
    whole = laion.model_copy(update={"aesthetic_crop": "whole"})
    found = aesthetic.make_aesthetic(whole)(images)
    np.testing.assert_allclose(found, [reference(laion, image, whole=True) for image in images], atol=0.02)
    assert not np.allclose(found, aesthetic.make_aesthetic(laion)(images), atol=0.02)


def test_embeddings_have_length_one_and_lead_to_the_scores(laion):
    model, images = aesthetic.make_aesthetic(laion), [rich(1), rich(2)]
    embeddings = model.embed(images)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert model.scores(embeddings) == pytest.approx(model(images), abs=1e-6)
    assert model.embed([]).shape == (0, embeddings.shape[1]) and model([]) == []


def test_laion_needs_both_models_and_the_right_head(laion, tmp_path):
    import torch
    from safetensors.torch import save_file

    with pytest.raises(ValueError, match=r"score\.aesthetic_head"):
        aesthetic.make_aesthetic(laion.model_copy(update={"aesthetic_head": None}))
    save_file({"layers.0.weight": torch.zeros(1, 768)}, tmp_path / "head.safetensors")
    with pytest.raises(WeightsError, match="aesthetic head"):
        aesthetic.make_aesthetic(laion.model_copy(update={"aesthetic_head": ModelRef(id=str(tmp_path))}))
