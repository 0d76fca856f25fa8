"""selection -> captions: what each selected clip shows, in words."""

from pathlib import Path
from typing import TYPE_CHECKING

from ptta_core.config import CaptionConfig
from ptta_core.ids import digest
from ptta_core.rows import Caption

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

    def __call__(self, items: list["CaptionItem"]) -> list[Caption]:
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
