"""HydraLoRA: one shared down-projection A, N up-projections B_i, and a gate that mixes them.

            x [..., d_in]
            |
            +----------------------------------> W0 (frozen) ------------------------+
            |                                                                         |
            +--> A  [r, d_in] -----> h [..., r] ----+                                 |
            |                                       x --> g [..., N*r] --> B -----> (+) --> y [..., d_out]
            +--> R  [N, d_in] --> softmax = w ------+      g_i = w_i h     [d_out, N*r]
                 (token gate)       [..., N]                               = [B_1 | ... | B_N]

    y = W0 x + alpha / r * sum_i w_i B_i A x          sum_i w_i = 1

Where w comes from: `token` softmax(R x), a gate a token; `sample` softmax(R p), p the clip's pooled text embedding;
`label` the clip's label distribution itself; `static` softmax of learned logits. With N = 1 there is no gate and this
is LoRA. Formulas: HydraLoRA, arXiv 2404.19245, section 3; LoRA, arXiv 2106.09685, section 4.1.

A and R are applied in one product, so that x is read once, and all B in another: the B are stored side by side with
d_out first, which is the dimension that sharding cuts. The adapter is float32 whatever the base is.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from ptta_core import ids
from ptta_core.whole import write_whole

GATES = ("token", "sample", "label", "static")
HEADER_KEY = "ptta_adapter"  # one key only: safetensors writes several in no fixed order
CONFIG_KEYS = ("rank", "alpha", "branches", "gate", "placement")
STATIC_LOGIT_STD = 0.1  # equal gates and zero B would keep the branches equal for ever

# Whole names: "proj_out" alone is the final head too, "linear" alone is modulation too. A single block's proj_out
# reads [attention | MLP] side by side; it counts as MLP here, as in the paper's "linear layers, not attention".
PLACEMENTS = {
    "non_attention": r"transformer_blocks\.\d+\.ff(_context)?\.net\.(0\.proj|2)"
    r"|single_transformer_blocks\.\d+\.(proj_mlp|proj_out)",
    "attention": r"transformer_blocks\.\d+\.attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
    r"|single_transformer_blocks\.\d+\.attn\.to_[qkv]",
}
TEXT_ONLY = re.compile(r"\.ff_context\.|\.add_[qkv]_proj$|\.to_add_out$")
PLACEMENTS["all"] = f"{PLACEMENTS['non_attention']}|{PLACEMENTS['attention']}"


class GateStats(NamedTuple):
    """How the branches are used: by tokens (token gate) or samples, then averaged over layers."""

    mean: list[float]  # [N], sums to 1
    entropy: float  # nats, 0 (one branch decides) .. ln N (all alike)


class HydraLinear(nn.Module):
    """A frozen nn.Linear with a HydraLoRA beside it; takes and gives what the Linear does, at any rank.

    rank: r. alpha: the adapter is scaled by alpha / r. branches: N. gate: see the module. pooled_dim: width of the
    pooled text embedding, for the sample gate only. generator: draws A and the router; B is zero, so a new adapter
    changes nothing. Raises ValueError for settings outside these.
    """

    condition: Tensor | None  # sample: pooled [B,P]; label: labels [B,N]; None: all branches alike
    stats: Tensor | None  # [N+1]: mean gate, then entropy in nats
    live_gate: Tensor | None  # [N]: mean gate of the first `video_tokens` tokens, with its gradient

    def __init__(
        self, base: nn.Linear, *, rank: int, alpha: float, branches: int, gate: str = "token", pooled_dim: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if rank < 1 or branches < 1 or gate not in GATES:
            raise ValueError(f"rank {rank}, branches {branches} (1 or more), gate {gate!r} (one of {', '.join(GATES)})")
        if gate == "sample" and branches > 1 and pooled_dim < 1:
            raise ValueError("the sample gate needs pooled_dim, the width of the pooled text embedding")
        self.base = base.requires_grad_(False)
        self.rank, self.alpha, self.branches, self.gate = rank, alpha, branches, gate
        self.scale = alpha / rank
        self.enabled, self.collect = True, False
        self.condition, self.stats, self.live_gate = None, None, None
        self.video_tokens = 0  # 0: no live gate is kept
        device = base.weight.device
        self.lora_A = nn.Parameter(_kaiming(rank, base.in_features, generator).to(device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, branches * rank, device=device))
        router = self._new_router(pooled_dim, generator)
        self.router = None if router is None else nn.Parameter(router.to(device))

    def _new_router(self, pooled_dim: int, generator: torch.Generator | None) -> Tensor | None:
        if self.branches == 1 or self.gate == "label":
            return None
        if self.gate == "static":
            return torch.randn(self.branches, generator=generator) * STATIC_LOGIT_STD
        return _kaiming(self.branches, self.base.in_features if self.gate == "token" else pooled_dim, generator)

    in_features = property(lambda self: self.base.in_features)
    out_features = property(lambda self: self.base.out_features)
    weight = property(lambda self: self.base.weight)  # some model code asks a Linear for its dtype this way
    bias = property(lambda self: self.base.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., d_in] to [..., d_out], in the base's dtype. Sample and label gates take dimension 0 as the batch."""
        out = self.base(x)
        if not self.enabled:
            return out
        by_token = self.gate == "token" and self.router is not None
        down = torch.cat([self.lora_A, self.router]) if by_token and self.router is not None else self.lora_A
        h = F.linear(x, down.to(x.dtype))
        h, logits = h[..., : self.rank], h[..., self.rank :]
        if self.branches > 1:
            w = torch.softmax(logits.float(), -1) if by_token else self._gate_without_x(x)
            if self.collect:
                self._keep_stats(w.detach())
            if self.video_tokens:
                self.live_gate = w.flatten(1, -2)[:, : self.video_tokens].mean((0, 1))
            h = (w.to(h.dtype)[..., None] * h[..., None, :]).flatten(-2)  # [..., N*r], small beside x and y
        return out + F.linear(h * self.scale, self.lora_B.to(h.dtype)).to(out.dtype)

    def _gate_without_x(self, x: Tensor) -> Tensor:
        """Gates that are not the tokens' own: float32 [N], or [B, 1, ..., N] with one a sample."""
        if self.gate == "static" and self.router is not None:
            return torch.softmax(self.router.float(), -1)
        if self.condition is None:
            return torch.full((self.branches,), 1.0 / self.branches, device=x.device)
        if self.condition.shape[0] not in (1, x.shape[0]):
            raise ValueError(f"a batch of {x.shape[0]} under a gate condition for {self.condition.shape[0]}")
        w_BN = self.condition.to(x.device).float()
        if self.router is not None:
            w_BN = torch.softmax(F.linear(w_BN, self.router.float()), -1)
        return w_BN.view(w_BN.shape[0], *[1] * (x.dim() - 2), self.branches)

    @torch.no_grad()
    def _keep_stats(self, w: Tensor) -> None:
        w_MN = w.reshape(-1, self.branches)
        # Overwritten, never added to: under activation checkpointing the same step comes through here twice.
        self.stats = torch.cat([w_MN.mean(0), torch.special.entr(w_MN).sum(-1).mean()[None]])

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha}, branches={self.branches}, gate={self.gate}"


