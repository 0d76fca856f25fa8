"""Tables that have grown are indexed: keys for looking up, vectors for finding what is alike."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ptta_core import store
from ptta_core.rows import VECTOR_WIDTH, Embedding, table_schema


def embeddings(vectors_NV: np.ndarray, first: int) -> pa.Table:
    """Rows whose keys are their numbers, from `first` on."""
    count = len(vectors_NV)
    numbers = pa.array([f"{first + number:032x}" for number in range(count)])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(vectors_NV.ravel()), VECTOR_WIDTH)
    columns = {field.name: vectors if field.name == "vector" else numbers if pa.types.is_string(field.type)
               else pa.repeat(pa.scalar(1, field.type), count) for field in table_schema(Embedding)}  # fmt: skip
    return pa.table(columns, schema=table_schema(Embedding))


def test_embeddings_are_found_through_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "INDEX_ROWS", 1000)
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(60, VECTOR_WIDTH))
    vectors = (np.repeat(groups, 20, axis=0) + 0.5 * rng.normal(size=(1200, VECTOR_WIDTH))).astype(np.float32)
    tables = store.Store(tmp_path)
    tables.append("embeddings", embeddings(vectors[:1100], 0))
    tables.compact("embeddings")
    tables.append("embeddings", embeddings(vectors[1100:], 1100))  # what comes later is found too
    tables.compact("embeddings")
    dataset = tables._open("embeddings")
    assert {name for index in dataset.list_indices() for name in index["fields"]} == {"key", "vector"}
    for asked in (5, 1150):
        nearest = {"column": "vector", "q": vectors[asked], "k": 20, "metric": "cosine", "nprobes": 4}
        scanner = dataset.scanner(columns=["key", "_distance"], nearest=nearest)
        assert "ANN" in scanner.explain_plan()  # by the index, not by a scan
        found = {int(key, 16) // 20 for key in scanner.to_table()["key"].to_pylist()}
        assert found == {asked // 20}


def test_a_small_table_has_no_index(tmp_path: Path) -> None:
    tables = store.Store(tmp_path)
    tables.append("embeddings", embeddings(np.ones((5, VECTOR_WIDTH), np.float32), 0))
    tables.compact("embeddings")
    assert tables._open("embeddings").list_indices() == []
