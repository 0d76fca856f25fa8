"""What a window of a clip shows, in words: from what was measured, or from a model that looks at it.

A caption speaks of the frames that the model will learn with it (windows.py). A language model is shown pictures of
the window only. What was measured, was measured on the whole clip: of a window the measured captioner says its length,
and where it is a time-lapse, its motion as it then looks.

Three captioners: `measured` (facts.py), `transformers` (vlm.py), and `endpoint`, a server that is asked over HTTP
(endpoint.py; its stage asks many things at once, so it has no factory here). What a model is asked, and what becomes
of its answers, is one and the same for both (dialogue.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ptta_core.config import CaptionConfig
from ptta_core.models.facts import Facts, describe_facts
from ptta_core.models.frames import EmptyClip
from ptta_core.windows import Window

__all__ = ["Facts", "describe_facts"]

PARTS = ("subject", "action", "setting", "style", "camera")
FRAME_SIDE_PX = 448  # the shorter side's size for a language model; its processor resizes further


@dataclass(frozen=True)
class CaptionItem:
    """A window of a clip to caption: a span of a file, and what was measured on the clip."""

    clip_id: str
    path: str  # absolute
    start_pts: int  # of the clip
    end_pts: int
    time_base: str
    stream: int
    crop: str  # "x,y,w,h" in shown pixels, "" for the whole picture
    start_s: float
    end_s: float
    facts: Facts
    width: int = 0  # px, as shown; 0 counts as 16:9
    height: int = 0
    cleanup: str = ""  # how the source's fields are undone
    window: Window | None = None  # None: the whole clip
    item_id: str = ""  # see windows.item_id
    unfit: ValueError | None = None  # why the clip has no window: nothing can be learnt from it
    by_hand: str = ""  # what a person wrote for it: no captioner is asked
    author: str = ""

    def span_s(self) -> tuple[Fraction, Fraction]:
        """(from, to) of the window, in seconds from the clip's beginning."""
        whole = (self.end_pts - self.start_pts) * Fraction(self.time_base)
        return (self.window.offset_s, self.window.end_s) if self.window else (Fraction(0), whole)

    def words(self) -> str:
        """What was measured, of this window, in words."""
        if self.window is None:
            return describe_facts(self.facts, self.end_s - self.start_s)
        return describe_facts(self.facts, float(self.window.shown_s), float(self.window.speed))


class Words(NamedTuple):
    """A caption, and its parts where the captioner knows them."""

    text: str
    labels_json: str = ""  # JSON object label -> share, "" when unknown
    subject: str = ""
    action: str = ""
    setting: str = ""
    style: str = ""
    camera: str = ""
    cut: bool = False  # the model had not ended when caption.max_new_tokens were spent


class Malformed(ValueError):
    """A model's answer that is no caption, twice; the message names what is wrong and keeps what was said."""

    kind = "malformed_caption"


class Captioner(Protocol):
    """One caption a clip, in order, or why there is none."""

    def __call__(self, items: list[CaptionItem], /) -> Sequence[Words | Malformed]: ...


def make_captioner(config: CaptionConfig, device: str = "cpu", models_folder: str | Path = "") -> Captioner:
    """The captioner that the recipe names. Raises ValueError when transformers has no model, and for endpoint."""
    match config.captioner:
        case "measured":
            return lambda items: [Words(item.words()) for item in items]
        case "transformers":
            from ptta_core.models.vlm import load_vlm

            if config.model is None:
                raise ValueError("caption.captioner transformers needs caption.model (id and revision)")
            return load_vlm(config, config.model, device, models_folder)
    raise ValueError(f"caption.captioner = {config.captioner!r}; choices: measured, transformers")


def sample_frames(item: CaptionItem, count: int) -> list[np.ndarray]:
    """What is on screen in the middles of `count` equal parts of a window, in order: uint8 RGB [H,W,3] each.

    A picture that is held comes once. Raises video's errors, and EmptyClip for a span without frames.
    """
    from ptta_core import video

    first_s, last_s = item.span_s()
    times_s = [first_s + (last_s - first_s) * Fraction(2 * part + 1, 2 * count) for part in range(count)]
    width, height = _frame_size(item)
    frames = video.read_shown(
        item.path, times_s, start_pts=item.start_pts, end_pts=item.end_pts, time_base=Fraction(item.time_base),
        stream=item.stream, width=width, height=height, pixel="rgb24", crop=item.crop, cleanup=item.cleanup,
    )  # fmt: skip
    if not frames:
        raise EmptyClip(f"no frames between pts {item.start_pts} and {item.end_pts}")
    return [frame.image for frame in {frame.index: frame for frame in frames}.values()]


def _frame_size(item: CaptionItem) -> tuple[int, int]:
    """(width, height) in px with the clip's aspect ratio, even, the shorter side at most 448."""
    shown = [int(part) for part in item.crop.split(",")[2:]] if item.crop else [item.width, item.height]
    width, height = shown if min(shown) > 0 else (16 * FRAME_SIDE_PX, 9 * FRAME_SIDE_PX)
    shrink = min(1.0, FRAME_SIDE_PX / min(width, height))
    return max(2, round(width * shrink / 2) * 2), max(2, round(height * shrink / 2) * 2)
