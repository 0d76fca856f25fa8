"""An adapter beside what is made of it, on its training samples: its mean gate, and how far a LoRA file is off."""

import contextlib
import functools
import importlib.metadata
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ptta_core.config import TrainConfig
from ptta_core.models import hydralora, lora_reading
from ptta_core.models.hunyuan import load_transformer, make_pipeline, model_inputs, quietly, torch_dtype
from ptta_core.models.lora_files import Pairs
from ptta_core.training import held_out
from ptta_core.training.dataset import Sample, read_index, read_sample

SAMPLES = 8  # evenly over the index; with four noise levels each
PUBLISHED_WIDTH = 3072  # the one width for which diffusers' loader cuts ComfyUI's matrices

Velocities = list[torch.Tensor]  # [C,T,h,w] each, float32 on the CPU: by sample, then by noise level


class Compared(NamedTuple):
    """A plain LoRA file, loaded, beside the adapter that it was made of."""

    loader: str  # what read the file
    error: float  # ||v_file - v_adapter|| / ||v_adapter - v_base||: 0 the same, 1 as wrong as no adapter
    output_error: float  # ||v_file - v_mixed|| / ||v_mixed||, v_mixed: the adapter with the file's gates: rounding only
    weight_error: float  # the same of what single Linears add to random inputs, float32, the worst of them


