"""The recipe's sections of what is generated and judged; config.py puts the recipe together."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ptta_core import variants
from ptta_core.section import ModelRef, Section


class GenerateConfig(Section):
    """What is generated to judge by: the same prompts and seeds for base and adapter."""

    prompts: str | list[str] = "animation-20"  # a list, a file, or a name in deployments/prompts
    limit: int | None = Field(None, ge=1)  # the first prompts only
    seeds: list[int] = [0]
    # see variants.py: base, adapter, adapter:diffusers, adapter:comfyui, branch:NAME, mix:NAME=SHARE,NAME=SHARE
    variants: list[str] = ["base", "adapter"]
    adapter: str | None = None  # another one than the recipe trains: a file, an id or a name in the workspace, or last
    frames: int = Field(33, ge=1)
    height: int = Field(512, ge=16)
    width: int = Field(512, ge=16)
    steps: int = Field(50, ge=1)
    guidance: float = 6.0
    shift: float = Field(7.0, gt=0)
    fps: float = Field(24.0, gt=0)

    @field_validator("variants")
    @classmethod
    def _variants(cls, texts: list[str]) -> list[str]:
        for text in texts:
            variants.parse(text)
        if len(set(texts)) < len(texts):
            raise ValueError("a variant came twice")
        return texts

    @model_validator(mode="after")
    def _other_adapter(self) -> "GenerateConfig":
        formed = [text for text in self.variants if text not in (variants.BASE, variants.ADAPTER)]
        if self.adapter and formed:
            raise ValueError(f"variants {', '.join(formed)} are made of the adapter that the recipe trains, not of "
                             f"generate.adapter = {self.adapter!r}; choices beside it: base, adapter")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _sizes(self) -> "GenerateConfig":
        if self.frames % 4 != 1:
            raise ValueError(f"frames {self.frames} is not 4k+1")
        if self.height % 16 or self.width % 16:
            raise ValueError(f"height {self.height} and width {self.width} must be multiples of 16")
        return self


class EvaluateConfig(Section):
    """Who judges. `measures` needs no weights; `videoscore` is the paper's judge."""

    judges: list[Literal["measures", "videoscore"]] = ["measures"]
    videoscore: ModelRef | None = None
    videoscore_prompt_sha256: str = "49b386d9ea3003760c983cc258cf4211faf858d58191f95fcfacdf68a8fed2c0"
    videoscore_max_frames: int = Field(16, ge=1)
