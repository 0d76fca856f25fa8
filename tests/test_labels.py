"""The rule that reads labels out of words: grammar's small change, own words, and agreement with labels by hand."""

import json
from pathlib import Path

import pytest

from ptta_core.clips_config import CaptionConfig
from ptta_core.config import DEPLOYMENTS, ConfigError, load_recipe
from ptta_core.labels import WORDS, labels_of, speaks, words_of
from ptta_core.models.captioner import Facts, describe_facts

PAPER = CaptionConfig()


def told(text: str, **changes: object) -> dict[str, float]:
    return json.loads(labels_of(text, PAPER.model_copy(update=changes)) or "{}")


def test_what_is_named_first_counts_most_and_once() -> None:
    assert told("A man.") == {"male": 1.0}
    assert told("A man with a hat by the sea.") == pytest.approx({"male": 6 / 11, "object": 3 / 11,
                                                                   "background": 2 / 11}, abs=1e-4)  # fmt: skip
    assert told("The man, a man, the MAN and a hat") == pytest.approx({"male": 2 / 3, "object": 1 / 3}, abs=1e-4)
    assert told("Nothing but the camera moves.") == {} and labels_of("", PAPER) == ""


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("fisherman", "male"), ("fishermen", "male"), ("boys", "male"), ("cowboy", "male"), ("swordswoman", "female"),
        ("women", "female"), ("ladies", "female"), ("actresses", "female"), ("girls", "female"), ("mice", "object"),
        ("wolves", "object"), ("foxes", "object"), ("butterflies", "object"), ("benches", ""), ("human", ""),
        ("humans", ""), ("woman", "female"), ("valleys", "background"), ("beaches", "background"), ("his", "male"),
        ("this", ""), ("hers", "female"), ("glass", "object"), ("glasses", "object"), ("grass", "background"),
    ],
)  # fmt: skip
def test_singular_plural_and_endings(word: str, label: str) -> None:
    assert [one for one in WORDS if speaks(word, words_of(one, {}))] == ([label] if label else [])


def test_a_recipe_brings_labels_and_words_of_its_own() -> None:
    assert told("Two dragons over a castle", labels=["dragon", "knight"]) == {"dragon": 1.0}  # its own name
    own = {"labels": ["dragon", "place"], "label_words": {"place": ["Castle", "*shire"]}}
    assert told("A castle, a dragon, Yorkshire", **own) == pytest.approx({"place": 8 / 11, "dragon": 3 / 11}, abs=1e-4)
    shared = {"labels": ["pet", "wild"], "label_words": {"pet": ["cat"], "wild": ["cat"]}}
    assert told("cats", **shared) == {"pet": 0.5, "wild": 0.5}


def test_a_measured_caption_speaks_of_none_of_the_papers_labels() -> None:
    plain = Facts(12.0, 8.0, 0.5, "twos", -11.5, 9.0, 1.1, 0.7, 65.0, "blue, white, orange")
    for speed in (1.0, 3.0):
        for palette in ("blue, green", "brown", "gray, black, yellow"):
            text = describe_facts(Facts(**{**plain.__dict__, "palette": palette}), 2.0, speed)
            assert labels_of(text, PAPER) == "", text
    assert told(describe_facts(plain, 2.0), labels=["blue", "orange"]) == pytest.approx(
        {"blue": 2 / 3, "orange": 1 / 3}, abs=1e-4)  # fmt: skip


def test_prompts_are_read_much_as_people_labelled_them() -> None:
    """Labels by hand of 22 shipped prompts. The lists were made from general words, by one who knew these prompts."""
    agree, apart = 0, []
    lines = [line for name in ("animation-20", "demo-2")
             for line in Path(DEPLOYMENTS / f"prompts/{name}.jsonl").read_text().splitlines()]  # fmt: skip
    for line in lines:
        one = json.loads(line)
        hand, found = one["labels"], told(one["prompt"])
        main = max(found, key=lambda label: found[label], default="")
        agree += hand.get(main, 0) == max(hand.values())
        apart.append(sum(abs(found.get(label, 0) - hand.get(label, 0)) for label in PAPER.labels) / 2)
    assert len(lines) == 22 and agree >= 18 and sum(apart) / len(apart) < 0.22


def test_one_label_a_branch_where_labels_are_read() -> None:
    changed = {"train.gate": "label", "caption.labels": ["a", "b", "c"]}
    with pytest.raises(ConfigError, match=r"train\.gate = 'label' takes one label a branch: train\.branches is 4, "
                       r"caption\.labels 3 \(a, b, c\); set train\.branches=3 or name 4 labels"):  # fmt: skip
        load_recipe("demo", changed)
    with pytest.raises(ConfigError, match=r"router_label_weight = 0\.1 takes one label a branch"):
        load_recipe("demo", {"train.router_label_weight": 0.1, "train.branches": 2})
    assert load_recipe("demo", changed | {"train.branches": 3}).train.branches == 3
    assert load_recipe("demo", changed | {"train.branches": 1}).train.branches == 1  # no gate: plain LoRA
    assert load_recipe("demo", {"caption.labels": ["a"]}).train.branches == 4  # a token gate reads none


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("caption.labels", ["a", "a"], "must be different words"),
        ("caption.labels", ["a", " "], "must be different words"),
        ("caption.label_words", {"robot": ["robot"]}, "robot: choices: male, female, object, background"),
    ],
)
def test_bad_labels_are_refused(field: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_recipe("demo", {field: value})
