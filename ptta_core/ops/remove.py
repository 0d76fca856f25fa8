"""remove: a source and all that came from it out of every table, for good: a rerun does not bring it back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptta_core.config import ConfigError, Site
from ptta_core.lease import Lease
from ptta_core.looks import PREFIX
from ptta_core.ops.edits import beginning
from ptta_core.ops.show import open_store
from ptta_core.store import Store
from ptta_core.whole import write_whole
from ptta_core.windows import clip_of
from ptta_core.words import say

BY_SOURCE = ("clips", "sources", "files")
BY_CLIP = ("scores", "thumbnails", "embeddings", "selection", "captions", "admissions", "latents",
           "decoded")  # fmt: skip
LEASED = ("files", "clips", "scores", "selection", "captions", "admissions", "latents")  # a run writes them
AT_ONCE = 500  # ids in one condition


@dataclass
class Removal:
    """What goes, or has gone."""

    source_id: str
    paths: list[str]
    rows: dict[str, int] = field(default_factory=dict)  # table -> rows
    files: list[str] = field(default_factory=list)  # relative to the workspace
    adapters: list[str] = field(default_factory=list)  # trained on it: marked, not deleted
    done: bool = False


def remove(workspace: str, name: str, yes: bool = False, why: str = "", author: str | None = None) -> Removal:
    """Find all that came from a source (its id, a unique beginning, or a path of a file); with `yes`, delete it.

    The tombstone is written first, so that a removal that was interrupted is finished by the same command. Adapters
    that learned from the source stay, marked by an edit `trained_on_removed`: what they learned cannot be taken out.
    Raises ConfigError for an unknown source.
    """
    store, site = open_store(workspace)
    source_id = find(store, site, name)
    found = Removal(source_id, [row["path"] for row in store.read("files", ["path"], f"source_id = '{source_id}'")
                                .to_pylist()])  # fmt: skip
    wheres = dict(conditions(store, source_id, found.paths))
    counts = {noun: sum(store.count(noun, one) for one in each) for noun, each in wheres.items()}
    found.rows = {noun: count for noun, count in counts.items() if count}
    latents = set(_column(store, "latents", "latent_id", wheres["latents"]))
    runs = list(training_runs(site.home, latents))
    clips = set(_column(store, "clips", "clip_id", wheres["clips"]))
    files = [*training_files(runs, latents), *reports(site.home, clips)]
    found.files = [path.relative_to(site.home).as_posix() for path in files]
    found.adapters = adapters(store, {run.name for run in runs})
    if yes:
        with contextlib.ExitStack() as held:
            for noun in LEASED:
                held.enter_context(Lease(site.home / "leases", noun, None, print))
            tombstone(store, found, why or "removed", author)
            for path in files:
                path.unlink(missing_ok=True)
            for run in runs:
                _abandon(run)
            for noun in sorted(wheres, key=lambda one: one in BY_SOURCE):  # the last are what the others are found by
                if sum(store.delete(noun, where) for where in wheres[noun]):
                    store.purge(noun)
        found.done = True
    return found


def find(store: Store, site: Site, name: str) -> str:
    """A source's id from itself, its beginning, or a path of a file that holds or held it. Raises ConfigError."""
    rows = [row for noun in ("files", "sources") for row in store.read(noun, ["path", "source_id"]).to_pylist()]
    rows += [{"path": "", "source_id": one} for one in _column(store, "edits", "clip_id", ["field = 'removed'"])]
    place = str(Path(name).expanduser().resolve())
    named = {row["source_id"] for row in rows if row["path"] and row["source_id"] and
             (row["path"] in (name, place) or row["path"].endswith("/" + name))}  # fmt: skip
    if len(named) > 1:
        raise ConfigError(f"{name} has been {len(named)} sources ({', '.join(sorted(named))}); name one by its id")
    if named:
        return named.pop()
    import pyarrow as pa

    known = pa.array(sorted({row["source_id"] for row in rows if row["source_id"]}), pa.string())
    return beginning(known, name, "source")


