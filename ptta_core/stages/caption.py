"""selection -> captions: what the model will see of each selected clip, in words: a caption a window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptta_core import fleet, memo
from ptta_core.config import CaptionConfig, Recipe
from ptta_core.fleet import Failed
from ptta_core.ids import digest
from ptta_core.labels import labels_of, words_of
from ptta_core.memo import Batch, Items, Job, StageError, stage
from ptta_core.rows import Caption, Score
from ptta_core.view import View
from ptta_core.windows import Window, item_id, length_s, plan

if TYPE_CHECKING:
    from ptta_core.models.captioner import CaptionItem


EDITED = "caption"  # field of edits
BY_HAND = "by hand"


class CaptionWriter:
    """One worker's captioner, loaded once."""

    def __init__(
        self, config: CaptionConfig, threads: int = 1, device: str = "cpu", models_folder: str | Path = ""
    ) -> None:
        from ptta_core.models.captioner import make_captioner

        if config.captioner == "transformers":
            import torch

            torch.set_num_threads(threads)
        self.config = config
        self.captioner = make_captioner(config, device, models_folder)
        self.name = captioner_name(config, models_folder)

    def __call__(self, items: list[CaptionItem]) -> list[Caption | Failed]:
        """A caption for each window, in order; a clip without one has failed, and no captioner is asked.

        Raises video's errors, and EmptyClip for a span without frames.
        """
        words = iter(self.captioner([item for item in items if item.unfit is None]))
        return [unfit(item) or row(item, next(words), self.config, self.name) for item in items]


def unfit(item: CaptionItem) -> Failed | None:
    """The failure of a clip that has no window."""
    if item.unfit is None:
        return None
    return Failed(getattr(item.unfit, "kind", "unfit"), f"no window to learn from: {item.unfit}")


def row(item: CaptionItem, words: Any, config: CaptionConfig, captioner: str) -> Caption | Failed:
    """The caption of one window, or why there is none; its labels are the captioner's, else those of its words."""
    if isinstance(words, Failed):
        return words
    if isinstance(words, Exception):
        return Failed(getattr(words, "kind", "error"), str(words), bool(getattr(words, "retryable", False)))
    from ptta_core.models.captioner import PARTS

    labels = words.labels_json or labels_of(words.text, config)
    first_s, last_s = item.span_s()
    return Caption(
        caption_id=digest(item.clip_id, [str(first_s), str(last_s)], words.text, labels), clip_id=item.clip_id,
        text=words.text, labels=labels, captioner=captioner, start_s=item.start_s + float(first_s),
        end_s=item.start_s + float(last_s), cut=words.cut, **{name: getattr(words, name) for name in PARTS},
    )  # fmt: skip


def written(item: CaptionItem, config: CaptionConfig) -> Caption | Failed:
    """The caption that a person wrote for a window."""
    from ptta_core.models.captioner import Words

    return row(item, Words(item.by_hand), config, f"{BY_HAND} ({item.author})")


def field_of(item: str, whole: bool) -> str:
    """The field of edits that an item's caption has: where its window begins, or nothing where it is of a whole clip.

    So what was written of a whole clip is never taken for the caption of its first window.
    """
    return EDITED if whole else f"{EDITED}@{item.partition('@')[2] or f'{0:.6f}'}"


def edits(store: Any) -> dict[tuple[str, str], tuple[str, str]]:
    """(clip_id, field) -> (text, author): the newest word of a person about each caption, but for those taken back."""
    rows = store.read("edits", where=f"field = '{EDITED}' OR field LIKE '{EDITED}@%'").to_pylist()
    newest = {(row["clip_id"], row["field"]): (row["value"], row["author"])
              for row in sorted(rows, key=lambda row: row["at"])}  # fmt: skip
    return {place: word for place, word in newest.items() if word[0]}


def captioner_name(config: CaptionConfig, models_folder: str | Path = "") -> str:
    """The captioner and its model, as stored with every caption."""
    from ptta_core.models import describe

    if config.captioner == "transformers" and config.model:
        return f"transformers {describe(config.model, models_folder)}"
    if config.captioner == "endpoint" and config.endpoint:
        return f"endpoint {config.endpoint.model}"
    return config.captioner


