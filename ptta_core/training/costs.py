"""Memory and arithmetic of one sample through the model, forward and backward, by counting on the meta device.

A step of a transformer of 60 blocks repeats itself, so three small ones are counted (one block of each kind, and one
more of either), each at two sizes. Bytes and operations grow by the same amount with every block, and with every token
but for attention, whose operations are known. What has the most bytes at one time is told apart by phase: until the
single blocks' backward passes are done all inputs are there; then only the dual blocks'.
"""

import contextlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any
from unittest import mock

import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel

from ptta_core.config import BaseConfig, TrainConfig
from ptta_core.models import fp8, hydralora
from ptta_core.models.hunyuan import MAX_TEXT_TOKENS, model_inputs, torch_dtype
from ptta_core.training import meter
from ptta_core.training.memory import keep_inputs_only

BACKWARD = 2.5  # of a forward pass of fused attention: five products instead of two


@dataclass(frozen=True)
class Pass:
    """Counted of one sample: bytes beside weights and adapter, and operations but for those of attention."""

    kept: int  # at the end of the forward pass
    peak_all: int  # until the single blocks are done
    peak_dual: int  # from then on
    flops: int


class Small:
    """Three small transformers that stand for a large one, on the meta device: no weight is read."""

    def __init__(self, config: dict[str, Any], base: BaseConfig, train: TrainConfig, offload: bool = False) -> None:
        self.dual, self.single = config["num_layers"], config["num_single_layers"]
        self.models = [build(config | {"num_layers": duals, "num_single_layers": singles}, base, train, offload)
                       for duals, singles in ((1, 1), (2, 1), (1, 2))]  # fmt: skip

    def whole(self, of: Callable[[Any], int]) -> int:
        """A number of the large model that grows by the same amount with every block, from the small ones'."""
        one, dual, single = (of(model) for model in self.models)
        return one + (self.dual - 1) * (dual - one) + (self.single - 1) * (single - one)


class Costs:
    """Of a base with an adapter, for any number of video tokens.

    tokens: those of the largest bucket, near which the memory is exact; text: the longest.
    """

    def __init__(
        self, small: Small, base: BaseConfig, train: TrainConfig, offload: bool, tokens: int,
        text: int = MAX_TEXT_TOKENS,
    ) -> None:  # fmt: skip
        config = small.models[0].config
        self.blocks = small.dual + small.single
        self.width = config.num_attention_heads * config.attention_head_dim
        self.text, self.train = text, train
        self.sizes = (max(1, tokens // 2), max(2, tokens))
        self.counted = [self._whole(small, base, offload, size) for size in self.sizes]

    def _whole(self, small: Small, base: BaseConfig, offload: bool, tokens: int) -> Pass:
        """The large transformer's pass, from three small ones'."""
        one, dual, single = (count(model, base, tokens, self.text, offload) for model in small.models)
        duals, singles = small.dual - 1, small.single - 1
        of_dual, of_single = duals * (dual.kept - one.kept), singles * (single.kept - one.kept)
        flops = one.flops + duals * (dual.flops - one.flops) + singles * (single.flops - one.flops)
        return Pass(one.kept + of_dual + of_single, one.peak_all + of_dual + of_single, one.peak_dual + of_dual, flops)

    def peak_bytes(self, tokens: int) -> int:
        """The most beside weights, adapter and optimizer."""
        found = self._at(tokens)
        return max(found.peak_all, found.peak_dual)

    def kept_bytes(self, tokens: int) -> int:
        """What waits for the backward pass when the forward pass is done."""
        return self._at(tokens).kept

    def flops(self, tokens: int) -> float:
        """Of a sample's forward and backward pass, the second forward of checkpointing included."""
        passes = 1 + BACKWARD + (1 if self.train.checkpointing else 0)
        attention = 4.0 * (tokens + self.text) ** 2 * self.width * self.blocks * passes
        return self._at(tokens).flops + attention

    def _at(self, tokens: int) -> Pass:
        (small, large), (first, second) = self.sizes, self.counted
        share = (tokens - small) / (large - small)
        return Pass(*(round(one + share * (two - one)) for one, two in zip(astuple(first), astuple(second))))


def build(config: dict[str, Any], base: BaseConfig, train: TrainConfig, offload: bool = False) -> Any:
    """The frozen base with its adapter on the meta device, as training has it; no weight is read."""
    with torch.device("meta"):
        model: Any = HunyuanVideoTransformer3DModel.from_config(config)
        model = model.to(torch_dtype(base.dtype)).requires_grad_(False)
        if base.storage == "fp8":
            model = fp8.store(model)
    hydralora.inject(model, placement=train.placement, rank=train.rank, alpha=train.lora_alpha,
                     branches=train.branches, gate=train.gate, seed=0)  # fmt: skip
    if train.checkpointing:
        keep_inputs_only(model, offload)
    return model


def count(model: Any, base: BaseConfig, tokens: int, text: int, offload: bool) -> Pass:
    """A sample of so many video and text tokens through a model on the meta device, forward and backward."""
    config, patch = model.config, model.config.patch_size
    parameters = hydralora.adapter_parameters(model)
    for one in parameters:
        one.grad = torch.empty_like(one)  # as of an earlier sample of the step
    noisy = torch.empty(1, config.in_channels, tokens * config.patch_size_t, patch, patch, device="meta")
    words = torch.empty(text, config.text_embed_dim, device="meta")
    pooled = torch.empty(1, config.pooled_projection_dim, device="meta")
    inputs = model_inputs(noisy, torch.empty(1, device="meta"), [words], pooled, 1.0, torch_dtype(base.dtype))
    gauge = meter.Meter([*model.parameters(), *(one.grad for one in parameters if one.grad is not None)])

    def at_single_blocks(block: Any, given: tuple[torch.Tensor, ...]) -> None:
        if given[0].requires_grad and len(gauge.peaks) == 1 and not gauge.entered_backward:
            given[0].register_hook(lambda gradient: gauge.next_phase())

    moved = mock.patch.object(torch.autograd.graph, "save_on_cpu", meter.elsewhere)
    hook = model.single_transformer_blocks[0].register_forward_pre_hook(at_single_blocks)
    with moved if offload else contextlib.nullcontext(), meter.fused_attention(), gauge:
        velocity = model(**inputs)[0].float()
        loss = torch.nn.functional.mse_loss(velocity, torch.empty_like(velocity))
        del velocity
        kept, gauge.entered_backward = gauge.bytes, True
        loss.backward()
    hook.remove()
    return Pass(kept, gauge.peaks[0], gauge.peaks[-1], gauge.flops)
