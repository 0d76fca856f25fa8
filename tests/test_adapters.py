"""Adapters by name: given, moved, taken away, and taken in show, export, init_from and generate."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from demo import open_demo

from flows.cli import main
from ptta_core import adapters
from ptta_core.config import ConfigError
from ptta_core.memo import StageError
from ptta_core.ops import check, show
from ptta_core.rows import Adapter, table_schema, to_arrow
from ptta_core.store import Store


@pytest.fixture
def two(workspace: Path) -> tuple[Path, str, str]:
    """(workspace, the adapter that was trained there, a later one whose file is another)."""
    store = Store(workspace / "tables")
    [row] = store.read("adapters").to_pylist()
    path = shutil.copy(workspace / row["path"], workspace / "training" / "other.safetensors")
    with open(path, "ab") as file:
        file.write(b"\0")
    later = Adapter(**{field.name: row[field.name] for field in dataclasses.fields(Adapter)})
    later = dataclasses.replace(later, adapter_id="f" * 32, path="training/other.safetensors")
    memo = {name: row[name] for name in ("fingerprint", "item_id", "attempt", "content_id")}
    store.insert("adapters", to_arrow([memo | {"key": "k" * 32, "input_id": "later"} | dataclasses.asdict(later)],
                                      table_schema(Adapter)))  # fmt: skip
    return workspace, row["adapter_id"], later.adapter_id


def tag(workspace: Path, *words: str) -> int:
    return main(["tag", "adapter", *words, "-w", str(workspace), "--by", "Ann"])


def test_a_name_is_given_moved_and_taken_away(two: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    workspace, first, second = two
    store = Store(workspace / "tables")
    assert tag(workspace, first[:8], "autumn.v1") == 0 and tag(workspace, "last", "best") == 0
    assert adapters.names(store) == {"autumn.v1": first, "best": second}
    assert tag(workspace, "autumn.v1", "best") == 0  # moves
    assert capsys.readouterr().out.splitlines()[-1] == f"adapter {first} is now called best"
    assert adapters.find(store, "best")["adapter_id"] == adapters.find(store, first[:5])["adapter_id"] == first
    assert adapters.find(store, "last")["adapter_id"] == second
    [shown] = [row for row in show.rows("adapters", str(workspace))]
    assert shown["adapter_id"] == first and shown["names"] == ["autumn.v1", "best"]
    everything = {row["adapter_id"]: row["names"] for row in show.rows("adapters", str(workspace), "all")}
    assert everything == {first: ["autumn.v1", "best"], second: []}
    assert main(["show", "adapters", "-w", str(workspace)]) == 0 and "autumn.v1" in capsys.readouterr().out
    assert tag(workspace, first, "best", "--remove") == 0
    assert adapters.names(store) == {"autumn.v1": first}
    words = [(row["field"], row["value"], row["author"]) for row in show.rows("edits", str(workspace))]
    assert words == [("name", "autumn.v1", "Ann"), ("name", "best", "Ann"), ("name", "best", "Ann"),
                     ("unname", "best", "Ann")]  # fmt: skip


def test_what_cannot_be_a_name_or_names_nothing_is_said(two: tuple[Path, str, str]) -> None:
    workspace, first, second = two
    store = Store(workspace / "tables")
    for word, said in (("last", "not 'last'"), ("a b", "dashes"), ("", "1 to 64"), (second[:6], "begins an adapter's")):
        with pytest.raises(ConfigError, match=said):
            adapters.name(store, first, word, "Ann")
    adapters.name(store, first, "good", "Ann")
    with pytest.raises(ConfigError, match=rf"'none': 0 fit; there are: {first[:12]}, f+; names: good"):
        adapters.find(store, "none")
    with pytest.raises(ConfigError, match="is not called 'good'"):
        adapters.unname(store, second, "good", "Ann")
    with pytest.raises(ConfigError, match="'': 2 fit"):
        adapters.find(store, "")
    assert tag(workspace, "nothing", "x") == 1


def test_export_takes_a_name(two: tuple[Path, str, str], tmp_path: Path) -> None:
    workspace, first, _ = two
    tag(workspace, first, "good")
    out = tmp_path / "out"
    assert main(["export", "adapter", "good", "-w", str(workspace), "--format", "native", "--out", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == [f"{first[:12]}.safetensors"]


def test_training_begins_with_an_adapter_by_name_as_by_its_file(
    two: tuple[Path, str, str], videos: Path, tmp_path: Path
) -> None:
    workspace, first, second = two
    tag(workspace, first, "good")
    path = workspace / Store(workspace / "tables").read("adapters").to_pylist()[0]["path"]

    def fingerprint(asked: str | None) -> str:
        return open_demo(workspace, videos, **{"train.init_from": asked}).fingerprint("train")

    assert fingerprint("good") == fingerprint(first[:9]) == fingerprint(str(path))
    assert len({fingerprint(asked) for asked in (None, "good", second, "last")}) == 3
    assert fingerprint(second) == fingerprint("last")
    view = open_demo(workspace, videos, **{"train.init_from": "good"})
    from ptta_core import memo
    from ptta_core.stages import train

    [item] = view.items("train").make([0])
    job = memo.Job("train", view.recipe.train, view.recipe, view.site, view.home, view.fingerprint("train"),
                   lambda *a: None, lambda note: None, view.store)  # fmt: skip
    train.pin(tmp_path, item, job)
    assert (tmp_path / "init.safetensors").read_bytes() == path.read_bytes()
    for asked, said in (("gone", "0 fit"), ("gone.safetensors", "no such file")):
        with pytest.raises(StageError, match=rf"train.init_from = '{asked}': .*{said}"):
            fingerprint(asked)


def test_generate_takes_another_adapter_than_the_recipes(two: tuple[Path, str, str], videos: Path) -> None:
    workspace, first, second = two
    tag(workspace, first, "good")
    own, named, later = (open_demo(workspace, videos, **({"generate.adapter": asked} if asked else {}))
                         for asked in (None, "good", "last"))  # fmt: skip
    assert named.fingerprint("generate") == own.fingerprint("generate")
    assert named.items("generate").input_ids == own.items("generate").input_ids  # nothing is generated again
    made = later.items("generate").make(list(range(len(later.items("generate").item_ids))))
    assert {one.adapter_id for one in made} == {"", second}
    assert {one.adapter_path for one in made if one.adapter_id} == {str(workspace / "training/other.safetensors")}
    told = {one.what: one for one in check.check(later)}
    assert told["generate.adapter"].ok and second[:12] in told["generate.adapter"].note


def test_a_label_gate_is_told_from_a_files_header(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save

    for gate, branches, reads in (("label", 2, True), ("label", 1, False), ("token", 2, False)):
        header = {"ptta_adapter": json.dumps({"gate": gate, "branches": branches})}
        (tmp_path / "a.safetensors").write_bytes(save({"a": torch.zeros(1)}, header))
        assert adapters.reads_labels(tmp_path / "a.safetensors") is reads
    (tmp_path / "a.safetensors").write_bytes(save({"a": torch.zeros(1)}))
    assert not adapters.reads_labels(tmp_path / "a.safetensors")
