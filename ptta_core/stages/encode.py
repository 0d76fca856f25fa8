"""captions -> latents: one window of each admitted clip and its prompt, as the tensors that the model learns from."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import partial
from typing import Any, Protocol

import numpy as np

from ptta_core import fleet, ids
from ptta_core.buckets import bucket, bucket_name
from ptta_core.config import BaseConfig, EncodeConfig, Recipe
from ptta_core.memo import Batch, Items, Job, stage
from ptta_core.rows import Latent
from ptta_core.view import View

# Each output frame shows what is on screen this far into its own time. No frame of a common rate (23.976 to 120 fps)
# begins at that very moment, so rounded timestamps cannot flip the choice back and forth.
PHASE = Fraction(3, 7)
SLACK = Fraction(1, 20)  # of a frame: how much rounded timestamps may take off a clip's length


class NoFrames(ValueError):
    """Nothing could be decoded in the clip's span."""

    kind = "unreadable"


@dataclass(frozen=True)
class EncodeItem:
    """A clip's span, and the caption that was admitted for it."""

    clip_id: str
    caption_id: str
    path: str  # absolute
    start_pts: int
    end_pts: int
    time_base: str  # "1/12288"
    stream: int
    crop: str  # "x,y,w,h" in shown pixels, "" for the whole picture
    start_s: float
    end_s: float
    width: int  # px as shown
    height: int
    text: str
    labels: str
    cleanup: str = ""  # how the source's fields are undone


@dataclass(frozen=True)
class Window:
    """Which part of a clip is encoded, at which size. Times in seconds from the clip's beginning, exact."""

    offset_s: Fraction
    frames: int  # 4k+1
    fps: Fraction
    height: int  # px, a multiple of 16
    width: int

    @property
    def end_s(self) -> Fraction:
        """Where the window ends, from the clip's beginning."""
        return self.offset_s + self.frames / self.fps

    def times_s(self) -> list[Fraction]:
        """The moments whose picture is taken, one a frame."""
        return [self.offset_s + (index + PHASE) / self.fps for index in range(self.frames)]


class LatentEncoder:
    """One worker's encoders, loaded once. `fingerprint`: the stage's, part of every latent's id."""

    def __init__(
        self, config: EncodeConfig, base: BaseConfig, models_folder: str, fingerprint: str, device: str = "auto"
    ) -> None:
        from ptta_core import models
        from ptta_core.models import hunyuan

        self.pack = hunyuan.pack
        self.config, self.fingerprint = config, fingerprint
        path, revision = models.resolve(base.model, models_folder)
        self.encoder = hunyuan.Encoder(path, revision, base.dtype, hunyuan.pick_device(device), config.tile)

    def __call__(self, items: list[EncodeItem]) -> list[Latent]:
        """One Latent an item. Raises errors of kind too_short, too_small, unreadable or not_finite, and video's own."""
        return [self.encode(item) for item in items]

    def encode(self, item: EncodeItem) -> Latent:
        """The latent of one clip."""
        window = window_of(item, self.config)
        size, prompt = bucket_name(window.frames, window.height, window.width), effective_prompt(item.text, self.config)
        span = [str(window.offset_s), str(window.end_s)]
        latent_id = ids.digest(item.clip_id, item.caption_id, span, size, prompt, self.fingerprint)
        latents = self.encoder.latents(read_window(item, window), latent_id)
        text = self.encoder.text([prompt])[0]
        return Latent(
            latent_id=latent_id, clip_id=item.clip_id, caption_id=item.caption_id, bucket=size,
            start_s=item.start_s + float(window.offset_s), end_s=item.start_s + float(window.end_s),
            text_tokens=text.tokens, prompt=prompt, labels=item.labels,
            tensors=self.pack({"latents": latents, "text": text.text, "pooled": text.pooled}),
        )  # fmt: skip


def effective_prompt(text: str, config: EncodeConfig) -> str:
    """Trigger, caption and suffix, with one blank between those that are not empty."""
    return " ".join(part.strip() for part in (config.trigger, text, config.suffix) if part.strip())


# ------------------------------------------------------------------------------------------ when and where


