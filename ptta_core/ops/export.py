"""export: a trained adapter as files that other tools load, each with what it is and how exact in its header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptta_core import adapters, variants
from ptta_core.config import ConfigError, Recipe, Site
from ptta_core.ops import runs, show
from ptta_core.variants import Form
from ptta_core.whole import write_whole

FORMATS = ("native", *variants.FORMATS)


@dataclass(frozen=True)
class Exported:
    """One file. error: of the LoRA beside the adapter, relative to the adapter's own effect; None: not measured."""

    path: Path
    note: str
    error: float | None
    loader: str = ""  # what read it back


def adapter(
    workspace: str, adapter_id: str = "last", formats: tuple[str, ...] = ("native",), mix: str | None = None,
    out: str | None = None,
) -> list[Exported]:  # fmt: skip
    """Write the adapter (an id or its beginning, a name, or "last") in these formats below `out` (default: exports/).

    mix: "male=0.7,object=0.3", the share of each label (or branch0, branch1, ...), in place of the gate. Raises
    ConfigError, and ExportDiffers for a file that does not compute what it was made of.
    """
    if unknown := set(formats) - set(FORMATS):
        raise ConfigError(f"--format {', '.join(sorted(unknown))}; choices: {', '.join(FORMATS)}")
    store, site = show.open_store(workspace)
    row = adapters.find(store, adapter_id)
    path, short = site.home / row["path"], row["adapter_id"][:12]
    if not path.is_file():
        raise ConfigError(f"the file of adapter {short} is gone: {path}")
    folder = Path(out).expanduser() if out else site.home / "exports"
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Exported] = []
    if "native" in formats:
        target = folder / f"{short}.safetensors"
        write_whole(target, path.read_bytes())
        made.append(Exported(target, "HydraLoRA with its router, for ptta", 0.0))
    plain = [name for name in dict.fromkeys(formats) if name != "native"]
    return made + (_plain(plain, mix, row, folder / short, site, store) if plain else [])


def _plain(
    formats: list[str], mix: str | None, row: dict[str, Any], stem: Path, site: Site, store: Any
) -> list[Exported]:
    """The plain LoRA files, by the code that writes them when training ends."""
    from ptta_core import models
    from ptta_core.models.hunyuan import pick_device
    from ptta_core.training.exporting import Exporter, NoSamples

    folder: Path | None = site.home / "training" / row["train_id"]
    if folder is not None and not (folder / "index.json").is_file():
        folder = None
    recipe = recipe_of(row, site, store)
    base, revision = models.resolve(recipe.base.model, site.home / "models")
    exporter = Exporter(site.home / row["path"], folder, base, revision, recipe.base.dtype, pick_device(site.device),
                        recipe.train.model_dump(mode="json"))  # fmt: skip
    made = []
    try:
        for form in forms_of(formats, mix, exporter.names):
            form.weights(exporter.names)
            one = exporter.write(form, stem.with_name(f"{stem.name}-{form.file_name}.safetensors"))
            made.append(Exported(one.path, one.note, one.compared.error if one.compared else None,
                                 one.compared.loader if one.compared else ""))  # fmt: skip
    except NoSamples as error:
        raise ConfigError(f"{error} ({site.home / 'training' / row['train_id']})") from error
    return made


def forms_of(formats: list[str], mix: str | None, names: list[str]) -> list[Form]:
    """What is asked for. Raises ConfigError naming the branches for a mix of others."""
    try:
        found = variants.forms(formats, [], names)
        if mix:
            shares = variants.parse_mix(mix)
            found = [form if form.shares else Form(f"mix:{mix}", form.comfyui, shares) for form in found]
        for form in found:
            form.weights(names)
    except ValueError as error:
        raise ConfigError(f"--mix: {error}") from error
    return found


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
    return "\n".join(f"{one.path}  {one.note}{_told(one)}" for one in made)


def _told(one: Exported) -> str:
    if not one.loader:
        return "" if one.error is not None else "; written, not compared: the training samples are gone"
    return f"; loaded by {one.loader}; differs from the adapter by {one.error:.1%} of its effect"
