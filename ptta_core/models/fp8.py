"""Frozen Linears kept in 8-bit floats (e4m3) and computed in the dtype of what they are given.

The same layers, the same numbers as diffusers' `enable_layerwise_casting(torch.float8_e4m3fn)`: embedders, norms,
modulation and the final head stay as they are. Its hooks put another tensor into the weight before and after every
call, which a backward pass without checkpointing and FSDP2 cannot follow; here the weight stays where it is, and what
it is cast to lives as long as one product, forward and backward.
"""

import re
from typing import Any

import torch
from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN
from torch import Tensor, nn
from torch.nn import functional as F

STORED = torch.float8_e4m3fn


class Fp8Linear(nn.Linear):
    """A frozen nn.Linear whose weight and bias are e4m3; takes over those of `linear`, which is left without."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = nn.Parameter(linear.weight.detach().to(STORED), requires_grad=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(STORED), requires_grad=False)
        self.train(linear.training)
        linear.weight = linear.bias = None  # type: ignore[assignment]  # one at a time: never the whole model twice

    def forward(self, x: Tensor) -> Tensor:
        """x [..., d_in] to [..., d_out], in x's dtype."""
        return _Product.apply(x, self.weight, self.bias)


class _Product(torch.autograd.Function):
    """x W^T + b, which keeps for the backward pass the 8-bit weight instead of what it was cast to."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return gradient @ weight.to(gradient.dtype), None, None


def stored_names(model: Any) -> list[str]:
    """The Linears of a diffusers model that are stored in 8 bits, by diffusers' own rules."""
    kept = (*DEFAULT_SKIP_MODULES_PATTERN, *(model._skip_layerwise_casting_patterns or ()))
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    return [name for name in names if not any(re.search(pattern, name) for pattern in kept)]


def store(model: Any) -> Any:
    """Put the model's Linears into 8 bits, in place, before adapters are injected; the model."""
    for name in stored_names(model):
        model.set_submodule(name, Fp8Linear(model.get_submodule(name)))
    return model
