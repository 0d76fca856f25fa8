"""The forms of a trained adapter on the demo's river: files beside it, generated with, judged and shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from demo import computed, go, open_demo
from safetensors import safe_open

from ptta_core import ids, variants
from ptta_core.config import ConfigError, load_recipe
from ptta_core.memo import StageError
from ptta_core.models import lora_files
from ptta_core.ops import report, show
from ptta_core.rows import NOUNS

MIX = "mix:branch0=0.7,branch2=0.3"
FORMS = ["base", "adapter", "adapter:diffusers", "adapter:comfyui", "branch:branch1", MIX]


def test_every_form_is_a_file_generated_with_and_judged_beside_the_adapter(workspace: Path, videos: Path) -> None:
    asked = {"train.export": ["diffusers"], "generate.variants": FORMS}
    before = show.rows("adapters", str(workspace))
    outcomes = go(view := open_demo(workspace, videos, **asked), ("train", "generate", "evaluate"))
    prompts = 2
    assert computed(outcomes) == {"train": 4, "generate": 4 * prompts, "evaluate": 4 * prompts}
    assert show.rows("adapters", str(workspace)) == before  # nothing was trained again
    files = {row["variant"]: row for row in view.rows("train", noun=NOUNS["exports"]).to_pylist()}
    assert list(FORMS[2:]) == sorted(files, key=FORMS.index)
    for row in files.values():
        path = workspace / row["path"]
        assert path.parent == workspace / Path(before[0]["path"]).parent and ids.digest_file(path) == row["export_id"]
        assert row["output_error"] < 1e-4 and row["adapter_id"] == before[0]["adapter_id"]
        assert sum(json.loads(row["mix"]).values()) == pytest.approx(1)
    assert 0 < files["adapter:diffusers"]["error"] < files["branch:branch1"]["error"]  # of a token gate
    header = told(workspace / files["adapter:diffusers"]["path"])
    assert (header["base"], header["base_revision"]) == (before[0]["base"], "0")
    assert header["latents_digest"] == before[0]["latents_digest"] and header["train"]["rank"] == 4
    assert header["metrics"]["final_loss"] == pytest.approx(before[0]["final_loss"])
    made = {(row["variant"], row["prompt"]): row for row in view.rows("generate").to_pylist()}
    assert {variant for variant, _ in made} == set(FORMS) and {row["labels"] for row in made.values()} == {""}
    shas = {variant: row["video_sha"] for (variant, prompt), row in made.items() if prompt == next(iter(made))[1]}
    assert len(set(shas.values())) >= 5  # the two namings of one LoRA may give the same video
    page = report.find(str(workspace)).read_text(encoding="utf-8")
    assert page.count("<figcaption>adapter:comfyui</figcaption>") == prompts and "For other tools" in page
    assert "measures: other forms of the adapter" in page and MIX in page
    again = {**asked, "train.export": ["diffusers", "branches"]}
    assert computed(go(open_demo(workspace, videos, **again), ("train", "generate", "evaluate"))) == {"train": 3}


def told(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[lora_files.HEADER_KEY])


def test_a_form_whose_file_is_wrong_is_a_failure_and_not_generated_with(
    workspace: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lora_files.comfyui_keys
    monkeypatch.setattr(lora_files, "comfyui_keys", lambda pairs: {k: 1.01 * v for k, v in real(pairs).items()})
    asked = {"train.export": ["diffusers", "comfyui"], "generate.variants": ["base", "adapter:comfyui"]}
    outcomes = go(view := open_demo(workspace, videos, **asked), ("train",))
    assert (outcomes["train"].computed, outcomes["train"].failed) == (1, 1)
    failure = view.open_failures("train")[0]
    assert failure["kind"] == "export_differs" and "adapter:comfyui, loaded by ptta" in failure["message"]
    with pytest.raises(StageError, match=r"no file of variant adapter:comfyui.*--retry-failed"):
        view.items("generate")


def test_variants_have_one_grammar() -> None:
    assert variants.parse("base") is None and variants.parse("adapter") is None
    form = variants.parse("mix:male=3,object=1")
    assert form and form.weights(["male", "female", "object"]) == [0.75, 0.0, 0.25]
    assert form.file_name == "mix-male-3-object-1"
    alone = variants.parse("branch:female")
    assert alone and alone.weights(["male", "female"]) == [0.0, 1.0] and alone.file_name == "branch-female"
    names = variants.branch_names("label", 2, ["male", "object"])
    assert names == ["male", "object"] and variants.branch_names("token", 2, names) == ["branch0", "branch1"]
    listed = variants.of_formats(["comfyui", "branches", "comfyui"], names)
    assert listed == ["adapter:comfyui", "branch:male", "branch:object"]
    for bad in ("adaptor", "adapter:gguf", "branch:", "mix:male", "mix:male=0", "mix:male=-1,object=2", "mix:a=nan"):
        with pytest.raises(ValueError, match=r"choices: base|NAME=SHARE|not all 0"):
            variants.parse(bad)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"generate.variants": ["adapter:gguf"]}, "choices: base, adapter"),
        ({"generate.variants": ["base", "base"]}, "came twice"),
        ({"generate.variants": ["branch:male"]}, "no branch male; choices: branch0"),
        ({"train.gate": "label", "generate.variants": ["mix:male=1,robot=1"]}, "no branch robot; choices: male"),
        ({"train.export": ["gguf"]}, "diffusers"),
    ],
)
def test_a_form_that_cannot_be_is_refused_when_the_recipe_is_read(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_recipe("demo", overrides)
