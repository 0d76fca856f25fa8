"""Recipes and sites: what is refused, and how the message helps."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ptta_core.config import (
    ConfigError,
    Recipe,
    ScoreConfig,
    Section,
    SplitConfig,
    TrainConfig,
    load_recipe,
    load_site,
    names,
    parse_overrides,
)
from ptta_core.memo import result_fields


def recipe_file(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "select: {alpha: 0.5, theta: 3}\n")
    recipe = load_recipe(path, {"select.theta": 8, "train.rank": 2, "max_failed_share": 0.1})
    assert (recipe.name, recipe.select.alpha, recipe.select.theta) == ("mine", 0.5, 8.0)
    assert (recipe.train.rank, recipe.max_failed_share) == (2, 0.1)
    assert load_recipe("demo", {"base.model.revision": "1"}).base.model.id == "tiny:hunyuan"
    with pytest.raises(ConfigError, match=r"base\.model\.id"):  # a model is named whole: its id is not inherited
        load_recipe(path, {"base.model": {"revision": "1"}})


def test_overrides_are_json_or_text() -> None:
    pairs = ["select.theta=8", "encode.tile=false", "encode.trigger=a=b", "generate.seeds=[1, 2]",
             "admit.max_repeats=null"]  # fmt: skip
    assert parse_overrides(pairs) == {
        "select.theta": 8, "encode.tile": False, "encode.trigger": "a=b", "generate.seeds": [1, 2],
        "admit.max_repeats": None,
    }  # fmt: skip
    for bad in ("select.theta", "=8"):
        with pytest.raises(ConfigError, match=r"section\.field=value"):
            parse_overrides([bad])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"select.tetha": 8}, ["select.tetha", "8", "did you mean theta", "alpha", "max_motion_px"]),
        ({"slect.theta": 8}, ["slect", "did you mean select", "split"]),
        ({"base.model.ident": "x"}, ["base.model.ident", "revision"]),
        ({"sources.folders": [{"folder": "x", "license": "CC0"}]}, ["license", "did you mean licence", "exclude"]),
    ],
)
def test_an_unknown_field_is_named_with_the_choices(overrides: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("demo", overrides)
    for word in ["recipe demo", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("select.alpha", 1.5), ("select.theta", "high"), ("max_failed_share", -0.1), ("split.min_clip_s", 0),
        ("score.motion", "farneback"), ("encode.frames", 0), ("train.branches", 0), ("generate.seeds", 3),
    ],
)  # fmt: skip
def test_a_value_out_of_bounds_is_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("demo", {field: value})
    assert field in str(caught.value) and repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"score.motion": "farneback"}, "'dis' or 'raft'"),
        ({"encode.frames": 32}, "nearest are 33 and 37|nearest are 29 and 33"),
        ({"split.max_clip_s": 0.1}, "max_clip_s 0.1 is below min_clip_s 0.5"),
        ({"generate.height": 100}, "multiples of 16"),
        ({"caption.captioner": "transformers"}, "needs caption.model"),
        ({"select.theta.deep": 1}, "select.theta has no fields"),
    ],
)
def test_a_bad_value_says_what_would_do(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("demo", overrides)


def test_every_bad_field_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("demo", {"select.alpha": 2, "train.rank": 0})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("text", ["select: [1,\n", "a: b: c\n", "\tselect:\n"])
def test_broken_yaml_names_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml is not valid YAML"):
        load_recipe(recipe_file(tmp_path, text))


def test_yaml_must_hold_fields_and_runs_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must hold fields, not a list"):
        load_recipe(recipe_file(tmp_path, "- 1\n"))
    target = tmp_path / "touched"
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_recipe(recipe_file(tmp_path, f"name: !!python/object/apply:pathlib.Path.touch ['{target}']\n"))
    assert not target.exists()


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load_recipe(recipe_file(tmp_path, "")) == Recipe(name="mine")


def test_a_missing_recipe_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("papr")
    assert all(name in str(caught.value) for name in ["papr", *names("recipes")])
    with pytest.raises(ConfigError, match="no such recipe file"):
        load_recipe(str(tmp_path / "none.yaml"))


def test_sites_expand_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTTA_TEST_ROOT", str(tmp_path))
    path = tmp_path / "here.yaml"
    path.write_text("workspace: $PTTA_TEST_ROOT/w\nroots: {nas: '${PTTA_TEST_ROOT}/n'}\n", encoding="utf-8")
    site = load_site(str(path))
    assert site.home == (tmp_path / "w").resolve() and site.roots == {"nas": f"{tmp_path}/n"}
    with pytest.raises(ConfigError, match=r"score\.workers"):
        load_site(str(path), {"score.workers": 2})


def test_sections_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SplitConfig().width = 640  # type: ignore[misc]


@pytest.mark.parametrize(
    ("section", "left_out"),
    [
        (ScoreConfig, {"thumbnail_px"}),
        (
            TrainConfig,
            {"checkpointing", "checkpoint_every", "keep_every", "export", "stop_on_divergence", "stop_on_collapse",
             "stop_after", "router_every", "preview_every", "preview_prompts", "preview_seeds", "preview_steps",
             "preview_share"},
        ),
        (SplitConfig, set()),
    ],
)
def test_only_what_changes_a_result_is_fingerprinted(section: type[Section], left_out: set[str]) -> None:
    assert set(section.model_fields) - set(result_fields(section())) == left_out


def test_the_fingerprint_follows_results_and_nothing_else(tmp_path: Path) -> None:
    from ptta_core.stages import load

    def parts(**overrides: object) -> dict[str, object]:
        changed = {name.replace("__", "."): value for name, value in overrides.items()}
        return load("score").parts(load_recipe("demo", changed), tmp_path)

    assert parts() == parts(score__thumbnail_px=64) == parts(select__theta=1)
    assert parts()["score.gap_s"] == 0.625 and "score.thumbnail_px" not in parts()
    assert {name for name, value in parts(score__gap_s=0.5).items() if value != parts()[name]} == {"score.gap_s"}
