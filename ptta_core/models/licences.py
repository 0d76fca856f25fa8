"""Under which licence each model is published, in one plain sentence; no legal advice, the licence itself counts.

`ptta check` asks for every licence of `missing(recipe)` to be named in the recipe's `accept_licences`.
"""

from dataclasses import dataclass
from pathlib import Path

from ptta_core.config import ModelRef, Recipe


@dataclass(frozen=True)
class Licence:
    """A licence by the name that goes into `accept_licences`."""

    name: str
    sentence: str
    page: str  # the name of the page that publishes it
    ask: bool = True  # whether the user must say that it was read and accepted


def _apache(page: str) -> Licence:
    return Licence("Apache-2.0", "Free for any use that keeps the notices.", page, ask=False)


TENCENT = Licence(
    "Tencent Hunyuan Community License",
    "Not valid in the European Union, the United Kingdom and South Korea; over 100 million monthly users need a "
    "licence of their own, and outputs may not train other models. Its text encoder derives from Llama 3, under "
    "Meta's own licence.",
    "LICENSE of tencent/HunyuanVideo",
)
LICENCES: dict[str, Licence] = {
    "hunyuanvideo-community/HunyuanVideo": TENCENT,
    "tencent/HunyuanVideo": TENCENT,
    "openai/clip-vit-large-patch14": Licence(
        "MIT", "Free for any use that keeps the notice; its authors advise against deployment without testing.",
        "LICENSE of openai/CLIP", ask=False,
    ),
    "ttj/sac-logos-ava1-l14-linearMSE": _apache("LICENSE of christophschuhmann/improved-aesthetic-predictor"),
    "Qwen/Qwen3-VL-8B-Instruct": _apache("model card of Qwen/Qwen3-VL-8B-Instruct"),
    "Qwen/Qwen2.5-VL-7B-Instruct": _apache("model card of Qwen/Qwen2.5-VL-7B-Instruct"),
    "TIGER-Lab/VideoScore": _apache("model card of TIGER-Lab/VideoScore"),
    "TIGER-Lab/VideoScore-v1.1": Licence(
        "MIT", "Free for any use that keeps the notice.", "model card of TIGER-Lab/VideoScore-v1.1", ask=False
    ),
}  # fmt: skip
RAFT = Licence(
    "torchvision pre-trained weights",
    "The code is BSD-3-Clause; the weights carry no licence of their own, and some of the data sets that they were "
    "trained on (Sintel, KITTI, FlyingThings3D) are for research only.",
    "README of pytorch/vision, section Pre-trained Model License",
)


def licence_of(ref: ModelRef) -> Licence | None:
    """The licence of a model, None for our own tiny stand-ins and for local files: whoever put those there knows.

    A hub id that this table does not hold gets a licence of its own name, to be read and accepted like any other.
    """
    if ref.tiny:
        return None
    if known := LICENCES.get(ref.id):
        return known
    if Path(ref.id).name.startswith("raft_"):
        return RAFT
    if is_local(ref.id):
        return None
    return Licence(f"licence of {ref.id}", "Not in PTTA's table: read it at its source.", f"model card of {ref.id}")


def is_local(model_id: str) -> bool:
    """Whether an id names a file or folder here rather than `owner/name` on the hub."""
    here = model_id.startswith(("/", "./", "../", "~")) or model_id.count("/") > 1
    return here or Path(model_id).exists()


def required(recipe: Recipe) -> dict[str, Licence]:
    """The licences that the recipe's user must accept, by the field that names the model."""
    found = {field: licence_of(ref) for field, ref in recipe.models().items()}
    return {field: licence for field, licence in found.items() if licence is not None and licence.ask}


def missing(recipe: Recipe) -> dict[str, Licence]:
    """Those of `required` that `accept_licences` does not name yet."""
    return {field: licence for field, licence in required(recipe).items() if licence.name not in recipe.accept_licences}
