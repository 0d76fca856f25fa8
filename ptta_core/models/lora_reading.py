"""Plain LoRA files read back, our own and other people's: into a model as they are, or as the start of an adapter."""

import json
import re
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ptta_core.models.hydralora import HEADER_KEY as NATIVE_KEY
from ptta_core.models.hydralora import HydraLinear, layers, load_adapter, remove
from ptta_core.models.lora_files import Pairs, parts_of

_KEY = re.compile(
    r"(?:transformer\.|diffusion_model\.)?(.+?)\.(?:(lora_A|lora_down)|(lora_B|lora_up)|(alpha))(?:\..*)?"
)


def is_native(path: str | Path) -> bool:
    """Whether a safetensors file is an adapter of ours, router included. Raises OSError."""
    with safe_open(str(path), framework="pt") as file:
        return NATIVE_KEY in (file.metadata() or {})


def has_original_names(path: str | Path) -> bool:
    """Whether a plain LoRA's modules are named as in HunyuanVideo's own code, as ComfyUI has them. Raises OSError."""
    with safe_open(str(path), framework="pt") as file:
        return any("double_blocks." in key or "single_blocks." in key for key in file.keys())  # noqa: SIM118


def use(model: nn.Module, path: str | Path) -> None:
    """Put the adapter in this file, native or a plain LoRA, in the place of any that the model has. Raises ValueError.

    A file that cannot be read leaves the model as it was.
    """
    if is_native(path):
        remove(model)
        load_adapter(path, model)
        return
    pairs = read_pairs(path)
    _must_fit(path, pairs, {name: one for name, one in model.named_modules() if name in pairs})
    remove(model)
    put(model, pairs)


@torch.no_grad()
def put(model: nn.Module, pairs: Pairs) -> None:
    """Plain LoRA around the Linears that `pairs` names, none of which has an adapter."""
    for name, (A_RD, B_DR) in pairs.items():
        base = model.get_submodule(name)
        layer = HydraLinear(base, rank=A_RD.shape[0], alpha=A_RD.shape[0], branches=1)  # type: ignore[arg-type]
        layer.lora_A.copy_(A_RD)
        layer.lora_B.copy_(B_DR)
        model.set_submodule(name, layer.train(base.training))


@torch.no_grad()
def start_from(model: nn.Module, path: str | Path) -> None:
    """Let the model's new adapter compute what the adapter in this file computes; it may then be trained on.

    A native file needs equal settings. A plain LoRA (names as of diffusers or ComfyUI) goes into every branch: gates
    sum to 1, so any gate gives its output, and since gates differ, so do the branches' gradients. A lower rank is
    filled up with the new adapter's own A and zero B; Linears that the LoRA does not know begin as new. Raises
    ValueError.
    """
    if is_native(path):
        load_adapter(path, model)
        return
    own, pairs = layers(model), read_pairs(path)
    if lost := sorted(pairs.keys() - own.keys()):
        raise ValueError(f"{path} adapts {', '.join(lost[:3])} and {len(lost)} Linears in all that train.placement "
                         "leaves alone")  # fmt: skip
    _must_fit(path, pairs, dict(own))
    for name, (A_RD, _) in pairs.items():
        layer, rank = own[name], A_RD.shape[0]
        if rank > layer.rank:
            raise ValueError(f"{path}, {name}: rank {rank} does not fit into rank {layer.rank}")
        if A_RD[:, : layer.unread].any():
            raise ValueError(f"{path}, {name}: reads what comes from attention, which train.placement leaves out")
    for name, (A_RD, B_DR) in pairs.items():
        layer, rank = own[name], A_RD.shape[0]
        layer.lora_A[:rank] = A_RD[:, layer.unread :]
        layer.lora_B.unflatten(1, (layer.branches, layer.rank))[..., :rank] = (B_DR / layer.scale)[:, None]


def _must_fit(path: str | Path, pairs: Pairs, linears: dict[str, nn.Module]) -> None:
    """Raises ValueError where a pair has no Linear, or one of another shape."""
    if lost := sorted(pairs.keys() - linears.keys()):
        raise ValueError(f"{path} adapts {', '.join(lost[:3])} and {len(lost)} Linears in all that the model lacks")
    for name, (A_RD, B_DR) in pairs.items():
        known = getattr(linears[name], "in_features", None), getattr(linears[name], "out_features", None)
        if known != (A_RD.shape[1], B_DR.shape[0]):
            raise ValueError(f"{path}, {name}: {A_RD.shape[1]} -> {B_DR.shape[0]} does not fit the model's "
                             f"{known[0]} -> {known[1]}")  # fmt: skip


# ------------------------------------------------------------------------------------------------- the pairs


def read_pairs(path: str | Path) -> Pairs:
    """The pairs of a plain LoRA by diffusers' module names, float32, the scale in B. Raises ValueError for other files.

    Names may be those of diffusers or of HunyuanVideo's own code, which ComfyUI uses; matrices that are one there and
    several here are cut, and rows of A that then reach nothing are dropped, so that ranks are no higher than needed.
    """
    state = load_file(str(path))
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    strange = [key for key in state if not _sort(key, state[key], downs, ups, alphas)]
    if strange or not downs or downs.keys() != ups.keys() or not alphas.keys() <= downs.keys():
        raise ValueError(f"{path} is neither an adapter of ours nor a plain LoRA with names like "
                         "transformer.MODULE.lora_A.weight")  # fmt: skip
    scale = _told_scale(path)
    pairs: Pairs = {}
    for name in sorted(downs):
        own = alphas[name] / len(downs[name]) if name in alphas else scale
        pairs |= _cut(name, downs[name].float(), ups[name].float() * own)
    return pairs


def _sort(
    key: str, value: Tensor, downs: dict[str, Tensor], ups: dict[str, Tensor], alphas: dict[str, float]
) -> bool:  # fmt: skip
    """Put one tensor of a file where it belongs; False for one that belongs nowhere."""
    match = _KEY.fullmatch(key)
    if match is None:
        return False
    if match[4]:
        alphas[match[1]] = float(value)
    else:
        (downs if match[2] else ups)[match[1]] = value
    return True


def _told_scale(path: str | Path) -> float:
    """alpha / rank where the file's header says it, as diffusers writes it; else 1. Raises ValueError."""
    with safe_open(str(path), framework="pt") as file:
        told = json.loads((file.metadata() or {}).get("lora_adapter_metadata") or "{}")
    settings = {key.removeprefix("transformer."): value for key, value in told.items()}
    if settings.get("alpha_pattern") or settings.get("rank_pattern") or settings.get("use_rslora"):
        raise ValueError(f"{path}: a LoRA whose scale differs from Linear to Linear cannot be read")
    return settings["lora_alpha"] / settings["r"] if {"lora_alpha", "r"} <= settings.keys() else 1.0


def _cut(name: str, A_RD: Tensor, B_DR: Tensor) -> Pairs:
    """One pair of a file by diffusers' names."""
    heights = parts_of(name, A_RD.shape[1], B_DR.shape[0])
    if heights is None:
        return {name: (A_RD, B_DR)}
    pairs: Pairs = {}
    for module, part_DR in zip(heights, B_DR.split(list(heights.values()))):
        used = part_DR.any(0)
        if used.any():
            pairs[module] = A_RD[used].contiguous(), part_DR[:, used].contiguous()
    return pairs
