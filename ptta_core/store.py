"""The only LanceDB: named tables of a workspace, read as Arrow, written insert-only by one writer a table.

Handles go stale after another process commits, so every read checks out the newest version; a reader never waits
for a writer. Tables appear on their first write; an absent table reads as an empty one.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
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
LIST_ROWS = 256  # vectors that a list of an index must have to be trained on
SUB_VECTOR = 8  # numbers of a vector that become one byte of its index
WHOLE_SET = ("selection", "admissions")  # decided and added all at once, and never looked up by key: no index


class WorkspaceError(OSError):
    """The workspace cannot be opened or written; the message names the folder and the remedy."""


class Store:
    """The tables of one workspace. `read` never waits; `insert` and `append` are for the holder of the lease.

    Tables are LanceDB's; rows are read and appended through the Lance format below it, whose import is quicker.
    """

    def __init__(self, folder: Path | str) -> None:
        """Open (or make) the tables below `folder`. Raises WorkspaceError when it cannot be written."""
        self.uri = str(folder)
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(f"cannot open the workspace {folder}: {error}") from error
        self._datasets: dict[str, Any] = {}

    def read(self, noun: str, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Rows of a table as Arrow: newest version, the named columns (default all), a SQL filter.

        A column that a table made by an older version lacks reads as nulls.
        Raises KeyError for a noun that rows.py does not know.
        """
        schema = table_schema(NOUNS[noun])
        names = list(columns or schema.names)
        dataset = self._open(noun)
        if dataset is None:
            return schema.empty_table().select(names)
        there = set(dataset.schema.names)
        table = dataset.to_table(columns=[name for name in names if name in there], filter=where)
        for place, name in enumerate(names):
            if name not in there:
                table = table.add_column(place, name, pa.nulls(table.num_rows, schema.field(name).type))
        return table

    def count(self, noun: str, where: str | None = None) -> int:
        """How many rows there are."""
        dataset = self._open(noun)
        return 0 if dataset is None else int(dataset.count_rows(where))

    def insert(self, noun: str, rows: pa.Table) -> None:
        """Add the rows whose key is not there yet; rows already there stay as they are. One atomic commit."""
        dataset = self._writable(noun)
        with _disk_full(self.uri):
            dataset.merge_insert("key").when_not_matched_insert_all().execute(rows)

    def append(self, noun: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Add rows: to a bookkeeping table (several stages may do so at once), or rows known to be new.

        One atomic commit.
        """
        dataset = self._writable(noun)
        with _disk_full(self.uri):
            dataset.insert(rows, mode="append", schema=dataset.schema)

    def delete(self, noun: str, where: str) -> int:
        """Take rows out of the newest version; returns how many. `purge` takes their bytes off the disk."""
        dataset = self._open(noun)
        found = 0 if dataset is None else int(dataset.count_rows(where))
        if dataset is not None and found:
            dataset.delete(where)
        return found

    def purge(self, noun: str) -> None:
        """Write a table anew without its deleted rows and drop all older versions and their files."""
        dataset = self._open(noun)
        if dataset is None:
            return
        dataset.optimize.compact_files(target_rows_per_fragment=COMPACT_ROWS, materialize_deletions_threshold=0.0)
        dataset = self._open(noun)
        dataset.optimize.optimize_indices()
        self._open(noun).cleanup_old_versions(dt.timedelta(0), error_if_tagged_old_versions=False)

    def take_bytes(self, noun: str, keys: Sequence[str], column: str) -> dict[str, bytes]:
        """One wide column of a few rows, by key."""
        quoted = ", ".join(f"'{key}'" for key in keys)
        found = self.read(noun, ["key", column], f"key IN ({quoted})") if keys else None
        return {} if found is None else dict(zip(found["key"].to_pylist(), found[column].to_pylist()))

    def versions(self) -> dict[str, int]:
        """The current version of every table that exists."""
        return {name: dataset.version for name in NOUNS if (dataset := self._open(name)) is not None}

    def compact(self, noun: str) -> None:
        """Merge small fragments when there are many, and index keys and vectors once a table has grown."""
        dataset = self._open(noun)
        if dataset is None:
            return
        if len(dataset.get_fragments()) > COMPACT_FRAGMENTS:
            try:
                dataset.optimize.compact_files(target_rows_per_fragment=COMPACT_ROWS)
            except OSError as error:  # another stage is compacting the same bookkeeping table: once is enough
                if "conflict" not in str(error).lower():
                    raise
        if noun not in (*BOOKKEEPING, *WHOLE_SET) and dataset.count_rows() > INDEX_ROWS:
            self._index(noun)

    def _index(self, noun: str) -> None:
        """Index the key and every vector column; those that are indexed take in the rows that came since."""
        dataset = self._open(noun)
        indexed = {name for index in dataset.list_indices() for name in index["fields"]}
        if indexed:
            dataset.optimize.optimize_indices()
        if "key" not in indexed:
            dataset.create_scalar_index("key", "BTREE")
        for field in dataset.schema:
            if pa.types.is_fixed_size_list(field.type) and field.name not in indexed:
                rows = dataset.count_rows()
                lists = max(1, min(round(math.sqrt(rows)), rows // LIST_ROWS))
                dataset.create_index(field.name, "IVF_PQ", metric="cosine", num_partitions=lists,
                                     num_sub_vectors=field.type.list_size // SUB_VECTOR)  # fmt: skip

    def _open(self, noun: str) -> Any:
        """The newest version of a table, or None when it has never been written."""
        if noun not in NOUNS:
            raise KeyError(f"no noun {noun!r}; choices: {', '.join(NOUNS)}")
        import lance

        path = f"{self.uri}/{noun}.lance"
        dataset = self._datasets.get(noun)
        try:
            if dataset is None or not _exists(path) or dataset.latest_version != dataset.version:
                dataset = lance.dataset(path)
        except ValueError:  # no such table
            self._datasets.pop(noun, None)
            return None
        self._datasets[noun] = dataset
        return dataset

    def _writable(self, noun: str) -> Any:
        """The newest version of a table with every column of its noun; made when it is not there."""
        dataset = self._open(noun)
        schema = table_schema(NOUNS[noun])
        if dataset is None:
            import lancedb

            with _disk_full(self.uri):
                lancedb.connect(self.uri).create_table(noun, schema=schema, exist_ok=True)
            dataset = self._open(noun)
        missing = [field for field in schema if field.name not in dataset.schema.names]
        if missing:  # made by an older version
            dataset.add_columns(pa.schema([field.with_nullable(True) for field in missing]))
            dataset = self._open(noun)
        return dataset


def _exists(path: str) -> bool:
    """Whether a table that was open is still there; one in an object store is taken to be."""
    return "://" in path or Path(path).is_dir()


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
