"""What `ptta check` says of a training run before it begins: parameters, memory a bucket, steps, and time."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptta_core import models
from ptta_core.memo import StageError

if TYPE_CHECKING:
    from ptta_core.training.estimate import Bucket, Estimate
    from ptta_core.view import View

MEASURED_STEPS, MOST = 100, 6  # the newest steps that a rate is taken from; buckets that get a line, the largest


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    what: str
    ok: bool
    note: str


def findings(view: View) -> list[Finding]:
    """Parameters; memory of the largest buckets against the device; steps and time. Nothing is computed."""
    recipe, workers = view.recipe, view.site.train
    path, revision = models.resolve(recipe.base.model, view.home / "models")
    if not config_is_here(path, revision):
        return [Finding("training", True, "not estimated: the base's configuration is not on this disk yet")]
    from ptta_core.training import estimate  # not before: torch and diffusers take seconds to import

    if workers.offload and not recipe.train.checkpointing:
        return [Finding("training", False, "site.train.offload moves what train.checkpointing keeps: set both or none")]
    counts, text = latents(view)
    known = bool(counts)
    buckets = estimate.real(counts, recipe.train.batch) if known else [estimate.planned(recipe.encode)]
    more = {"text_tokens": text} if known else {}
    try:
        found = estimate.estimate(path, revision, recipe.base, recipe.train, workers, buckets, **more)
    except ValueError as error:
        return [Finding("training", False, str(error))]
    if found is None:
        return [Finding("training", True, "not estimated: the base's configuration cannot be read")]
    largest = sorted(buckets, key=lambda one: -one.tokens)[:MOST]
    each = [memory(view, found, one, (path, revision)) for one in largest]
    return [Finding("training", True, found.parameters_note()), *each, duration(view, found, buckets)]


def config_is_here(path: str, revision: str | None) -> bool:
    """Whether the transformer's configuration is in a folder, or in the hub's cache on this disk."""
    if Path(path).is_dir():
        return (Path(path) / "transformer" / "config.json").is_file()
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(path, "transformer/config.json", revision=revision), str)


def latents(view: View) -> tuple[Counter[str], int]:
    """Samples that will be learned from, by bucket, and the most text tokens; nothing before encode has run."""
    if not (view.home / "tables").is_dir():
        return Counter(), 0
    try:
        rows = view.rows("encode", ["bucket", "text_tokens"]).to_pylist()
    except StageError:
        return Counter(), 0
    counts = Counter(row["bucket"] for row in rows)
    kept = 1 - view.recipe.train.holdout_share  # whole sources are held out: about so many
    learned = Counter({name: max(1, round(count * kept)) for name, count in counts.items()})
    return learned, max((row["text_tokens"] for row in rows), default=0)


def memory(view: View, found: Estimate, bucket: Bucket, base: tuple[str, str | None]) -> Finding:
    """Whether a bucket fits, and where it does not, what would make it fit."""
    from ptta_core.training import estimate

    stated = view.site.train.memory_gb
    there = stated * 1e9 if stated else estimate.device_bytes()
    what, note = f"training {bucket.name}", found.memory_note(bucket.name)
    if there is None:
        return Finding(what, True, f"{note}; no GPU here, and site.train.memory_gb does not say what there will be")
    needed = found.bytes_of(bucket.name) + estimate.OVERHEAD_BYTES
    if needed <= there:
        return Finding(what, True, f"{note}; the device has {there / 1e9:.0f}")
    helps = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in remedies(view, bucket, base).items())
    return Finding(what, False, f"{note}; the device has {there / 1e9:.0f}. Instead: {helps}")


def remedies(view: View, bucket: Bucket, base: tuple[str, str | None]) -> dict[str, float]:
    """What the bucket would take with things that save memory and are not set yet, alone and together; bytes."""
    from ptta_core.training import estimate

    recipe, workers = view.recipe, view.site.train
    spare = {"checkpointing": True}
    changes: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
        "base.storage = fp8": ({"storage": "fp8"}, spare, {}),
        "site.train.offload": ({}, spare, {"offload": True}),
        "site.train.shard": ({}, spare, {"shard": workers.count > 1}),
        "these and train.optimizer = adamw8bit": (
            {"storage": "fp8"}, spare | {"optimizer": "adamw8bit"}, {"offload": True, "shard": workers.count > 1}),
    }  # fmt: skip
    made: dict[str, float] = {}
    for name, (of_base, of_train, of_workers) in changes.items():
        changed_base, train = recipe.base.model_copy(update=of_base), recipe.train.model_copy(update=of_train)
        changed_workers = workers.model_copy(update=of_workers)
        if (changed_base, train, changed_workers) != (recipe.base, recipe.train, workers):
            found = estimate.estimate(*base, changed_base, train, changed_workers, [bucket])
            made[name] = found.bytes_of(bucket.name) + estimate.OVERHEAD_BYTES if found else 0.0
    return made


def duration(view: View, found: Estimate, buckets: list[Bucket]) -> Finding:
    """Steps and hours: from steps measured in this workspace, else from the operations and the rate that is stated."""
    from ptta_core.training.estimate import step_seconds

    train, workers = view.recipe.train, view.site.train
    steps = sum(one.steps for one in buckets) * train.epochs
    told = f"{steps} steps ({train.epochs} epochs of batches of {train.batch})" if steps else (
        "the number of steps is known once encode has run")  # fmt: skip
    if each := measured(view):
        why = "as measured in this workspace"
    elif workers.tflops:
        each = step_seconds(found, buckets, train.batch, workers.count, workers.tflops)
        work = found.flops[max(buckets, key=lambda one: one.tokens).name] / 1e12
        why = f"{work:.0f} TFLOP a sample of the largest bucket, at {workers.tflops:g} TFLOP/s a worker"
    else:
        return Finding("training time", True, f"{told}; site.train.tflops does not say how fast a worker is")
    hours = f", {steps * each / 3600:.1f} h in all" if steps else ""
    return Finding("training time", True, f"{told}; about {each:.3g} s a step{hours} ({why})")


def measured(view: View) -> float | None:
    """Mean seconds a step of this recipe's newest run, over its newest steps; None where it has none."""
    pins = [(json.loads(path.read_text()), path.parent) for path in (view.home / "training").glob("*/pin.json")]
    mine = sorted((pin["at"], str(folder)) for pin, folder in pins if pin["recipe"] == view.recipe.name)
    for _, folder in reversed(mine):
        lines = _lines(folder)
        if lines:
            return sum(line["step_s"] for line in lines) / len(lines)
    return None


def _lines(folder: str) -> list[dict[str, Any]]:
    try:
        with open(f"{folder}/metrics.jsonl", encoding="utf-8") as file:
            return [json.loads(line) for line in file.read().splitlines(keepends=True)[-MEASURED_STEPS:]
                    if line.endswith("\n")]  # fmt: skip
    except OSError:
        return []
