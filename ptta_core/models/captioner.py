"""What a window of a clip shows, in words: from what was measured, or from a video-language model.

A caption speaks of the frames that the model will learn with it (windows.py). A language model is shown pictures of
the window only. What was measured, was measured on the whole clip: of a window the measured captioner says its length,
and where it is a time-lapse, its motion as it then looks.

Neither captioner knows which share of a clip shows what: labels come from the words, by labels.labels_of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ptta_core.config import CaptionConfig, ModelRef
from ptta_core.models import resolve
from ptta_core.models.frames import EmptyClip
from ptta_core.rows import Score
from ptta_core.windows import Window

SPED_UP = 1.25  # from here on a time-lapse is called one
FRAME_SIDE_PX = 448  # the shorter side's size for a language model; its processor resizes further


@dataclass(frozen=True)
class Facts:
    """What was measured on a clip, as far as words can use it. Fields and units as in rows.Score."""

    motion_px: float
    object_px: float
    static_share: float
    timing: str
    pan_x_px: float
    pan_y_px: float
    zoom: float
    brightness: float
    colourfulness: float
    palette: str

    @classmethod
    def of(cls, score: Score) -> "Facts":
        """The facts of a score row."""
        return cls(**{name: getattr(score, name) for name in cls.__dataclass_fields__})

    def at_speed(self, speed: float) -> "Facts":
        """The facts as a time-lapse of `speed` times the clip's own shows them, as far as motion goes on as it is.

        Shifts and zoom are per time; on which frames it was drawn cannot be seen any more.
        """
        if speed == 1:
            return self
        shifts = {name: speed * getattr(self, name) for name in ("motion_px", "object_px", "pan_x_px", "pan_y_px")}
        timing = self.timing if self.timing == "still" else "mixed"
        return replace(self, **shifts, zoom=self.zoom**speed, timing=timing)


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
    """A caption."""

    text: str
    labels_json: str = ""  # JSON object label -> share, "" when unknown


class Captioner(Protocol):
    """One caption a clip, in order."""

    def __call__(self, items: list[CaptionItem], /) -> list[Words]: ...


def make_captioner(config: CaptionConfig, device: str = "cpu", models_folder: str | Path = "") -> Captioner:
    """The captioner that the recipe names. Raises ValueError when transformers has no model."""
    match config.captioner:
        case "measured":
            return lambda items: [Words(item.words()) for item in items]
        case "transformers":
            if config.model is None:
                raise ValueError("caption.captioner transformers needs caption.model (id and revision)")
            return load_vlm(config, config.model, device, models_folder)
    raise ValueError(f"caption.captioner = {config.captioner!r}; choices: measured, transformers")


# ------------------------------------------------------------------------------------------------- measured


def describe_facts(facts: Facts, seconds: float, speed: float = 1.0) -> str:
    """One to three plain sentences from what was measured; says nothing that was not.

    seconds: how long it lasts as it is seen. speed: above 1 for a time-lapse.
    Motion words follow Open-Sora's buckets (px per 0.625 s at 320 x 576): under 0.5 none, 2 little, 10 some, 20 strong.
    """
    seen = facts.at_speed(speed)
    sentences = [_shot(seen, seconds, speed), _motion(seen), _camera(seen)]
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences if sentence)


def _shot(facts: Facts, seconds: float, speed: float) -> str:
    kind = ", ".join(word for word in (_light(facts), _colour(facts), "sped-up" if speed >= SPED_UP else "") if word)
    return f"a {f'{kind} ' if kind else ''}shot of {_seconds(seconds)}{_palette(facts.palette)}"


def _seconds(seconds: float) -> str:
    rounded = round(seconds, 1)
    return "1 second" if rounded == 1 else f"{rounded:g} seconds"


def _light(facts: Facts) -> str:
    return "dark" if facts.brightness < 0.25 else "bright" if facts.brightness > 0.65 else ""


def _colour(facts: Facts) -> str:
    """Hasler and Suesstrunk's words: below 15 hardly any colour, from 59 quite colourful."""
    return "muted" if facts.colourfulness < 15 else "colourful" if facts.colourfulness >= 59 else ""


def _palette(palette: str) -> str:
    names = [name for name in palette.split(", ") if name]
    if not names:
        return ""
    return f", mostly {names[0]}" if len(names) == 1 else f" in {', '.join(names[:-1])} and {names[-1]}"


