"""What a training run will hold in memory and how long it will take, from the base's configuration: no weight is read.

Exact: frozen weights as they are stored, the adapter, its gradients, the optimizer's moments, the average of the
weights. Counted on the meta device (costs.py): activations and what is made and let go on the way. Not counted: what
the allocator wastes, and CUDA itself, for which `OVERHEAD_BYTES` stands. Of a sharded model a worker's share, with the
parts that are whole while they are used; that was not compared with a GPU's.
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel

from ptta_core.config import BaseConfig, EncodeConfig, TrainConfig, TrainWorkers
from ptta_core.models import hydralora
from ptta_core.models.hunyuan import MAX_TEXT_TOKENS, quietly
from ptta_core.training.adamw8bit import moment_bytes
from ptta_core.training.costs import Costs, Small
from ptta_core.training.sharding import BLOCKS

OVERHEAD_BYTES = 1.0e9  # CUDA's context and its libraries' workspaces; a usual figure, not measured here
GATHERED = 2  # blocks of a sharded model that are whole at one time: the one at work and the next


@dataclass(frozen=True)
class Bucket:
    """Samples of one size. steps: in an epoch; 0 where it is not known yet."""

    name: str
    tokens: int  # of video
    steps: int = 0


@dataclass(frozen=True)
class Estimate:
    """Of one worker, with samples passing singly. Bytes by what holds them; activations and FLOPs by bucket."""

    trainable: dict[str, int]  # parameters by kind of module, "transformer_blocks ff.net.0.proj"
    base_bytes: int
    adapter_bytes: int  # weights, gradients, moments, average
    gathered_bytes: int  # of a sharded model: what is whole for a moment
    step_bytes: int  # of the optimizer while it works: the activations are gone by then
    activation_bytes: dict[str, int]
    flops: dict[str, float]  # of a sample

    @property
    def total(self) -> int:
        """Trainable parameters."""
        return sum(self.trainable.values())

    @property
    def fixed_bytes(self) -> int:
        """What is held whatever the sample."""
        return self.base_bytes + self.adapter_bytes + self.gathered_bytes

    def bytes_of(self, bucket: str) -> int:
        """The most at one time, without what stands for CUDA."""
        return self.fixed_bytes + max(self.activation_bytes[bucket], self.step_bytes)

    def parameters_note(self) -> str:
        """One line for people."""
        kinds = ", ".join(f"{name} {count / 1e6:.1f}M" for name, count in self.trainable.items())
        return f"{self.total / 1e6:.1f}M trainable parameters ({kinds})"

    def memory_note(self, bucket: str) -> str:
        """One line for people."""
        parts = {"base": self.base_bytes, "adapter with optimizer": self.adapter_bytes,
                 "blocks gathered": self.gathered_bytes, "activations": self.activation_bytes[bucket]}  # fmt: skip
        told = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts.items() if size)
        return f"{(self.bytes_of(bucket) + OVERHEAD_BYTES) / 1e9:.1f} GB a worker: {told}, CUDA about 1"


@quietly()
def estimate(
    path: str, revision: str | None, base: BaseConfig, train: TrainConfig, workers: TrainWorkers,
    buckets: Sequence[Bucket], text_tokens: int = MAX_TEXT_TOKENS,
) -> Estimate | None:  # fmt: skip
    """The estimate for a base in a folder or in the hub's cache here; None where its configuration is not on this disk.

    buckets: one or more. Raises ValueError for a placement that hits nothing.
    """
    try:
        config = HunyuanVideoTransformer3DModel.load_config(
            path, subfolder="transformer", revision=revision, local_files_only=True
        )
    except OSError:
        return None
    small = Small(config, base, train, workers.offload)
    ranks = workers.count if workers.shard else 1
    trainable = {name: small.whole(lambda model: kinds(model)[name]) for name in kinds(small.models[0])}  # noqa: B023
    numbers, base_bytes = sum(trainable.values()), small.whole(_base_bytes)
    eighth = train.optimizer == "adamw8bit"
    moments = small.whole(_moment_bytes) if eighth else 8 * numbers
    held = 4 * numbers * (3 if train.ema_decay else 2) + moments
    costs = Costs(small, base, train, workers.offload, max(one.tokens for one in buckets), text_tokens)
    return Estimate(
        trainable=trainable, base_bytes=base_bytes // ranks, adapter_bytes=held // ranks,
        gathered_bytes=_gathered_bytes(small.models[0]) if ranks > 1 else 0,
        step_bytes=0 if eighth else 4 * numbers // ranks,
        activation_bytes={one.name: costs.peak_bytes(one.tokens) for one in buckets},
        flops={one.name: costs.flops(one.tokens) for one in buckets},
    )  # fmt: skip


def kinds(model: Any) -> dict[str, int]:
    """Trainable parameters by kind of module, sorted."""
    found: Counter[str] = Counter()
    for name, layer in hydralora.layers(model).items():
        own = sum(one.numel() for one in layer.parameters(recurse=False))
        found[re.sub(r"\.\d+\.", " ", name, count=1)] += own
    return dict(sorted(found.items()))


def _base_bytes(module: Any) -> int:
    return sum(one.nbytes for one in module.parameters() if not one.requires_grad)


def _moment_bytes(model: Any) -> int:
    return sum(moment_bytes(one) for one in hydralora.adapter_parameters(model))


def _gathered_bytes(model: Any) -> int:
    """What two gathered blocks and everything outside the blocks take."""
    blocks = [_base_bytes(block) for name in BLOCKS for block in getattr(model, name)]
    return GATHERED * max(blocks) + _base_bytes(model) - sum(blocks)


def tokens_of(frames: int, height: int, width: int) -> int:
    """Video tokens of a bucket: the VAE is /8 in space and /4 in time after the first frame, and patches are 2 x 2."""
    return ((frames - 1) // 4 + 1) * (height // 16) * (width // 16)


def planned(encode: EncodeConfig) -> Bucket:
    """The largest bucket that encode makes."""
    tokens = ((encode.frames - 1) // 4 + 1) * (encode.area // 256)
    return Bucket(f"{encode.frames} frames of {encode.area} px", tokens)


def real(counts: dict[str, int], batch: int) -> list[Bucket]:
    """Buckets by name ("33x512x512") and how many samples are learned from in each; the last batch may be smaller."""
    found = []
    for name, samples in sorted(counts.items()):
        frames, height, width = (int(part) for part in name.split("x"))
        found.append(Bucket(name, tokens_of(frames, height, width), -(-samples // batch)))
    return found


def step_seconds(found: Estimate, buckets: Sequence[Bucket], batch: int, count: int, tflops: float) -> float:
    """Mean seconds a step, when every worker does `tflops` million million operations a second and waits for none."""
    steps = sum(one.steps for one in buckets) or len(buckets)
    samples = -(-batch // count)
    work = sum(found.flops[one.name] * (one.steps or 1) for one in buckets)
    return samples * work / steps / (tflops * 1e12)


@functools.cache
def device_bytes() -> int | None:
    """The memory of this machine's GPU, None without one."""
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
