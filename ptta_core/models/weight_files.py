"""Where the one safetensors file of a small model lies: a file, a folder, or the hub; and whether it is the model's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
            raise WeightsError(f"{path} is not a .safetensors file; `ptta weights convert` makes one of a .pth file")
        return path
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise WeightsError(f"{path} holds {len(found)} .safetensors files, not one")
        return found[0]
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source, "model.safetensors", revision=revision))


def require(name: str, wanted: Mapping[str, Any], given: Mapping[str, Any], path: str | Path) -> None:
    """Raise WeightsError unless the tensors have the names and shapes of the model; counters of training may lack.

    wanted, given: name -> anything with a `shape`.
    """
    needed = {tensor for tensor in wanted if not tensor.endswith("num_batches_tracked")}
    missing, strange = sorted(needed - set(given)), sorted(set(given) - set(wanted))
    if missing or strange:
        raise WeightsError(f"{path} is not {name}: {len(missing)} tensors are missing {missing[:3]}, "
                           f"{len(strange)} are unknown {strange[:3]}")  # fmt: skip
    for tensor in sorted(set(given)):
        if given[tensor].shape != wanted[tensor].shape:
            shapes = f"{list(given[tensor].shape)}, not {list(wanted[tensor].shape)}"
            raise WeightsError(f"{path} is not {name} of the published size: {tensor} is {shapes}")
