"""How good a picture looks, 1 to 10: LAION's predictor on CLIP, or a proxy from classical measures; and plain looks.

The two backends are not on one scale: a threshold for one means nothing for the other.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptta_core.config import ModelRef, ScoreConfig
from ptta_core.models import resolve
from ptta_core.models.weight_files import WeightsError, weights_file

Aesthetic = Callable[[list[np.ndarray]], list[float]]  # uint8 RGB [H,W,3] each -> 1..10 each

HEAD_LAYERS = (0, 2, 4, 6, 7)  # the numbers between are dropout
HEAD_WIDTHS = (768, 1024, 128, 64, 16, 1)  # of the published head, from CLIP ViT-L/14's embedding to the score


class Looks(NamedTuple):
    """What a picture looks like."""

    brightness: float  # mean luma 0..1
    colourfulness: float  # Hasler-Suesstrunk, 0 (gray) to about 110 (extremely colourful)
    sharpness: float  # variance of the Laplacian on 8-bit luma
    palette: str  # up to three plain colour names, most common first: "blue, white, orange"


def looks(image_rgb: np.ndarray) -> Looks:
    """Brightness, colourfulness, sharpness and palette of a uint8 RGB picture [H,W,3]."""
    return Looks(brightness(image_rgb), colourfulness(image_rgb), sharpness(image_rgb), ", ".join(palette([image_rgb])))


# -------------------------------------------------------------------------------------------- classical measures


def luma(image_rgb: np.ndarray) -> np.ndarray:
    """8-bit luma (ITU-R BT.601 weights) of a uint8 RGB picture: [H,W,3] -> [H,W]."""
    import cv2

    return cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)


def brightness(image_rgb: np.ndarray) -> float:
    """Mean luma, 0 (black) to 1 (white)."""
    return float(luma(image_rgb).mean()) / 255


def colourfulness(image_rgb: np.ndarray) -> float:
    """Hasler and Suesstrunk, Measuring colourfulness in natural images (2003), metric M3.

    About 0 gray, 15 slightly, 33 moderately, 45 averagely, 59 quite, 82 highly, 109 extremely colourful.
    """
    red, green, blue = (image_rgb[..., channel].astype(np.float32) for channel in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def contrast(image_rgb: np.ndarray) -> float:
    """RMS contrast (Peli, Contrast in complex images, 1990): standard deviation of luma, 0 to 0.5 of full scale."""
    return float(luma(image_rgb).std()) / 255


def sharpness(image_rgb: np.ndarray) -> float:
    """Variance of the 3 x 3 Laplacian of 8-bit luma (Pech-Pacheco et al., 2000); depends on the picture's size."""
    import cv2

    return float(cv2.Laplacian(luma(image_rgb), cv2.CV_32F).var())


def clipped(image_rgb: np.ndarray) -> float:
    """Share of the pixels, 0..1, that are nearly black (luma up to 5) or nearly white (from 250)."""
    gray = luma(image_rgb)
    return float(((gray <= 5) | (gray >= 250)).mean())


def exposure(image_rgb: np.ndarray) -> float:
    """1 for a mean luma in the middle half with nothing clipped, falling to 0 at black, at white, or all clipped."""
    mean = brightness(image_rgb)
    return min(1.0, 4 * mean, 4 * (1 - mean)) * (1 - clipped(image_rgb))


def classical(image_rgb: np.ndarray) -> float:
    """A proxy for looks, 1 to 10, from a uint8 RGB picture [H,W,3]: no weights, and no claim to taste.

    1 + 9 times the mean of four terms in 0..1: colourfulness (full at 82, "highly colourful"), contrast (full at a
    standard deviation of a quarter of the scale), sharpness (logarithmic, full at a variance of 1000) and exposure.
    It tells a blank, black, gray or blurred picture from a rich one, and nothing finer.
    """
    terms = (
        min(1.0, colourfulness(image_rgb) / 82),
        min(1.0, contrast(image_rgb) / 0.25),
        min(1.0, float(np.log10(1 + sharpness(image_rgb)) / 3)),
        exposure(image_rgb),
    )
    return 1 + 9 * float(np.mean(terms))


def palette(images_rgb: list[np.ndarray], least_share: float = 0.08) -> list[str]:
    """Up to three plain colour names over some pictures, most common first; a name needs `least_share` of the pixels.

    The most common one is always given.
    """
    import cv2

    counts: Counter[str] = Counter()
    for image in images_rgb:
        small = cv2.resize(image, (64, 36), interpolation=cv2.INTER_AREA)
        names, numbers = np.unique(colour_names(small), return_counts=True)
        counts.update(dict(zip(names.tolist(), numbers.tolist())))
    total = sum(counts.values())
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return ranked[:1] + [name for name in ranked[1:3] if counts[name] >= least_share * total]


