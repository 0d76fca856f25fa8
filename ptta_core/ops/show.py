"""show: the rows of a noun, of the last run, of a named run, or all."""

from __future__ import annotations

import json
from typing import Any

from ptta_core import adapters, stages
from ptta_core.config import ConfigError, Site
from ptta_core.memo import StageError
from ptta_core.ops import runs
from ptta_core.rows import BOOKKEEPING, MEMO_COLUMNS, NOUNS, value_schema
from ptta_core.store import Store

FOR_MACHINES = ("recipe_json", "fingerprints", "inputs", "stages", "versions", "rows_digest")


def open_store(workspace: str) -> tuple[Store, Site]:
    """The tables of an existing workspace. Raises ConfigError when there is none."""
    site = Site(workspace=workspace)
    if not (site.home / "tables").is_dir():
        raise ConfigError(f"--workspace {workspace}: no workspace there yet; `ptta run RECIPE --workspace` makes one")
    return Store(site.home / "tables"), site


def rows(noun: str, workspace: str, run: str | None = None) -> list[dict[str, Any]]:
    """Rows as dicts without bytes. run: an id, "all", or None for the last. Raises ConfigError for an unknown one."""
    if noun not in NOUNS:
        raise ConfigError(f"no noun {noun!r}; choices: {', '.join(NOUNS)}")
    store, site = open_store(workspace)
    if noun == "adapters":
        return _named(_rows(noun, store, site, workspace, run), adapters.names(store))
    return _rows(noun, store, site, workspace, run)


def _named(rows: list[dict[str, Any]], names: dict[str, str]) -> list[dict[str, Any]]:
    """Adapters with what people call them, first."""
    return [{"names": sorted(name for name, adapter_id in names.items() if adapter_id == row["adapter_id"])} | row
            for row in rows]  # fmt: skip


def _rows(noun: str, store: Store, site: Site, workspace: str, run: str | None) -> list[dict[str, Any]]:
    if run == "all" or (noun in BOOKKEEPING and noun != "failures"):
        names = [name for name in value_schema(NOUNS[noun]).names if name not in ("jpeg", "tensors")]
        return store.read(noun, names).to_pylist()
    live = NOUNS[noun] in stages.load("train").also  # there while the run that they come from still lasts
    record = runs.last(store, run_id=run, going=live)
    if record is None:
        raise ConfigError(f"no run {run!r} in {workspace}" if run else f"no run in {workspace} yet")
    view = runs.view_of(record, site)
    reached = [name for name in stages.RIVER if name in view.pinned["inputs"]]
    if noun == "failures":
        names = value_schema(NOUNS[noun]).names
        return [{name: row[name] for name in names} for stage in reached for row in view.open_failures(stage)]
    owner = next(name for name in stages.RIVER if NOUNS[noun] in stages.load(name).nouns)
    if owner not in reached:
        return []
    try:
        table = view.unfinished_rows(owner, NOUNS[noun]) if live else view.rows(owner, noun=NOUNS[noun])
        found = [_plain(row) for row in table.to_pylist()]
    except StageError:
        return []
    first = value_schema(NOUNS[noun]).names[0]
    unique = {row["source_id"]: row for row in found} if noun == "sources" else None
    return sorted(unique.values() if unique else found, key=lambda row: (str(row[first]), row.get("step", 0)))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in MEMO_COLUMNS}


def as_table(found: list[dict[str, Any]], width: int = 36) -> str:
    """Rows as a text table; long values are cut, but not a message, which comes last. Of runs, what only machines read
    is left out."""
    if not found:
        return "no rows"
    names = sorted((name for name in found[0] if name not in FOR_MACHINES), key=lambda name: name == "message")
    cells = [[_cell(row.get(name), 2000 if name == "message" else width) for name in names] for row in found]
    sizes = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    lines = ["  ".join(cell.ljust(size) for cell, size in zip(line, sizes)).rstrip() for line in [names, *cells]]
    return "\n".join([*lines, f"{len(found)} rows"])


def _cell(value: Any, width: int) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, list) else str(value)
    text = text.replace("\n", " ")
    return text if len(text) <= width else text[: width - 1] + "…"
