"""Structured captions: what is repaired, what is asked again and how, what is refused; two passes and facts."""

import json

import pytest
from chat_server import chat_server
from test_endpoint import ask, colours, quick  # noqa: F401  (fixtures)

from ptta_core.config import CaptionConfig, ConfigError, ModelRef, load_recipe
from ptta_core.models import captioner, tiny_vlm
from ptta_core.models.captioner import CaptionItem, Facts, Malformed, Words
from ptta_core.models.dialogue import Answer, Ask, dialogue, plain
from ptta_core.models.structured import parse
from ptta_core.stages import load
from ptta_core.stages.caption import row

LABELS = ["male", "female", "object", "background"]
GIVEN = {
    "subject": "a girl in a red coat", "action": "she runs, arms wide", "setting": "a street in the rain",
    "style": "cel animation", "camera": "", "labels": {"female": 0.6, "background": 0.2, "male": 0},
    "caption": "A girl in a red coat runs through the rain.",
}  # fmt: skip
TEXT = json.dumps(GIVEN)
READ = Words(GIVEN["caption"], '{"background":0.25,"female":0.75}', *(GIVEN[name] for name in captioner.PARTS))
FACTS = Facts(12.0, 8.0, 0.0, "twos", -11.5, 0.2, 1.0, 0.7, 65.0, "blue, white")
ITEM = CaptionItem("c1", "/nowhere.mp4", 0, 100, "1/24", 0, "", 0.0, 3.2, FACTS)


@pytest.mark.parametrize("text", [
    TEXT,
    f"```json\n{TEXT}\n```",
    f"Here is the JSON you asked for: {TEXT} I hope it helps {{really}}!",
    f"<think>{{a girl? {{\"caption\": 1}}</think>\n{TEXT}",
    TEXT.replace("}, ", ",}, ").replace('rain."}', 'rain.",\n}'),
    TEXT.replace("runs through", "runs\nthrough"),
    TEXT.replace('"subject"', '"Subject"').replace('"female"', '"Female"'),
    TEXT.replace('"camera": ""', '"camera": null'),
    TEXT.replace('"she runs, arms wide"', '["she runs", "arms wide"]'),
    TEXT.replace("0.6", "60").replace("0.2", "20"),
    f'{{"note": "an example"}} {TEXT}',
    json.dumps({"extra": {"caption": 2}} | GIVEN),
])  # fmt: skip
def test_what_models_do_to_json_is_undone(text):
    assert parse(text, LABELS) == READ


def test_a_comma_inside_a_text_is_no_trailing_one():
    text = json.dumps(GIVEN | {"setting": 'a sign says "[a,] {b,}"'})
    assert parse(text, LABELS).setting == 'a sign says "[a,] {b,}"'


@pytest.mark.parametrize(("text", "message"), [
    ("A girl runs.", "there is no JSON object"),
    (TEXT[:-60], "the JSON is broken: .* at character"),
    (json.dumps({"subject": "a girl"}), "lacks caption"),
    (json.dumps({name: GIVEN[name] for name in GIVEN if name not in ("style", "labels")}), "lacks style, labels"),
    (json.dumps(GIVEN | {"caption": " "}), "caption is empty"),
    (json.dumps(GIVEN | {"subject": {"who": "a girl"}}), "subject must be a text"),
    (json.dumps(GIVEN | {"labels": "female"}), "labels must be an object"),
    (json.dumps(GIVEN | {"labels": {"girl": 1}}), "labels has 'girl'; choices: male, female, object, background"),
    (json.dumps(GIVEN | {"labels": {"male": "much"}}), "labels.male must be a number"),
    (json.dumps(GIVEN | {"labels": {"male": -1}}), "labels.male must be a number"),
    (json.dumps(GIVEN | {"labels": {"male": True}}), "labels.male must be a number"),
    (json.dumps(GIVEN | {"labels": {"male": 1}}).replace("1}", "NaN}"), "labels.male must be a number"),
])  # fmt: skip
def test_all_else_is_an_error_that_says_what(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text, LABELS)