def _motion(facts: Facts) -> str:
    if facts.timing == "still" or facts.motion_px < 0.5:
        return "nothing moves" if facts.static_share == 1 else "almost nothing moves"
    if facts.motion_px >= 2 and facts.object_px < 0.1 * facts.motion_px:
        return "nothing but the camera moves"
    amount = next(word for least, word in (
        (20, "very strong"), (10, "strong"), (5, "clear"), (2, "gentle"), (0, "slight"),
    ) if facts.motion_px >= least)  # fmt: skip
    parts = [f"the movement is {amount}"]
    if facts.timing in ("twos", "threes") and facts.motion_px >= 2:  # a slow drift seems held longer than it is
        parts.append(f"drawn on {facts.timing}")
    if facts.static_share >= 0.3:
        parts.append("with pauses")
    return ", ".join(parts)


def _camera(facts: Facts) -> str:
    moves = [_pan(facts), _zoom(facts)]
    moves = [move for move in moves if move]
    if moves:
        return f"the camera {' and '.join(moves)}"
    return "the camera holds still" if facts.motion_px >= 2 and _shift_px(facts) < 0.5 else ""


def _shift_px(facts: Facts) -> float:
    return float(np.hypot(facts.pan_x_px, facts.pan_y_px))


def _pan(facts: Facts) -> str:
    """The picture moves left when the camera pans right, and up when it tilts down."""
    length = _shift_px(facts)
    if length < 2:
        return ""
    words = []
    if abs(facts.pan_x_px) >= 0.4 * length:
        words.append(f"pans {'left' if facts.pan_x_px > 0 else 'right'}")
    if abs(facts.pan_y_px) >= 0.4 * length:
        words.append(f"tilts {'up' if facts.pan_y_px > 0 else 'down'}")
    pace = " slowly" if length < 8 else " quickly" if length >= 30 else ""
    return " and ".join(words) + pace


def _zoom(facts: Facts) -> str:
    """From 2 % a second."""
    if abs(np.log(facts.zoom)) < 0.02:
        return ""
    return "zooms in" if facts.zoom > 1 else "zooms out"


# ---------------------------------------------------------------------------------------- video-language models


class VideoLanguageModel:
    """Any open image-text-to-text model of transformers: the clip's frames as pictures, then the prompt, greedily."""

    def __init__(self, model: Any, processor: Any, config: CaptionConfig, device: str = "cpu") -> None:
        self.model = model.to(device).eval()
        self.processor = processor
        self.config = config
        self.device = device
        tokenizer = getattr(processor, "tokenizer", processor)
        tokenizer.padding_side = "left"  # generation continues at the right end of every row of a batch
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def __call__(self, items: list[CaptionItem]) -> list[Words]:
        """One caption a clip. Raises video's errors, and EmptyClip for a span without frames."""
        return [Words(text) for text in self.write([sample_frames(item, self.config.frames) for item in items])]

    def write(self, clips: Sequence[Sequence[np.ndarray]]) -> list[str]:
        """The text for each clip's frames, uint8 RGB [H,W,3] each."""
        import torch

        if not clips:
            return []
        inputs = self._inputs(clips)
        with torch.inference_mode():
            tokens_NL = self.model.generate(**inputs, max_new_tokens=self.config.max_new_tokens, do_sample=False)
        new_tokens_NL = tokens_NL[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(new_tokens_NL, skip_special_tokens=True)]

    def _inputs(self, clips: Sequence[Sequence[np.ndarray]]) -> Any:
        from PIL import Image

        images = [[Image.fromarray(frame) for frame in frames] for frames in clips]
        texts = [self._question(len(frames)) for frames in clips]
        inputs = self.processor(text=texts, images=images, padding=True, return_tensors="pt")
        return inputs.to(self.device, dtype=self.model.dtype)  # whole numbers keep their type

    def _question(self, frames: int) -> str:
        """The prompt after `frames` pictures, in the model's own chat format where it has one."""
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}] * frames + [{"type": "text", "text": self.config.prompt}]
            chat = [{"role": "user", "content": content}]
            return self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        return getattr(self.processor, "image_token", "<image>") * frames + self.config.prompt


def load_vlm(
    config: CaptionConfig, ref: ModelRef, device: str = "cpu", models_folder: str | Path = ""
) -> VideoLanguageModel:
    """The model and its processor from a folder or the hub: safetensors only, none of its own code.

    bfloat16 on a GPU, float32 on the CPU. Raises OSError.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    source, revision = resolve(ref, models_folder)
    at: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(source, use_safetensors=True, dtype=dtype, **at)
    return VideoLanguageModel(model, AutoProcessor.from_pretrained(source, **at), config, device)


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
