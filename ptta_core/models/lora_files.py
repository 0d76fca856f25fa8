"""A HydraLoRA adapter as plain LoRA files that other tools load: diffusers, ComfyUI, one file a branch.

    W0 x + scale * sum_i w_i B_i A x  =  W0 x + B A x     with     B = scale * sum_i w_i B_i

for one mix w a layer. The scale goes into B: diffusers refuses every key without "lora" in it, so also ".alpha".
diffusers' names are "transformer.MODULE.lora_A.weight" and ".lora_B.weight". ComfyUI knows the names of HunyuanVideo's
own code, which keeps q, k and v, and in single blocks the MLP too, in one matrix: there several pairs become one.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from ptta_core import ids
from ptta_core.models.hydralora import read_config
from ptta_core.models.placement import unread_inputs
from ptta_core.whole import write_whole

HEADER_KEY = "ptta_lora"  # one key only: safetensors writes several in no fixed order
MLP_RATIO = 4  # HunyuanVideo's, where the adapter itself does not show it

Pairs = dict[str, tuple[Tensor, Tensor]]  # module -> A [r, d_in], B [d_out, r]
Mixes = Mapping[str, Sequence[float]]  # module -> weight of each branch

# diffusers' module (below its block) -> the original one, and which of its row blocks
_DUAL = {
    "ff.net.0.proj": ("img_mlp.fc1", None), "ff.net.2": ("img_mlp.fc2", None),
    "ff_context.net.0.proj": ("txt_mlp.fc1", None), "ff_context.net.2": ("txt_mlp.fc2", None),
    "attn.to_q": ("img_attn_qkv", 0), "attn.to_k": ("img_attn_qkv", 1), "attn.to_v": ("img_attn_qkv", 2),
    "attn.add_q_proj": ("txt_attn_qkv", 0), "attn.add_k_proj": ("txt_attn_qkv", 1),
    "attn.add_v_proj": ("txt_attn_qkv", 2), "attn.to_out.0": ("img_attn_proj", None),
    "attn.to_add_out": ("txt_attn_proj", None),
}  # fmt: skip
_SINGLE = {
    "attn.to_q": ("linear1", 0), "attn.to_k": ("linear1", 1), "attn.to_v": ("linear1", 2), "proj_mlp": ("linear1", 3),
    "proj_out": ("linear2", None),
}  # fmt: skip
_MODULE = re.compile(r"(single_transformer_blocks|transformer_blocks)\.(\d+)\.(.+)")
_ORIGINAL = re.compile(r"(single|double)_blocks\.(\d+)\.(.+)")


# ------------------------------------------------------------------------------------------------- pairs


def gates(path: str | Path, mix: Sequence[float] | None = None) -> dict[str, list[float]] | None:
    """The weights of the branches in each layer where they do not depend on the input, else None.

    `mix`: these weights everywhere, whatever the gate. Without it: one branch, a static gate, and a label gate under
    the mean labels of its training clips (all alike where unknown). None for token and sample gates.
    """
    config, names = read_config(path), layer_names(path)
    branches = config["branches"]
    if mix is not None and len(mix) != branches:
        raise ValueError(f"a mix of {len(mix)} weights for {branches} branches")
    if mix is not None or branches == 1:
        return {name: list(mix or [1.0]) for name in names}
    if config["gate"] == "label":
        mean = config["metadata"].get("label_mean") or [1.0 / branches] * branches
        return {name: list(mean) for name in names}
    if config["gate"] == "static":
        state = load_file(str(path))
        return {name: torch.softmax(state[f"{name}.router"], -1).tolist() for name in names}
    return None


def layer_names(path: str | Path) -> list[str]:
    """The Linears that the adapter sits on, sorted."""
    return sorted(key.removesuffix(".lora_A") for key in load_file(str(path)) if key.endswith(".lora_A"))


def merged(path: str | Path, mixes: Mixes) -> Pairs:
    """One LoRA pair a layer under these mixes, float32."""
    config, state = read_config(path), load_file(str(path))
    pairs: Pairs = {}
    for name, mix in mixes.items():
        B_DNR = state[f"{name}.lora_B"].unflatten(1, (config["branches"], config["rank"]))
        weights_N = torch.tensor(list(mix), dtype=torch.float64)
        B_DR = torch.einsum("dnr,n->dr", B_DNR.double(), weights_N) * (config["alpha"] / config["rank"])
        unread = unread_inputs(config["placement"], name, B_DR.shape[0])
        pairs[name] = F.pad(state[f"{name}.lora_A"].float(), (unread, 0)), B_DR.float().contiguous()
    return pairs


def branch(path: str | Path, number: int) -> Pairs:
    """One branch alone, at full weight: the adapter is the sum of its branches, each times its gate."""
    alone = [float(place == number) for place in range(read_config(path)["branches"])]
    return merged(path, dict.fromkeys(layer_names(path), alone))


# ------------------------------------------------------------------------------------------------- names


def diffusers_keys(pairs: Pairs) -> dict[str, Tensor]:
    """As `pipeline.load_lora_weights` takes them."""
    return {f"transformer.{name}.lora_{part}.weight": tensor
            for name, (A, B) in sorted(pairs.items()) for part, tensor in (("A", A), ("B", B))}  # fmt: skip


def comfyui_keys(pairs: Pairs) -> dict[str, Tensor]:
    """As ComfyUI takes them; diffusers' loader takes them too, for the published model's width.

    Pairs that share a matrix there are stacked: A below A, B block by block, zero rows where the adapter has none. All
    pairs then get the same rank, by zeros, since diffusers scales by one rank for the whole file. Diffusers knows these
    names only by "img_attn_qkv", so a zero pair of that name is added where there is none.
    """
    groups: dict[str, dict[int | None, tuple[Tensor, Tensor]]] = {}
    for name, pair in pairs.items():
        original, block = _original(name)
        groups.setdefault(original, {})[block] = pair
    found = {name: _stacked(parts, 4 if name.endswith("linear1") else 3) for name, parts in groups.items()}
    if found and not any("img_attn_qkv" in name for name in found):
        width = _hidden(pairs)
        found["double_blocks.0.img_attn_qkv"] = torch.zeros(1, width), torch.zeros(3 * width, 1)
    rank = max((A.shape[0] for A, _ in found.values()), default=0)
    return diffusers_keys({name: _padded(*pair, rank) for name, pair in found.items()})


def _original(name: str) -> tuple[str, int | None]:
    """(the original module, which block of its rows); block None for a matrix of its own."""
    match = _MODULE.fullmatch(name)
    table = _SINGLE if match and match[1].startswith("single") else _DUAL
    if match is None or match[3] not in table:
        raise ValueError(f"no ComfyUI name is known for {name!r}")
    module, block = table[match[3]]
    return f"{'single' if table is _SINGLE else 'double'}_blocks.{match[2]}.{module}", block


def parts_of(original: str, width: int, height: int) -> dict[str, int] | None:
    """diffusers' modules in one of HunyuanVideo's own matrices, in order, with the rows of each; None for other names.

    width: columns of the matrix, height: its rows.
    """
    match = _ORIGINAL.fullmatch(original)
    if match is None:
        return None
    table, block = (_SINGLE, "single_") if match[1] == "single" else (_DUAL, "")
    found = [name for name, (module, _) in table.items() if module == match[3]]
    rows = [width] * (len(found) - 1) + [height - width * (len(found) - 1)]  # q, k and v are as high as wide
    return {f"{block}transformer_blocks.{match[2]}.{name}": many for name, many in zip(found, rows)} or None


def _stacked(parts: dict[int | None, tuple[Tensor, Tensor]], blocks: int) -> tuple[Tensor, Tensor]:
    """One pair for a matrix made of row blocks (q, k, v of equal height, then perhaps the MLP)."""
    if None in parts:
        return parts[None]
    hidden = next(iter(parts.values()))[0].shape[1]  # all blocks read the same input of the model's width
    mlp = parts[3][1].shape[0] if 3 in parts else MLP_RATIO * hidden
    heights = [hidden, hidden, hidden, mlp][:blocks]
    ranks = [parts[block][0].shape[0] if block in parts else 0 for block in range(blocks)]
    A_RD = torch.cat([parts[block][0] for block in range(blocks) if block in parts])
    B_DR = torch.zeros(sum(heights), sum(ranks))
    for block, (_, B) in sorted(parts.items(), key=lambda item: item[0] or 0):
        row, column = sum(heights[: block or 0]), sum(ranks[: block or 0])
        B_DR[row : row + B.shape[0], column : column + B.shape[1]] = B
    return A_RD, B_DR


def _padded(A_RD: Tensor, B_DR: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    more = rank - A_RD.shape[0]
    return F.pad(A_RD, (0, 0, 0, more)), F.pad(B_DR, (0, more))


def _hidden(pairs: Pairs) -> int:
    """The model's width: the least side of any adapted matrix."""
    return min(min(A.shape[1], B.shape[0]) for A, B in pairs.values())


# ------------------------------------------------------------------------------------------------- files


def write(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """A safetensors file, whole or not at all; `about` (anything JSON) goes into its header."""
    data = save({key: value.contiguous() for key, value in tensors.items()}, {HEADER_KEY: ids.canonical(dict(about))})
    write_whole(path, data)