def test_no_shares_mean_that_the_words_decide():
    words = parse(json.dumps(GIVEN | {"labels": {"male": 0}}), LABELS)
    assert words.labels_json == ""
    one = row(ITEM, words, CaptionConfig(), "m")
    assert json.loads(one.labels)["female"] > 0.5 and one.subject == GIVEN["subject"] and not one.cut
    assert row(ITEM, READ, CaptionConfig(), "m").labels == READ.labels_json


def talk(config, *answers):
    """(what was asked, the caption or why there is none)"""
    one, asked, answer = dialogue(ITEM, config), [], None
    for said in (*answers, None):
        try:
            asked.append(one.send(answer))
        except StopIteration as done:
            return asked, done.value
        except Malformed as error:
            return asked, error
        answer = Answer(said) if isinstance(said, str) else said
    raise AssertionError("it asks for more than it was given")


def test_a_malformed_answer_is_asked_for_once_more_with_the_error_named():
    mine = CaptionConfig(structured=True)
    asked, words = talk(mine, "A girl runs.", TEXT)
    first, second = asked
    assert words == READ and len(first.turns) == 1 and first.seen and second.seen
    assert second.turns[:2] == (*first.turns, "A girl runs.") and "there is no JSON object" in second.turns[2]
    asked, error = talk(mine, "A girl runs.", Answer(TEXT[:-30], cut=True))
    assert isinstance(error, Malformed) and len(asked) == 2
    why, said = str(error).splitlines()
    assert "the JSON is broken" in why and "caption.max_new_tokens" in why and said == TEXT[:-30]
    failed = row(ITEM, error, mine, "m")
    assert failed.kind == "malformed_caption" and TEXT[:-30] in failed.message


def test_an_empty_answer_is_asked_for_once_more():
    asked, words = talk(CaptionConfig(), " ", "A girl.")
    assert words.text == "A girl." and asked[0] == asked[1]
    assert isinstance(talk(CaptionConfig(), "", '""')[1], Malformed)
    assert talk(CaptionConfig(), Answer("A girl ru", cut=True))[1].cut


@pytest.mark.parametrize("text", [
    "A girl.", ' "A girl." ', "```\nA girl.\n```", "<think>Hm.</think>\n\nA girl.", "```text\nA girl.\n```",
])  # fmt: skip
def test_a_plain_answer_without_its_wrapping(text):
    assert plain(text) == "A girl."
    assert plain('"Go," she says, "now"') == '"Go," she says, "now"'


def test_the_question_holds_the_prompt_the_facts_and_the_form():
    (asked,), _ = talk(CaptionConfig(prompt="What?"), "A girl.")
    assert asked == Ask(("What?",))
    (asked,), words = talk(CaptionConfig(prompt="What?", facts="prompt"), "A girl.")
    assert asked.turns == (f"What?\n\nMeasured in this clip, and certain: {ITEM.words()}",) and words.text == "A girl."
    assert "The camera pans right" in ITEM.words() and "blue and white" in ITEM.words()
    (asked,), _ = talk(CaptionConfig(prompt="So: {facts} What?", facts="prompt"), "A girl.")
    assert asked.turns == (f"So: {ITEM.words()} What?",)
    (asked,), _ = talk(CaptionConfig(prompt="What?", structured=True, labels=["hero", "sky"]), TEXT.replace(
        "female", "hero").replace("background", "sky").replace(', "male": 0', ""))  # fmt: skip
    assert asked.turns[0].startswith("What?\n\n") and '"labels": {"hero": <share>, "sky": <share>}' in asked.turns[0]


def test_two_passes_and_appended_facts():
    mine = CaptionConfig(structured=True, rewrite="Say it as a poet:", facts="append")
    asked, words = talk(mine, TEXT, Answer("Red against rain."))
    assert [one.seen for one in asked] == [True, False]
    assert asked[1].turns == (f"Say it as a poet:\n\n{GIVEN['caption']}",)
    assert words == READ._replace(text=f"Red against rain. {ITEM.words()}")
    assert isinstance(talk(mine, TEXT, "", "")[1], Malformed)


