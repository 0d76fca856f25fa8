"""captions -> latents: each admitted window of a clip and its prompt, as the tensors that the model learns from."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from ptta_core import fleet, ids, looks
from ptta_core.buckets import TILING, bucket_name, cover, crop_of, sides
from ptta_core.config import BaseConfig, EncodeConfig, Recipe
from ptta_core.flags import without_opening
from ptta_core.fleet import Failed
from ptta_core.looks import LookItem
from ptta_core.memo import Batch, Items, Job, stage
from ptta_core.rows import Decoded, Latent
from ptta_core.view import View
from ptta_core.windows import Window, item_id, plan

TAKE = 8  # latents read from the table at once, to be decoded


class NoFrames(ValueError):
    """Nothing could be decoded in the clip's span."""

    kind = "unreadable"


@dataclass(frozen=True)
class EncodeItem:
    """A window of a clip, and the caption that was admitted for it."""

    clip_id: str
    caption_id: str
    path: str  # absolute
    start_pts: int  # of the clip
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
    window: Window
    cleanup: str = ""  # how the source's fields are undone
    held: int = 0  # frames at the window's rate that the whole clip holds

    @property
    def item_id(self) -> str:
        """See windows.item_id."""
        return item_id(self.clip_id, self.window)


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
        """One Latent an item. Raises errors of kind too_small, unreadable or not_finite, and video's own."""
        return [self.encode(item) for item in items]

    def encode(self, item: EncodeItem) -> Latent:
        """The latent of one window."""
        window, prompt, latent_id = item.window, effective_prompt(item.text, self.config), self.latent_id(item)
        height, width = size_of(item, self.config)
        latents = self.encoder.latents(read_window(item, height, width), latent_id)
        text = self.encoder.text([prompt])[0]
        return Latent(
            latent_id=latent_id, clip_id=item.clip_id, caption_id=item.caption_id,
            bucket=bucket_name(window.frames, height, width), start_s=item.start_s + float(window.offset_s),
            end_s=item.start_s + float(window.end_s), text_tokens=text.tokens, prompt=prompt, labels=item.labels,
            tensors=self.pack({"latents": latents, "text": text.text, "pooled": text.pooled}),
            frames=window.frames, shown_s=float(window.shown_s), speed=float(window.speed), held=item.held,
            text_cut=text.cut,
        )  # fmt: skip

    def latent_id(self, item: EncodeItem) -> str:
        """See latent_id."""
        size = bucket_name(item.window.frames, *size_of(item, self.config))
        prompt = effective_prompt(item.text, self.config)
        return latent_id(item.clip_id, item.caption_id, item.window, size, prompt, self.fingerprint)


class Looker:
    """One worker's VAE, loaded once, to decode latents for people to look at."""

    def __init__(self, base: BaseConfig, models_folder: str, device: str = "auto") -> None:
        from ptta_core import models
        from ptta_core.models.decoding import Decoder
        from ptta_core.models.hunyuan import pick_device

        path, revision = models.resolve(base.model, models_folder)
        self.decoder = Decoder(path, revision, base.dtype, pick_device(device))

    def __call__(self, items: list[LookItem]) -> list[Decoded | Failed]:
        """One Decoded an item, or Failed where its latent is not there."""
        return [self.look(item) if item.tensors else
                Failed("no_latent", f"latent {item.latent_id} could not be made: see its own failure", retryable=True)
                for item in items]  # fmt: skip

    def look(self, item: LookItem) -> Decoded:
        """The pictures of one latent."""
        from ptta_core import video

        pictures = looks.strip(self.decoder(item.tensors))
        jpeg = video.jpeg(pictures, looks.PICTURES * looks.PICTURE_PX)
        return Decoded(item.latent_id, item.clip_id, item.bucket, jpeg)


def effective_prompt(text: str, config: EncodeConfig) -> str:
    """Trigger, caption and suffix, with one blank between those that are not empty."""
    text = without_opening(text) if config.strip_openings else text
    return " ".join(part.strip() for part in (config.trigger, text, config.suffix) if part.strip())


def latent_id(clip_id: str, caption_id: str, window: Window, size: str, prompt: str, fingerprint: str) -> str:
    """The id of a latent: everything that its tensors depend on."""
    return ids.digest(clip_id, caption_id, window.span(), size, prompt, fingerprint)


def size_of(item: EncodeItem, config: EncodeConfig) -> tuple[int, int]:
    """(height, width) of a clip's bucket. Raises buckets.TooSmall."""
    _, _, width, height = crop_of(item.crop, item.width, item.height)
    return sides(width, height, config)


def read_window(item: EncodeItem, height: int, width: int) -> np.ndarray:
    """The window's frames, uint8 [T,H,W,3]. Raises NoFrames where nothing decodes, and video's own errors."""
    from ptta_core import video

    place = cover((item.width, item.height), item.crop, height, width)
    frames = video.read_shown(
        item.path, item.window.times_s(), start_pts=item.start_pts, end_pts=item.end_pts,
        time_base=Fraction(item.time_base), stream=item.stream, width=place.width, height=place.height, pixel="rgb24",
        cleanup=item.cleanup,
    )  # fmt: skip
    if not frames:
        raise NoFrames(f"no frame decodes between {item.start_s:.3f} s and {item.end_s:.3f} s")
    down, across = slice(place.top, place.top + height), slice(place.left, place.left + width)
    return np.stack([frame.image[down, across] for frame in frames])


