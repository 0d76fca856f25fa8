"""Ids by the column: what is done to a million of them is done to the column's bytes, not to a million strings."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ptta_core.ids import ID_HEX, digest_set

KEY_HEX = 24  # of a key's 32 characters come from its item, 8 are the row's place: 2**32 rows an item


class Ids(Sequence[str]):
    """A column of ids, each once and sorted: a list of strings only where somebody looks at them."""

    def __init__(self, members: pa.ChunkedArray | pa.Array) -> None:
        self.members = whole(members)  # as they come; good enough to ask whether an id is among them

    @functools.cached_property
    def array(self) -> pa.Array:
        """The ids, each once, sorted."""
        ids = self.members.take(pa.array(order(self.members)))
        again = pc.equal(ids[1:], ids[:-1])
        return ids.unique() if pc.any(again).as_py() else ids

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return list(self.array[index].to_pylist())
        return str(self.array[index].as_py())

    def __iter__(self) -> Iterator[str]:
        return iter(self.array.to_pylist())


def as_array(ids: Iterable[str]) -> pa.Array:
    """Ids as one Arrow string array; an `Ids` gives its own."""
    return ids.array if isinstance(ids, Ids) else pa.array(list(ids), pa.string())


def members(ids: Iterable[str]) -> pa.Array:
    """Ids as one Arrow string array, in any order."""
    return ids.members if isinstance(ids, Ids) else as_array(ids)


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array."""
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def words(column: pa.ChunkedArray | pa.Array) -> np.ndarray | None:
    """Ids of 32 hexadecimal digits as big-endian uint64 [N,2] that order like the ids; None for any other ids."""
    raw = _characters(column)
    if raw is None:
        return None
    try:
        found = np.frombuffer(bytes.fromhex(raw.tobytes().decode("ascii")), ">u8")
    except ValueError:
        return None
    if len(found) != 2 * len(column):
        return None
    upper = (raw >= ord("A")) & (raw <= ord("F"))  # would not order like lower case
    return None if upper.any() else found.reshape(-1, 2)


def _characters(column: pa.ChunkedArray | pa.Array) -> np.ndarray | None:
    """The characters of a column of 32-character ids, uint8 [N,32]; None when some id has another length."""
    array = whole(column)
    if not pa.types.is_string(array.type) or array.null_count:
        return None
    if not len(array):
        return np.empty((0, ID_HEX), np.uint8)
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    if (np.diff(offsets) != ID_HEX).any():
        return None
    return np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].reshape(-1, ID_HEX)


def order(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Indices that sort a column of ids."""
    found = words(column)
    return np.asarray(pc.sort_indices(column)) if found is None else _order(found)


def _order(words_N2: np.ndarray) -> np.ndarray:
    high = words_N2[:, 0].astype(np.uint64)
    sorted_ = np.argsort(high)
    if (high[sorted_][1:] == high[sorted_][:-1]).any():  # equal in the first 64 bits
        return np.lexsort((words_N2[:, 1], high))
    return sorted_


def sort_by_id(table: pa.Table, name: str) -> pa.Table:
    """A table sorted by a column of ids."""
    indices = order(table[name])
    return table if (np.diff(indices) == 1).all() else table.take(pa.array(indices))


def set_digest(column: pa.ChunkedArray | pa.Array) -> str:
    """`ids.digest_set` of a column: the same id, some fifty times faster for ids of 32 hexadecimal digits."""
    found = words(column)
    if found is None:
        return digest_set(column.to_pylist())
    hasher = hashlib.sha256()
    found = found[_order(found)]
    for start in range(0, len(found), 1 << 16):  # as text again, a line an id
        raw = np.frombuffer(found[start : start + (1 << 16)].tobytes().hex().encode(), np.uint8)
        hasher.update(np.pad(raw.reshape(-1, ID_HEX), ((0, 0), (0, 1)), constant_values=ord("\n")).tobytes())
    return hasher.hexdigest()[:ID_HEX]


def row_keys(base: str, start: int, count: int) -> pa.Array:
    """Keys of the rows `start`... of an item: its own 24 characters and the row's place; they sort by place."""
    raw = np.empty((count, ID_HEX), np.uint8)
    raw[:, :KEY_HEX] = np.frombuffer(base[:KEY_HEX].encode(), np.uint8)
    places = np.arange(start, start + count, dtype=">u4").tobytes().hex().encode()
    raw[:, KEY_HEX:] = np.frombuffer(places, np.uint8).reshape(-1, ID_HEX - KEY_HEX)
    offsets = np.arange(0, ID_HEX * (count + 1), ID_HEX, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(raw))


def where(values: pa.ChunkedArray | pa.Array, column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The row of each value in a column; null for a value that is not there."""
    return whole(pc.index_in(values, whole(column)))


def constant(value: Any, count: int, kind: pa.DataType) -> pa.Array:
    """The same value `count` times."""
    return pa.repeat(pa.scalar(value, kind), count)


def is_in(column: pa.ChunkedArray, wanted: pa.Array) -> pa.ChunkedArray | None:
    """Which of a column's values are wanted; None for all of them. A column in the same order needs no table."""
    if len(column) == len(wanted) and whole(column).equals(wanted):
        return None
    mask = pc.is_in(column, wanted)
    return None if pc.all(mask).as_py() is not False else mask
