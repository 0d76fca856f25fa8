"""Which frames of a clip a model learns from: `encode.window`. Exact fractions of seconds; no pixels, no torch.

    clip      |----------------------------------------------|   in the pictures on screen at encode.fps
    first     [=========]                                        at most encode.frames of them, 4k+1
    middle                        [=========]
    chunks    [=========][=========][=========][=========]....   as many as fit; the rest (....) is dropped and counted
    uniform   [=    =    =    =    =    =    =    =    =    =]   from end to end, so faster than life

A clip shorter than encode.frames gives one window of the most 4k+1 frames that it holds, whatever the rule. All windows
of `chunks` have one length: a shorter last one would fill buckets of its own with the ends of shots.

`uniform` is a time-lapse: the model sees `speed` times the motion of the clip, and learns to draw that at encode.fps.
Trainers that take every n-th frame of a clip to fill a bucket do the same without saying so; here the speed is a column
of every latent. Prefer it only where the clips are little longer than a window.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from ptta_core.buckets import crop_of, longest, sides
from ptta_core.clips_config import EncodeConfig

# Each output frame shows what is on screen this far into its own time. No frame of a common rate (23.976 to 120 fps)
# begins at that very moment, so rounded timestamps cannot flip the choice back and forth.
PHASE = Fraction(3, 7)
SLACK = Fraction(1, 20)  # of a frame: how much rounded timestamps may take off a clip's length

Cut = Literal["", "rounding to 4k+1 frames", "encode.frames", "the rest of chunks", "time-lapse"]


@dataclass(frozen=True)
class Window:
    """Some frames of a clip, evenly apart. Times in seconds from the clip's beginning, exact."""

    offset_s: Fraction
    frames: int  # 4k+1
    fps: Fraction  # at which they are learnt
    speed: Fraction = Fraction(1)  # seconds of the clip in a second of the window; above 1 only for uniform

    @property
    def end_s(self) -> Fraction:
        """Where the window ends, from the clip's beginning."""
        return self.offset_s + self.shown_s * self.speed

    @property
    def shown_s(self) -> Fraction:
        """How long it lasts as the model sees it."""
        return self.frames / self.fps

    def times_s(self) -> list[Fraction]:
        """The moments of the clip whose picture is taken, one a frame."""
        return [self.offset_s + (index + PHASE) * self.speed / self.fps for index in range(self.frames)]

    def span(self) -> list[str]:
        """The part of the clip, for ids."""
        return [str(self.offset_s), str(self.end_s)]


class Plan(NamedTuple):
    """The windows of a clip, and what they leave out of it."""

    windows: list[Window]
    held: int  # frames at encode.fps that the clip holds
    cut: Cut  # why not all of them are taken, "" where they are

    @property
    def shown_s(self) -> Fraction:
        """How much the model sees of the clip."""
        return sum((window.shown_s for window in self.windows), Fraction(0))


def plan(clip: dict[str, Any], config: EncodeConfig) -> Plan:
    """The windows of a clip: a row of clips with its shown `width` and `height`.

    Raises buckets.TooShort below one frame, buckets.TooSmall where a side of the picture is below 16 px, ValueError for
    a crop outside the picture.
    """
    _, _, width, height = crop_of(clip["crop"], clip["width"], clip["height"])
    sides(width, height, config)
    return of_length(length_s(clip), config)


def length_s(clip: dict[str, Any]) -> Fraction:
    """How long a clip is, exactly."""
    return (clip["end_pts"] - clip["start_pts"]) * Fraction(clip["time_base"])


@functools.lru_cache(maxsize=1 << 16)  # most clips of a set have one of few lengths
def of_length(seconds: Fraction, config: EncodeConfig) -> Plan:
    """The windows of a clip so long. Raises buckets.TooShort."""
    fps = Fraction(config.fps).limit_denominator(10_000)
    held = math.floor(seconds * fps + SLACK)
    frames = longest(held, config)
    spare = max(Fraction(0), seconds * fps - frames)  # in frames
    cut: Cut = "" if frames == held else "rounding to 4k+1 frames" if held < config.frames else "encode.frames"
    if config.window == "uniform" and cut:
        return Plan([Window(Fraction(0), frames, fps, seconds * fps / frames)], held, "time-lapse")
    if config.window == "chunks" and cut == "encode.frames":
        windows = [Window(index * frames / fps, frames, fps) for index in range(held // frames)]
        return Plan(windows, held, "the rest of chunks" if held % frames else "")
    offset_s = (spare // 2) / fps if config.window == "middle" else Fraction(0)
    return Plan([Window(offset_s, frames, fps)], held, cut)


def item_id(clip_id: str, window: Window | None) -> str:
    """What a window of a clip is called as something to do: the clip, and where in it, unless at its beginning.

    Of the windows of one recipe no two begin at one place; equal windows of two recipes are called alike.
    """
    return f"{clip_id}@{float(window.offset_s):.6f}" if window and window.offset_s else clip_id


def clip_of(item: str) -> str:
    """The clip that an `item_id` speaks of."""
    return item.partition("@")[0]
