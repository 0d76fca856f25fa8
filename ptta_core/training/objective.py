"""The rectified-flow (velocity) objective of HunyuanVideo, one sample at a time.

x_t = (1 - t) x0 + t noise; the model predicts noise - x0 (Liu et al., arXiv 2209.03003). t is logit-normal (Esser et
al., arXiv 2403.03206, section 3.1) and then shifted towards noise (same paper, equation 23).
"""

from typing import Any

import torch

from ptta_core.models.hunyuan import model_inputs, seed_of


def shifted(t: float, shift: float) -> float:
    """`t` (0..1) moved towards noise: shift * t / (1 + (shift - 1) * t). A shift of 1 changes nothing."""
    return shift * t / (1.0 + (shift - 1.0) * t)


def draw(shape: torch.Size, seed: int, sample_index: int, shift: float) -> tuple[torch.Tensor, float]:
    """(standard normal noise of `shape`, t in 0..1) of one sample, float32 on the CPU.

    They depend on `seed` and the global sample index alone, so a resumed run and any number of workers draw the same.
    """
    generator = torch.Generator("cpu").manual_seed(seed_of(f"train:{seed}:{sample_index}"))
    t = float(torch.sigmoid(torch.randn((), generator=generator, dtype=torch.float64)))
    return torch.randn(shape, generator=generator), shifted(t, shift)


def velocity_loss(
    transformer: Any, sample: dict[str, torch.Tensor], noise_CTHW: torch.Tensor, t: float, guidance: float,
    dtype: torch.dtype, device: torch.device | str, temporal_weight: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """Mean squared error of the predicted velocity, float32 scalar with a gradient; plus temporal_loss, weighted.

    `sample`: latents [C,T,h,w], text [L,D], pooled [P]. `guidance`: the embedded guidance scale, 1 in training.
    """
    clean_CTHW, noise_CTHW = sample["latents"].to(device).float(), noise_CTHW.to(device)
    noisy_CTHW = (1.0 - t) * clean_CTHW + t * noise_CTHW
    inputs = model_inputs(
        noisy_CTHW[None], torch.tensor([t], device=device), [sample["text"]], sample["pooled"][None], guidance, dtype
    )
    velocity_CTHW = transformer(**inputs)[0][0].float()
    target_CTHW = noise_CTHW - clean_CTHW
    loss = torch.nn.functional.mse_loss(velocity_CTHW, target_CTHW)
    if temporal_weight and velocity_CTHW.shape[1] > 1:
        loss = loss + temporal_weight * temporal_loss(velocity_CTHW, target_CTHW)
    return loss


def temporal_loss(velocity_CTHW: torch.Tensor, target_CTHW: torch.Tensor) -> torch.Tensor:
    """Mean over latent frames of |(v_{t+1} - v_t) - (u_{t+1} - u_t)|^2, v predicted, u true: a scalar; T > 1.

    With e = v - u it is the mean of |e_{t+1} - e_t|^2. The plain error counts what is wrong in a frame and cannot tell
    an error that stays (a shade too dark throughout) from one that comes and goes (flicker, jitter): of equal size
    both cost the same. Here the first costs nothing, and one that turns over from frame to frame four times as much;
    an error of temporal frequency w counts 4 sin^2(w / 2). Ours: the paper (arXiv 2512.18614) leaves temporal
    consistency open. What it may cost is motion, which is why benchmarks/temporal.py plots one against the other.
    """
    return torch.nn.functional.mse_loss(velocity_CTHW.diff(dim=1), target_CTHW.diff(dim=1))