def window_of(item: EncodeItem, config: EncodeConfig) -> Window:
    """The window of a clip: as many frames (4k+1) as it holds, from its beginning or its middle.

    Raises buckets.TooShort below one frame, buckets.TooSmall below 16 px.
    """
    fps = Fraction(config.fps).limit_denominator(10_000)
    length_s = (item.end_pts - item.start_pts) * Fraction(item.time_base)
    _, _, width, height = crop_of(item)
    frames, bucket_height, bucket_width = bucket(math.floor(length_s * fps + SLACK), width, height, config)
    spare_frames = max(Fraction(0), length_s * fps - frames)
    offset_s = (spare_frames // 2) / fps if config.window == "middle" else Fraction(0)
    return Window(offset_s, frames, fps, bucket_height, bucket_width)


def crop_of(item: EncodeItem) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the part of the picture that counts, in shown pixels. Raises ValueError outside it."""
    if not item.crop:
        return 0, 0, item.width, item.height
    x, y, width, height = (int(part) for part in item.crop.split(","))
    if min(x, y) < 0 or min(width, height) < 1 or x + width > item.width or y + height > item.height:
        raise ValueError(f"crop {item.crop!r} is not inside {item.width} x {item.height}")
    return x, y, width, height


@dataclass(frozen=True)
class Cover:
    """How a picture is shrunk to cover a bucket: the size to decode it at, and the corner to cut the bucket from."""

    width: int
    height: int
    left: int
    top: int


def cover(item: EncodeItem, height: int, width: int) -> Cover:
    """Scale until the cropped picture just covers height x width px; what sticks out is cut off evenly."""
    x, y, crop_width, crop_height = crop_of(item)
    scale = max(width / crop_width, height / crop_height)
    full_width, full_height = max(width, round(item.width * scale)), max(height, round(item.height * scale))
    left = round(x * scale + (crop_width * scale - width) / 2)
    top = round(y * scale + (crop_height * scale - height) / 2)
    return Cover(full_width, full_height, min(max(left, 0), full_width - width), min(max(top, 0), full_height - height))


# ------------------------------------------------------------------------------------------------ pictures


class TimedImage(Protocol):
    """What `video.read_frames` yields."""

    @property
    def pts(self) -> int: ...
    @property
    def image(self) -> np.ndarray: ...


def read_window(item: EncodeItem, window: Window) -> np.ndarray:
    """The window's frames, uint8 [T,H,W,3]. Raises NoFrames where nothing decodes, and video's own errors."""
    from ptta_core import video

    place = cover(item, window.height, window.width)
    frames = video.read_frames(
        item.path, stream=item.stream, start_pts=item.start_pts, end_pts=item.end_pts, width=place.width,
        height=place.height, pixel="rgb24", cleanup=item.cleanup,
    )  # fmt: skip
    time_base = Fraction(item.time_base)
    timed = ((((frame.pts - item.start_pts) * time_base), _cut(frame, place, window)) for frame in frames)
    images = list(on_screen(timed, window.times_s()))
    if not images:
        raise NoFrames(f"no frame decodes between {item.start_s:.3f} s and {item.end_s:.3f} s")
    return np.stack(images)


def _cut(frame: TimedImage, place: Cover, window: Window) -> np.ndarray:
    return frame.image[place.top : place.top + window.height, place.left : place.left + window.width]


def on_screen(timed: Iterable[tuple[Fraction, np.ndarray]], times_s: Sequence[Fraction]) -> Iterator[np.ndarray]:
    """For each of the rising `times_s` the picture then shown: the last one that began by then, else the first.

    Stops reading as soon as the last is known; a drawing held for long is held here too. Nothing for no pictures.
    """
    shown: np.ndarray | None = None
    wanted = 0
    for begins_s, image in timed:
        while shown is not None and wanted < len(times_s) and times_s[wanted] < begins_s:
            yield shown
            wanted += 1
        if wanted == len(times_s):
            return
        shown = image
    if shown is not None:
        for _ in times_s[wanted:]:
            yield shown


def inputs(view: View) -> Items:
    """One item an admitted caption: its clip, its words and its labels."""
    captions = {row["clip_id"]: row for row in view.rows("caption").to_pylist()}
    admitted = {row["clip_id"] for row in view.rows("admit", ["clip_id", "kept"]).to_pylist() if row["kept"]}
    clips = [row | captions[row["clip_id"]] for row in view.clip_rows() if row["clip_id"] in admitted]
    names = [field.name for field in fields(EncodeItem)]

    def make(rows: list[int]) -> list[EncodeItem]:
        return [EncodeItem(**{name: clips[row][name] for name in names}) for row in rows]

    input_ids = [ids.digest(clip["clip_id"], clip["caption_id"]) for clip in clips]
    return Items([clip["clip_id"] for clip in clips], input_ids, make)


def result_fields(recipe: Recipe) -> dict[str, Any]:
    """The section, and the precision of the encoders."""
    own = {f"encode.{name}": value for name, value in recipe.encode.model_dump(mode="json").items()}
    return own | {"base.dtype": recipe.base.dtype}


@stage(Latent, version=1, id_field="clip_id", inputs=inputs, fields=result_fields,
       models=lambda recipe: [recipe.base.model])  # fmt: skip
def encode(todo: list[EncodeItem], job: Job) -> Iterator[Batch]:
    """VAE latents and text embeddings of each admitted clip."""
    make = partial(LatentEncoder, job.config, job.recipe.base, str(job.models), job.fingerprint, job.device())
    yield from fleet.fan_out(make, todo, job.site.encode, job.site.ray, job.spent)