def _kaiming(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    """float32 [rows, columns] on the CPU, so that a seed means the same on every device."""
    return nn.init.kaiming_uniform_(torch.empty(rows, columns, device="cpu"), a=math.sqrt(5), generator=generator)


# --------------------------------------------------------------------------------------------- into a model


def target_names(transformer: nn.Module, placement: str) -> list[str]:
    """The Linears of a HunyuanVideo transformer that `placement` means, sorted.

    placement: "non_attention" (160 in the published model), "attention" (280) or "all". Embedders, modulation and the
    final head are never among them. Raises ValueError for another placement, or when nothing is hit.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"placement {placement!r}; choices: {', '.join(PLACEMENTS)}")
    pattern = re.compile(PLACEMENTS[placement])
    linears = (name for name, module in transformer.named_modules() if isinstance(module, nn.Linear))
    if not (names := sorted(name for name in linears if pattern.fullmatch(name))):
        raise ValueError(f"placement {placement!r} hits no Linear of {type(transformer).__name__}")
    return names


def inject(
    transformer: nn.Module, *, placement: str, rank: int, alpha: float, branches: int, gate: str, seed: int
) -> list[str]:
    """Put a HydraLinear around every Linear that `placement` means, in place, and freeze all the rest; their names.

    The start depends on the seed and each Linear's name only, not on device, dtype or the other Linears. Do this before
    sharding or compiling. Raises ValueError when there is an adapter already, and as target_names and HydraLinear do.
    """
    if layers(transformer):
        raise ValueError("the model has an adapter already: load a clean model first")
    names = target_names(transformer, placement)
    config: Any = getattr(transformer, "config", None)
    pooled_dim = int(config.pooled_projection_dim) if gate == "sample" else 0
    transformer.requires_grad_(False)
    for name in names:
        base: Any = transformer.get_submodule(name)
        layer = HydraLinear(
            base, rank=rank, alpha=alpha, branches=branches, gate=gate, pooled_dim=pooled_dim,
            generator=torch.Generator("cpu").manual_seed(_seed_of(seed, name)),
        )  # fmt: skip
        transformer.set_submodule(name, layer.train(base.training))
    settings = {"rank": rank, "alpha": float(alpha), "branches": branches, "gate": gate, "placement": placement}
    transformer.ptta_adapter = settings  # type: ignore[assignment]
    return names


def _seed_of(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big") >> 1


def layers(model: nn.Module) -> dict[str, HydraLinear]:
    """The model's HydraLinears by name, sorted; empty without an adapter."""
    return {name: one for name, one in sorted(model.named_modules()) if isinstance(one, HydraLinear)}


def set_enabled(model: nn.Module, enabled: bool) -> None:
    """The adapter on, or off: then the model computes exactly what it did without one."""
    for layer in layers(model).values():
        layer.enabled = enabled


def set_condition(model: nn.Module, labels_BN: Tensor | None = None, pooled_BP: Tensor | None = None) -> None:
    """What sample and label gates read until the next call; B is the batch, or 1 for all of it.

    labels_BN: each clip's label distribution, rows sum to 1. pooled_BP: pooled text embeddings. Without the one a gate
    reads, its branches count alike (1/N each). Keep it set until backward is done where activations are checkpointed.
    Token and static gates ignore it. Raises ValueError for a wrong width.
    """
    for name, layer in layers(model).items():
        if layer.gate not in ("sample", "label") or layer.branches == 1:
            continue
        given = labels_BN if layer.gate == "label" else pooled_BP
        width = layer.branches if layer.router is None else layer.router.shape[1]
        if given is not None and (given.dim() != 2 or given.shape[1] != width):
            raise ValueError(f"{name}: a {layer.gate} gate reads [B, {width}], not {list(given.shape)}")
        layer.condition = given


# ---------------------------------------------------------------------------------------------- statistics


def collect_gates(model: nn.Module, collect: bool) -> None:
    """Keep gate statistics in the forward passes from now on, each layer its latest; or stop."""
    for layer in layers(model).values():
        layer.collect = collect


def gate_stats(model: nn.Module, reset: bool = True) -> GateStats:
    """layer_stats, averaged over layers. One branch gives ([1.0], 0.0). Raises ValueError when there are none."""
    *mean, entropy = layer_stats(model, reset).mean(0).tolist()
    return GateStats(mean, entropy)


def layer_stats(model: nn.Module, reset: bool = True) -> Tensor:
    """[L, N+1]: mean gate and entropy (nats) of each layer in the latest forward pass under collect_gates(model, True).

    Layers are ordered by name. reset: forget them, and stop collecting. Raises ValueError when there are none.
    """
    found = layers(model).values()
    kept = [layer.stats for layer in found if layer.stats is not None]
    single = bool(found) and all(layer.branches == 1 for layer in found)
    if not kept and not single:
        raise ValueError("no gate statistics: call collect_gates(model, True) before the forward pass")
    if reset:
        collect_gates(model, False)
        for layer in found:
            layer.stats = None
    return torch.stack(kept) if kept else torch.tensor([[1.0, 0.0]] * len(found))


@torch.no_grad()
def branch_products(model: nn.Module) -> Tensor:
    """[L, N, N]: the inner products of each layer's B_i; of a sharded model this worker's part of the sums."""
    grams = []
    for layer in layers(model).values():
        own = layer.lora_B.to_local() if isinstance(layer.lora_B, DTensor) else layer.lora_B
        parts = own.view(own.shape[0], layer.branches, layer.rank)
        grams.append(torch.einsum("dnr,dmr->nm", parts, parts))
    return torch.stack(grams)


def branch_cosines(products_LNN: Tensor) -> Tensor:
    """[L]: mean cosine between the B_i of a layer over all pairs, -1 .. 1; 0 for one branch, or B still zero."""
    norms = products_LNN.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    cosines = products_LNN / (norms[:, :, None] * norms[:, None, :]).clamp_min(1e-20)
    upper = torch.triu(torch.ones_like(cosines[0]), diagonal=1).bool()
    return cosines[:, upper].mean(1) if upper.any() else products_LNN.new_zeros(len(products_LNN))


def keep_live_gates(model: nn.Module, video_tokens: int) -> None:
    """Keep each layer's mean gate with its gradient in the next forward pass, for label_loss; 0 stops.

    video_tokens: how many tokens of the video there are; they come first where video and text are together. Layers
    that read text only keep none.
    """
    for name, layer in layers(model).items():
        layer.video_tokens = 0 if TEXT_ONLY.search(name) else video_tokens
        layer.live_gate = None


def label_loss(model: nn.Module, shares: Sequence[float]) -> Tensor:
    """Cross entropy between the clip's label shares (one a branch) and the mean gate, in nats, mean over layers.

    Of the latest forward pass after keep_live_gates; call it before backward, where checkpointed layers run again.
    Raises ValueError when there is no live gate.
    """
    live = [layer.live_gate for layer in layers(model).values() if layer.live_gate is not None]
    if not live:
        raise ValueError("no live gate: call keep_live_gates(model, tokens) before the forward pass")
    gates_MN = torch.stack(live)
    wanted_N = torch.tensor(list(shares), device=gates_MN.device)
    return -(wanted_N * gates_MN.clamp_min(1e-9).log()).sum(-1).mean()


def balance_loss(model: nn.Module, usual_LN: Tensor) -> Tensor:
    """N * sum_i w_i u_i - 1, mean over layers: w the live mean gate, u the layer's usual one over many samples.

    0 where the usual gates are even; its gradient moves gates away from branches that are used more than others. The
    form is that of the Switch Transformer (arXiv 2101.03961, eq. 4), with the usual gate for the share of tokens, so
    that it is linear in the samples of a batch and the same at any number of workers. usual_LN: rows as in layer_stats.
    Of the latest forward pass, as label_loss. Raises ValueError when there is no live gate.
    """
    parts = [
        layer.branches * (layer.live_gate * usual_N).sum() - 1
        for layer, usual_N in zip(layers(model).values(), usual_LN) if layer.live_gate is not None
    ]  # fmt: skip
    if not parts:
        raise ValueError("no live gate: call keep_live_gates(model, tokens) before the forward pass")
    return torch.stack(parts).mean()


# ----------------------------------------------------------------------------------------- state and files


def _named(model: nn.Module) -> dict[str, nn.Parameter]:
    own = ((at, layer.named_parameters(recurse=False)) for at, layer in layers(model).items())  # the base is not in it
    return dict(sorted((f"{at}.{name}", parameter) for at, parts in own for name, parameter in parts))


def adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What is trained, ordered by name: the same order in every process."""
    return list(_named(model).values())


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the adapter's parameters by name: float32, on the CPU. Of a sharded model all workers call it."""
    return {name: whole(one.detach()).to("cpu", torch.float32, copy=True) for name, one in _named(model).items()}


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered, which all workers do together; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def load_adapter_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a state into the adapter. Raises ValueError naming what is missing, unexpected or of another shape."""
    own = _named(model)
    wrong = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "other shape": sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape),
    }
    if any(wrong.values()):
        raise ValueError("; ".join(f"{what}: {', '.join(names)}" for what, names in wrong.items() if names))
    for name, parameter in own.items():
        parameter.copy_(state[name])


def save_adapter(
    path: str | Path, model: nn.Module, metadata: Mapping[str, Any], state: Mapping[str, Tensor] | None = None
) -> None:
    """Write the adapter as safetensors, whole or not at all; the same adapter and metadata give the same bytes.

    metadata: anything JSON, kept in the file's header beside the settings. state: what to write in place of
    adapter_state(model), for a sharded model that was gathered. Raises ValueError without an adapter, OSError.
    """
    settings: Any = getattr(model, "ptta_adapter", None)
    if settings is None:
        raise ValueError("the model has no adapter to save")
    tensors = adapter_state(model) if state is None else {k: v.detach().cpu().contiguous() for k, v in state.items()}
    write_whole(path, save(tensors, {HEADER_KEY: ids.canonical({**settings, "metadata": dict(metadata)})}))


def read_config(path: str | Path) -> dict[str, Any]:
    """rank, alpha, branches, gate, placement and metadata (a dict) of an adapter file; reads its header only.

    Raises ValueError when the file is safetensors but no adapter of ours, OSError when there is none.
    """
    with safe_open(str(path), framework="pt") as file:
        header = file.metadata() or {}
    if HEADER_KEY not in header:
        raise ValueError(f"{path} is not an adapter file: its header has no {HEADER_KEY}")
    return json.loads(header[HEADER_KEY])


def load_adapter(path: str | Path, model: nn.Module) -> None:
    """Load an adapter file into the model, putting the adapter's layers there first when it has none.

    Raises ValueError when the model has an adapter of other settings, and as read_config and load_adapter_state do.
    """
    config = read_config(path)
    settings = {key: config[key] for key in CONFIG_KEYS}
    state = load_file(str(path))  # before the model is touched: a damaged file leaves it as it was
    if not layers(model):
        inject(model, **settings, seed=0)
    elif (own := getattr(model, "ptta_adapter", None)) != settings:
        raise ValueError(f"{path} is an adapter of {settings}; the model has one of {own}")
    load_adapter_state(model, state)
