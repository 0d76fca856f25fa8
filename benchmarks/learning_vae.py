"""A VAE of HunyuanVideo's class whose encoder is a linear map, fitted to clips in seconds; for the learning benchmark.

A random VAE keeps next to nothing of a picture's colours in its latents (a linear readout of them explains 2 % of the
pixels' variance), and training one takes long. Here every halving of the real class takes blocks to their principal
components: 768 numbers (4 frames of 8 x 8 px x RGB) become 16. The decoder is not used, and stays random.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from torch import Tensor, nn

CHANNELS = 16
SCALING = 0.476986  # the published VAE's; undone in the last layer's weights, so that latents have unit size
KEPT = (12, 16, CHANNELS)  # channels after each halving: 2 x 2 px x RGB whole, then principal components
STEADY = 300.0  # a constant beside the signal, so that the last norm divides by nearly the same in every clip
POSTERIOR = -8.0  # log variance of the latents' own noise: a standard deviation of exp(-4)


def linear_vae(clips: Sequence[np.ndarray]) -> AutoencoderKLHunyuanVideo:
    """A VAE fitted to `clips` (uint8 [9,H,W,3] each, of one size), frozen.

    Residual branches are zero, which leaves shortcuts and strided convolutions. Before the last norm and SiLU each
    channel z stands as the pair (z, -z): silu(z) - silu(-z) = z, so the last convolution undoes both.
    """
    model: Any = AutoencoderKLHunyuanVideo(
        in_channels=3, out_channels=3, latent_channels=CHANNELS, down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4, block_out_channels=(KEPT[0], KEPT[1], KEPT[1], 2 * CHANNELS + 2),
        layers_per_block=1, act_fn="silu", norm_num_groups=1, scaling_factor=SCALING, spatial_compression_ratio=8,
        temporal_compression_ratio=4, mid_block_add_attention=False,
    )  # fmt: skip
    with torch.no_grad():
        _fit(model, torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0)
    return model.requires_grad_(False).eval()


def _fit(model: Any, x_BCTHW: Tensor) -> None:
    """Set the encoder's weights, halving by halving."""
    encoder = model.encoder
    for one in encoder.modules():
        if isinstance(one, nn.Conv3d):
            one.weight.zero_()
            one.bias.zero_()
    _pass_on(encoder.conv_in.conv, 3)
    for block, out, times in zip(encoder.down_blocks, KEPT, (1, 2, 2)):
        width = x_BCTHW.shape[1]
        if block.resnets[0].conv_shortcut is not None:
            _pass_on(block.resnets[0].conv_shortcut.conv, width)
        blocks_MK = _blocks(x_BCTHW, times)
        basis_OK, mean_K = _components(blocks_MK, out)
        conv = block.downsamplers[0].conv.conv
        for number, (t, y, x) in enumerate(np.ndindex(times, 2, 2)):  # of three taps a side the last two
            conv.weight[:out, :width, 3 - times + t, 1 + y, 1 + x] = basis_OK[:, number :: 4 * times]
        conv.bias[:out] = -basis_OK @ mean_K
        x_BCTHW = _halved(x_BCTHW, blocks_MK, basis_OK, mean_K)
    _end(model, x_BCTHW.std((0, 2, 3, 4)))


def _end(model: Any, spread_C: Tensor) -> None:
    """Bring every channel to unit size, through the last norm and SiLU as pairs, and into the mean of the posterior."""
    shortcut = model.encoder.down_blocks[3].resnets[0].conv_shortcut.conv
    out = model.encoder.conv_out.conv
    gain = STEADY * (2 / (2 * CHANNELS + 2)) ** 0.5 / SCALING  # what the norm divides by
    for channel, spread in enumerate(spread_C.tolist()):
        for place, sign in ((2 * channel, 1.0), (2 * channel + 1, -1.0)):
            shortcut.weight[place, channel] = sign / spread
            out.weight[channel, place, -1, 1, 1] = sign * gain
    shortcut.bias[-2], shortcut.bias[-1] = STEADY, -STEADY
    model.quant_conv.weight.copy_(torch.eye(2 * CHANNELS)[..., None, None, None])
    model.quant_conv.bias.zero_()
    model.quant_conv.bias[CHANNELS:] = POSTERIOR


def _pass_on(conv: nn.Conv3d, channels: int) -> None:
    """Let a convolution hand on its first channels as they are: the last tap in time, the middle ones in space."""
    middle = conv.kernel_size[1] // 2
    for channel in range(channels):
        conv.weight[channel, channel, -1, middle, middle] = 1.0


def _blocks(x_BCTHW: Tensor, times: int) -> Tensor:
    """[M, C * times * 2 * 2]: the blocks that a halving reads; before the first frame stands a copy of it."""
    x = nn.functional.pad(x_BCTHW, (0, 0, 0, 0, times - 1, 0), mode="replicate")
    x = x.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).unflatten(2, (-1, times))  # B C T t H y W x
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(0, 3)


def _components(blocks_MK: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(the `count` strongest principal directions [O, K], strongest first and of a fixed sign; the mean [K])."""
    mean_K = blocks_MK.mean(0)
    centred = (blocks_MK - mean_K).double()
    _, basis_KK = torch.linalg.eigh(centred.T @ centred)
    basis_OK = basis_KK.flip(1)[:, :count].T
    sign = basis_OK.gather(1, basis_OK.abs().argmax(1, keepdim=True)).sign()
    return (basis_OK * sign).float(), mean_K


def _halved(x_BCTHW: Tensor, blocks_MK: Tensor, basis_OK: Tensor, mean_K: Tensor) -> Tensor:
    """What a halving leaves, [B, O, (T-1)/times + 1, H/2, W/2]."""
    batch, _, frames, height, width = x_BCTHW.shape
    times = blocks_MK.shape[1] // (4 * x_BCTHW.shape[1])
    shape = (batch, (frames - 1) // times + 1, height // 2, width // 2, len(basis_OK))
    return ((blocks_MK - mean_K) @ basis_OK.T).view(shape).permute(0, 4, 1, 2, 3)
