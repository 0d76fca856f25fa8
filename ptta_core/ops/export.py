"""export: a trained adapter as files that other tools load, each with what it is and how exact in its header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptta_core import adapters
from ptta_core.config import ConfigError, Recipe, Site
from ptta_core.ops import runs, show
from ptta_core.whole import write_whole

FORMATS = ("native", "diffusers", "branches", "comfyui")


@dataclass(frozen=True)
class Exported:
    """One file. error: of the LoRA beside the adapter, relative to the adapter's own effect; None: not measured."""

    path: Path
    note: str
    error: float | None


def adapter(
    workspace: str, adapter_id: str = "last", formats: tuple[str, ...] = ("native",),
    mix: dict[str, float] | None = None, out: str | None = None,
) -> list[Exported]:  # fmt: skip
    """Write the adapter (an id or its beginning, a name, or "last") in these formats below `out` (default: exports/).

    mix: share of each label (or branch0, branch1, ...), in place of the gate. Raises ConfigError.
    """
    if unknown := set(formats) - set(FORMATS):
        raise ConfigError(f"--format {', '.join(sorted(unknown))}; choices: {', '.join(FORMATS)}")
    store, site = show.open_store(workspace)
    row = adapters.find(store, adapter_id)
    folder = Path(out).expanduser() if out else site.home / "exports"
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Exported] = []
    for name in dict.fromkeys(formats):
        made += _write(name, row, site, store, mix, folder)
    return made


def _write(
    name: str, row: dict[str, Any], site: Site, store: Any, mix: dict[str, float] | None, folder: Path
) -> list[Exported]:
    from ptta_core.models import hydralora, lora_files

    path, short = site.home / row["path"], row["adapter_id"][:12]
    if not path.is_file():
        raise ConfigError(f"the file of adapter {short} is gone: {path}")
    if name == "native":
        target = folder / f"{short}.safetensors"
        write_whole(target, path.read_bytes())
        return [Exported(target, "HydraLoRA with its router, for ptta", 0.0)]
    config = hydralora.read_config(path)
    about = {"adapter_id": row["adapter_id"], "base": row["base"], "base_revision": row["base_revision"],
             "latents_digest": row["latents_digest"], "steps": row["steps"], "gate": config["gate"]}  # fmt: skip
    if name == "branches":
        return _branches(path, config, folder / short, about)
    weights = None if mix is None else mix_of(mix, config)
    mixes, error, note = _mixes(path, config, weights, row, site, store)
    pairs = lora_files.merged(path, mixes)
    keys = lora_files.comfyui_keys if name == "comfyui" else lora_files.diffusers_keys
    target = folder / f"{short}-{name}.safetensors"
    lora_files.write(target, keys(pairs), about | {"format": name, "mixes": mixes, "error": error, "mix": note})
    return [Exported(target, note, error)]


def _branches(path: Path, config: dict[str, Any], stem: Path, about: dict[str, Any]) -> list[Exported]:
    from ptta_core.models import lora_files

    made = []
    for number, name in enumerate(branch_names(config)):
        target = stem.with_name(f"{stem.name}-{name}.safetensors")
        told = about | {"format": "branches", "branch": name}
        lora_files.write(target, lora_files.diffusers_keys(lora_files.branch(path, number)), told)
        made.append(Exported(target, f"branch {name} alone: blend with set_adapters, weights that sum to 1", None))
    return made


def branch_names(config: dict[str, Any]) -> list[str]:
    """The labels of a label gate, else branch0, branch1, ..."""
    labels = config["metadata"].get("labels") or []
    if config["gate"] == "label" and len(labels) == config["branches"]:
        return list(labels)
    return [f"branch{number}" for number in range(config["branches"])]


def parse_mix(text: str | None) -> dict[str, float] | None:
    """ "male=0.7,background=0.3" as shares by name. Raises ConfigError."""
    if not text:
        return None
    try:
        return {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise ConfigError(f"--mix {text!r}: NAME=SHARE,NAME=SHARE is wanted, such as male=0.7,object=0.3") from None


def mix_of(mix: dict[str, float], config: dict[str, Any]) -> list[float]:
    """The named shares in the order of the branches, their sum made 1. Raises ConfigError."""
    names = branch_names(config)
    if unknown := mix.keys() - set(names):
        raise ConfigError(f"--mix {', '.join(sorted(unknown))}; choices: {', '.join(names)}")
    total = sum(mix.values())
    if min(mix.values()) < 0 or total <= 0:
        raise ConfigError(f"--mix {mix}: shares of 0 or more are wanted, not all 0")
    return [mix.get(name, 0.0) / total for name in names]


def _mixes(
    path: Path, config: dict[str, Any], weights: list[float] | None, row: dict[str, Any], site: Site, store: Any
) -> tuple[dict[str, list[float]], float | None, str]:
    """(mix a layer, error, a word on them); the base is loaded only for a gate that depends on the input."""
    from ptta_core.models import lora_files

    fixed = lora_files.gates(path, weights)
    exact = fixed is not None and (config["gate"] == "label" or config["branches"] == 1 or
                                   (config["gate"] == "static" and weights is None))  # fmt: skip
    if fixed is not None and exact:
        labels = "the labels asked for" if weights else "the mean labels of training"
        return fixed, 0.0, f"exact for {labels}" if config["gate"] == "label" else "exact"
    probe = _probe(path, row, site, store)
    mixes = fixed or probe.mean_gates()
    error = probe.error(lora_files.merged(path, mixes))
    return mixes, error, "the mix asked for" if fixed else "the mean gate over training samples"


def _probe(path: Path, row: dict[str, Any], site: Site, store: Any) -> Any:
    from ptta_core import models
    from ptta_core.models.hunyuan import pick_device
    from ptta_core.training.calibrate import Probe

    folder = site.home / "training" / row["train_id"]
    if not (folder / "index.json").is_file():
        raise ConfigError(f"the training samples of this adapter are gone ({folder}): its mean gate cannot be measured")
    recipe = recipe_of(row, site, store)
    base, revision = models.resolve(recipe.base.model, site.home / "models")
    return Probe(path, folder, base, revision, recipe.base.dtype, pick_device(site.device), recipe.train)


def recipe_of(row: dict[str, Any], site: Site, store: Any) -> Recipe:
    """The recipe of the newest run on the adapter's base. Raises ConfigError where no run names that base."""
    from ptta_core import models

    for record in sorted(store.read("runs").to_pylist(), key=lambda one: one["at"], reverse=True):
        recipe = runs.view_of(record, site).recipe
        if models.describe(recipe.base.model, site.home / "models") == row["base"]:
            return recipe
    raise ConfigError(f"no run in this workspace names the adapter's base {row['base']}")


def as_text(made: list[Exported]) -> str:
    """For people: a line a file."""
    off = {one.path: "" if not one.error else f"; differs by {one.error:.1%} of the adapter's effect" for one in made}
    return "\n".join(f"{one.path}  {one.note}{off[one.path]}" for one in made)
