"""At which size a window is learnt: frames 4k+1, height and width multiples of 16. Plain arithmetic, no torch.

HunyuanVideo's VAE makes 1 + k latent frames of 1 + 4k frames and an eighth of each side; the transformer then takes
patches of 2 x 2. A size off these rules is never padded: it is rounded here, once, and what that costs is counted.
"""

import math
from dataclasses import dataclass

from ptta_core.clips_config import EncodeConfig

SIDE_PX = 16  # VAE /8, patch 2
FRAMES_STEP = 4  # VAE /4, after a first frame of its own

# How the VAE goes over a video too large for it at once: tiles, and how far apart they begin. In space only with
# encode.tile; in time whenever there are more than `frames` (a tile then takes one more). The numbers are diffusers'
# defaults, set by us and part of the fingerprint, because they change every latent of more than 17 frames.
TILING = {"side_px": 256, "side_stride_px": 192, "frames": 16, "frames_stride": 12}


class TooShort(ValueError):
    """The clip does not hold one frame at the encoding rate."""

    kind = "too_short"


class TooSmall(ValueError):
    """A side of the picture is below 16 px."""

    kind = "too_small"


def bucket(frames_available: int, width: int, height: int, config: EncodeConfig) -> tuple[int, int, int]:
    """(frames, height, width) for a clip of `frames_available` frames (at config.fps) of width x height px as shown.

    See `longest` and `sides`, also for the errors.
    """
    return longest(frames_available, config), *sides(width, height, config)


def longest(frames_available: int, config: EncodeConfig) -> int:
    """The most frames, 4k+1 and at most config.frames, that a clip holds. Raises TooShort below one frame."""
    if frames_available < 1:
        raise TooShort(f"shorter than one frame at {config.fps:g} fps")
    return min(config.frames, (frames_available - 1) // FRAMES_STEP * FRAMES_STEP + 1)


def sides(width: int, height: int, config: EncodeConfig) -> tuple[int, int]:
    """(height, width): the picture's aspect at about config.area px, each to the nearest multiple of 16.

    Never enlarged, so a small picture keeps its size rounded down. Raises TooSmall below 16 px.
    """
    if min(width, height) < SIDE_PX:
        raise TooSmall(f"{width} x {height} px: both sides must be at least {SIDE_PX} px")
    scale = min(1.0, math.sqrt(config.area / (width * height)))
    return _side(height, scale), _side(width, scale)


def bucket_name(frames: int, height: int, width: int) -> str:
    """How a bucket is written in the latents table, for instance "33x512x512"."""
    return f"{frames}x{height}x{width}"


def _side(length_px: int, scale: float) -> int:
    nearest = math.floor(length_px * scale / SIDE_PX + 0.5) * SIDE_PX
    return max(SIDE_PX, min(nearest, length_px // SIDE_PX * SIDE_PX))


# --------------------------------------------------------------------------------------- the part of the picture


def crop_of(crop: str, width: int, height: int) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the part of a picture of width x height px that counts; crop "" means all of it.

    Raises ValueError for a part outside the picture.
    """
    if not crop:
        return 0, 0, width, height
    x, y, wide, high = (int(part) for part in crop.split(","))
    if min(x, y) < 0 or min(wide, high) < 1 or x + wide > width or y + high > height:
        raise ValueError(f"crop {crop!r} is not inside {width} x {height}")
    return x, y, wide, high


@dataclass(frozen=True)
class Cover:
    """How a picture is shrunk to cover a bucket: the size to decode it at, and the corner to cut the bucket from."""

    width: int
    height: int
    left: int
    top: int


def cover(picture: tuple[int, int], crop: str, height: int, width: int) -> Cover:
    """Scale a picture (width, height) until its crop just covers height x width px; the overhang is cut off evenly."""
    x, y, crop_width, crop_height = crop_of(crop, *picture)
    scale = max(width / crop_width, height / crop_height)
    full_width, full_height = max(width, round(picture[0] * scale)), max(height, round(picture[1] * scale))
    left = round(x * scale + (crop_width * scale - width) / 2)
    top = round(y * scale + (crop_height * scale - height) / 2)
    return Cover(full_width, full_height, min(max(left, 0), full_width - width), min(max(top, 0), full_height - height))
