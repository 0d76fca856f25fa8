"""adapter -> generations: the same prompts and seeds through the base model and every form of the adapted one."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ptta_core import fleet, ids
from ptta_core.adapters import file_of, reads_labels
from ptta_core.config import BaseConfig, GenerateConfig, Recipe
from ptta_core.memo import Batch, Items, Job, StageError, stage
from ptta_core.prompts import Prompt, labels_for, read_prompts
from ptta_core.rows import Export, Generation
from ptta_core.variants import ADAPTER, BASE
from ptta_core.view import View


@dataclass(frozen=True)
class GenerateItem:
    """One video to make."""

    generation_id: str
    variant: str  # see variants.py
    adapter_id: str  # "" for the base
    adapter_path: str  # absolute: the adapter's file, or that of the variant's plain LoRA; "" for the base
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
        if (item.variant != BASE) != bool(item.adapter_path):
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
        """What the adapter's label gate reads, in the order of its branches; empty for any other gate, LoRA or base.

        The prompt's own labels (see labels_for), else the mean over the clips that the adapter learned from.
        """
        if item.variant != ADAPTER:
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
    """One item a prompt, seed and variant; the adapter, or what was made of it, is named by its bytes."""
    config = view.recipe.generate
    places = files_of(view) if config.variants != [BASE] else {}
    items = []
    for prompt in read_prompts(config):
        for seed in config.seeds:
            for variant in config.variants:
                file_id, adapter_id, adapter_path = places.get(variant, ("", "", ""))
                labels = labels_of(prompt, view, adapter_path) if variant == ADAPTER else ""
                read = [file_id, prompt.text, seed, *([labels] if labels else [])]
                generation_id = ids.digest(view.fingerprint("generate"), *read)
                name = f"videos/{generation_id}.mp4"
                items.append(GenerateItem(generation_id, variant, adapter_id, adapter_path, prompt.text, seed,
                                          str(view.home / name), name, labels))  # fmt: skip
    return Items.of(items, "generation_id", [item.generation_id for item in items])


def files_of(view: View) -> dict[str, tuple[str, str, str]]:
    """Of every variant asked for but base: hash of its file, adapter_id, absolute path. Raises StageError."""
    if asked := view.recipe.generate.adapter:
        file = file_of(view.home, asked, "generate.adapter")
        return {ADAPTER: (file.adapter_id, file.adapter_id, str(file.path))}
    adapters = view.rows("train", ["adapter_id", "path"]).to_pylist()
    if not adapters:
        raise StageError("generate: there is no trained adapter yet; run train first, name one with generate.adapter, "
                         "or set generate.variants to base")  # fmt: skip
    exports = view.rows("train", ["variant", "export_id", "adapter_id", "path"], noun=Export).to_pylist()
    files = [(ADAPTER, row["adapter_id"], row) for row in adapters]
    files += [(row["variant"], row["export_id"], row) for row in exports]
    found = {name: (file_id, row["adapter_id"], str(view.home / row["path"])) for name, file_id, row in files}
    wanted = [variant for variant in view.recipe.generate.variants if variant != BASE]
    if lost := [variant for variant in wanted if variant not in found]:
        raise StageError(f"generate: no file of variant {', '.join(lost)}: its export failed (`ptta show failures`), "
                         "or train has not run since it was asked for; --retry-failed tries again")  # fmt: skip
    return {variant: found[variant] for variant in wanted}


def labels_of(prompt: Prompt, view: View, adapter_path: str) -> str:
    """The prompt's labels where its adapter reads any."""
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
