"""The sections of a recipe that say what a kept clip is called and how it is learnt from: caption, admit, encode."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ptta_core.section import ModelRef, Section


class CaptionConfig(Section):
    """Who writes the captions."""

    captioner: Literal["measured", "transformers"] = "measured"
    model: ModelRef | None = None
    prompt: str = "Describe this animation clip in one paragraph: subject, action, setting, style and camera."
    frames: int = Field(8, ge=1)
    max_new_tokens: int = Field(200, ge=1)
    of: Literal["window", "clip"] = "window"  # the frames that are learnt with it (encode.window), or the whole clip
    labels: list[str] = ["male", "female", "object", "background"]  # of the branches of a label gate, in their order
    label_words: dict[str, list[str]] = {}  # the words that speak of a label, in place of those in labels.py

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: list[str]) -> list[str]:
        if len({label.strip() for label in labels} - {""}) < len(labels):
            raise ValueError(f"labels {labels} must be different words")
        return labels

    @model_validator(mode="after")
    def _label_words(self) -> "CaptionConfig":
        if unknown := self.label_words.keys() - set(self.labels):
            raise ValueError(f"label_words of {', '.join(sorted(unknown))}: choices: {', '.join(self.labels)}")
        return self

    @model_validator(mode="after")
    def _model(self) -> "CaptionConfig":
        if self.captioner == "transformers" and self.model is None:
            raise ValueError("captioner transformers needs caption.model (id and revision)")
        return self


class AdmitConfig(Section):
    """Which captions are good enough to learn from."""

    min_words: int = Field(3, ge=0)
    max_words: int = Field(400, ge=1)
    max_repeats: int | None = Field(None, ge=1)  # keep at most this many clips with the same caption


class EncodeConfig(Section):
    """Which frames of a clip the model sees (windows.py), at what size (buckets.py), with which words."""

    area: int = Field(512 * 512, ge=16 * 16)  # px a frame; the aspect ratio follows the clip
    frames: int = Field(33, ge=1)  # at most; rounded down to 4k+1 by what the clip holds
    fps: float = Field(24.0, ge=1, le=240)
    window: Literal["first", "middle", "chunks", "uniform"] = "first"
    trigger: str = ""
    suffix: str = ""
    tile: bool = True  # the VAE takes pictures over 256 px in tiles; in time it always does, see buckets.TILING

    @model_validator(mode="after")
    def _four_k_plus_one(self) -> "EncodeConfig":
        if self.frames % 4 != 1:
            raise ValueError(f"frames {self.frames} is not 4k+1; nearest are {self.frames // 4 * 4 + 1} and "
                             f"{self.frames // 4 * 4 + 5}")  # fmt: skip
        return self
