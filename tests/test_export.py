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
from ptta_core.training import dataset, exporting

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
        about = {"labels": ["male", "object"], "label_mean": [0.25, 0.75], "base_revision": "0", "latents_digest": "d",
                 "recipe": "r", "metrics": {"final_loss": 0.5}}  # fmt: skip
        hydralora.save_adapter(path, model, about)
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
             f"{short}-branch-male.safetensors", f"{short}-branch-object.safetensors"]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    printed = capsys.readouterr().out
    assert all(name in printed for name in names) and "exact for the mean labels" in printed
    assert ids.digest_file(tmp_path / names[0]) == wanted
    told = header(tmp_path / names[1])
    assert told["adapter_id"] == wanted and told["output_error"] < 1e-5 and told["weight_error"] < 1e-6
    assert told["error"] < 1e-4 and told["loader"].startswith("diffusers")  # every sample has the mean labels
    assert (told["base_revision"], told["latents_digest"], told["recipe"]) == ("0", "d", "r")
    assert told["metrics"] == {"final_loss": 0.5} and told["adapter"]["gate"] == "label"
    assert "differs from the adapter by 0.0% of its effect" in printed
    assert header(tmp_path / names[2])["names"] == "comfyui"
    assert set(map(tuple, told["mixes"].values())) == {(0.25, 0.75)}
    male, object_, plain = (load_file(tmp_path / names[place]) for place in (3, 4, 1))
    for key in plain:
        mixed = 0.25 * male[key] + 0.75 * object_[key] if "lora_B" in key else male[key]
        torch.testing.assert_close(plain[key], mixed)


def test_a_mix_takes_the_place_of_the_labels(workspace: Path, tmp_path: Path) -> None:
    gate = id_of(workspace, "label")
    made = export.adapter(str(workspace), gate, ("diffusers", "comfyui"), "male=3,object=1", str(tmp_path))
    told = header(made[0].path)
    assert set(map(tuple, told["mixes"].values())) == {(0.75, 0.25)} and told["variant"] == "mix:male=3,object=1"
    assert told["output_error"] < 1e-5 and 0.01 < told["error"] < 2  # exact for this mix, off the training labels
    short = gate[:12]
    assert [one.path.name for one in made] == [f"{short}-mix-male-3-object-1.safetensors",
                                               f"{short}-mix-male-3-object-1-comfyui.safetensors"]  # fmt: skip
    with pytest.raises(ConfigError, match="no branch female; choices: male, object"):
        export.adapter(str(workspace), gate, ("diffusers",), "female=1", str(tmp_path))


def test_without_samples_what_is_exact_is_written_and_what_is_not_refused(workspace: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(workspace, tmp_path / "w"))
    for index in copy.glob("training/*/index.json"):
        index.unlink()
    made = export.adapter(str(copy), id_of(copy, "label"), ("diffusers",), None, str(tmp_path))
    assert made[0].error is None and "not compared" in export.as_text(made) and "error" not in header(made[0].path)
    with pytest.raises(ConfigError, match=r"samples of this adapter are gone.*training.token"):
        export.adapter(str(copy), "last", ("diffusers",), None, str(tmp_path))


def test_a_file_that_does_not_compute_the_adapter_gets_no_name(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    real = lora_files.diffusers_keys
    monkeypatch.setattr(lora_files, "diffusers_keys", lambda pairs: dict(list(real(pairs).items())[2:]))
    with pytest.raises(exporting.ExportDiffers, match=r"adapter:diffusers, loaded by diffusers .*differ by inf"):
        export.adapter(str(workspace), "last", ("diffusers",), None, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert main(["export", "adapter", "last", "-w", str(workspace), "--out", str(tmp_path)]) == 1
    assert "adapter:diffusers" in capsys.readouterr().err


def test_a_token_adapter_says_how_far_its_lora_is_off(workspace: Path) -> None:
    made = export.adapter(str(workspace), "last", ("diffusers",))
    assert [one.path.parent for one in made] == [workspace / "exports"]
    told = header(made[0].path)
    assert told["adapter_id"] == id_of(workspace, "token") and told["adapter"]["gate"] == "token"
    assert made[0].error == told["error"] and 0.0 < told["error"] < 1.0
    assert "differs from the adapter by" in export.as_text(made)
    forced = export.adapter(str(workspace), "last", ("diffusers",), "branch0=1")
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