def inputs(view: View) -> Items:
    """One item a window of a kept clip, or one a clip where caption.of says so.

    One whose caption a person wrote reads that, and nothing else.
    A language model reads that part of the clip. The measured captioner, and a model that is told the facts, reads the
    clip's score, how long the part is as the model sees it, and which part it is.
    """
    from ptta_core.models.captioner import CaptionItem, Facts

    scores = {row["clip_id"]: row for row in view.rows("score").to_pylist()}
    kept = {row["clip_id"] for row in view.rows("select", ["clip_id", "kept"]).to_pylist() if row["kept"]}
    parts = [(clip, part) for clip in view.clip_rows() if clip["clip_id"] in kept
             for part in parts_of(clip, view.recipe)]  # fmt: skip
    own = ("facts", "item_id", "window", "unfit", "by_hand", "author")
    names = [field.name for field in fields(CaptionItem) if field.name not in own]
    edited, whole = edits(view.store), view.recipe.caption.of == "clip"

    def word(clip: dict[str, Any], part: Part) -> tuple[str, str]:
        if not edited or isinstance(part, ValueError):
            return "", ""
        return edited.get((clip["clip_id"], field_of(name_of(clip, part), whole)), ("", ""))

    def make(rows: list[int]) -> list[CaptionItem]:
        return [CaptionItem(**{name: clip[name] for name in names}, facts=Facts.of(score_of(scores[clip["clip_id"]])),
                            item_id=name_of(clip, part), window=part if isinstance(part, Window) else None,
                            unfit=part if isinstance(part, ValueError) else None,
                            by_hand=word(clip, part)[0], author=word(clip, part)[1])
                for clip, part in (parts[row] for row in rows)]  # fmt: skip

    told = view.recipe.caption.captioner == "measured" or view.recipe.caption.facts != "none"
    input_ids = [
        digest(clip["clip_id"], *read(clip, part, None), BY_HAND, *said)
        if any(said := word(clip, part))
        else digest(clip["clip_id"], *read(clip, part, scores if told else None))
        for clip, part in parts
    ]
    return Items([name_of(clip, part) for clip, part in parts], input_ids, make)


Part = Window | ValueError | None  # a window; why there is none; None for the whole clip


def parts_of(clip: dict[str, Any], recipe: Recipe) -> list[Part]:
    """What of a clip is captioned: its windows, or all of it; an error where nothing of it can be learnt from."""
    whole = recipe.caption.of == "clip"
    if whole and recipe.until == "admit":
        return [None]
    try:
        windows = plan(clip, recipe.encode).windows
    except ValueError as error:  # too short, too small, or a crop outside the picture
        return [error]
    return [None] if whole else list(windows)


def name_of(clip: dict[str, Any], part: Part) -> str:
    """An item's id."""
    return item_id(clip["clip_id"], part if isinstance(part, Window) else None)


def read(clip: dict[str, Any], part: Part, scores: dict[str, Any] | None) -> list[Any]:
    """What a caption reads beside the clip; the scores only where they are read."""
    if isinstance(part, ValueError):
        return [str(part)]
    span = part.span() if part else ["0", str(length_s(clip))]
    shown_s = part.shown_s if part else length_s(clip)
    return [span, *([str(shown_s), scores[clip["clip_id"]]["content_id"]] if scores is not None else [])]


def score_of(row: dict[str, Any]) -> Score:
    """A table's row as a Score."""
    return Score(**{field.name: row[field.name] for field in fields(Score)})


def result_fields(recipe: Recipe) -> dict[str, Any]:
    """Only a model reads the prompt, the frames and the length; labels come from every captioner's words.

    Which frames a caption is about is no field of its own here: it is part of what each item reads.
    """
    config = recipe.caption
    own = config.model_dump(mode="json", exclude={"of", "label_words", "endpoint", "model"})
    if config.captioner == "measured":
        own = {name: own[name] for name in ("captioner", "labels")}
    elif not config.structured:
        own.pop("format")
    if config.captioner == "endpoint" and config.endpoint:
        own |= {f"endpoint.{name}": value for name, value in memo.result_fields(config.endpoint).items()}
    words = {label: words_of(label, config.label_words) for label in config.labels}
    return {f"caption.{name}": value for name, value in own.items()} | {"caption.label_words": digest(words)}


@stage(Caption, version=4, id_field="item_id", inputs=inputs, fields=result_fields,
       by_items=("caption.of", "encode.window", "encode.frames", "encode.fps"), models=lambda recipe: [
           ref for name, ref in recipe.models().items() if name.startswith("caption.")])  # fmt: skip
def caption(todo: list[CaptionItem], job: Job) -> Iterator[Batch]:
    """Describe each window; what a person wrote is taken as it is, and no captioner is started for it."""
    yield [(item, written(item, job.config)) for item in todo if item.by_hand]
    todo = [item for item in todo if not item.by_hand]
    if not todo:
        return
    if job.config.captioner == "endpoint":
        yield from over_http(todo, job)
        return
    make = partial(CaptionWriter, job.config, job.site.caption.threads, job.device(), str(job.models))
    yield from fleet.fan_out(make, todo, job.site.caption, job.site.ray, job.spent)


def over_http(todo: list[CaptionItem], job: Job) -> Iterator[Batch]:
    """Have each window described by a server: site.caption's workers read pictures, this process asks for captions.

    Every caption is handed over when it comes. Raises StageError where the server refuses everybody.
    """
    from ptta_core.models import asking, endpoint

    config, name = job.config, captioner_name(job.config)
    yield [(item, failed) for item in todo if (failed := unfit(item))]
    fit = [item for item in todo if item.unfit is None]
    workers = job.site.caption.model_copy(update={"gpus": 0.0})  # the server has them
    pictures = fleet.fan_out(partial(endpoint.FrameReader, config.frames), fit, workers, job.site.ray, job.spent)
    try:
        with closing(pictures), closing(asking.answers(pictures, config)) as answers:  # type: ignore[type-var]
            for item, words in answers:
                yield [(item, row(item, words, config, name))]
    except endpoint.Refused as error:
        kept = "What was captioned is kept; the same command goes on from there."
        raise StageError(f"caption: {error}. {kept}") from error
