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

A and R are applied in one product, so that x is read once. All B are applied in another, which adds into W0 x in place:
y is by far the largest tensor, and no second one like it is made. Where one gate holds for all tokens, sum_i w_i B_i is
formed first, and the products are those of plain LoRA. The B are stored side by side with d_out first, which is the
dimension that sharding cuts. The adapter is float32 whatever the base is.
"""

import hashlib
import json
import math
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
from ptta_core.models.placement import TEXT_ONLY, target_names, unread_inputs
from ptta_core.whole import write_whole

GATES = ("token", "sample", "label", "static")
HEADER_KEY = "ptta_adapter"  # one key only: safetensors writes several in no fixed order
CONFIG_KEYS = ("rank", "alpha", "branches", "gate", "placement")
STATIC_LOGIT_STD = 0.1  # equal gates and zero B would keep the branches equal for ever


class GateStats(NamedTuple):
    """How the branches are used: by tokens (token gate) or samples, then averaged over layers."""

    mean: list[float]  # [N], sums to 1
    entropy: float  # nats, 0 (one branch decides) .. ln N (all alike)


class HydraLinear(nn.Module):
    """A frozen nn.Linear with a HydraLoRA beside it; takes and gives what the Linear does, at any rank.

    rank: r. alpha: the adapter is scaled by alpha / r. branches: N. gate: see the module. pooled_dim: width of the
    pooled text embedding, for the sample gate only. unread: how many of the first inputs A and R leave out; they are
    that much narrower. generator: draws A and the router; B is zero, so a new adapter changes nothing. The output of
    `base` is added to in place: nobody else may hold it. Raises ValueError for settings outside these.
    """

    condition: Tensor | None  # sample: pooled [B,P]; label: labels [B,N]; None: all branches alike
    mix: Tensor | None  # [N]: in place of the gate, see set_mix
    unmerged: Tensor | None  # the base's own weight while the adapter is merged into it, see merging.py
    stats: Tensor | None  # [N+1]: mean gate, then entropy in nats
    live_gate: Tensor | None  # [N]: mean gate of the first `video_tokens` tokens, with its gradient

    def __init__(
        self, base: nn.Linear, *, rank: int, alpha: float, branches: int, gate: str = "token", pooled_dim: int = 0,
        unread: int = 0, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if rank < 1 or branches < 1 or gate not in GATES:
            raise ValueError(f"rank {rank}, branches {branches} (1 or more), gate {gate!r} (one of {', '.join(GATES)})")
        if gate == "sample" and branches > 1 and pooled_dim < 1:
            raise ValueError("the sample gate needs pooled_dim, the width of the pooled text embedding")
        self.base = base.requires_grad_(False)
        self.rank, self.alpha, self.branches, self.gate, self.unread = rank, alpha, branches, gate, unread
        self.scale = alpha / rank
        self.enabled, self.collect = True, False
        self.condition, self.mix, self.unmerged, self.stats, self.live_gate = None, None, None, None, None
        self.video_tokens = 0  # 0: no live gate is kept
        device = base.weight.device
        self.lora_A = nn.Parameter(_kaiming(rank, base.in_features - unread, generator).to(device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, branches * rank, device=device))
        router = self._new_router(pooled_dim, generator)
        self.router = None if router is None else nn.Parameter(router.to(device))

    def _new_router(self, pooled_dim: int, generator: torch.Generator | None) -> Tensor | None:
        if self.branches == 1 or self.gate == "label":
            return None
        if self.gate == "static":
            return torch.randn(self.branches, generator=generator) * STATIC_LOGIT_STD
        return _kaiming(self.branches, self.lora_A.shape[1] if self.gate == "token" else pooled_dim, generator)

    in_features = property(lambda self: self.base.in_features)
    out_features = property(lambda self: self.base.out_features)
    weight = property(lambda self: self.base.weight)  # some model code asks a Linear for its dtype this way
    bias = property(lambda self: self.base.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., d_in] to [..., d_out], in the base's dtype. Sample and label gates take dimension 0 as the batch."""
        if not self.enabled or self.unmerged is not None:
            return self.base(x)
        x_MD = x.reshape(-1, x.shape[-1])
        out_MD = self.base(x_MD)
        w = self.fixed_gate()
        by_token = w is None and self.gate == "token"
        down = torch.cat([self.lora_A, self.router]) if by_token and self.router is not None else self.lora_A
        h_MR = F.linear(x_MD[:, self.unread :], down.to(x.dtype))
        if w is None:
            logits_MN = h_MR[:, self.rank :].view(*x.shape[:-1], -1)
            w = torch.softmax(logits_MN.float(), -1) if by_token else self._gate_a_sample(x)
        if self.branches > 1:
            self._look(w)
        h, up = self._gated(w, h_MR[:, : self.rank], x.shape[:-1])
        # alpha scales inside the product; beta = 1 adds what is there
        out_MD = out_MD.addmm_(h.to(out_MD.dtype), up.to(out_MD.dtype).t(), alpha=self.scale)
        return out_MD.view(*x.shape[:-1], -1)

    def _gated(self, w: Tensor, h_MR: Tensor, lead: torch.Size) -> tuple[Tensor, Tensor]:
        """What B is applied to, and B: the gates go to the side where they cost least."""
        if self.branches == 1:
            return h_MR, self.lora_B
        if w.dim() == 1:
            return h_MR, (self.lora_B.unflatten(1, (self.branches, self.rank)) * w[:, None]).sum(1)
        w_MN = w.expand(*lead, -1).reshape(-1, self.branches).to(h_MR.dtype)
        return (w_MN[:, :, None] * h_MR[:, None, :]).flatten(1), self.lora_B  # [M, N*r], small beside x and y

    def fixed_gate(self) -> Tensor | None:
        """The gate where one holds for every input under the present condition: float32 [N]; else None."""
        device = self.lora_A.device
        if self.branches == 1:
            return torch.ones(1, device=device)
        if self.mix is not None:
            return self.mix
        if self.gate == "static" and self.router is not None:
            return torch.softmax(self.router.float(), -1)
        if self.gate == "token":
            return None
        if self.condition is None:
            return torch.full((self.branches,), 1.0 / self.branches, device=device)
        return self._conditioned()[0] if self.condition.shape[0] == 1 else None

    def _conditioned(self) -> Tensor:
        """float32 [B,N] of a sample or label gate's condition."""
        assert self.condition is not None
        w_BN = self.condition.to(self.lora_A.device).float()
        return w_BN if self.router is None else torch.softmax(F.linear(w_BN, self.router.float()), -1)

    def _gate_a_sample(self, x: Tensor) -> Tensor:
        """float32 [B, 1, ..., N]."""
        w_BN = self._conditioned()
        if w_BN.shape[0] != x.shape[0]:
            raise ValueError(f"a batch of {x.shape[0]} under a gate condition for {w_BN.shape[0]}")
        return w_BN.view(w_BN.shape[0], *[1] * (x.dim() - 2), self.branches)

    def _look(self, w: Tensor) -> None:
        """Keep what was asked for of the gates [N] or [B, ..., N]."""
        if self.collect:
            self._keep_stats(w.detach())
        if self.video_tokens:
            w = w.view(1, 1, -1) if w.dim() == 1 else w
            self.live_gate = w.flatten(1, -2)[:, : self.video_tokens].mean((0, 1))

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
            unread=unread_inputs(placement, name, base.out_features),
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


