"""A source taken out: no row, no picture and no byte of it is left, the rest stays, and no rerun brings it back."""

import json
from pathlib import Path

import pytest
from demo import go
from test_ledger import SETTINGS

from ptta_core import stages
from ptta_core.config import ConfigError
from ptta_core.ops import ledger, remove, runs, show
from ptta_core.rows import NOUNS, Adapter, Latent, table_schema
from ptta_core.store import Store

KEPT = ("runs", "fingerprints", "edits")  # ids of runs, and the tombstone


def contents(workspace: Path) -> dict[str, list[dict]]:
    """Every row of every table, without the memo's own columns' order."""
    store = Store(workspace / "tables")
    return {noun: store.read(noun).to_pylist() for noun in NOUNS}


def mentions(workspace: Path, ids: set[str]) -> list[str]:
    """Tables in which any value is one of these ids."""
    return [noun for noun, rows in contents(workspace).items() if noun not in KEPT
            and any(value in ids for row in rows for value in row.values() if isinstance(value, str))]  # fmt: skip


def victim(workspace: Path) -> tuple[str, set[str]]:
    """A source with a kept clip, and the ids of its clips."""
    kept = next(row["clip_id"] for row in show.rows("selection", str(workspace)) if row["kept"])
    clips = show.rows("clips", str(workspace))
    source_id = next(row["source_id"] for row in clips if row["clip_id"] == kept)
    return source_id, {row["clip_id"] for row in clips if row["source_id"] == source_id}


def test_without_yes_it_only_says_what_would_go(curated):
    before = contents(curated)
    source_id, clips = victim(curated)
    found = remove.remove(str(curated), source_id[:10])
    assert not found.done and found.rows["clips"] == len(clips) and found.rows["scores"] == len(clips)
    assert found.files == ["reports/laptop.html"]
    assert contents(curated) == before and (curated / "reports/laptop.html").is_file()


def test_everything_that_came_from_it_goes_and_nothing_else(curated):
    before = contents(curated)
    source_id, clips = victim(curated)
    found = remove.remove(str(curated), source_id, yes=True, why="no licence", author="Ann")
    after = contents(curated)
    assert mentions(curated, {source_id, *clips}) == []
    for noun in before:
        if noun not in KEPT:
            assert len(before[noun]) - len(after[noun]) == found.rows.get(noun, 0)
            left = [row for row in before[noun] if row in after[noun]]
            assert len(left) == len(after[noun])
    assert not (curated / "reports/laptop.html").exists()


def test_no_picture_of_it_is_left_in_the_files_of_the_tables(curated):
    source_id, clips = victim(curated)
    pictures = {row["clip_id"]: bytes(row["jpeg"]) for row in Store(curated / "tables").read("thumbnails").to_pylist()}

    def found_on_disk(clip_id: str) -> bool:
        part = pictures[clip_id][-300:-100]  # behind the tables that all pictures share
        return any(part in path.read_bytes() for path in curated.rglob("*.lance") if path.is_file())

    others = pictures.keys() - clips
    assert all(found_on_disk(clip_id) for clip_id in clips | others)
    remove.remove(str(curated), source_id, yes=True)
    assert not any(found_on_disk(clip_id) for clip_id in clips)
    assert all(found_on_disk(clip_id) for clip_id in others)


def test_a_rerun_does_not_bring_it_back_and_the_ledger_says_why(curated, curated_home):
    source_id, clips = victim(curated)
    paths = remove.remove(str(curated), source_id, yes=True, why="no licence", author="Ann").paths
    footage = str(curated_home / "footage")
    outcomes = go(runs.open_view("laptop", "laptop", SETTINGS, str(curated), footage), stages.CURATE)
    assert outcomes["gather"].computed == len(paths) and outcomes["split"].computed == outcomes["score"].computed == 0
    assert clips.isdisjoint(row["clip_id"] for row in show.rows("clips", str(curated)))
    funnel = {row["stage"]: row for row in ledger.ledger(str(curated))}
    assert funnel["gather"]["lost"]["removed by hand"] == len(paths)
    assert all(row["count_in"] == row["count_out"] + sum(row["lost"].values()) for row in funnel.values())
    (fate,) = ledger.ledger(str(curated), paths[0])
    assert fate["end"] == "removed" and "by hand (Ann" in fate["why"] and "no licence" in fate["why"]
    again = go(runs.open_view("laptop", "laptop", SETTINGS, str(curated), footage), stages.CURATE)
    assert all(one.computed == 0 for one in again.values())


def test_pinned_samples_go_and_adapters_that_learned_from_it_are_marked(curated):
    import pyarrow as pa

    source_id, clips = victim(curated)
    store = Store(curated / "tables")
    latents = [{"key": name, "latent_id": name, "clip_id": clip_id, "input_id": name, "tensors": b"x"}
               for name, clip_id in (("mine", min(clips)), ("other", "another clip"))]  # fmt: skip
    store.insert("latents", pa.Table.from_pylist(latents, schema=table_schema(Latent)))
    adapters = [{"key": name, "adapter_id": name, "train_id": run} for name, run in (("learned", "t"), ("not", "u"))]
    store.insert("adapters", pa.Table.from_pylist(adapters, schema=table_schema(Adapter)))
    for run, names, ended in (("t", ["mine", "other"], True), ("u", ["other"], True), ("v", ["mine"], False)):
        folder = curated / "training" / run
        (folder / "data").mkdir(parents=True)
        for name in names:
            (folder / "data" / f"{name}.safetensors").write_bytes(b"sample")
        (folder / "index.json").write_text(json.dumps([{"latent_id": name} for name in names]))
        (folder / "pin.json").write_text(json.dumps({"train_id": run}))
        if ended:
            (folder / "adapter.safetensors").write_bytes(b"adapter")
    found = remove.remove(str(curated), source_id, yes=True)
    assert found.adapters == ["learned"] and found.rows["latents"] == 1
    left = sorted(path.relative_to(curated / "training").as_posix() for path in curated.glob("training/*/data/*"))
    assert left == ["t/data/other.safetensors", "u/data/other.safetensors"]
    assert (curated / "training/t/adapter.safetensors").is_file()
    assert json.loads((curated / "training/v/pin.json").read_text())["abandoned"] is True
    marked = [row for row in store.read("edits").to_pylist() if row["field"] == "trained_on_removed"]
    assert [(row["clip_id"], row["value"]) for row in marked] == [("learned", source_id)]


def test_an_unknown_source_is_refused(curated):
    with pytest.raises(ConfigError, match="no source 'nothing'"):
        remove.remove(str(curated), "nothing", yes=True)
