"""AdamW whose two moments are kept in 8 bits a number: a quarter of their memory.

    moments -> update of the weights in float32 -> codes (one byte a number) and one scale a block of a row

Blockwise dynamic quantization after Dettmers et al., arXiv 2110.02861, sections 2 and 3. Two things differ. A block
never leaves its row: rows are what sharding cuts and what a checkpoint gathers, so the state is the same for any number
of workers. And of the second moment the root is kept: seven decades of gradients are told apart instead of half as
many, and no step is divided by a moment that was rounded to zero.
"""

import functools
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from ptta_core.training.sharding import like, local

BLOCK = 256  # numbers of a row that share a scale
SMALLEST = 4096  # numbers; moments of smaller tensors stay float32, as the paper's authors do
DECADES = 7
BETAS, EPS = (0.9, 0.999), 1e-8  # torch.optim.AdamW's


class AdamW8bit(torch.optim.Optimizer):
    """torch.optim.AdamW's update. Weights and gradients are float32, on any device, sharded by rows or whole."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is not None:
                    state = self.state[one] or self._begin(one)
                    _update(local(one), local(one.grad), state, group["lr"], group["weight_decay"])

    def _begin(self, one: Tensor) -> dict[str, Tensor]:
        state = {"step": torch.zeros(())}
        for name in ("exp_avg", "exp_avg_sq"):
            state |= {name: torch.zeros_like(one, dtype=torch.uint8 if quantized(one) else torch.float32)}
            if quantized(one):
                scales_RK = torch.zeros(one.shape[0], math.ceil(one.shape[1] / BLOCK), device=one.device)
                state |= {f"{name}_scale": like(one, scales_RK)}
        self.state[one] = state
        return state


def quantized(one: Tensor) -> bool:
    """Whether a parameter's moments are kept in 8 bits."""
    return one.dim() == 2 and one.numel() >= SMALLEST


def _update(weights: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float, weight_decay: float) -> None:
    state["step"] += 1
    step, (beta1, beta2) = float(state["step"]), BETAS
    small = "exp_avg_scale" not in state
    mean = local(state["exp_avg"]) if small else _read(state, "exp_avg", signed=True)
    square = local(state["exp_avg_sq"]) if small else _read(state, "exp_avg_sq", signed=False).square_()
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    root = square.sqrt()
    weights.mul_(1 - lr * weight_decay)
    weights.addcdiv_(mean, root / math.sqrt(1 - beta2**step) + EPS, value=-lr / (1 - beta1**step))
    if not small:
        _write(state, "exp_avg", mean, signed=True)
        _write(state, "exp_avg_sq", root, signed=False)


def _read(state: dict[str, Tensor], name: str, signed: bool) -> Tensor:
    return dequantize(local(state[name]), local(state[f"{name}_scale"]), signed)


def _write(state: dict[str, Tensor], name: str, values_RC: Tensor, signed: bool) -> None:
    codes_RC, scales_RK = quantize(values_RC, signed)
    local(state[name]).copy_(codes_RC)
    local(state[f"{name}_scale"]).copy_(scales_RK)


def quantize(values_RC: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """(codes uint8 [R,C], scales [R,K]): of each value divided by the largest in its block, the nearest of 256."""
    rows, columns = values_RC.shape
    blocks = math.ceil(columns / BLOCK)
    padded_RKL = F.pad(values_RC, (0, blocks * BLOCK - columns)).view(rows, blocks, BLOCK)
    scales_RK = padded_RKL.abs().amax(-1)
    levels = _levels(signed).to(values_RC.device)
    between = (levels[1:] + levels[:-1]) / 2
    codes_RKL = torch.bucketize(padded_RKL / scales_RK.clamp_min(1e-30)[..., None], between, out_int32=True)
    return codes_RKL.to(torch.uint8).view(rows, -1)[:, :columns], scales_RK


def dequantize(codes_RC: Tensor, scales_RK: Tensor, signed: bool) -> Tensor:
    """What quantize made of float32 values, [R,C]."""
    values_RC = _levels(signed).to(codes_RC.device)[codes_RC.int()]
    return values_RC * scales_RK.repeat_interleave(BLOCK, 1)[:, : values_RC.shape[1]]


@functools.cache
def _levels(signed: bool) -> Tensor:
    """The 256 numbers that a code may mean, rising, in -1 .. 1 or 0 .. 1.

    Each decade below 1 is cut in equal pieces whose middles are taken, twice as many as in the decade below it; then 0
    and 1 (arXiv 2110.02861, section 2.2, "dynamic tree quantization").
    """
    found = [torch.tensor([0.0, 1.0], dtype=torch.float64)]
    for decade in range(DECADES):
        edges = torch.linspace(0.1, 1.0, 2 ** (decade + (0 if signed else 1)) + 1, dtype=torch.float64)
        middles = (edges[1:] + edges[:-1]) / 2 * 10.0 ** (decade + 1 - DECADES)
        found += [middles, -middles] if signed else [middles]
    return torch.cat(found).sort().values.float()


def moment_bytes(one: Tensor) -> int:
    """Memory of both moments of a parameter."""
    each = one.numel() + 4 * one.shape[0] * math.ceil(one.shape[1] / BLOCK) if quantized(one) else 4 * one.numel()
    return 2 * each
