"""Weights as they were published: PyTorch's .pth files, read once, checked, and made safetensors.

A .pth file is a pickle, and opening one may run whatever its maker liked. So this is the one place that calls
torch.load: with weights_only=True, which builds tensors and plain containers and nothing else, and only on bytes
whose sha256 is known.
"""

import hashlib
import io
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ptta_core.models.aesthetic import HEAD_LAYERS, HEAD_WIDTHS
from ptta_core.models.weight_files import WeightsError, require

LARGEST = 1 << 30  # bytes; the files meant here have 4 to 30 MB


class Published(NamedTuple):
    """A model whose weights come as a .pth file."""

    title: str
    known: dict[str, str]  # sha256 -> the file that has it, as several public projects pin it; none was had here
    wanted: Callable[[], Mapping[str, Any]]  # the tensors of the model, by name
    field: str  # of the recipe, where the converted file is named


class Converted(NamedTuple):
    """A .pth file as the bytes of a safetensors file."""

    data: bytes
    tensors: int
    parameters: int
    sha256: str  # of the .pth file
    known_as: str  # the published file's name, "" where only the user vouches for it


def convert(kind: str, path: Path, sha256: str = "") -> Converted:
    """Read a published .pth file. sha256: what it must have; "" asks for one of the known files.

    Raises WeightsError for another sha256, for what is not a file of tensors, and for tensors of another model;
    OSError.
    """
    model = MODELS[kind]
    if path.stat().st_size > LARGEST:
        raise WeightsError(f"{path} has {path.stat().st_size >> 20} MiB, {model.title} has some tens")
    data = path.read_bytes()  # what is hashed is what is opened
    found = hashlib.sha256(data).hexdigest()
    if sha256 and found != sha256:
        raise WeightsError(f"{path} has sha256 {found}, not {sha256}: it was not opened")
    if not sha256 and found not in model.known:
        raise WeightsError(f"{path} has sha256 {found}, which is no known file of {model.title}: it was not opened. "
                           "Take the sha256 from whoever published it and pass it as --sha256")  # fmt: skip
    tensors = _tensors(data, path)
    require(model.title, model.wanted(), tensors, path)
    known_as = model.known.get(found, "")
    return Converted(_safetensors(tensors, kind, found), len(tensors),
                     sum(one.numel() for one in tensors.values()), found, known_as)  # fmt: skip


def _tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The named tensors of a .pth file's bytes; nothing but tensors and plain containers is built."""
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or hostile file brings up
        reason = next((line for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line), "")
        reason = reason or (str(error).splitlines() or [""])[0]
        raise WeightsError(f"{path} is no PyTorch file of plain tensors, and nothing in it was run: "
                           f"{type(error).__name__}: {reason.strip()[:200]}") from error  # fmt: skip
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds a {type(found).__name__}, not tensors by name")
    for name, one in found.items():
        if not isinstance(name, str) or not isinstance(one, Tensor) or one.layout != torch.strided or one.is_quantized:
            raise WeightsError(f"{path} holds {name!r}: {type(one).__name__}, which is no plain tensor")
    return found


def _safetensors(tensors: Mapping[str, Tensor], kind: str, sha256: str) -> bytes:
    """The same values; the header says what they were read from."""
    from safetensors.torch import save

    # views of one storage become tensors of their own; one entry, since the order of several differs from run to run
    plain = {name: one.detach().clone().contiguous() for name, one in sorted(tensors.items())}
    return save(plain, {"converted_from": f"{kind} sha256:{sha256}"})


def _raft() -> Mapping[str, Any]:
    from torchvision.models.optical_flow import raft_large

    with torch.device("meta"):  # names and shapes alone
        return raft_large(weights=None, progress=False).state_dict()


def _head() -> Mapping[str, Any]:
    pairs = zip(HEAD_LAYERS, itertools.pairwise(HEAD_WIDTHS))
    return {f"layers.{layer}.{part}": torch.empty(shape, device="meta") for layer, (inner, outer) in pairs
            for part, shape in (("weight", (outer, inner)), ("bias", (outer,)))}  # fmt: skip


def _transnet() -> Mapping[str, Any]:
    from ptta_core.models.transnet import TransNetV2

    with torch.device("meta"):
        return TransNetV2().state_dict()


# torchvision names its files by the first digits of their sha256, as this one's; TransNetV2's authors publish
# TensorFlow weights and a converter, so the .pth file is somebody else's conversion
MODELS = {
    "raft": Published("torchvision's raft_large", {
        "ff5fadd56d26b40647388883af1547351ea17868b765c05b27231e72dd16a322": "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
    }, _raft, "score.motion_model"),
    "laion-v2": Published("LAION V2's aesthetic head", {
        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0": "sac+logos+ava1-l14-linearMSE.pth",
    }, _head, "score.aesthetic_head"),
    "transnetv2": Published("TransNetV2", {
        "46520d66d4bf60414a4d82e0e94a92442ff950e34517a3718b2e54815e642b53":
            "transnetv2-pytorch-weights.pth of MiaoshouAI/transnetv2-pytorch-weights",
    }, _transnet, "split.model"),
}  # fmt: skip