def test_over_http_each_clip_its_own_structured_caption(colours, quick):  # noqa: F811
    def answer(colour, body):
        first = body["messages"][0]["content"]
        if isinstance(first, str):  # the second pass, without pictures
            return first.rpartition("\n\n")[2].upper()
        said = json.dumps(GIVEN | {"subject": f"colour {colour}", "caption": f"It is colour {colour}."})
        return said[:50] if len(body["messages"]) == 1 and colour % 3 == 0 else said

    script = {1: ["late 0.3"], 2: ["lost"], 4: ["say no", "say no"]}
    with chat_server(answer=answer, script=script) as server:
        found = ask(server, colours[:9], structured=True, rewrite="Louder:", concurrency=4)
    assert isinstance(found.pop("clip4"), Malformed)
    assert {clip: (one.subject, one.text) for clip, one in found.items()} == {
        f"clip{at}": (f"colour {at}", f"IT IS COLOUR {at}.") for at in range(9) if at != 4}  # fmt: skip
    assert [server.asked[at] for at in range(9)] == [2, 1, 2, 2, 2, 1, 2, 1, 1]
    roles = [[one["role"] for one in body["messages"]] for colour, body, *_ in server.seen if colour == 3]
    assert roles == [["user"], ["user", "assistant", "user"]]


def test_a_models_answers_go_the_same_way(colours, tmp_path):  # noqa: F811
    """A tiny random model speaks no JSON, and is asked again; its second pass reads its first, alone or in a batch."""
    folder = tiny_vlm.vlm(tmp_path / "vlm", 0)
    settings = {"captioner": "transformers", "model": ModelRef(id=str(folder)), "frames": 2, "max_new_tokens": 8}
    strict = captioner.make_captioner(CaptionConfig(**settings, structured=True))
    rounds, answer = [], strict.answer
    strict.answer = lambda chats: rounds.append([len(chat.turns) for chat in chats]) or answer(chats)
    failed = strict(colours[:3])
    assert all(isinstance(one, Malformed) for one in failed) and rounds == [[1, 1, 1], [3, 3, 3]]
    twice = captioner.make_captioner(CaptionConfig(**settings, rewrite="Again:"))
    both = twice(colours[:3])
    assert both == [one for item in colours[:3] for one in twice([item])]
    first = captioner.make_captioner(CaptionConfig(**settings))(colours[:3])
    from ptta_core.models.dialogue import Chat

    again = twice.answer([Chat((), (f"Again:\n\n{one.text}",)) for one in first])
    assert [one.text for one in both] == [plain(one.text) for one in again]


def test_what_is_asked_is_in_the_fingerprint_and_only_when_it_is_asked(tmp_path):
    def parts(**change):
        caption = {"captioner": "endpoint", "endpoint": {"model": "m", "url": "http://127.0.0.1:1/v1"}} | change
        return load("caption").parts(load_recipe("demo", {"caption": caption}), tmp_path)

    other = CaptionConfig().format + " Be brief."
    assert parts(format=other) == parts() != parts(structured=True) != parts(structured=True, format=other)
    assert len({json.dumps(parts(**one)) for one in ({}, {"facts": "prompt"}, {"facts": "append"}, {"rewrite": "?"},
                                                     {"prompt": "?"})}) == 5  # fmt: skip
    plainly = [load("caption").parts(load_recipe("demo", {f"caption.{name}": value}), tmp_path) for name, value in (
        ("structured", False), ("structured", True), ("facts", "append"), ("rewrite", "?"))]  # fmt: skip
    assert all(one == plainly[0] for one in plainly)  # the measured captioner is asked nothing


@pytest.mark.parametrize(("overrides", "message"), [
    ({"caption.format": "Answer with JSON: subject, caption"}, "must ask for action, setting, style, camera, .labels"),
    ({"caption.prompt": "So: {facts}"}, "facts must be prompt"),
    ({"caption.facts": "some"}, "caption.facts"),
])  # fmt: skip
def test_a_bad_form_is_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("demo", overrides)


def test_the_facts_are_part_of_what_is_read(curated, curated_home):
    from test_endpoint_stage import view_of

    def ids(**more):
        return set(view_of(curated, curated_home, "http://127.0.0.1:1/v1", **more).items("caption").input_ids)

    assert ids() == ids(**{"caption.structured": True}) and not ids() & ids(**{"caption.facts": "append"})
    assert ids(**{"caption.facts": "prompt"}) == ids(**{"caption.facts": "append"})
