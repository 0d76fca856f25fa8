"""adapter -> generations: the same prompts and seeds through the base model and through the adapted one."""

import os
from dataclasses import dataclass
from pathlib import Path

from ptta_core import ids
from ptta_core.config import BaseConfig, GenerateConfig
from ptta_core.rows import Generation


@dataclass(frozen=True)
class GenerateItem:
    """One video to make."""

    generation_id: str
    variant: str  # base | adapter
    adapter_id: str  # "" for the base
    adapter_path: str  # absolute, "" for the base
    prompt: str
    seed: int
    out_path: str  # absolute
    rel_path: str  # the same, relative to the workspace


class VideoMaker:
    """One worker's model, loaded once; base and adapter share its transformer.

    `prompts`: every prompt that will come, where known: they are embedded now and the text encoders are let go.
    """

    def __init__(
        self, config: GenerateConfig, base: BaseConfig, models_folder: str, device: str = "auto",
        prompts: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        from ptta_core import models
        from ptta_core.models import hunyuan

        self.config, self.base = config, models.describe(base.model, models_folder)
        path, revision = models.resolve(base.model, models_folder)
        self.generator = hunyuan.Generator(path, revision, base.dtype, hunyuan.pick_device(device))
        self.generator.embed(prompts)

    def __call__(self, items: list[GenerateItem]) -> list[Generation]:
        """One Generation an item, its video written whole. Raises errors of kind not_finite, and OSError."""
        self.generator.embed([item.prompt for item in items])
        made: dict[int, Generation] = {}
        for place in sorted(range(len(items)), key=lambda place: items[place].adapter_path):  # one switch an adapter
            made[place] = self.make(items[place])
        return [made[place] for place in range(len(items))]

    def make(self, item: GenerateItem) -> Generation:
        """Generate and write one video."""
        from ptta_core import video

        config = self.config
        if (item.variant == "adapter") != bool(item.adapter_path):
            raise ValueError(f"variant {item.variant!r} with adapter_path {item.adapter_path!r}")
        self.generator.use(item.adapter_path)
        images_THWC = self.generator(
            item.prompt, item.seed, steps=config.steps, guidance=config.guidance, shift=config.shift,
            frames=config.frames, height=config.height, width=config.width,
        )  # fmt: skip
        out = Path(item.out_path)
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.stem}.{os.getpid()}.mp4")
        try:
            video.write_mp4(part, images_THWC, config.fps, metadata=self.metadata(item))
            os.replace(part, out)
        finally:
            part.unlink(missing_ok=True)
        return Generation(
            generation_id=item.generation_id, variant=item.variant, adapter_id=item.adapter_id, prompt=item.prompt,
            seed=item.seed, path=item.rel_path, video_sha=ids.digest_file(out), frames=config.frames,
            height=config.height, width=config.width, fps=config.fps, base=self.base,
        )  # fmt: skip

    def metadata(self, item: GenerateItem) -> dict[str, str]:
        """What the file says about itself: that a model made it, which one, and from what."""
        config = self.config
        made = {
            "made_by": "a text-to-video model", "base": self.base, "variant": item.variant, "adapter": item.adapter_id,
            "prompt": item.prompt, "seed": item.seed, "steps": config.steps, "guidance": config.guidance,
            "shift": config.shift,
        }  # fmt: skip
        return {"title": item.prompt, "comment": ids.canonical(made)}
