"""What a training run will hold in memory, from the base's configuration alone: no weight is read.

Counted exactly: frozen weights, the adapter, its gradients and AdamW's two moments, the average of the weights. Of the
activations only what checkpointing keeps, the input of every block, is counted: what one block needs while it is
computed, and the library's own buffers, come on top. So the sum is a floor, not a promise.
"""

import re
from collections import Counter
from dataclasses import dataclass

import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel

from ptta_core.config import BaseConfig, EncodeConfig, TrainConfig
from ptta_core.models import hydralora
from ptta_core.models.hunyuan import MAX_TEXT_TOKENS, quietly, torch_dtype

FLOAT_BYTES = 4  # the adapter, its gradients and moments are float32


@dataclass(frozen=True)
class Estimate:
    """Of one worker, which holds the whole base. Bytes are of the largest bucket at batch 1: samples pass singly."""

    trainable: dict[str, int]  # parameters by kind of module, "transformer_blocks ff.net.0.proj"
    base_bytes: int
    adapter_bytes: int  # weights, gradients, moments, average
    input_bytes: int  # of checkpointed blocks
    tokens: int  # video and text

    @property
    def total(self) -> int:
        """Trainable parameters."""
        return sum(self.trainable.values())

    def note(self) -> str:
        """One line for people."""
        base, adapter, inputs = (round(one / 1e9, 1) for one in (self.base_bytes, self.adapter_bytes, self.input_bytes))
        kinds = ", ".join(f"{name} {count / 1e6:.1f}M" for name, count in self.trainable.items())
        return (f"{self.total / 1e6:.1f}M trainable parameters ({kinds}); a worker holds at least "
                f"{base + adapter + inputs:.1f} GB: base {base}, adapter with optimizer {adapter}, inputs of blocks "
                f"{inputs} for {self.tokens} tokens; the work of one block comes on top")  # fmt: skip


@quietly()
def estimate(
    path: str, revision: str | None, base: BaseConfig, encode: EncodeConfig, train: TrainConfig
) -> Estimate | None:
    """The estimate for a base in a folder or in the hub's cache here; None where its configuration is not on this disk.

    Raises ValueError for a placement that hits nothing.
    """
    try:
        config = HunyuanVideoTransformer3DModel.load_config(
            path, subfolder="transformer", revision=revision, local_files_only=True
        )
    except OSError:
        return None
    with torch.device("meta"):
        model = HunyuanVideoTransformer3DModel.from_config(config)
    base_parameters = sum(one.numel() for one in model.parameters())
    hydralora.inject(model, placement=train.placement, rank=train.rank, alpha=train.lora_alpha,
                     branches=train.branches, gate=train.gate, seed=0)  # fmt: skip
    kinds: Counter[str] = Counter()
    for name, layer in hydralora.layers(model).items():
        own = sum(one.numel() for one in layer.parameters(recurse=False))
        kinds[re.sub(r"\.\d+\.", " ", name, count=1)] += own
    copies = 4 + (1 if train.ema_decay else 0)
    tokens = token_count(encode, model.config.patch_size, model.config.patch_size_t)
    width = model.config.num_attention_heads * model.config.attention_head_dim
    blocks = model.config.num_layers + model.config.num_single_layers
    size = torch_dtype(base.dtype).itemsize
    return Estimate(dict(sorted(kinds.items())), base_parameters * size, sum(kinds.values()) * copies * FLOAT_BYTES,
                    blocks * tokens * width * size if train.checkpointing else 0, tokens)  # fmt: skip


def token_count(encode: EncodeConfig, patch: int, patch_t: int) -> int:
    """Tokens of the largest window that encode makes, with the longest text: the VAE is /8 in space and /4 in time."""
    frames = ((encode.frames - 1) // 4 + 1) // patch_t
    return frames * (encode.area // (8 * patch) ** 2) + MAX_TEXT_TOKENS