def remove(model: nn.Module) -> None:
    """Take the adapter out, so that another one can be put in; the base's Linears are back in their places."""
    for name, layer in _free(model).items():
        model.set_submodule(name, layer.base)
    if hasattr(model, "ptta_adapter"):
        del model.ptta_adapter


def set_enabled(model: nn.Module, enabled: bool) -> None:
    """The adapter on, or off: then the model computes exactly what it did without one."""
    for layer in _free(model).values():
        layer.enabled = enabled


def set_mix(model: nn.Module, mixes: Mapping[str, Sequence[float]] | None) -> None:
    """Weights of the branches by layer, in place of whatever gate, until the next call; None gives the gates back.

    Raises ValueError for other layers than the model's, or another number of weights than branches.
    """
    own = _free(model)
    if mixes is not None and mixes.keys() != own.keys():
        raise ValueError(f"mixes for {len(mixes)} layers, not for the {len(own)} of the adapter")
    for name, layer in own.items():
        weights = None if mixes is None else torch.tensor(list(mixes[name]), device=layer.lora_A.device)
        if weights is not None and weights.shape != (layer.branches,):
            raise ValueError(f"{name}: {weights.numel()} weights for {layer.branches} branches")
        layer.mix = weights


def _free(model: nn.Module) -> dict[str, HydraLinear]:
    """`layers`, where nothing stands in the way of changing what they compute. Raises ValueError while merged."""
    found = layers(model)
    if any(layer.unmerged is not None for layer in found.values()):
        raise ValueError("the adapter is merged into the base: unmerge it first")
    return found


def set_condition(model: nn.Module, labels_BN: Tensor | None = None, pooled_BP: Tensor | None = None) -> None:
    """What sample and label gates read until the next call; B is the batch, or 1 for all of it.

    labels_BN: each clip's label distribution, rows sum to 1. pooled_BP: pooled text embeddings. Without the one a gate
    reads, its branches count alike (1/N each). Keep it set until backward is done where activations are checkpointed.
    Token and static gates ignore it. Raises ValueError for a wrong width.
    """
    for name, layer in _free(model).items():
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
    """Copy a state into the adapter. Raises ValueError naming what is missing, unexpected or of another shape.

    Not while it is merged.
    """
    _free(model)
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
