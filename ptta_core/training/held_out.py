"""The loss on clips that are not learned from (holdout.py says which), at fixed noise and fixed points of its scale.

Each held-out sample is measured at the middle of every quarter of the training distribution of t: low noise asks for
detail, high noise for motion and layout, and their mean alone would hide the one behind the other.
"""

from statistics import NormalDist

import torch

from ptta_core.models.hunyuan import seed_of
from ptta_core.training.dataset import Sample
from ptta_core.training.objective import shifted

QUANTILES = 4


def times(shift: float) -> list[float]:
    """t (0..1) at the middle of each quarter of the shifted logit-normal distribution of training, rising."""
    normal = (NormalDist().inv_cdf((place + 0.5) / QUANTILES) for place in range(QUANTILES))
    return [shifted(float(torch.sigmoid(torch.tensor(one, dtype=torch.float64))), shift) for one in normal]


def noise(shape: torch.Size, seed: int, sample: Sample, quantile: int) -> torch.Tensor:
    """Standard normal noise of `shape`, float32 on the CPU: always the same for a sample, quarter and seed."""
    generator = torch.Generator("cpu").manual_seed(seed_of(f"held out:{seed}:{sample.latent_id}:{quantile}"))
    return torch.randn(shape, generator=generator)
