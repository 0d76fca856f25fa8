"""adapter -> generations: the same prompts and seeds through the base model and every form of the adapted one."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ptta_core import fleet, ids
from ptta_core.config import DEPLOYMENTS, BaseConfig, GenerateConfig, Recipe
from ptta_core.memo import Batch, Items, Job, StageError, stage
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


@dataclass(frozen=True)
class Prompt:
    """What to generate. labels: JSON object label -> share as the prompt file has it, "" for none."""

    text: str
    labels: str = ""


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

        The prompt's own labels, else the mean over the clips that the adapter learned from.
        """
        if item.variant != ADAPTER:
            return {}
        from ptta_core.models import hydralora
        from ptta_core.training.dataset import label_shares

        adapter = hydralora.read_config(item.adapter_path)
        if adapter["gate"] != "label" or adapter["branches"] == 1:
            return {}
        names = adapter["metadata"].get("labels") or []
        shares = label_shares(item.labels, names)
        if not any(shares):
            shares = adapter["metadata"].get("label_mean") or []
        return dict(zip(names, shares))

    def metadata(self, item: GenerateItem, labels: dict[str, float]) -> dict[str, str]:
        """What the file says about itself: that a model made it, which one, and from what."""
        config = self.config
        made = {
            "made_by": "a text-to-video model", "base": self.base, "variant": item.variant, "adapter": item.adapter_id,
            "prompt": item.prompt, "seed": item.seed, "steps": config.steps, "guidance": config.guidance,
            "shift": config.shift,
        } | ({"labels": labels} if labels else {})  # fmt: skip
        return {"title": item.prompt, "comment": ids.canonical(made)}


def read_prompts(config: GenerateConfig) -> list[Prompt]:
    """The recipe's prompts: a list, a .jsonl or .txt file, or a name in deployments/prompts; each text once.

    A line of a .jsonl file is {"prompt": text, "labels": {label: share}}; labels are optional, and what else is there
    is for people. Raises StageError for no file, no prompt, and for a line that is neither.
    """
    if isinstance(config.prompts, list):
        found = [Prompt(text) for text in config.prompts]
    else:
        path = Path(config.prompts).expanduser()
        if not path.suffix:
            path = DEPLOYMENTS / "prompts" / f"{config.prompts}.jsonl"
        if not path.is_file():
            raise StageError(f"generate.prompts = {config.prompts!r}: no such file")
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        parse = _parse if path.suffix == ".jsonl" else lambda line, where: Prompt(line)
        found = [parse(line, f"{path.name}, line {number}") for number, line in lines if line.strip()]
    prompts: dict[str, Prompt] = {}
    for one in found:
        if prompts.setdefault(one.text, one) != one:
            raise StageError(f"generate.prompts: the same prompt with other labels: {one.text[:80]!r}")
    if not prompts:
        raise StageError("generate.prompts holds no prompt")
    return list(prompts.values())[: config.limit]


def _parse(line: str, where: str) -> Prompt:
    """One line of a .jsonl file."""
    try:
        told = json.loads(line)
    except json.JSONDecodeError as error:
        raise StageError(f"generate.prompts: {where} is not JSON: {error}") from error
    if not isinstance(told, dict) or not isinstance(told.get("prompt"), str):
        raise StageError(f'generate.prompts: {where}: {{"prompt": text}} is wanted, not {line[:80]}')
    labels = told.get("labels") or {}
    known = isinstance(labels, dict) and all(isinstance(one, (int, float)) and one >= 0 for one in labels.values())
    if not known or (labels and not any(labels.values())):
        raise StageError(f"generate.prompts: {where}: labels {labels!r}: shares of 0 or more by label are wanted")
    return Prompt(told["prompt"], ids.canonical(labels) if labels else "")


def labels_for(prompt: Prompt, recipe: Recipe) -> str:
    """The prompt's labels where the recipe's adapter reads them, else "". Raises StageError when it knows none of them.

    A prompt without labels gets the mean over the training clips, which the adapter's file holds. The measured
    captioner has no rule that gives a prompt labels.
    """
    if recipe.train.gate != "label" or recipe.train.branches == 1 or not prompt.labels:
        return ""
    told = json.loads(prompt.labels)
    if not any(told.get(name) for name in recipe.caption.labels):
        raise StageError(f"generate.prompts: labels {', '.join(told)} of {prompt.text[:60]!r}: none is among "
                         f"caption.labels ({', '.join(recipe.caption.labels)})")  # fmt: skip
    return prompt.labels


def inputs(view: View) -> Items:
    """One item a prompt, seed and variant; the adapter, or what was made of it, is named by its bytes."""
    config = view.recipe.generate
    places = files_of(view) if config.variants != [BASE] else {}
    items = []
    for prompt in read_prompts(config):
        for seed in config.seeds:
            for variant in config.variants:
                file_id, adapter_id, adapter_path = places.get(variant, ("", "", ""))
                labels = labels_for(prompt, view.recipe) if variant == ADAPTER else ""
                read = [file_id, prompt.text, seed, *([labels] if labels else [])]
                generation_id = ids.digest(view.fingerprint("generate"), *read)
                name = f"videos/{generation_id}.mp4"
                items.append(GenerateItem(generation_id, variant, adapter_id, adapter_path, prompt.text, seed,
                                          str(view.home / name), name, labels))  # fmt: skip
    return Items.of(items, "generation_id", [item.generation_id for item in items])


def files_of(view: View) -> dict[str, tuple[str, str, str]]:
    """Of every variant asked for but base: hash of its file, adapter_id, absolute path. Raises StageError."""
    adapters = view.rows("train", ["adapter_id", "path"]).to_pylist()
    if not adapters:
        raise StageError("generate: there is no trained adapter yet; run train first, or set generate.variants to base")
    exports = view.rows("train", ["variant", "export_id", "adapter_id", "path"], noun=Export).to_pylist()
    files = [(ADAPTER, row["adapter_id"], row) for row in adapters]
    files += [(row["variant"], row["export_id"], row) for row in exports]
    found = {name: (file_id, row["adapter_id"], str(view.home / row["path"])) for name, file_id, row in files}
    wanted = [variant for variant in view.recipe.generate.variants if variant != BASE]
    if lost := [variant for variant in wanted if variant not in found]:
        raise StageError(f"generate: no file of variant {', '.join(lost)}: its export failed (`ptta show failures`), "
                         "or train has not run since it was asked for; --retry-failed tries again")  # fmt: skip
    return {variant: found[variant] for variant in wanted}


def result_fields(recipe: Recipe) -> dict[str, Any]:
    """The sampler's settings; prompts, seeds and variants are items."""
    left_out = {"prompts", "limit", "seeds", "variants"}
    own = {f"generate.{name}": value for name, value in recipe.generate.model_dump(mode="json").items()
           if name not in left_out}  # fmt: skip
    return own | {"base.dtype": recipe.base.dtype}


@stage(Generation, version=2, id_field="generation_id", inputs=inputs, fields=result_fields,
       models=lambda recipe: [recipe.base.model])  # fmt: skip
def generate(todo: list[GenerateItem], job: Job) -> Iterator[Batch]:
    """Sample each video."""
    prompts = tuple(dict.fromkeys(item.prompt for item in todo))
    make = partial(VideoMaker, job.config, job.recipe.base, str(job.models), job.device(), prompts)
    yield from fleet.fan_out(make, todo, job.site.generate, job.site.ray, job.spent)
