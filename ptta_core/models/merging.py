"""An adapter merged into its base, where that is exact: no cost above the base's, and nothing to load elsewhere.

    W0 x + s * sum_i w_i B_i A x  =  (W0 + s * sum_i w_i B_i A) x     for one w that holds for every input

That is a static gate, one branch, a mix, or a label or sample gate under one condition. The sum is formed in float32
and rounded once to the base's dtype: in a bfloat16 base small adapters lose digits that they keep beside it.
"""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ptta_core.models.hydralora import HydraLinear, layers

WIDE_ENOUGH = (torch.float32, torch.float16, torch.bfloat16)  # float8 storage would round the adapter away


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add the adapter, under its present gates, to the base's weights. Those are kept on the CPU, for unmerge.

    Until then its condition, mix and weights cannot be changed. Raises ValueError, and leaves everything as it was,
    where one gate does not hold for every input, or the base is sharded or stored in less than 16 bits.
    """
    found = layers(model)
    if not found:
        raise ValueError("the model has no adapter to merge")
    for name, layer in found.items():
        _must_be_exact(name, layer)
    for layer in found.values():
        weight, read = layer.base.weight, slice(layer.unread, None)
        kept = weight.detach().to("cpu", copy=True)
        weight[:, read] = (weight[:, read].float() + delta(layer)).to(weight.dtype)
        layer.unmerged = kept


@torch.no_grad()
def unmerge(model: nn.Module) -> None:
    """Give the base its own weights back, to the bit. Does nothing where nothing is merged."""
    for layer in layers(model).values():
        if layer.unmerged is not None:
            layer.base.weight.copy_(layer.unmerged)
            layer.unmerged = None


def delta(layer: HydraLinear) -> Tensor:
    """s * sum_i w_i B_i A, float32 [d_out, d_in - unread]. Raises ValueError without one gate for every input."""
    w_N = layer.fixed_gate()
    if w_N is None:
        raise ValueError(f"a {layer.gate} gate differs from input to input: no one matrix is what it computes")
    B_DNR = layer.lora_B.unflatten(1, (layer.branches, layer.rank))
    return layer.scale * (B_DNR * w_N[:, None]).sum(1) @ layer.lora_A


def _must_be_exact(name: str, layer: HydraLinear) -> None:
    weight = layer.base.weight
    if layer.unmerged is not None:
        raise ValueError("the adapter is merged already")
    if not layer.enabled:
        raise ValueError("the adapter is off: enable it before it is merged")
    if isinstance(weight, DTensor) or isinstance(layer.lora_A, DTensor):
        raise ValueError(f"{name}: a sharded model cannot be merged")
    if weight.dtype not in WIDE_ENOUGH:
        raise ValueError(f"{name}: a base stored as {weight.dtype} cannot take the adapter in")
    if layer.fixed_gate() is None:
        raise ValueError(f"{name}: a {layer.gate} gate that differs from input to input cannot be merged: set one "
                         "condition for all, or a mix")  # fmt: skip
