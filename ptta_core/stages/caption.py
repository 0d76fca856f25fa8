"""selection -> captions: what each selected clip shows, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptta_core import fleet
from ptta_core.config import CaptionConfig, Recipe
from ptta_core.ids import digest
from ptta_core.memo import Batch, Items, Job, stage
from ptta_core.rows import Caption, Score
from ptta_core.view import View

if TYPE_CHECKING:
    from ptta_core.models.captioner import CaptionItem


class CaptionWriter:
    """One worker's captioner, loaded once."""

    def __init__(
        self, config: CaptionConfig, threads: int = 1, device: str = "cpu", models_folder: str | Path = ""
    ) -> None:
        from ptta_core.models.captioner import make_captioner

        if config.captioner == "transformers":
            import torch

            torch.set_num_threads(threads)
        self.captioner = make_captioner(config, device, models_folder)
        self.name = captioner_name(config, models_folder)

    def __call__(self, items: list[CaptionItem]) -> list[Caption]:
        """A caption for each clip, in order. Raises video's errors, and EmptyClip for a span without frames."""
        words = self.captioner(items)
        return [
            Caption(
                caption_id=digest(item.clip_id, one.text, one.labels_json), clip_id=item.clip_id, text=one.text,
                labels=one.labels_json, captioner=self.name,
            )
            for item, one in zip(items, words, strict=True)
        ]  # fmt: skip


def captioner_name(config: CaptionConfig, models_folder: str | Path = "") -> str:
    """The captioner and its model, as stored with every caption."""
    from ptta_core.models import describe

    if config.captioner == "transformers" and config.model:
        return f"transformers {describe(config.model, models_folder)}"
    return config.captioner


def inputs(view: View) -> Items:
    """One item a kept clip; a measured caption also reads the clip's score."""
    from ptta_core.models.captioner import CaptionItem, Facts

    scores = {row["clip_id"]: row for row in view.rows("score").to_pylist()}
    kept = {row["clip_id"] for row in view.rows("select", ["clip_id", "kept"]).to_pylist() if row["kept"]}
    clips = [row for row in view.clip_rows() if row["clip_id"] in kept]
    names = [field.name for field in fields(CaptionItem) if field.name != "facts"]

    def make(rows: list[int]) -> list[CaptionItem]:
        chosen = [clips[row] for row in rows]
        return [CaptionItem(**{name: clip[name] for name in names}, facts=Facts.of(score_of(scores[clip["clip_id"]])))
                for clip in chosen]  # fmt: skip

    input_ids = [digest(clip["clip_id"], scores[clip["clip_id"]]["content_id"]) for clip in clips]
    return Items([clip["clip_id"] for clip in clips], input_ids, make)


def score_of(row: dict[str, Any]) -> Score:
    """A table's row as a Score."""
    return Score(**{field.name: row[field.name] for field in fields(Score)})


def result_fields(recipe: Recipe) -> dict[str, Any]:
    """Only a model reads the prompt, the frames and the length."""
    if recipe.caption.captioner == "measured":
        return {"caption.captioner": "measured"}
    return {f"caption.{name}": value for name, value in recipe.caption.model_dump(mode="json").items()}


@stage(Caption, version=2, id_field="clip_id", inputs=inputs, fields=result_fields, models=lambda recipe: [
    ref for name, ref in recipe.models().items() if name.startswith("caption.")])  # fmt: skip
def caption(todo: list[CaptionItem], job: Job) -> Iterator[Batch]:
    """Describe each kept clip."""
    make = partial(CaptionWriter, job.config, job.site.caption.threads, job.device(), str(job.models))
    yield from fleet.fan_out(make, todo, job.site.caption, job.site.ray, job.spent)
