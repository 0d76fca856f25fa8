"""What deployments/ and prefect.yaml ship loads, and says what the paper and the README say."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from ptta_core.config import DEPLOYMENTS, HOME, Recipe, load_recipe, load_site, names
from ptta_core.models.licences import licence_of, missing, required

RECIPES = ["demo", "laptop", "paper", "rehearsal"]
SITES = ["cluster", "laptop", "one-gpu"]
STAGES = ["split", "score", "caption", "encode", "train", "generate", "evaluate"]


def deployments() -> list[dict]:
    return yaml.safe_load((HOME / "prefect.yaml").read_text())["deployments"]


def test_the_shipped_names_are_these():
    assert names("recipes") == RECIPES
    assert names("sites") == SITES
    assert names("prompts") == ["animation-20", "demo-2"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads_and_knows_its_name(name):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.description
    assert recipe.accept_licences == []  # accepting is for the user


@pytest.mark.parametrize("name", SITES)
def test_a_site_loads(name, monkeypatch):
    monkeypatch.setenv("PTTA_WORKSPACE", "/somewhere/shared")
    site = load_site(name)
    assert site.name == name
    assert site.workspace == ("/somewhere/shared" if name == "cluster" else "workspace")
    for stage in STAGES:
        workers = getattr(site, stage)
        assert not (site.device == "cpu" and workers.gpus), f"{stage} asks for a GPU on a CPU site"
        assert not (workers.gpus and not workers.count), f"{stage} asks for a GPU in the driver's process"


@pytest.mark.parametrize("name", [f"recipes/{one}" for one in RECIPES] + [f"sites/{one}" for one in SITES])
def test_every_chosen_field_is_explained(name):
    """A line that sets a top-level section's field has a comment, or stands under, or over, one that has."""
    lines = (DEPLOYMENTS / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert sum("#" in line for line in lines) >= len([line for line in lines if re.match(r"  [a-z_]+: \S", line)]) / 2


def test_the_paper_recipe_holds_the_papers_values():
    recipe = load_recipe("paper")
    assert (recipe.select.alpha, recipe.select.theta) == (0.7, 10.0)
    assert (recipe.train.branches, recipe.train.learning_rate, recipe.train.epochs) == (4, 2e-5, 2)
    assert recipe.train.placement == "non_attention"
    assert (recipe.score.motion, recipe.score.aesthetic) == ("raft", "laion-v2")
    assert recipe.base.model.id == "hunyuanvideo-community/HunyuanVideo"
    assert "videoscore" in recipe.evaluate.judges and recipe.evaluate.videoscore.id == "TIGER-Lab/VideoScore"


def test_rehearsal_is_the_size_it_says():
    recipe = load_recipe("rehearsal")
    assert (recipe.encode.frames, recipe.encode.area) == (33, 512 * 512)
    assert recipe.generate.frames == 33
    assert {recipe.base.model.id, recipe.caption.model.id, recipe.evaluate.videoscore.id} == {
        load_recipe("paper").base.model.id, load_recipe("paper").caption.model.id, "TIGER-Lab/VideoScore"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["demo", "laptop"])
def test_recipes_for_everyone_need_no_weights(name):
    assert all(ref.tiny for ref in load_recipe(name).models().values())


@pytest.mark.parametrize("name", ["paper", "rehearsal"])
def test_every_model_is_pinned(name):
    for field, ref in load_recipe(name).models().items():
        digits = 8 if field == "score.motion_model" else 40  # a file's hash, as torchvision names it; else a commit
        assert re.fullmatch(rf"[0-9a-f]{{{digits}}}", ref.revision), field


# ---------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize("name, count", [("animation-20", 20), ("demo-2", 2)])
def test_prompts(name, count):
    rows = [json.loads(line) for line in (DEPLOYMENTS / f"prompts/{name}.jsonl").read_text().splitlines()]
    known = set(Recipe().caption.labels)
    assert len({row["prompt"] for row in rows}) == len(rows) == count
    for row in rows:
        assert set(row) == {"prompt", "labels", "tags"} and row["tags"]
        assert set(row["labels"]) <= known
        assert sum(row["labels"].values()) == pytest.approx(1.0)
        assert len(row["prompt"].split()) <= 60
    assert known == set().union(*(row["labels"] for row in rows)) or name == "demo-2"


# ---------------------------------------------------------------------------------------------- licences


def test_the_paper_recipe_asks_for_hunyuan_and_raft_only():
    recipe = load_recipe("paper")
    assert {field: licence.name for field, licence in missing(recipe).items()} == {
        "base.model": "Tencent Hunyuan Community License",
        "score.motion_model": "torchvision pre-trained weights",
    }
    assert all(place in required(recipe)["base.model"].sentence for place in ("European Union", "South Korea"))


def test_a_named_licence_is_no_longer_missing():
    accepted = load_recipe("rehearsal", {"accept_licences": ["Tencent Hunyuan Community License"]})
    assert required(accepted) and not missing(accepted)


def test_tiny_and_local_models_ask_for_nothing_and_unknown_ones_ask(tmp_path):
    assert missing(load_recipe("demo")) == {}
    local = load_recipe("demo", {"base.model": {"id": str(tmp_path)}})
    assert missing(local) == {}
    stranger = load_recipe("demo", {"base.model": {"id": "someone/video-model", "revision": "main"}})
    assert missing(stranger)["base.model"].name == "licence of someone/video-model"


def test_every_shipped_hub_model_is_in_the_table():
    for name in RECIPES:
        for field, ref in load_recipe(name).models().items():
            licence = licence_of(ref)
            assert ref.tiny or (licence and not licence.name.startswith("licence of")), f"{name}: {field}"


# ------------------------------------------------------------------------------------------- prefect.yaml


def test_every_entrypoint_is_a_function_of_this_repository():
    for deployment in deployments():
        path, _, function = deployment["entrypoint"].partition(":")
        tree = ast.parse((HOME / path).read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function in defined, deployment["entrypoint"]


def test_deployments_have_valid_parameters_and_one_pool():
    for deployment in deployments():
        assert set(deployment["parameters"]) == {"recipe", "site", "overrides"}
        load_recipe(deployment["parameters"]["recipe"], deployment["parameters"]["overrides"])
        load_site(deployment["parameters"]["site"])
        assert deployment["work_pool"] == {"name": "ptta"}


def test_the_issues_deployments_exist_and_only_nightly_is_scheduled():
    found = {f"{Path(one['entrypoint']).name.partition(':')[2]}/{one['name']}": one for one in deployments()}
    assert len(found) == len(deployments()), "two deployments of one flow share a name"
    assert {"curate_and_train/demo", "curate_and_train/paper", "select/default", "evaluate/nightly"} <= set(found)
    flows = {"curate_and_train", "curate", "finetune", "evaluate", "gather", "split", "score", "select", "caption",
             "admit", "encode", "train", "generate", "judge"}  # fmt: skip
    assert flows == {name.partition("/")[0] for name in found}
    assert [name for name, one in found.items() if one.get("schedules")] == ["evaluate/nightly"]
    assert found["evaluate/nightly"]["schedules"][0]["cron"]


def test_no_absolute_path_is_shipped():
    shipped = [HOME / "prefect.yaml", *DEPLOYMENTS.rglob("*.yaml")]
    for path in shipped:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            value = line.partition("#")[0]
            assert not re.search(r"(^|[\s:\"'\[{,])/[A-Za-z]", value), f"{path.name}:{number}: {line}"
