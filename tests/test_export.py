"""`ptta export adapter`: the right adapter, the right files, and headers that say how exact each file is."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from test_training import samples

from flows.cli import main
from ptta_core import ids, models
from ptta_core.config import ConfigError, ModelRef, Recipe
from ptta_core.models import hunyuan, hydralora, lora_files
from ptta_core.ops import export
from ptta_core.rows import Adapter, Run, table_schema, to_arrow
from ptta_core.store import Store
from ptta_core.training import dataset

BASE = ModelRef(id="tiny:hunyuan", revision="0")
MEMO = {"fingerprint": "f", "item_id": "i", "input_id": "i", "attempt": 1, "content_id": "c"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained adapters: a label gate's and a token gate's."""
    home = tmp_path_factory.mktemp("workspace") / "w"
    base, _ = models.resolve(BASE, home / "models")
    rows = []
    for number, gate in enumerate(("label", "token")):
        folder = home / "training" / gate
        dataset.pin(folder, samples())
        model = hunyuan.load_transformer(base, dtype="float32")
        hydralora.inject(model, placement="non_attention", rank=2, alpha=4.0, branches=2, gate=gate, seed=0)
        for parameter in hydralora.adapter_parameters(model):
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        path = folder / "adapter.safetensors"
        hydralora.save_adapter(path, model, {"labels": ["male", "object"], "label_mean": [0.25, 0.75]})
        rows.append(MEMO | {"key": gate} | vars(Adapter(
            ids.digest_file(path), gate, path.relative_to(home).as_posix(), 5, "digest", 3, 0.5, 1,
            models.describe(BASE, home / "models"), "0")))  # fmt: skip
    store = Store(home / "tables")
    store.insert("adapters", to_arrow(rows, table_schema(Adapter)))
    recipe = Recipe(name="r").model_copy(update={"base": Recipe().base.model_copy(update={"dtype": "float32"})})
    run = Run("run", "r", "completed", "2026", recipe.model_dump_json(), "{}", "{}", "{}", "{}", "", "", "")
    store.append("runs", to_arrow([run], table_schema(Run)))
    return home


def id_of(workspace: Path, gate: str) -> str:
    return ids.digest_file(workspace / "training" / gate / "adapter.safetensors")


def header(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[lora_files.HEADER_KEY])


def test_every_format_of_a_label_adapter_is_exact(workspace: Path, tmp_path: Path, capsys: Any) -> None:
    wanted = id_of(workspace, "label")
    asked = ["--format", "native", "--format", "diffusers", "--format", "comfyui", "--format", "branches"]
    assert main(["export", "adapter", wanted[:8], "-w", str(workspace), *asked, "--out", str(tmp_path)]) == 0
    short = wanted[:12]
    names = [f"{short}.safetensors", f"{short}-diffusers.safetensors", f"{short}-comfyui.safetensors",
             f"{short}-male.safetensors", f"{short}-object.safetensors"]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    printed = capsys.readouterr().out
    assert all(name in printed for name in names) and "exact for the mean labels" in printed
    assert ids.digest_file(tmp_path / names[0]) == wanted
    told = header(tmp_path / names[1])
    assert told["adapter_id"] == wanted and told["error"] == 0.0 and told["base"].startswith("tiny:hunyuan@0")
    assert set(map(tuple, told["mixes"].values())) == {(0.25, 0.75)}
    male, object_, plain = (load_file(tmp_path / names[place]) for place in (3, 4, 1))
    for key in plain:
        mixed = 0.25 * male[key] + 0.75 * object_[key] if "lora_B" in key else male[key]
        torch.testing.assert_close(plain[key], mixed)


def test_a_mix_takes_the_place_of_the_labels(workspace: Path, tmp_path: Path) -> None:
    gate = id_of(workspace, "label")
    made = export.adapter(str(workspace), gate, ("diffusers",), {"male": 3.0, "object": 1.0}, str(tmp_path))
    assert set(map(tuple, header(made[0].path)["mixes"].values())) == {(0.75, 0.25)} and made[0].error == 0.0
    with pytest.raises(ConfigError, match="--mix female; choices: male, object"):
        export.adapter(str(workspace), gate, ("diffusers",), {"female": 1.0}, str(tmp_path))


def test_a_token_adapter_says_how_far_its_lora_is_off(workspace: Path) -> None:
    made = export.adapter(str(workspace), "last", ("diffusers",))
    assert [one.path.parent for one in made] == [workspace / "exports"]
    told = header(made[0].path)
    assert told["adapter_id"] == id_of(workspace, "token") and told["gate"] == "token"
    assert made[0].error == told["error"] and 0.0 < told["error"] < 1.0
    assert "of the adapter's effect" in export.as_text(made)
    forced = export.adapter(str(workspace), "last", ("diffusers",), {"branch0": 1.0})
    assert forced[0].error is not None and forced[0].error > told["error"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch"], "0 fit; there are"), (["last", "--format", "gguf"], "gguf; choices: native"),
        (["last", "--format", "diffusers", "--mix", "male"], "NAME=SHARE"),
        (["last", "--format", "diffusers", "--mix", "branch0=0"], "not all 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_said_plainly(
    workspace: Path, capsys: Any, arguments: list[str], words: str
) -> None:
    assert main(["export", "adapter", *arguments, "-w", str(workspace)]) == 1
    assert words in capsys.readouterr().err
