"""select: a person's word about clips, kept beside the tables: it wins over every rule and outlives every theta."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ptta_core.config import ConfigError
from ptta_core.ops.show import open_store
from ptta_core.store import Store
from ptta_core.words import say

WORDS = {"keep": "keep", "pin": "keep", "veto": "veto", "drop": "veto", "": "", "unpin": "", "none": ""}


def decide(workspace: str, pin: Sequence[str] = (), veto: Sequence[str] = (), unpin: Sequence[str] = (),
           files: Sequence[str] = (), author: str | None = None) -> dict[str, list[str]]:  # fmt: skip
    """Store who keeps or vetoes which clips; returns word -> clip ids. The next run's selection follows.

    pin, veto, unpin: clip ids, unique beginnings of ids, or CSV files (`clip_id`, and the word of the option stands
    unless the file names its own). files: CSV files `clip_id,decision` with keep or veto, as the report saves them.
    Raises ConfigError for an unknown or ambiguous id, an unknown word, or a clip named with two words.
    """
    store, _ = open_store(workspace)
    asked: list[tuple[str, str]] = []
    for word, names in (("keep", pin), ("veto", veto), ("", unpin), (None, files)):
        for name in names:
            asked += read_csv(Path(name), word) if word is None or name.endswith(".csv") else [(name, word)]
    if not asked:
        raise ConfigError("select: name clips with --pin, --veto or --unpin, or a file with --csv")
    ids = resolve(store, [clip for clip, _ in asked])
    words: dict[str, str] = {}
    for clip_id, (name, word) in zip(ids, asked):
        if words.setdefault(clip_id, word) != word:
            raise ConfigError(f"select: clip {name} is named with two words, {words[clip_id]!r} and {word!r}")
    say(store, [(clip_id, "selection", word) for clip_id, word in words.items()], author)
    return {name: [clip_id for clip_id, word in words.items() if word == value]
            for name, value in (("keep", "keep"), ("veto", "veto"), ("unpin", ""))}  # fmt: skip


def read_csv(path: Path, word: str | None) -> list[tuple[str, str]]:
    """(clip, word) of every line. word: for lines that name none. Raises ConfigError naming the file and the line."""
    if not path.is_file():
        raise ConfigError(f"select: no such file: {path}")
    found = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for place, cells in enumerate(csv.reader(file), 1):
            line = [cell.strip() for cell in cells]
            if not line or not line[0] or line[0] == "clip_id":
                continue
            said = line[1].lower() if len(line) > 1 else word
            if said not in WORDS:
                raise ConfigError(f"{path.name}, line {place}: {said!r} is no decision; choices: keep, veto, unpin")
            found.append((line[0], WORDS[said]))
    return found


def resolve(store: Store, names: Sequence[str]) -> list[str]:
    """Clip ids, each from itself or a unique beginning. Raises ConfigError for none or several."""
    known = store.read("clips", ["clip_id"])["clip_id"].unique()
    whole = set(pc.filter(pa.array(list(names)), pc.is_in(pa.array(list(names)), known)).to_pylist())
    return [name if name in whole else beginning(known, name, "clip") for name in names]


def beginning(known: pa.Array, name: str, noun: str) -> str:
    """The one id that begins with `name`. Raises ConfigError."""
    found = known.filter(pc.starts_with(known, name)) if name else known[:0]
    if len(found) != 1:
        few = ", ".join(one[:12] for one in found[:5].to_pylist())
        raise ConfigError(f"no {noun} {name!r}; see `ptta show {noun}s --run all`" if not len(found) else
                          f"{name!r} begins {len(found)} {noun} ids: {few}; name more of it")  # fmt: skip
    return str(found[0].as_py())


def as_text(found: dict[str, Any]) -> str:
    """For people."""
    said = ", ".join(f"{word} {len(ids)}" for word, ids in found.items() if ids)
    return f"{said}; the next run's selection follows, and nothing else is computed again"
