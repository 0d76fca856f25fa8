"""One layer with HydraLoRA against the bare layer, peft's LoRA of the same rank, and the formulas as a naive loop.

    python benchmarks/adapter.py [--full] [--rounds 20] [--rank 16] [--tokens 1024] [--gate token] [--quick] [--json]

A round times one forward and backward pass of each over a frozen 3072 -> 12288 Linear, in turn and in a rotating order,
on the same input. What an adapter costs is its time above the bare layer's in the same round. Printed: the median of
hydra's cost over peft's (goal: 1, upper 95 % bound 1.5) and of the loop's cost over hydra's (goal: 8), with a bootstrap
interval over rounds, and the bytes that each saves for its backward pass beyond the bare layer's.

Adapters are float32, as in training. Over a bfloat16 base peft computes its adapter in float32 and hydra in bfloat16:
`peft16` is peft with bfloat16 adapters, which nobody would train but which computes as hydra does. Before anything is
timed, the loop and hydra must give the same output and gradients for the same weights.

--full: ranks 16 and 128, 1,024 and 9,216 tokens (33 frames of 512 x 512 px): more than an hour on two cores.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from ptta_core.models.hydralora import HydraLinear

D_IN, D_OUT, BRANCHES = 3072, 12288, 4  # the MLP of a HunyuanVideo block
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
AGREE = {"fp32": 1e-5, "bf16": 2e-2}  # the loop rounds to bfloat16 after every branch


class LoopHydra(nn.Module):
    """y = W0 x + sum_i w_i B_i A dropout(x) * s, a branch after the other, as HydraLoRA's published code computes it.

    The gate is a softmax in float32, cast to y's type; A and a dropout (none by default: the identity) run again for
    every branch. Weights are cast to x's type once.
    """

    def __init__(self, like: HydraLinear, dropout: float = 0.0) -> None:
        super().__init__()
        self.base, self.scaling = like.base, like.scale
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.A = nn.Parameter(like.lora_A.detach().clone())
        branches = like.lora_B.detach().unflatten(1, (like.branches, like.rank)).unbind(1)
        self.B = nn.ParameterList([part.contiguous().clone() for part in branches])
        assert like.router is not None
        self.R = nn.Parameter(like.router.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, d_in] to [B, L, d_out]."""
        linear = nn.functional.linear
        result = self.base(x)
        weight = torch.softmax(linear(x, self.R.to(x.dtype)), dim=-1, dtype=torch.float32).to(result.dtype)
        A = self.A.to(x.dtype)
        for i, B in enumerate(self.B):
            branch = linear(linear(self.dropout(x), A), B.to(x.dtype))
            result = result + torch.unsqueeze(weight[:, :, i], -1) * branch * self.scaling
        return result


class Holder(nn.Module):
    """A model of one layer, since peft looks for layers by name."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] to [..., d_out]."""
        return self.layer(x)


def with_peft(base: nn.Linear, rank: int, dtype: torch.dtype) -> nn.Module:
    """peft's LoRA over a copy of the base that shares its weights, away from its zero start."""
    own = nn.Linear(D_IN, D_OUT, device="meta")
    own.weight, own.bias = base.weight, base.bias
    settings = LoraConfig(r=rank, lora_alpha=rank, target_modules=["layer"])
    model = inject_adapter_in_model(settings, Holder(own))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter, dtype=dtype, device="cpu") * 0.02
    return model


def layers_of(rank: int, dtype: str, gate: str) -> dict[str, nn.Module]:
    """The layers over one frozen base weight, every adapter away from its zero start. The loop knows token only."""
    torch.manual_seed(0)
    base = nn.Linear(D_IN, D_OUT).to(DTYPES[dtype]).requires_grad_(False)
    hydra = HydraLinear(base, rank=rank, alpha=rank, branches=BRANCHES, gate=gate)
    nn.init.normal_(hydra.lora_B, std=0.02)
    found = {"base": base, "peft": with_peft(base, rank, torch.float32), "hydra": hydra}
    if dtype == "bf16":
        found["peft16"] = with_peft(base, rank, torch.bfloat16)
    if gate == "token":
        found["loop"] = LoopHydra(hydra)
    return found


def must_agree(hydra: Any, loop: Any, x: Tensor, grad: Tensor, tolerance: float) -> None:
    """Raises AssertionError where the loop does not compute what hydra does, forwards or backwards."""
    found = []
    for layer, wanted in ((hydra, ("lora_A", "router", "lora_B")), (loop, ("A", "R", "B"))):
        given = x.detach().requires_grad_()
        out = layer(given)
        out.backward(grad)
        parts = [getattr(layer, name) for name in wanted]
        grads = [torch.cat([one.grad for one in part], 1) if isinstance(part, nn.ParameterList) else part.grad
                 for part in parts]  # fmt: skip
        found.append([out.detach(), given.grad, *grads])
        layer.zero_grad(set_to_none=True)
    for ours, theirs in zip(*found, strict=True):
        error = float((ours.float() - theirs.float()).norm() / theirs.float().norm())
        assert error < tolerance, f"hydra and the loop differ by {error:.2g}"


