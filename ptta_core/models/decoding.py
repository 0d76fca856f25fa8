"""Latents back to pictures: what the model learns from, as people can see it. The VAE alone is loaded."""

from typing import Any

import numpy as np
import torch
from safetensors.torch import load

from ptta_core.models.hunyuan import Device, load_vae


class Decoder:
    """Scaled latents as video, by the VAE of a HunyuanVideo in diffusers' layout; always in tiles, to bound memory."""

    def __init__(
        self, path: str, revision: str | None = None, dtype: str | torch.dtype = "bfloat16", device: Device = "cpu"
    ) -> None:
        self.vae: Any = load_vae(path, revision, dtype, device)

    @torch.no_grad()
    def __call__(self, tensors: bytes) -> np.ndarray:
        """The `latents` [C,T,H/8,W/8] of a packed sample as uint8 [1+4(T-1),H,W,3]."""
        latents_CTHW = load(tensors)["latents"].to(self.vae.device, self.vae.dtype) / self.vae.config.scaling_factor
        video_CTHW = self.vae.decode(latents_CTHW[None], return_dict=False)[0][0]
        shown_THWC = ((video_CTHW.float() + 1.0) * 127.5).round().clamp(0, 255).permute(1, 2, 3, 0)
        return shown_THWC.nan_to_num().to(torch.uint8).cpu().numpy()
