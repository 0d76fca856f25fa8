"""A small convolutional network that knows a corner mark by its look; in numpy, so that workers need no torch for it.

It sees each corner of a clip as seven maps: the mean colour, the mean and the spread of the brightness, the edges that
stay and all edges. Over a still camera nothing but the look of a mark tells it from the scene. benchmarks/fit_logos.py
fits the weights and holds the same network in torch.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

Weights = dict[str, np.ndarray]

WEIGHTS = Path(__file__).parent / "logo.safetensors"
WINDOW = (112, 192)  # height, width in px of what is seen of a corner, at 320 x 576; less in smaller pictures
LEAST_PX = 32  # of a window's sides
CELL = 4  # px of the picture to a cell of the network's answer
WIDENINGS = (1, 2, 4)  # of the last layers: how many cells apart their taps lie
SCALE = np.array([1, 1, 1, 1, 8, 8, 8], np.float32)  # of the maps, so that most of their values fill 0..255
SHIFT = 0.3


class Mark(NamedTuple):
    """The likeliest mark of a picture's four corners."""

    score: float  # log odds, as far as the network can tell
    box: tuple[int, int, int, int]  # x1, y1, x2, y2 in px, the ends not included


@cache
def weights() -> Weights:
    """The weights that come with the package, as float32. Read once."""
    from safetensors.numpy import load_file

    return {name: values.astype(np.float32) for name, values in load_file(WEIGHTS).items()}


def likeliest(maps_7HW: np.ndarray, using: Weights) -> Mark | None:
    """The likeliest mark near a corner; None where a picture is too small.

    maps: the mean colour (RGB), mean and spread of the brightness, in gray levels, the edges that stay and all edges,
    in gray levels a px; float32, the picture about 320 x 576.
    """
    best: Mark | None = None
    height, width = maps_7HW.shape[1:]
    tall, wide = (min(most, side // 2 // CELL * CELL) for most, side in zip(WINDOW, (height, width)))
    if min(tall, wide) < LEAST_PX:
        return None
    for low in (False, True):
        for right in (False, True):
            top, left = low * (height - tall), right * (width - wide)
            heat = answer(corner(as_seen(maps_7HW[:, top : top + tall, left : left + wide]), low, right), using)
            score, (x1, y1, x2, y2) = _peak(heat)
            if best is None or score > best.score:
                best = Mark(score, (left + x1, top + y1, left + x2, top + y2))
    return best


def as_seen(maps_7HW: np.ndarray) -> np.ndarray:
    """Maps in gray levels and gray levels a px, float32 -> what the network is shown of them, uint8."""
    return np.clip(maps_7HW * SCALE[:, None, None], 0, 255).astype(np.uint8)


def corner(seen_7HW: np.ndarray, low: bool, right: bool) -> np.ndarray:
    """What the network is given of one corner, float32 [9,H,W]: the maps, and how far the edges are."""
    rows, columns = (np.arange(side, dtype=np.float32) for side in seen_7HW.shape[1:])
    down = (rows[::-1] if low else rows) / WINDOW[0]
    across = (columns[::-1] if right else columns) / WINDOW[1]
    given = np.empty((9, *seen_7HW.shape[1:]), np.float32)
    given[:7] = seen_7HW.astype(np.float32) / 255 - SHIFT
    given[7], given[8] = down[:, None], across[None]
    return given


def answer(given_9HW: np.ndarray, using: Weights) -> np.ndarray:
    """Log odds [H/4,W/4] that a cell of four by four px belongs to a mark."""
    channels, height, width = given_9HW.shape
    pairs = given_9HW.reshape(channels, height // 2, 2, width // 2, 2).transpose(1, 3, 0, 2, 4)
    hidden = pairs.reshape(height // 2, width // 2, channels * 4)  # as pixel_unshuffle has it
    hidden = np.maximum(0, hidden @ using["c1.weight"][:, :, 0, 0].T + using["c1.bias"])
    hidden = np.maximum(0, _convolved(hidden, using["c2.weight"], using["c2.bias"], 1, stride=2))
    for at, wider in enumerate(WIDENINGS):
        hidden = np.maximum(0, _convolved(hidden, using[f"cs.{at}.weight"], using[f"cs.{at}.bias"], wider))
    return np.asarray(hidden @ using["o.weight"][0, :, 0, 0] + using["o.bias"][0])


def _convolved(image_HWC: np.ndarray, weight: np.ndarray, bias: np.ndarray, wider: int, stride: int = 1) -> np.ndarray:
    """A 3 x 3 convolution with zeros around: as one product of matrices."""
    height, width, channels = image_HWC.shape
    padded = np.pad(image_HWC, ((wider, wider), (wider, wider), (0, 0)))
    down, across = (side // stride for side in (height, width))
    taps = np.empty((down, across, 9, channels), np.float32)
    for tap in range(9):
        y, x = (at * wider for at in divmod(tap, 3))
        taps[:, :, tap] = padded[y : y + height : stride, x : x + width : stride]
    flat = weight.transpose(2, 3, 1, 0).reshape(9 * channels, -1)
    return (taps.reshape(down * across, -1) @ flat + bias).reshape(down, across, -1)


def _peak(heat: np.ndarray) -> tuple[float, tuple[int, int, int, int]]:
    """(the best mean of nine cells, the box in px around the cells of a mark there)."""
    import cv2

    smooth = cv2.boxFilter(heat, -1, (3, 3), borderType=cv2.BORDER_CONSTANT)
    y, x = (int(at) for at in np.unravel_index(int(smooth.argmax()), smooth.shape))
    near = np.asarray(heat >= min(0.0, float(heat[y, x]))).view(np.uint8)
    _, labels = cv2.connectedComponents(near, connectivity=4)
    rows, columns = np.nonzero(labels == labels[y, x])
    half = CELL // 2  # only cells that lie wholly in a mark are learnt as such
    box = (int(columns.min()) * CELL - half, int(rows.min()) * CELL - half,
           int(columns.max() + 1) * CELL + half, int(rows.max() + 1) * CELL + half)  # fmt: skip
    tall, wide = heat.shape
    return float(smooth[y, x]), (max(0, box[0]), max(0, box[1]), min(wide * CELL, box[2]), min(tall * CELL, box[3]))
