"""One layer with HydraLoRA against the bare layer, peft's LoRA of the same rank, and the formulas as a naive loop.

    python benchmarks/adapter.py [--rounds 20] [--rank 16 128] [--tokens 1024 9216] [--quick] [--json]

A round times one forward and backward pass of each, in turn and in a rotating order, on the same input. What an
adapter costs is its time above the bare layer's in the same round. Printed: the median of hydra's cost over peft's
(goal: 1, upper 95 % bound 1.5) and of the loop's cost over hydra's (goal: 8), with a bootstrap interval over rounds,
and the bytes that each saves for its backward pass beyond the bare layer's.
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
from torch.nn import functional as F

from ptta_core.models.hydralora import HydraLinear

D_IN, D_OUT, BRANCHES = 3072, 12288, 4  # the MLP of a HunyuanVideo block
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class LoopHydra(nn.Module):
    """y = W0 x + s * sum_i w_i B_i A x exactly as written, a branch after the other; A is applied in each of them."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, branches: int) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.A = nn.Parameter(torch.randn(rank, base.in_features) * 0.02)
        self.B = nn.ParameterList([torch.randn(base.out_features, rank) * 0.02 for _ in range(branches)])
        self.R = nn.Parameter(torch.randn(branches, base.in_features) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] to [..., d_out]."""
        y = self.base(x)
        w = torch.softmax(F.linear(x, self.R.to(x.dtype)).float(), -1).to(x.dtype)
        for i, b in enumerate(self.B):
            y = y + self.scale * w[..., i : i + 1] * F.linear(F.linear(x, self.A.to(x.dtype)), b.to(x.dtype))
        return y


class Holder(nn.Module):
    """A model of one layer, since peft looks for layers by name."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] to [..., d_out]."""
        return self.layer(x)


def variants(rank: int, dtype: torch.dtype) -> dict[str, nn.Module]:
    """The four layers over one frozen base weight, with every adapter away from its zero start."""
    torch.manual_seed(0)
    base = nn.Linear(D_IN, D_OUT).to(dtype).requires_grad_(False)
    peft_base = nn.Linear(D_IN, D_OUT).to(dtype)
    peft_base.load_state_dict(base.state_dict())
    settings = LoraConfig(r=rank, lora_alpha=rank, target_modules=["layer"])
    lora = inject_adapter_in_model(settings, Holder(peft_base))
    for name, parameter in lora.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:  # as in training: adapters are float32 over any base
            parameter.data = torch.randn_like(parameter, dtype=torch.float32) * 0.02
    hydra = HydraLinear(base, rank=rank, alpha=rank, branches=BRANCHES)
    nn.init.normal_(hydra.lora_B, std=0.02)
    return {"base": base, "peft": lora, "hydra": hydra, "loop": LoopHydra(base, rank, rank, BRANCHES)}


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

    def ratio(self, first: str, second: str) -> tuple[float, float, float]:
        """(median, low, high) of first's cost over second's, each above the base of its own round."""
        rounds = list(zip(self.seconds["base"], self.seconds[first], self.seconds[second]))
        return bootstrap(rounds, _cost_ratio)


def _cost_ratio(rounds: list[tuple[float, float, float]]) -> float:
    above = [(one - base, other - base) for base, one, other in rounds]
    return statistics.median(one for one, _ in above) / max(1e-9, statistics.median(other for _, other in above))


def bootstrap(rounds: list[Any], figure: Callable[[list[Any]], float], times: int = 2000) -> tuple[float, float, float]:
    """(figure, 2.5 %, 97.5 %) by resampling rounds with replacement."""
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(rounds), (times, len(rounds)), generator=generator).tolist()
    found = sorted(figure([rounds[place] for place in pick]) for pick in picks)
    return figure(rounds), found[int(0.025 * times)], found[int(0.975 * times)]


def measure(dtype: str, rank: int, tokens: int, rounds: int) -> Case:
    """One case: a warm-up round, then `rounds` rounds in rotating order."""
    layers = variants(rank, DTYPES[dtype])
    x = torch.randn(1, tokens, D_IN).to(DTYPES[dtype])
    grad = torch.randn(1, tokens, D_OUT).to(DTYPES[dtype])
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    names = list(layers)
    for index in range(-1, rounds):
        for name in names[index % 4 :] + names[: index % 4]:
            spent = timed(layers[name], x, grad)
            if index >= 0:
                seconds[name].append(spent)
    bare = saved_bytes(layers["base"], x)
    return Case(dtype, rank, tokens, seconds, {name: saved_bytes(one, x) - bare for name, one in layers.items()})


def as_row(case: Case) -> dict[str, Any]:
    """A case as plain values."""
    names = ("median", "low", "high")
    return {
        "base": case.dtype, "rank": case.rank, "tokens": case.tokens,
        "median_s": {name: statistics.median(values) for name, values in case.seconds.items()},
        "hydra_over_peft": dict(zip(names, case.ratio("hydra", "peft"))),
        "loop_over_hydra": dict(zip(names, case.ratio("loop", "hydra"))),
        "saved_bytes": case.saved,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a line a case."""
    head = "| base | r | tokens | hydra / peft, above base (95 %) | loop / hydra (95 %) | saved MB: peft, hydra, loop |"
    lines = [head, "|--|--|--|--|--|--|"]
    for row in rows:
        saved = ", ".join(f"{row['saved_bytes'][name] / 1e6:.1f}" for name in ("peft", "hydra", "loop"))
        ratios = [f"{one['median']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
                  for one in (row["hydra_over_peft"], row["loop_over_hydra"])]  # fmt: skip
        lines.append(f"| {row['base']} | {row['rank']} | {row['tokens']} | {ratios[0]} | {ratios[1]} | {saved} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rank", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 9216])
    parser.add_argument("--dtype", choices=list(DTYPES), nargs="+", default=list(DTYPES))
    parser.add_argument("--quick", action="store_true", help="3 rounds of one small case")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds, asked.rank, asked.tokens, asked.dtype = 3, [16], [64], ["fp32"]
    rows = [as_row(measure(dtype, rank, tokens, asked.rounds))
            for dtype in asked.dtype for rank in asked.rank for tokens in asked.tokens]  # fmt: skip
    print(table(rows))
    if asked.json:
        worst = max(row["hydra_over_peft"]["median"] for row in rows)
        least = min(row["loop_over_hydra"]["median"] for row in rows)
        print(json.dumps({"hydra_over_peft_overhead": worst, "loop_over_hydra_overhead": least, "cases": rows}))


if __name__ == "__main__":
    main()
