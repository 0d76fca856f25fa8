"""What is done, by the column: the ledger of one fingerprint, the plan that follows from it, and current rows.

memo.py works by it and view.py reads by it; a million items are compared as Arrow columns, not one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ptta_core import columns as cols
from ptta_core.ids import digest
from ptta_core.rows import NOUNS, TABLE_OF, table_schema

if TYPE_CHECKING:
    from ptta_core.memo import Items

SLICE_ROWS = 1 << 16  # rows of a table written at once


@dataclass
class Ledger:
    """What is done and what failed, for one fingerprint: columns input_id and attempt, a row each time."""

    done_rows: pa.Table
    failed_rows: pa.Table

    @functools.cached_property
    def done(self) -> dict[str, int]:
        """input_id -> highest attempt that is done."""
        return highest(self.done_rows)

    @functools.cached_property
    def failed(self) -> dict[str, int]:
        """input_id -> highest attempt that failed."""
        return highest(self.failed_rows)

    def open_failure(self, input_id: str) -> bool:
        """Whether the last word on an input is a failure; a later success clears it."""
        return self.failed.get(input_id, 0) > self.done.get(input_id, 0)

    def last_attempt(self, input_id: str) -> int:
        """0 when it was never tried."""
        return max(self.done.get(input_id, 0), self.failed.get(input_id, 0))


def highest(table: pa.Table) -> dict[str, int]:
    """input_id -> highest attempt."""
    best = table.group_by("input_id").aggregate([("attempt", "max")])
    return dict(zip(best["input_id"].to_pylist(), best["attempt_max"].to_pylist()))


def read_ledger(store: Any, stage_name: str, fingerprint: str) -> Ledger:
    """What the tables done and failures say."""
    where = f"fingerprint = '{fingerprint}' AND stage = '{stage_name}'"
    return Ledger(*(store.read(noun, ["input_id", "attempt"], where) for noun in ("done", "failures")))


@dataclass
class Plan:
    """Which items a stage would compute now, and under which attempt."""

    todo: list[int]
    attempts: list[int]
    reused: int
    failed: int


def plan(items: Items, ledger: Ledger, *, force: bool = False, retry_failed: bool = False) -> Plan:
    """Split items into todo, reused and failed (failed before, and not asked to be tried again)."""
    found = Plan([], [], 0, 0)
    seen: set[str] = set()
    input_ids = items.input_ids
    left: Iterable[tuple[int, str]] = enumerate(input_ids)
    if not force and not (retry_failed and ledger.failed_rows.num_rows):  # only what is not done needs a closer look
        array = cols.as_array(input_ids)
        undone = pc.invert(pc.is_in(array, cols.whole(ledger.done_rows["input_id"])))
        rest = pc.indices_nonzero(undone).to_pylist()
        found.reused = pc.count_distinct(array).as_py() - pc.count_distinct(array.filter(undone)).as_py()
        left = ((index, input_ids[index]) for index in rest)
    for index, input_id in left:
        if input_id in seen:  # the same content twice: one computation serves both
            continue
        seen.add(input_id)
        again = force or (retry_failed and ledger.open_failure(input_id))
        if not again and input_id in ledger.done:
            found.reused += 1
        elif not again and input_id in ledger.failed:
            found.failed += 1
        else:
            found.todo.append(index)
            found.attempts.append(ledger.last_attempt(input_id) + 1)
    return found


def write_table(store: Any, noun: type, named: dict[str, Any], table: pa.Table) -> None:
    """Commit all rows of one item at once, named by their order; a slice at a time is given its memo columns.

    A row is named by its key, and its content_id is its key too: the item's input says all that the rows depend on.
    Rows that a killed run left behind without its done row stay as they are.
    """
    name, schema = TABLE_OF[noun], table_schema(noun)
    base = digest(name, named["fingerprint"], named["input_id"], named["attempt"])

    def slices() -> Iterator[pa.RecordBatch]:
        for start in range(0, table.num_rows, SLICE_ROWS):
            part = table.slice(start, SLICE_ROWS)
            values = {column: cols.whole(part[column]) for column in part.column_names}
            values |= {column: cols.constant(value, len(part), schema.field(column).type)
                       for column, value in named.items()}  # fmt: skip
            values["key"] = values["content_id"] = cols.row_keys(base, start, len(part))
            yield pa.RecordBatch.from_arrays([values[column].cast(schema.field(column).type)
                                              for column in schema.names], schema=schema)  # fmt: skip

    # columns of one value take next to no reading
    where = (f"fingerprint = '{named['fingerprint']}' AND input_id = '{named['input_id']}' "
             f"AND attempt = {named['attempt']}")  # fmt: skip
    if store.count(name, where):
        store.insert(name, pa.Table.from_batches(slices(), schema))
    else:
        store.append(name, pa.RecordBatchReader.from_batches(schema, slices()))


def current_rows(store: Any, noun: str, fingerprint: str, input_ids: Iterable[str], ledger: Ledger,
                 columns: Sequence[str] | None = None, ordered: bool = True,
                 unfinished: bool = False) -> pa.Table:  # fmt: skip
    """Rows of `noun` that answer for these inputs: done, of the highest done attempt; sorted by key if `ordered`.

    unfinished: also the rows of inputs that are not done, of the highest attempt that there is.
    """
    schema = table_schema(NOUNS[noun])
    names = list(columns or [name for name in schema.names if not pa.types.is_large_binary(schema.field(name).type)])
    read = list(dict.fromkeys([*names, "input_id", "attempt", *(["key"] if ordered else [])]))
    table = store.read(noun, read, f"fingerprint = '{fingerprint}'")
    for wanted in (cols.members(input_ids), *([] if unfinished else [cols.whole(ledger.done_rows["input_id"])])):
        mask = cols.is_in(table["input_id"], wanted)
        table = table if mask is None else table.filter(mask)
    # not only where a later attempt is done: a killed one may have left rows without its done row
    if (pc.max(table["attempt"]).as_py() or 0) > 1:
        attempts = highest(table) | ledger.done
        best = pa.array([attempts[input_id] for input_id in table["input_id"].to_pylist()], pa.int64())
        table = table.filter(pc.equal(table["attempt"], best))
    if not ordered:
        return table.select(names)
    return cols.sort_by_id(table.select(list(dict.fromkeys([*names, "key"]))), "key").select(names)
