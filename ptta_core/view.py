"""A workspace as one recipe sees it: fingerprints, items and current rows of every stage, read lazily.

Importing this loads no model and no Ray; a fully cached rerun needs nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ptta_core import columns as cols
from ptta_core import memo
from ptta_core.config import Recipe, Site
from ptta_core.ids import canonical, digest
from ptta_core.rows import TABLE_OF

if TYPE_CHECKING:
    from ptta_core.done import Ledger
    from ptta_core.memo import Items, Stage
    from ptta_core.store import Store


@dataclass(frozen=True)
class Options:
    """How a run goes about its work; none of it changes a result."""

    force: tuple[str, ...] = ()
    retry_failed: bool = False
    limit: int | None = None  # videos
    fresh: bool = False  # start a new training run although one is unfinished
    wait_s: float | None = None  # for another run's lease; None waits as long as it lives


class View:
    """One recipe's rows in one workspace.

    `items` and `rows` are answered from the tables; `pinned` replaces a stage's inputs by those of an earlier run.
    """

    def __init__(self, recipe: Recipe, site: Site, river: Callable[[str], Stage], options: Options = Options(),
                 pinned: dict[str, Any] | None = None) -> None:  # fmt: skip
        self.recipe, self.site, self.options = recipe, site, options
        self.home: Path = site.home
        self.pinned = pinned or {}
        self._river = river
        self._items: dict[str, Items] = {}
        self._rows: dict[tuple[str, ...], pa.Table] = {}
        self._fingerprints: dict[str, tuple[str, dict[str, Any]]] = {}

    @functools.cached_property
    def store(self) -> Store:
        """The workspace's tables. Raises WorkspaceError."""
        from ptta_core.store import Store

        return Store(self.home / "tables")

    def stage(self, name: str) -> Stage:
        """A stage by name."""
        return self._river(name)

    def fingerprint(self, name: str) -> str:
        """What would change the stage's result, as one id."""
        return self._fingerprint(name)[0]

    def parts(self, name: str) -> dict[str, Any]:
        """What the fingerprint is made of."""
        return self._fingerprint(name)[1]

    def _fingerprint(self, name: str) -> tuple[str, dict[str, Any]]:
        if name not in self._fingerprints:
            if name in self.pinned.get("fingerprints", {}):
                self._fingerprints[name] = (self.pinned["fingerprints"][name], {})
            else:
                parts = self.stage(name).parts(self.recipe, self.home / "models")
                self._fingerprints[name] = (digest(parts), parts)
        return self._fingerprints[name]

    def remember_fingerprint(self, name: str) -> None:
        """Store what a fingerprint is made of, once, so that a later dry run can say what changed."""
        fingerprint, parts = self._fingerprint(name)
        if not self.store.read("fingerprints", ["stage"], f"fingerprint = '{fingerprint}'").num_rows:
            self.store.append("fingerprints", memo.fingerprint_row(name, fingerprint, canonical(parts)))

    def items(self, name: str) -> Items:
        """What a stage has to do; resolved once a run, so that every later stage sees the same."""
        if name not in self._items:
            pinned = self.pinned.get("inputs", {}).get(name)
            if isinstance(pinned, list):  # of very many only their number is kept: they follow from earlier stages
                self._items[name] = memo.Items(pinned, pinned, lambda rows: [])
            else:
                self._items[name] = self.stage(name).inputs(self)
        return self._items[name]

    def resolved(self) -> dict[str, Items]:
        """The items of every stage that has been asked for so far."""
        return dict(self._items)

    def ledger(self, name: str) -> Ledger:
        """What is done and what failed for a stage's current fingerprint."""
        return memo.read_ledger(self.store, name, self.fingerprint(name))

    def rows(self, name: str, columns: Sequence[str] | None = None, noun: type | None = None,
             ordered: bool = True) -> pa.Table:  # fmt: skip
        """Current rows of a stage (its own noun, or another one it writes): done, highest attempt, sorted by key.

        Byte columns come only when named. The memo's columns are there too. Sorting a million rows takes a second:
        with ordered=False they come as they lie.
        """
        table = TABLE_OF[noun or self.stage(name).noun]
        asked = (name, table, str(ordered), *(columns or ()))
        if asked not in self._rows:
            self._rows[asked] = memo.current_rows(self.store, table, self.fingerprint(name), self.items(name).input_ids,
                                                  self.ledger(name), columns, ordered)  # fmt: skip
        return self._rows[asked]

    def unfinished_rows(self, name: str, noun: type) -> pa.Table:
        """As `rows`, with what items that are not done have published so far; read anew every time."""
        return memo.current_rows(self.store, TABLE_OF[noun], self.fingerprint(name), self.items(name).input_ids,
                                 self.ledger(name), unfinished=True)  # fmt: skip

    def forget(self, name: str) -> None:
        """Drop cached rows of a stage that has just written; its items stay as resolved."""
        self._rows = {asked: table for asked, table in self._rows.items() if asked[0] != name}

    def open_failures(self, name: str) -> list[dict[str, Any]]:
        """Failures of a stage's current items that no later success has cleared; the newest attempt of each."""
        ledger, wanted = self.ledger(name), set(self.items(name).input_ids)
        where = f"stage = '{name}' AND fingerprint = '{self.fingerprint(name)}'"
        newest: dict[str, dict[str, Any]] = {}
        for row in self.store.read("failures", where=where).to_pylist():
            open_ = row["input_id"] in wanted and ledger.open_failure(row["input_id"])
            if open_ and row["attempt"] >= newest.get(row["input_id"], row)["attempt"]:
                newest[row["input_id"]] = row
        return sorted(newest.values(), key=lambda row: (row["path"], row["item_id"]))

    # ------------------------------------------------------------------------------ clips and where they are

    def clip_rows(self, wanted: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """The run's clips (or the wanted ones), each once, sorted by clip_id.

        Each with the absolute `path` of its source and the shown `width` and `height`.
        """
        from ptta_core.rows import Source

        table = self.rows("split")
        if wanted is not None:
            table = table.filter(pc.is_in(table["clip_id"], cols.as_array(wanted)))
        sources = {row["source_id"]: row for row in self.rows("gather", noun=Source).to_pylist()}
        names = self.source_names() if table.num_rows else {}
        found: dict[str, dict[str, Any]] = {}
        for clip in table.to_pylist():
            source = sources[clip["source_id"]]
            place = {"path": str(self.absolute(names[clip["source_id"]])), "width": source["width"],
                     "height": source["height"]}  # fmt: skip
            found[clip["clip_id"]] = clip | place
        return [found[clip_id] for clip_id in sorted(found)]

    def source_names(self) -> dict[str, str]:
        """source_id -> the name of a file that holds it: one that is there now, if any is."""
        names: dict[str, str] = {}
        for row in self.rows("gather", ["path", "source_id", "status"]).to_pylist():
            if row["status"] == "removed":
                continue
            held = names.get(row["source_id"])
            if held is None or (not self.absolute(held).exists() and self.absolute(row["path"]).exists()):
                names[row["source_id"]] = row["path"]
        return names

    def clip_items(self, item: type) -> Items:
        """Every clip as an `item` (fields named like columns); a clip's id stands for all it depends on."""
        names = [field.name for field in dataclasses.fields(item)]
        ids = cols.Ids(self.rows("split", ["clip_id"], ordered=False)["clip_id"])

        def make(rows: list[int]) -> list[Any]:
            asked = ids.array.take(pa.array(rows, pa.int64())).to_pylist()
            clips = {clip["clip_id"]: clip for clip in self.clip_rows(None if len(rows) == len(ids) else asked)}
            return [item(**{name: clips[clip_id][name] for name in names}) for clip_id in asked]

        return memo.Items(ids, ids, make)

    # ------------------------------------------------------------------------------ places

    def absolute(self, named: str) -> Path:
        """`root:relative/path` (a root the site names) or an absolute path, as a path on this machine."""
        root, sign, rest = named.partition(":")
        if sign and root in self.site.roots:
            return Path(self.site.roots[root]).expanduser() / rest
        return Path(named)

    def named_path(self, path: str) -> str:
        """An absolute path as `root:relative/path` when a root of the site holds it."""
        if not path or not Path(path).is_absolute():
            return path
        for name, root in sorted(self.site.roots.items(), key=lambda pair: -len(pair[1])):
            base = Path(root).expanduser()
            if Path(path).is_relative_to(base):
                return f"{name}:{Path(path).relative_to(base).as_posix()}"
        return path
