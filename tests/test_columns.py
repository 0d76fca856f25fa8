"""Ids by the column give what the plain way gives, id by id."""

import secrets

import numpy as np
import pyarrow as pa
import pytest

from ptta_core import columns as cols
from ptta_core.ids import digest, digest_set

IDS = [secrets.token_hex(16) for _ in range(500)]
SHARED = ["f" * 16 + secrets.token_hex(8) for _ in range(50)]  # equal in their first 64 bits


@pytest.mark.parametrize(
    "ids",
    [IDS, IDS + IDS[:7], SHARED + IDS, ["b", "a", "cc"], [*IDS, "short"], [one.upper() for one in IDS], [],
     ["x" * 32, "0" * 32]],
)  # fmt: skip
def test_order_and_digest_are_those_of_the_strings(ids):
    column = pa.chunked_array([pa.array(ids[:100], pa.string()), pa.array(ids[100:], pa.string())])
    assert [ids[index] for index in cols.order(column)] == sorted(ids)
    assert cols.set_digest(column) == digest_set(ids)


def test_a_slice_of_a_column_is_read_as_that_slice():
    part = pa.array(IDS).slice(100, 50)
    assert cols.set_digest(part) == digest_set(IDS[100:150])
    assert [IDS[100 + index] for index in cols.order(part)] == sorted(IDS[100:150])


def test_ids_are_a_sorted_list_without_repeats():
    ids = cols.Ids(pa.array([*IDS, *IDS[:20]]))
    assert list(ids) == sorted(IDS) and len(ids) == len(IDS)
    assert ids[3] == sorted(IDS)[3] and ids[1:3] == sorted(IDS)[1:3]
    assert cols.as_array(ids).to_pylist() == cols.as_array(sorted(IDS)).to_pylist()
    assert set(cols.members(ids).to_pylist()) == set(IDS)


def test_keys_of_rows_sort_by_place_and_belong_to_their_item():
    base = digest("an item")
    keys = [*cols.row_keys(base, 0, 70_000).to_pylist(), *cols.row_keys(base, 70_000, 3).to_pylist()]
    assert keys == sorted(set(keys)) and {len(key) for key in keys} == {32}
    assert not cols.row_keys(digest("another"), 0, 9).to_pylist()[0].startswith(base[:24])


def test_is_in_says_nothing_where_all_are_in():
    column = pa.chunked_array([IDS])
    assert cols.is_in(column, pa.array(IDS)) is None
    assert cols.is_in(column, pa.array(list(reversed(IDS)))) is None
    assert np.flatnonzero(cols.is_in(column, pa.array(IDS[:3]))).tolist() == [0, 1, 2]
