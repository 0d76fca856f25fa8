"""The loss on clips that are not learned from: whole sources, at fixed noise and at fixed points of the noise scale.

Neighbouring shots of one source look alike, so a clip held out beside learned ones would say little. Each held-out
sample is measured at the middle of every quarter of the training distribution of t: low noise asks for detail, high
noise for motion and layout, and their mean alone would hide the one behind the other.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from statistics import NormalDist

import torch

from ptta_core.models.hunyuan import seed_of
from ptta_core.training.dataset import DatasetError, Sample
from ptta_core.training.objective import shifted

QUANTILES = 4


def choose(source_of: Mapping[str, str], share: float, seed: int) -> set[str]:
    """The latents to hold out, of `source_of` (latent_id -> source_id): whole sources, drawn by hash.

    Sources are taken until `share` of the latents is reached or another would go above it by more than it lies below
    now; always one, never all. Raises DatasetError where the latents are of one source only.
    """
    if not share:
        return set()
    counts = Counter(source_of.values())
    if len(counts) < 2:
        raise DatasetError(f"train.holdout_share = {share:g} holds out whole sources; the latents are of "
                           f"{len(counts)} source, 2 are needed")  # fmt: skip
    drawn = sorted(counts, key=lambda source: hashlib.sha256(f"held out:{seed}:{source}".encode()).digest())
    wanted, have = share * len(source_of), 0
    taken: set[str] = set()
    for source in drawn[:-1]:
        after = have + counts[source]
        if taken and abs(after - wanted) > abs(have - wanted):
            continue
        taken.add(source)
        have = after
        if have >= wanted:
            break
    return {latent for latent, source in source_of.items() if source in taken}


def times(shift: float) -> list[float]:
    """t (0..1) at the middle of each quarter of the shifted logit-normal distribution of training, rising."""
    normal = (NormalDist().inv_cdf((place + 0.5) / QUANTILES) for place in range(QUANTILES))
    return [shifted(float(torch.sigmoid(torch.tensor(one, dtype=torch.float64))), shift) for one in normal]


def noise(shape: torch.Size, seed: int, sample: Sample, quantile: int) -> torch.Tensor:
    """Standard normal noise of `shape`, float32 on the CPU: always the same for a sample, quarter and seed."""
    generator = torch.Generator("cpu").manual_seed(seed_of(f"held out:{seed}:{sample.latent_id}:{quantile}"))
    return torch.randn(shape, generator=generator)
