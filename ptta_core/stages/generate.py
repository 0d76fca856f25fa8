"""adapter -> generations: the same prompts and seeds through the base model and through the adapted one."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ptta_core import fleet, ids
from ptta_core.adapters import File, file_of, reads_labels
from ptta_core.config import BaseConfig, GenerateConfig, Recipe
from ptta_core.memo import Batch, Items, Job, StageError, stage
from ptta_core.prompts import Prompt, labels_for, read_prompts
from ptta_core.rows import Generation
from ptta_core.view import View


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
    labels: str = ""  # JSON label -> share for a label gate, "" for none: then the mean over the training clips


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
        self.generator = hunyuan.Generator(path, revision, base.dtype, hunyuan.pick_device(device), base.storage)
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
        labels = self.labels(item)
        images_THWC = self.generator(
            item.prompt, item.seed, steps=config.steps, guidance=config.guidance, shift=config.shift,
            frames=config.frames, height=config.height, width=config.width,
            labels=list(labels.values()) or None,
        )  # fmt: skip
        out = Path(item.out_path)
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.stem}.{os.getpid()}.mp4")
        try:
            video.write_mp4(part, images_THWC, config.fps, metadata=self.metadata(item, labels))
            os.replace(part, out)
        finally:
            part.unlink(missing_ok=True)
        return Generation(
            generation_id=item.generation_id, variant=item.variant, adapter_id=item.adapter_id, prompt=item.prompt,
            seed=item.seed, path=item.rel_path, video_sha=ids.digest_file(out), frames=config.frames,
            height=config.height, width=config.width, fps=config.fps, base=self.base,
            labels=ids.canonical(labels) if labels else "",
        )  # fmt: skip

    def labels(self, item: GenerateItem) -> dict[str, float]:
        """What the adapter's label gate reads, in the order of its branches; empty for every other gate and the base.

        The prompt's own labels (see labels_for), else the mean over the clips that the adapter learned from.
        """
        if not item.adapter_path:
            return {}
        from ptta_core.models import hydralora
        from ptta_core.training.dataset import gate_labels

        return gate_labels(item.labels, hydralora.read_config(item.adapter_path))

    def metadata(self, item: GenerateItem, labels: dict[str, float]) -> dict[str, str]:
        """What the file says about itself: that a model made it, which one, and from what."""
        config = self.config
        made = {
            "made_by": "a text-to-video model", "base": self.base, "variant": item.variant, "adapter": item.adapter_id,
            "prompt": item.prompt, "seed": item.seed, "steps": config.steps, "guidance": config.guidance,
            "shift": config.shift,
        } | ({"labels": labels} if labels else {})  # fmt: skip
        return {"title": item.prompt, "comment": ids.canonical(made)}


def inputs(view: View) -> Items:
    """One item a prompt, seed and variant; the adapter is named by its bytes."""
    config = view.recipe.generate
    places = {"base": ("", "")}
    if "adapter" in config.variants:
        found = adapter_of(view)
        places["adapter"] = found.adapter_id, str(found.path)
    items = []
    for prompt in read_prompts(config):
        for seed in config.seeds:
            for variant in config.variants:
                adapter_id, adapter_path = places[variant]
                labels = labels_of(prompt, view, adapter_path)
                read = [adapter_id, prompt.text, seed, *([labels] if labels else [])]
                generation_id = ids.digest(view.fingerprint("generate"), *read)
                name = f"videos/{generation_id}.mp4"
                items.append(GenerateItem(generation_id, variant, adapter_id, adapter_path, prompt.text, seed,
                                          str(view.home / name), name, labels))  # fmt: skip
    return Items.of(items, "generation_id", [item.generation_id for item in items])


def adapter_of(view: View) -> File:
    """The adapter to generate with: the one that the recipe names, or the one that it trains. Raises StageError."""
    if asked := view.recipe.generate.adapter:
        return file_of(view.home, asked, "generate.adapter")
    rows = view.rows("train", ["adapter_id", "path"]).to_pylist()
    if not rows:
        raise StageError("generate: there is no trained adapter yet; run train first, name one with generate.adapter, "
                         "or set generate.variants to base")  # fmt: skip
    return File(rows[-1]["adapter_id"], view.home / rows[-1]["path"])


def labels_of(prompt: Prompt, view: View, adapter_path: str) -> str:
    """The prompt's labels where its adapter reads any."""
    if not adapter_path:
        return ""
    if view.recipe.generate.adapter:
        return prompt.labels if reads_labels(Path(adapter_path)) else ""
    return labels_for(prompt, view.recipe)


def result_fields(recipe: Recipe) -> dict[str, Any]:
    """The sampler's settings; prompts, seeds and variants are items."""
    left_out = {"prompts", "limit", "seeds", "variants", "adapter"}
    own = {f"generate.{name}": value for name, value in recipe.generate.model_dump(mode="json").items()
           if name not in left_out}  # fmt: skip
    return own | {"base.dtype": recipe.base.dtype, "base.storage": recipe.base.storage}


@stage(Generation, version=2, id_field="generation_id", inputs=inputs, fields=result_fields,
       models=lambda recipe: [recipe.base.model])  # fmt: skip
def generate(todo: list[GenerateItem], job: Job) -> Iterator[Batch]:
    """Sample each video."""
    prompts = tuple(dict.fromkeys(item.prompt for item in todo))
    make = partial(VideoMaker, job.config, job.recipe.base, str(job.models), job.device(), prompts)
    yield from fleet.fan_out(make, todo, job.site.generate, job.site.ray, job.spent)
