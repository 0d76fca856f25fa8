"""check: validates everything a recipe needs without computing anything."""

from __future__ import annotations

import shutil
from pathlib import Path

from ptta_core import adapters, models, stages
from ptta_core.config import ConfigError, ModelRef
from ptta_core.memo import StageError
from ptta_core.models import licences
from ptta_core.ops import runs, training
from ptta_core.ops.training import Finding
from ptta_core.prompts import labels_for, previewed, read_prompts
from ptta_core.view import View

FREE_GB = 5.0


def check(view: View) -> list[Finding]:
    """Sources, workspace, disk, models, licences, prompts and devices. Fields were validated when the recipe loaded."""
    found = [Finding("recipe and site", True, f"{view.recipe.name} on {view.site.name}")]
    found.append(_sources(view))
    found += [_workspace(view), _disk(view)]
    found += [_model(field, ref, view) for field, ref in view.recipe.models().items()]
    if view.recipe.caption.captioner == "endpoint":
        found.append(_endpoint(view))
    missing = licences.missing(view.recipe)
    for field, licence in licences.required(view.recipe).items():
        accepted = field not in missing
        note = f"{licence.name}: {licence.sentence}" + (
            "" if accepted else f" Add {licence.name!r} to accept_licences."
        )
        found.append(Finding(f"licence of {field}", accepted, note))
    found += [_prompts(view), _device(view)]
    found += [_adapter(field, asked, view) for field, asked in (
        ("train.init_from", view.recipe.train.init_from), ("generate.adapter", view.recipe.generate.adapter)) if asked]
    if view.recipe.until != "admit" and not view.recipe.base.model.tiny:
        found += training.findings(view)
    return found


def _sources(view: View) -> Finding:
    if not view.recipe.sources.folders and view.recipe.sources.cartoon is not None:
        return Finding("sources", True, "the built-in cartoon, drawn when the run starts")
    try:
        items = stages.load("gather").inputs(view)
        return Finding("sources", True, f"{len(items.item_ids)} videos")
    except StageError as error:
        return Finding("sources", False, str(error))


def _workspace(view: View) -> Finding:
    try:
        runs.require_writable(view.home)
        return Finding("workspace", True, f"{view.home} can be written")
    except ConfigError as error:
        return Finding("workspace", False, str(error))


def _disk(view: View) -> Finding:
    place = next((folder for folder in (view.home, *view.home.parents) if folder.exists()), Path("/"))
    free = shutil.disk_usage(place).free / 1e9
    return Finding("disk", free > FREE_GB, f"{free:.0f} GB free where the workspace is, {FREE_GB:g} GB wanted at least")


def _model(field: str, ref: ModelRef, view: View) -> Finding:
    try:
        name = models.describe(ref, view.home / "models")
    except (ConfigError, OSError) as error:
        return Finding(field, False, str(error))
    if ref.tiny:
        return Finding(field, True, f"{name}: a stand-in, nothing made with it is a quality figure")
    pinned = ref.revision and len(ref.revision) >= 7 and all(char in "0123456789abcdef" for char in ref.revision)
    return Finding(field, True, name if pinned or name.startswith("local:") else
                   f"{name}: a branch, not a commit: results may change when it moves")  # fmt: skip


def _endpoint(view: View) -> Finding:
    from ptta_core.models import endpoint

    try:
        return Finding("caption.endpoint", True, endpoint.look_up(view.recipe.caption))
    except endpoint.Refused as error:
        return Finding("caption.endpoint", False, str(error))


def _prompts(view: View) -> Finding:
    try:
        prompts = read_prompts(view.recipe.generate)
        labelled = sum(bool(labels_for(one, view.recipe)) for one in prompts)
        said = f"{len(prompts)} prompts{f', {labelled} with labels' if labelled else ''}"
        if view.recipe.train.preview_every:
            said += f", {len(previewed(view.recipe))} of previews"
        return Finding("prompts", True, said)
    except (StageError, ValueError, KeyError) as error:
        return Finding("prompts", False, str(error))


def _adapter(field: str, asked: str, view: View) -> Finding:
    try:
        found = adapters.file_of(view.home, asked, field)
    except (StageError, OSError) as error:
        return Finding(field, False, str(error))
    return Finding(field, True, f"{found.adapter_id[:12]}, {found.path}")


def _device(view: View) -> Finding:
    asked = view.site.device
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) if Path("/proc/driver/nvidia/gpus").is_dir() else 0
    ok = asked != "cuda" or gpus > 0 or view.site.ray.address is not None
    return Finding("device", ok, f"site.device {asked}, {gpus} NVIDIA GPUs on this machine")


def as_text(found: list[Finding]) -> str:
    """For people: a line each."""
    return "\n".join(f"{'ok  ' if one.ok else 'FAIL'} {one.what}: {one.note}" for one in found)
