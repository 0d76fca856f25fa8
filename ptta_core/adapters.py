"""Trained adapters by id, beginning of an id, name, or `last`; a name is a person's word and may move to another.

Names are rows of edits, as every word of a person is: append-only, the newest wins. They pin no version of a table: an
adapter is a file named by its bytes, and nothing deletes it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptta_core.config import ConfigError
from ptta_core.ids import digest_file
from ptta_core.memo import StageError
from ptta_core.store import Store
from ptta_core.words import say

LAST = "last"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
NAMED, UNNAMED = "name", "unname"  # fields of edits


@dataclass(frozen=True)
class File:
    """An adapter's file, in the workspace or anywhere else."""

    adapter_id: str  # hash of its bytes
    path: Path


def names(store: Store) -> dict[str, str]:
    """name -> adapter_id."""
    rows = store.read("edits", where=f"field IN ('{NAMED}', '{UNNAMED}')").to_pylist()
    found: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row["at"]):
        if row["field"] == NAMED:
            found[row["value"]] = row["clip_id"]
        elif found.get(row["value"]) == row["clip_id"]:
            del found[row["value"]]
    return found


def find(store: Store, asked: str) -> dict[str, Any]:
    """The row of one adapter. Raises ConfigError naming those that there are."""
    known = {row["adapter_id"]: row for row in store.read("adapters").to_pylist()}  # in the order of their training
    named = {name: adapter_id for name, adapter_id in names(store).items() if adapter_id in known}
    fitting = [named[asked]] if asked in named else [one for one in known if asked == LAST or one.startswith(asked)]
    if not fitting or (len(fitting) > 1 and asked != LAST):
        ids = ", ".join(adapter_id[:12] for adapter_id in known) or "none yet"
        words = f"; names: {', '.join(sorted(named))}" if named else ""
        raise ConfigError(f"adapter {asked!r}: {len(fitting)} fit; there are: {ids}{words}")
    return known[fitting[-1]]


def name(store: Store, asked: str, word: str, author: str | None) -> str:
    """Call an adapter `word` from now on, which until now may have meant another; its id. Raises ConfigError."""
    if not re.fullmatch(NAME, word) or word == LAST:
        raise ConfigError(f"name {word!r}: 1 to 64 letters, digits, dots, dashes and underscores are wanted, the first "
                          f"of them a letter or digit, and not {LAST!r}")  # fmt: skip
    row = find(store, asked)
    ids = store.read("adapters", ["adapter_id"])["adapter_id"].to_pylist()
    if any(adapter_id.startswith(word) for adapter_id in ids):
        raise ConfigError(f"name {word!r} begins an adapter's id: name it otherwise")
    say(store, [(row["adapter_id"], NAMED, word)], author)
    return row["adapter_id"]


def unname(store: Store, asked: str, word: str, author: str | None) -> str:
    """The adapter is not called `word` any more; its id. Raises ConfigError where it was not."""
    row = find(store, asked)
    if names(store).get(word) != row["adapter_id"]:
        raise ConfigError(f"adapter {row['adapter_id'][:12]} is not called {word!r}")
    say(store, [(row["adapter_id"], UNNAMED, word)], author)
    return row["adapter_id"]


def file_of(home: Path, asked: str, field: str) -> File:
    """The file that a recipe's field names: a path, or an adapter of the workspace. Raises StageError."""
    path = Path(asked).expanduser()
    if path.is_file():
        return File(digest_file(path), path)
    try:
        if path.suffix or not (home / "tables").is_dir():
            raise ConfigError("no such file")
        row = find(Store(home / "tables"), asked)
    except ConfigError as error:
        raise StageError(f"{field} = {asked!r}: {error}") from error
    if not (home / row["path"]).is_file():
        raise StageError(f"{field} = {asked!r}: its file is gone: {home / row['path']}")
    return File(row["adapter_id"], home / row["path"])


def reads_labels(path: Path) -> bool:
    """Whether an adapter file of ours has a gate that reads labels; from its header alone."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    settings = json.loads(header.get("__metadata__", {}).get("ptta_adapter", "{}"))
    return settings.get("gate") == "label" and settings.get("branches", 1) > 1
