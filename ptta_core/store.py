"""The only LanceDB: named tables of a workspace, read as Arrow, written insert-only by one writer a table.

Handles go stale after another process commits, so every read checks out the newest version; a reader never waits
for a writer. Tables appear on their first write; an absent table reads as an empty one.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ptta_core.rows import BOOKKEEPING, NOUNS, table_schema

# Ray and Prefect start their processes by fork and exec at once: nothing of Lance runs in between.
warnings.filterwarnings("ignore", message=".*(lance is not fork-safe|lancedb fork support).*")

COMPACT_FRAGMENTS = 100  # commits slow from 16 to 180 ms over a thousand small fragments
COMPACT_ROWS = 4096  # target rows a fragment: bounded, so that wide rows are never rewritten whole
INDEX_ROWS = 10_000  # below this a scan beats an index


class WorkspaceError(OSError):
    """The workspace cannot be opened or written; the message names the folder and the remedy."""


class Store:
    """The tables of one workspace. `read` never waits; `insert` and `append` are for the holder of the lease."""

    def __init__(self, folder: Path | str) -> None:
        """Open (or make) the tables below `folder`. Raises WorkspaceError when it cannot be written."""
        import lancedb

        self.uri = str(folder)
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._db: Any = lancedb.connect(self.uri)
        except OSError as error:
            raise WorkspaceError(f"cannot open the workspace {folder}: {error}") from error
        self._tables: dict[str, Any] = {}

    def read(self, noun: str, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Rows of a table as Arrow: newest version, the named columns (default all), a SQL filter.

        Raises KeyError for a noun that rows.py does not know.
        """
        schema = table_schema(NOUNS[noun])
        table = self._open(noun)
        if table is None:
            return schema.empty_table().select(list(columns or schema.names))
        dataset = table.to_lance()
        return dataset.to_table(columns=list(columns or schema.names), filter=where)

    def insert(self, noun: str, rows: pa.Table) -> None:
        """Add the rows whose key is not there yet; rows already there stay as they are. One atomic commit."""
        table = self._open(noun, create=True)
        with _disk_full(self.uri):
            table.merge_insert("key").when_not_matched_insert_all().execute(rows)

    def append(self, noun: str, rows: pa.Table) -> None:
        """Add rows to a bookkeeping table (several stages may do so at once). One atomic commit."""
        table = self._open(noun, create=True)
        with _disk_full(self.uri):
            table.add(rows)

    def take_bytes(self, noun: str, keys: Sequence[str], column: str) -> dict[str, bytes]:
        """One wide column of a few rows, by key."""
        quoted = ", ".join(f"'{key}'" for key in keys)
        found = self.read(noun, ["key", column], f"key IN ({quoted})") if keys else None
        return {} if found is None else dict(zip(found["key"].to_pylist(), found[column].to_pylist()))

    def versions(self) -> dict[str, int]:
        """The current version of every table that exists."""
        return {name: table.version for name in NOUNS if (table := self._open(name)) is not None}

    def compact(self, noun: str) -> None:
        """Merge small fragments when there are many, and index the key once a table has grown."""
        table = self._open(noun)
        if table is None:
            return
        dataset = table.to_lance()
        if len(dataset.get_fragments()) > COMPACT_FRAGMENTS:
            dataset.optimize.compact_files(target_rows_per_fragment=COMPACT_ROWS)
            self._tables.pop(noun)
        if noun not in BOOKKEEPING and table.count_rows() > INDEX_ROWS:
            self._index(noun)

    def _index(self, noun: str) -> None:
        from lancedb.index import BTree

        table = self._open(noun)
        if not any(list(index.columns) == ["key"] for index in table.list_indices()):
            table.create_index("key", config=BTree())
        else:
            table.optimize_indices() if hasattr(table, "optimize_indices") else None

    def _open(self, noun: str, create: bool = False) -> Any:
        table = self._tables.get(noun)
        if table is not None:
            table.checkout_latest()
            return table
        if noun not in NOUNS:
            raise KeyError(f"no noun {noun!r}; choices: {', '.join(NOUNS)}")
        try:
            table = self._db.open_table(noun)
        except ValueError:
            if not create:
                return None
            with _disk_full(self.uri):
                table = self._db.create_table(noun, schema=table_schema(NOUNS[noun]), exist_ok=True)
        self._tables[noun] = table
        return table


@contextlib.contextmanager
def _disk_full(uri: str) -> Any:
    """Lance reports a full or read-only disk as a generic error with the cause in its text: say it plainly."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        text = str(error)
        if "No space left" in text or "os error 28" in text:
            raise WorkspaceError(f"the disk of the workspace {uri} is full; what was committed is kept. "
                                 "Free some space and run again: it goes on from there.") from error  # fmt: skip
        if "Permission denied" in text or "Read-only" in text:
            raise WorkspaceError(f"the workspace {uri} cannot be written: {text[:200]}") from error
        raise
