"""Which size a clip is encoded at: frames 4k+1, height and width multiples of 16. Plain arithmetic, no torch.

HunyuanVideo's VAE makes 1 + k latent frames of 1 + 4k frames and an eighth of each side; the transformer then takes
patches of 2 x 2. A size off these rules is never dropped or padded: it is rounded here, once.
"""

import math

from ptta_core.config import EncodeConfig

SIDE_PX = 16  # VAE /8, patch 2
FRAMES_STEP = 4  # VAE /4, after a first frame of its own


class TooShort(ValueError):
    """The clip does not hold one frame at the encoding rate."""

    kind = "too_short"


class TooSmall(ValueError):
    """A side of the picture is below 16 px."""

    kind = "too_small"


def bucket(frames_available: int, width: int, height: int, config: EncodeConfig) -> tuple[int, int, int]:
    """(frames, height, width) for a clip of `frames_available` frames (at config.fps) of width x height px as shown.

    Frames: the most 4k+1 that the clip holds, at most config.frames. Sides: the clip's aspect at about config.area px,
    each rounded to the nearest multiple of 16; never enlarged, so a small clip keeps its size rounded down.
    Raises TooShort below one frame and TooSmall below 16 px.
    """
    if frames_available < 1:
        raise TooShort(f"shorter than one frame at {config.fps:g} fps")
    if min(width, height) < SIDE_PX:
        raise TooSmall(f"{width} x {height} px: both sides must be at least {SIDE_PX} px")
    frames = min(config.frames, (frames_available - 1) // FRAMES_STEP * FRAMES_STEP + 1)
    scale = min(1.0, math.sqrt(config.area / (width * height)))
    return frames, _side(height, scale), _side(width, scale)


def bucket_name(frames: int, height: int, width: int) -> str:
    """How a bucket is written in the latents table, for instance "33x512x512"."""
    return f"{frames}x{height}x{width}"


def _side(length_px: int, scale: float) -> int:
    nearest = math.floor(length_px * scale / SIDE_PX + 0.5) * SIDE_PX
    return max(SIDE_PX, min(nearest, length_px // SIDE_PX * SIDE_PX))