def colour_names(image_rgb: np.ndarray) -> np.ndarray:
    """The plain name of every pixel of a uint8 RGB picture: [H,W,3] -> str [H,W], by bands of hue and lightness.

    The bands are ours: black, gray and white where there is little chroma, dark orange is brown, light red is pink.
    """
    rgb = image_rgb.astype(np.float32) / 255
    high, low = rgb.max(-1), rgb.min(-1)
    chroma = high - low
    red, green, blue = np.moveaxis(rgb, -1, 0)
    safe = np.where(chroma == 0, 1, chroma)
    sector = np.select(
        [high == red, high == green], [((green - blue) / safe) % 6, (blue - red) / safe + 2], (red - green) / safe + 4
    )
    hue = sector * 60  # degrees
    gray = chroma < np.maximum(0.10, 0.18 * high)
    return np.select(
        [
            high < 0.18, gray & (high > 0.82), gray,
            ((hue < 20) | (hue >= 320)) & (low > 0.45), (hue >= 15) & (hue < 50) & (high < 0.62),
            (hue < 15) | (hue >= 340), hue < 45, hue < 70, hue < 165, hue < 195, hue < 255, hue < 300,
        ],
        ["black", "white", "gray", "pink", "brown", "red", "orange", "yellow", "green", "cyan", "blue", "purple"],
        "pink",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------ LAION V2


class LaionV2:
    """LAION's improved aesthetic predictor (V2): CLIP's projected image embedding, L2-normalised, and a linear head.

    Preprocessing is CLIP's own (shorter side to 224 bicubic, centre crop): what the head was trained on. The crop
    leaves the sides of a wide picture out; a processor made with crop "whole" squeezes all of it into the square.
    """

    def __init__(self, model: Any, processor: Any, head: dict[str, Any], device: str = "cpu", batch: int = 32) -> None:
        """`head`: layers.{0,2,4,6,7}.{weight,bias}. Raises WeightsError when its width is not the embedding's."""
        import torch

        expected = {f"layers.{layer}.{part}" for layer in HEAD_LAYERS for part in ("weight", "bias")}
        if set(head) != expected:
            raise WeightsError(f"aesthetic head: tensors {sorted(head)} are not {sorted(expected)}")
        width, needed = model.config.projection_dim, head["layers.0.weight"].shape[1]
        if width != needed:
            raise WeightsError(f"aesthetic head takes embeddings of width {needed}, the CLIP model gives {width}")
        self.torch = torch
        self.device = device
        self.batch = batch
        self.model = model.to(device).eval()
        self.processor = processor
        self.head = {name: tensor.to(device, torch.float32) for name, tensor in head.items()}

    def __call__(self, images_rgb: list[np.ndarray]) -> list[float]:
        """Scores, about 1 to 10, of uint8 RGB pictures [H,W,3] of any sizes."""
        return self.scores(self.embed(images_rgb))

    def embed(self, images_rgb: list[np.ndarray]) -> np.ndarray:
        """CLIP's projected image embeddings of such pictures, of length 1: float32 [N,D]."""
        parts = [images_rgb[start : start + self.batch] for start in range(0, len(images_rgb), self.batch)]
        width = self.model.config.projection_dim
        return np.concatenate([np.empty((0, width), np.float32), *(self._embed(part) for part in parts)])

    def scores(self, embeddings_ND: np.ndarray) -> list[float]:
        """The head on embeddings of length 1: without that it gives 20 to 30."""
        functional = self.torch.nn.functional
        with self.torch.inference_mode():
            hidden_ND = self.torch.from_numpy(embeddings_ND).to(self.device)
            for layer in HEAD_LAYERS:  # no activations between: the published head is one affine map
                weight, bias = self.head[f"layers.{layer}.weight"], self.head[f"layers.{layer}.bias"]
                hidden_ND = functional.linear(hidden_ND, weight, bias)
        return hidden_ND[:, 0].tolist()

    def _embed(self, images_rgb: list[np.ndarray]) -> np.ndarray:
        with self.torch.inference_mode():
            pixels_N3HW = self.processor(images=images_rgb, return_tensors="pt")["pixel_values"].to(self.device)
            hidden_ND = self.model(pixel_values=pixels_N3HW).image_embeds.float()
            return self.torch.nn.functional.normalize(hidden_ND, dim=-1).cpu().numpy()


def laion_v2(
    clip: ModelRef, head: ModelRef, device: str = "cpu", models_folder: str | Path = "", crop: str = "centre"
) -> LaionV2:
    """LAION V2 with weights from folders or the hub, safetensors only; crop: centre or whole.

    Raises WeightsError, OSError.
    """
    from safetensors.torch import load_file
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    class Vision(CLIPVisionModelWithProjection):
        # a whole CLIP holds text weights too; leaving them is meant, and no warning is due
        _keys_to_ignore_on_load_unexpected = [r"^text_", r"^logit_scale$"]

    source, revision = resolve(clip, models_folder)
    at: dict[str, Any] = {"revision": revision or "main"}
    model = Vision.from_pretrained(source, use_safetensors=True, **at)
    processor = CLIPImageProcessor.from_pretrained(source, **at)
    if crop == "whole":
        side: Any = model.config.image_size
        processor.do_center_crop, processor.size = False, {"height": side, "width": side}
    return LaionV2(model, processor, load_file(weights_file(head, models_folder)), device)


def make_aesthetic(config: ScoreConfig, device: str = "cpu", models_folder: str | Path = "") -> Aesthetic:
    """The aesthetic scorer that the recipe names. Raises ValueError when laion-v2 lacks a model."""
    match config.aesthetic:
        case "classical":
            return lambda images_rgb: [classical(image) for image in images_rgb]
        case "laion-v2":
            if config.aesthetic_model is None or config.aesthetic_head is None:
                raise ValueError("score.aesthetic laion-v2 needs score.aesthetic_model and score.aesthetic_head")
            return laion_v2(config.aesthetic_model, config.aesthetic_head, device, models_folder, config.aesthetic_crop)
    raise ValueError(f"score.aesthetic = {config.aesthetic!r}; choices: classical, laion-v2")
