"""Where the one safetensors file of a small model lies: a file, a folder, or the hub."""

from pathlib import Path

from ptta_core.config import ModelRef
from ptta_core.models import resolve


class WeightsError(ValueError):
    """A model's weights are missing, or are not what the model needs."""

    kind = "weights"


def weights_file(ref: ModelRef, models_folder: str | Path = "") -> Path:
    """The one safetensors file that `ref` names: the file itself, the only one of a folder, or the hub's.

    Raises WeightsError when there is none, or more than one; ConfigError when the folder does not exist.
    """
    source, revision = resolve(ref, models_folder)
    path = Path(source)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise WeightsError(f"{path} is not a .safetensors file; convert it first")
        return path
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise WeightsError(f"{path} holds {len(found)} .safetensors files, not one")
        return found[0]
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source, "model.safetensors", revision=revision))