def timed(layer: nn.Module, x: Tensor, grad: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    x = x.detach().requires_grad_()
    begun = time.perf_counter()
    layer(x).backward(grad)
    spent = time.perf_counter() - begun
    for parameter in layer.parameters():
        parameter.grad = None
    return spent


def saved_bytes(layer: nn.Module, x: Tensor) -> int:
    """Bytes of the distinct activations kept for the backward pass; parameters and x itself are not counted."""
    known = {parameter.data_ptr() for parameter in layer.parameters()} | {x.data_ptr()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = layer(x.detach().requires_grad_())
    del out
    return sum(kept.values())


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    dtype: str
    rank: int
    tokens: int
    seconds: dict[str, list[float]]
    saved: dict[str, int]

    def ratio(self, first: str, second: str) -> dict[str, float] | None:
        """median, low, high of first's cost over second's, each above the base of its own round; None for no such."""
        if first not in self.seconds or second not in self.seconds:
            return None
        rounds = list(zip(self.seconds["base"], self.seconds[first], self.seconds[second]))
        return dict(zip(("median", "low", "high"), bootstrap(rounds, _cost_ratio)))


def _cost_ratio(rounds: list[tuple[float, float, float]]) -> float:
    above = [(one - base, other - base) for base, one, other in rounds]
    return statistics.median(one for one, _ in above) / max(1e-9, statistics.median(other for _, other in above))


def bootstrap(rounds: list[Any], figure: Callable[[list[Any]], float], times: int = 2000) -> tuple[float, float, float]:
    """(figure, 2.5 %, 97.5 %) by resampling rounds with replacement."""
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(rounds), (times, len(rounds)), generator=generator).tolist()
    found = sorted(figure([rounds[place] for place in pick]) for pick in picks)
    return figure(rounds), found[int(0.025 * times)], found[int(0.975 * times)]


def measure(dtype: str, rank: int, tokens: int, rounds: int, gate: str) -> Case:
    """One case: a warm-up round, then `rounds` rounds in rotating order."""
    layers = layers_of(rank, dtype, gate)
    x = torch.randn(1, tokens, D_IN).to(DTYPES[dtype])
    grad = torch.randn(1, tokens, D_OUT).to(DTYPES[dtype])
    if "loop" in layers:
        must_agree(layers["hydra"], layers["loop"], x, grad, AGREE[dtype])
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    names = list(layers)
    for index in range(-1, rounds):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            spent = timed(layers[name], x, grad)
            if index >= 0:
                seconds[name].append(spent)
    bare = saved_bytes(layers["base"], x)
    return Case(dtype, rank, tokens, seconds, {name: saved_bytes(one, x) - bare for name, one in layers.items()})


RATIOS = {"hydra_over_peft": ("hydra", "peft"), "hydra_over_peft16": ("hydra", "peft16"),
          "loop_over_hydra": ("loop", "hydra")}  # fmt: skip


def as_row(case: Case) -> dict[str, Any]:
    """A case as plain values."""
    return {
        "base": case.dtype, "rank": case.rank, "tokens": case.tokens,
        "median_s": {name: statistics.median(values) for name, values in case.seconds.items()},
        **{name: case.ratio(*pair) for name, pair in RATIOS.items()},
        "saved_bytes": case.saved,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a line a case."""
    head = ("| base | r | tokens | base s | hydra / peft, above base (95 %) | hydra / peft16 | loop / hydra | "
            "saved MB: peft, hydra, loop |")  # fmt: skip
    lines = [head, "|--|--|--|--|--|--|--|--|"]
    for row in rows:
        saved = ", ".join(f"{row['saved_bytes'][name] / 1e6:.1f}" for name in ("peft", "hydra", "loop")
                          if name in row["saved_bytes"])  # fmt: skip
        ratios = " | ".join(f"{one['median']:.2f} ({one['low']:.2f} to {one['high']:.2f})" if (one := row[name]) else ""
                            for name in RATIOS)  # fmt: skip
        lines.append(f"| {row['base']} | {row['rank']} | {row['tokens']} | {row['median_s']['base']:.3f} | {ratios} | "
                     f"{saved} |")  # fmt: skip
    return "\n".join(lines)


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst medians over all cases, and the cases."""
    def known(name: str, part: str = "median") -> list[float]:
        return [row[name][part] for row in rows if row[name]]

    return {
        "hydra_over_peft_overhead": max(known("hydra_over_peft")),
        "hydra_over_peft_overhead_high": max(known("hydra_over_peft", "high")),
        "hydra_over_peft16_overhead": max(known("hydra_over_peft16"), default=None),
        "loop_over_hydra_overhead": min(known("loop_over_hydra"), default=None),
        "loop_over_hydra_overhead_low": min(known("loop_over_hydra", "low"), default=None),
        "cases": rows,
    }  # fmt: skip


def main() -> None:
    """Measure, print a table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rank", type=int, nargs="+", default=[16])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024])
    parser.add_argument("--dtype", choices=list(DTYPES), nargs="+", default=list(DTYPES))
    parser.add_argument("--gate", choices=["token", "label", "static"], default="token", help="hydra's; loop: token")
    parser.add_argument("--full", action="store_true", help="ranks 16 and 128, 1,024 and 9,216 tokens")
    parser.add_argument("--quick", action="store_true", help="3 rounds of two small cases")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.full:
        asked.rank, asked.tokens = [16, 128], [1024, 9216]
    if asked.quick:
        asked.rounds, asked.rank, asked.tokens = 3, [16], [64]
    rows = [as_row(measure(dtype, rank, tokens, asked.rounds, asked.gate))
            for dtype in asked.dtype for rank in asked.rank for tokens in asked.tokens]  # fmt: skip
    print(table(rows))
    if asked.json:
        print(json.dumps(figures(rows)))


if __name__ == "__main__":
    main()