def conditions(store: Store, source_id: str, paths: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(table, conditions): which rows came from a source, in every table."""
    clips = sorted(set(_column(store, "clips", "clip_id", [f"source_id = '{source_id}'"])))
    of_clips = list(_among("clip_id", clips))
    shown = [f"{PREFIX}{one}" for one in _column(store, "latents", "latent_id", of_clips)]
    input_ids = {source_id, *clips}
    for noun in BY_SOURCE:
        yield noun, [f"source_id = '{source_id}'"]
        input_ids |= set(_column(store, noun, "input_id", [f"source_id = '{source_id}'"]))
    for noun in BY_CLIP:
        yield noun, of_clips
        if noun not in ("selection", "admissions"):  # decided over the whole set: the input is not this source's alone
            input_ids |= set(_column(store, noun, "input_id", of_clips))
    yield "done", list(_among("input_id", sorted(input_ids)))
    mine, failed = set(clips), set(store.read("failures", ["item_id"])["item_id"].to_pylist())
    windows = sorted(one for one in failed if clip_of(one) in mine)
    yield "failures", [*_among("item_id", [source_id, *shown, *windows]), *_among("path", paths)]
    yield "edits", [f"(field IN ('selection', 'caption') OR field LIKE 'caption@%') AND ({one})" for one in of_clips]


def _among(column: str, values: list[str]) -> Iterator[str]:
    for start in range(0, len(values), AT_ONCE):
        quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values[start : start + AT_ONCE])
        yield f"{column} IN ({quoted})"


def _column(store: Store, noun: str, column: str, wheres: Iterable[str]) -> list[str]:
    return [value for where in wheres for value in store.read(noun, [column], where)[column].to_pylist()]


def training_runs(home: Path, latents: set[str]) -> Iterator[Path]:
    """Folders of training runs that were pinned to any of these latents."""
    for index in sorted(home.glob("training/*/index.json")):
        if latents & {sample["latent_id"] for sample in json.loads(index.read_text())}:
            yield index.parent


def training_files(runs: list[Path], latents: set[str]) -> list[Path]:
    """The pinned samples of these latents, and the checkpoints of runs that are not finished."""
    found = [path for run in runs for path in sorted((run / "data").glob("*")) if path.stem in latents]
    return [*found, *(path for run in runs if not (run / "adapter.safetensors").is_file()
                      for path in sorted(run.glob("**/*.safetensors")) if path not in found)]  # fmt: skip


def _abandon(run: Path) -> None:
    """A run without all its samples cannot be taken up again."""
    pin = run / "pin.json"
    if pin.is_file() and not (run / "adapter.safetensors").is_file():
        write_whole(pin, json.dumps(json.loads(pin.read_text()) | {"abandoned": True}).encode())


def reports(home: Path, clips: set[str]) -> list[Path]:
    """Pages that hold pictures of these clips; the next run writes them anew."""
    return [path for path in sorted(home.glob("reports/*.html"))
            if any(clip in text for text in [path.read_text(encoding="utf-8")] for clip in clips)]  # fmt: skip


def adapters(store: Store, train_ids: set[str]) -> list[str]:
    """Adapters that these training runs made."""
    rows = store.read("adapters", ["adapter_id", "train_id"]).to_pylist()
    return sorted({row["adapter_id"] for row in rows if row["train_id"] in train_ids})


def tombstone(store: Store, found: Removal, why: str, author: str | None) -> None:
    """What gather reads before it takes bytes in, and a mark on each adapter."""
    marks = [(adapter_id, "trained_on_removed", found.source_id) for adapter_id in found.adapters]
    say(store, [(found.source_id, "removed", why), *marks], author)


def as_dict(found: Removal) -> dict[str, Any]:
    """For --json."""
    return {"source_id": found.source_id, "paths": found.paths, "rows": found.rows, "files": found.files,
            "adapters": found.adapters, "removed": found.done}  # fmt: skip


def as_text(found: Removal) -> str:
    """For people."""
    verb = "removed" if found.done else "would remove"
    lines = [f"source {found.source_id} ({', '.join(found.paths) or 'no file of it is known any more'})"]
    lines += [f"{verb} {count:6} rows of {noun}" for noun, count in found.rows.items()]
    lines += [f"{verb} {path}" for path in found.files]
    lines += [f"adapter {one} learned from it: it stays, marked; delete it and what it generated yourself"
              for one in found.adapters]  # fmt: skip
    lines += ["the file itself is left where it is; a rerun will not take it in again" if found.done else
              "nothing has been changed; --yes does it"]  # fmt: skip
    return "\n".join(lines)
