"""The mean gate of an adapter over its training samples, and how far plain LoRA of that gate is from the adapter."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ptta_core.config import TrainConfig
from ptta_core.models import hydralora, lora_files
from ptta_core.models.hunyuan import load_transformer, model_inputs, torch_dtype
from ptta_core.training import held_out
from ptta_core.training.dataset import Sample, read_index, read_sample

SAMPLES = 8  # evenly over the index; with four noise levels each


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

    @torch.no_grad()
    def error(self, pairs: lora_files.Pairs) -> float:
        """||v_lora - v_adapter|| / ||v_adapter - v_base|| of the velocities: 0 the same, 1 as wrong as no adapter.

        Puts the pairs into the model in the adapter's place: ask for this last.
        """
        adapted = list(self.velocities())
        hydralora.set_enabled(self.model, False)
        plain = list(self.velocities())
        hydralora.set_enabled(self.model, True)
        put(self.model, pairs)
        merged = self.velocities()
        off = sum(float((one - two).square().sum()) for one, two in zip(merged, adapted))
        effect = sum(float((one - two).square().sum()) for one, two in zip(adapted, plain))
        return (off / effect) ** 0.5 if effect else 0.0

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


def put(model: torch.nn.Module, pairs: lora_files.Pairs) -> None:
    """Plain LoRA in the place of the model's HydraLinears, those of `pairs`."""
    for name, (A_RD, B_DR) in pairs.items():
        old = hydralora.layers(model)[name]
        new = hydralora.HydraLinear(old.base, rank=A_RD.shape[0], alpha=A_RD.shape[0], branches=1)  # type: ignore[arg-type]
        new.lora_A.data.copy_(A_RD)
        new.lora_B.data.copy_(B_DR)
        model.set_submodule(name, new.eval())