# ------------------------------------------------------------------------------------------- what there is to do


def inputs(view: View) -> Items:
    """One item a window with an admitted caption; then a few latents to look at, see looks.py."""
    config, fingerprint = view.recipe.encode, view.fingerprint("encode")
    found = list(admitted(view))
    input_ids, shown = [], []
    for clip, window in found:
        _, _, width, height = crop_of(clip["crop"], clip["width"], clip["height"])
        size = bucket_name(window.frames, *sides(width, height, config))
        input_ids.append(ids.digest(clip["clip_id"], clip["caption_id"], window.span(), str(window.fps), size))
        prompt = effective_prompt(clip["text"], config)
        named = latent_id(clip["clip_id"], clip["caption_id"], window, size, prompt, fingerprint)
        shown.append(LookItem(named, clip["clip_id"], size))
    shown = looks.choose(shown)
    names = [field.name for field in fields(EncodeItem) if field.name != "window"]

    def item(row: int) -> EncodeItem | LookItem:
        if row >= len(found):
            return shown[row - len(found)]
        clip, window = found[row]
        return EncodeItem(**{name: clip[name] for name in names}, window=window)

    item_ids = [*(item_id(clip["clip_id"], window) for clip, window in found), *(one.item_id for one in shown)]
    note = f"{len(found)} latents, {len(shown)} of them decoded to look at" if shown else ""
    return Items(item_ids, [*input_ids, *(ids.digest("look", one.latent_id) for one in shown)],
                 lambda rows: [item(row) for row in rows], note)  # fmt: skip


def admitted(view: View) -> Iterator[tuple[dict[str, Any], Window]]:
    """Each window whose caption was admitted, with its clip's row and its caption's `caption_id`, `text`, `labels`."""
    kept = {row["caption_id"] for row in view.rows("admit", ["caption_id", "kept"]).to_pylist() if row["kept"]}
    columns = ["item_id", "clip_id", "caption_id", "text", "labels"]
    captions = {row.pop("item_id"): row for row in view.rows("caption", columns).to_pylist()
                if row["caption_id"] in kept}  # fmt: skip
    clips = {row["clip_id"] for row in captions.values()}
    whole = view.recipe.caption.of == "clip"
    for clip in view.clip_rows(clips):
        try:
            windows, held, _ = plan(clip, view.recipe.encode)
        except ValueError:  # captioned when the recipe ended with admit; counted by ops/fates.py
            continue
        for window in windows:
            if caption := captions.get(item_id(clip["clip_id"], None if whole else window)):
                yield clip | caption | {"held": held}, window


def result_fields(recipe: Recipe) -> dict[str, Any]:
    """The words around a caption, how the VAE tiles, and the precision of the encoders.

    Which frames are taken, and at what size, is part of what each item reads: a longer window for long clips leaves
    the latents of short ones as they are.
    """
    own = {f"encode.{name}": getattr(recipe.encode, name) for name in ("trigger", "suffix", "tile")}
    if recipe.encode.strip_openings:
        own["encode.strip_openings"] = True
    return own | {"VAE tiles": TILING, "base.dtype": recipe.base.dtype}


@stage(Latent, version=2, id_field="item_id", inputs=inputs, fields=result_fields, also=(Decoded,),
       by_items=("encode.window", "encode.frames", "encode.fps", "encode.area"),
       models=lambda recipe: [recipe.base.model])  # fmt: skip
def encode(todo: list[EncodeItem | LookItem], job: Job) -> Iterator[Batch]:
    """VAE latents and text embeddings of each window, then the pictures of a few of them."""
    windows = [item for item in todo if isinstance(item, EncodeItem)]
    shown = {item.latent_id: item for item in todo if isinstance(item, LookItem)}
    make = partial(LatentEncoder, job.config, job.recipe.base, str(job.models), job.fingerprint, job.device())
    for batch in fleet.fan_out(make, windows, job.site.encode, job.site.ray, job.spent) if windows else ():
        for _, row in batch:
            if isinstance(row, Latent) and row.latent_id in shown:
                shown[row.latent_id] = replace(shown[row.latent_id], tensors=row.tensors)
        yield batch
    if shown:
        make_looker = partial(Looker, job.recipe.base, str(job.models), job.device())
        yield from fleet.fan_out(make_looker, list(with_tensors(shown, job)), job.site.encode, job.site.ray)


def with_tensors(shown: dict[str, LookItem], job: Job) -> Iterator[LookItem]:
    """The items with the tensors of their latents: made just now, or read from the table where they are older."""
    older = [one for one, item in shown.items() if not item.tensors]
    tensors: dict[str, bytes] = {}
    for at in range(0, len(older), TAKE):
        quoted = ", ".join(f"'{one}'" for one in older[at : at + TAKE])
        table = job.store.read("latents", ["latent_id", "tensors"], f"latent_id IN ({quoted})")
        tensors |= dict(zip(table["latent_id"].to_pylist(), table["tensors"].to_pylist()))
    for one, item in shown.items():
        yield item if item.tensors else replace(item, tensors=tensors.get(one, b""))