class Probe:
    """A base model with an adapter, and what it says of some training samples.

    adapter: the native file. run_folder: with the pinned samples. Raises DatasetError, OSError.
    """

    def __init__(
        self, adapter: str | Path, run_folder: str | Path, base: str, revision: str | None, dtype: str, device: str,
        config: TrainConfig,
    ) -> None:  # fmt: skip
        self.folder, self.config, self.device, self.dtype = Path(run_folder), config, device, torch_dtype(dtype)
        known = hydralora.read_config(adapter)
        storage = known["metadata"].get("base_storage", "dtype")  # as it was while the adapter learned
        self.model: Any = load_transformer(base, revision, dtype, device, storage)
        hydralora.load_adapter(adapter, self.model)
        self.adapter = adapter
        self.labels = (known["metadata"].get("labels") or []) if known["gate"] == "label" else []
        index = read_index(self.folder)
        self.samples = index[:: max(1, len(index) // SAMPLES)][:SAMPLES]

    @torch.no_grad()
    def mean_gates(self) -> dict[str, list[float]]:
        """The mean weight of each branch in each layer, over tokens, samples and noise levels."""
        sums: dict[str, torch.Tensor] = {}
        for _ in self.velocities(collect=True):
            for name, layer in hydralora.layers(self.model).items():
                if layer.stats is not None:
                    sums[name] = sums.get(name, torch.zeros(layer.branches)) + layer.stats[:-1].cpu()
        return {name: (total / total.sum()).tolist() for name, total in sums.items()}

    @functools.cached_property
    def adapted(self) -> Velocities:
        """With the adapter as it was trained: its own gates, each clip's own labels."""
        return list(self.velocities())

    @functools.cached_property
    def plain(self) -> Velocities:
        """Of the base alone."""
        hydralora.set_enabled(self.model, False)
        found = list(self.velocities())
        hydralora.set_enabled(self.model, True)
        return found

    def compare(self, path: str | Path, pairs: Pairs, mixes: Mapping[str, Sequence[float]]) -> Compared:
        """Load a file as other tools do and compare what it computes. pairs, mixes: what it was made of."""
        adapted, effect = self.adapted, _distance(self.adapted, self.plain)
        hydralora.set_mix(self.model, mixes)
        mixed = list(self.velocities())
        hydralora.set_mix(self.model, None)
        with self.loaded(path) as (loader, found):
            from_file = list(self.velocities())
        error, output_error = _distance(from_file, adapted), _distance(from_file, mixed) / _size(mixed)
        return Compared(loader, error / effect if effect else float(error > 0), output_error, pair_error(found, pairs))

    @contextlib.contextmanager
    def loaded(self, path: str | Path) -> Iterator[tuple[str, Pairs]]:
        """The file in the adapter's place meanwhile: what loaded it, and the pairs that are then in the model.

        By diffusers' own loader, or by our reader where that loader does not know the names at this model's width.
        """
        hydralora.remove(self.model)
        pairs = lora_reading.read_pairs(path)
        if lora_reading.has_original_names(path) and width_of(self.model) != PUBLISHED_WIDTH:
            lora_reading.put(self.model, pairs)
            yield "ptta", pairs
            hydralora.remove(self.model)
        else:
            pipeline = make_pipeline(transformer=self.model)
            with quietly():
                pipeline.load_lora_weights(str(path), adapter_name="loaded")
            yield f"diffusers {importlib.metadata.version('diffusers')}", peft_pairs(self.model)
            pipeline.unload_lora_weights()
        self.model.requires_grad_(False)
        hydralora.load_adapter(self.adapter, self.model)

    @torch.no_grad()
    def velocities(self, collect: bool = False) -> Iterator[torch.Tensor]:
        """The predicted velocity [C,T,h,w] of every sample at every noise level, float32 on the CPU."""
        levels = list(enumerate(held_out.times(self.config.shift)))
        for one, (place, t) in itertools.product(self.samples, levels):
            sample = read_sample(self.folder, one)
            self._condition(one, sample)
            hydralora.collect_gates(self.model, collect)
            clean = sample["latents"].float()
            noisy = (1.0 - t) * clean + t * held_out.noise(clean.shape, self.config.seed, one, place)
            inputs = model_inputs(noisy[None].to(self.device), torch.tensor([t]), [sample["text"]],
                                  sample["pooled"][None], self.config.guidance, self.dtype)  # fmt: skip
            yield self.model(**inputs)[0][0].float().cpu()

    def _condition(self, one: Sample, sample: Mapping[str, torch.Tensor]) -> None:
        shares: Sequence[float] = one.shares(self.labels)
        labels_1N = torch.tensor([shares], device=self.device) if any(shares) else None
        hydralora.set_condition(self.model, labels_1N, sample["pooled"][None].to(self.device).float())


def width_of(model: Any) -> int:
    """The width of a HunyuanVideo transformer."""
    return int(model.config.num_attention_heads * model.config.attention_head_dim)


def peft_pairs(model: torch.nn.Module) -> Pairs:
    """The pairs that peft has put into a model, float32 on the CPU, the scale in B; without those that add nothing."""
    from peft.tuners.lora import LoraLayer

    pairs: Pairs = {}
    for at, module in model.named_modules():
        if isinstance(module, LoraLayer):
            for name in module.lora_A:
                down: Any = module.lora_A[name]
                up: Any = module.lora_B[name]
                if up.weight.any():
                    scaled = up.weight.detach().float().cpu() * module.scaling[name]
                    pairs[at] = down.weight.detach().float().cpu(), scaled
    return pairs


def pair_error(found: Pairs, wanted: Pairs) -> float:
    """The worst relative error of what a Linear's pair adds to random inputs; infinite where a Linear is missing."""
    wanted = {name: pair for name, pair in wanted.items() if pair[1].any()}
    if found.keys() != wanted.keys():
        return float("inf")
    worst = 0.0
    for name, (A_RD, B_DR) in wanted.items():
        x = torch.randn(A_RD.shape[1], 4, generator=torch.Generator().manual_seed(0))
        ours, theirs = B_DR.cpu() @ (A_RD.cpu() @ x), found[name][1] @ (found[name][0] @ x)
        worst = max(worst, float((theirs - ours).norm() / ours.norm()))
    return worst


def _distance(one: Velocities, other: Velocities) -> float:
    return sum(float((a - b).square().sum()) for a, b in zip(one, other, strict=True)) ** 0.5


def _size(one: Velocities) -> float:
    return sum(float(a.square().sum()) for a in one) ** 0.5
