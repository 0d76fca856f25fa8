"""Flags of captions: what each is for, what must not have it, and what admit makes of them."""

import itertools
import random
import time
from dataclasses import replace

import pytest
from demo import IN_PROCESS
from test_captioner import FACTS
from test_upstream import kept, revise

from ptta_core import memo
from ptta_core.clips_config import EncodeConfig
from ptta_core.flags import Alike, flags_of, shared, shingles_of, without_opening
from ptta_core.models.captioner import describe_facts
from ptta_core.ops import runs
from ptta_core.ops.fates import admit_rule
from ptta_core.stages.encode import effective_prompt

GOOD = (
    "A girl in a red coat runs through the rain, her arms wide. Behind her, the lights of a market blur into gold. "
    "The drawing is flat and clean, and the camera follows her from the side before it stops at a bridge."
)


def flags(text, **more):
    return [one.flag for one in flags_of(text, **more)]


@pytest.mark.parametrize(("text", "flag"), [
    ("", "empty"), (" \n", "empty"), ("...", "empty"), ("12 34", "empty"), ("***", "empty"),
    ("I'm sorry, but I can't help with that.", "refusal"),
    ("I’m very sorry. The request cannot be fulfilled.", "refusal"),
    ("As an AI language model, I do not watch films.", "refusal"),
    ("There is a girl. As a large language model I know no more.", "refusal"),
    ("Unfortunately, I see nothing.", "refusal"), ("I cannot see the clip.", "refusal"),
    ("I am not able to view videos.", "refusal"), ("No images were provided.", "refusal"),
    ("A dog runs and runs and runs and runs and runs and runs and runs and runs.", "repetition"),
    ("very very very very good", "repetition"),
    (" ".join(["The girl walks to the door and opens it."] * 3), "repetition"),
    ("一个女孩在雨中奔跑，穿着红色的外套。", "language"), ("Девочка бежит под дождём.", "language"),
    ("Das Mädchen rennt mit einem Hund durch den Regen und der Himmel ist grau.", "language"),
    ("Une fille court avec un chien dans la rue et le ciel est gris.", "language"),
    ("Una niña corre con un perro por la calle y el cielo es gris, los árboles se mueven.", "language"),
    ("The video shows a girl who runs.", "boilerplate"), ("This animated clip depicts a girl.", "boilerplate"),
    ("In this short video, a girl runs.", "boilerplate"), ("We can see a girl.", "boilerplate"),
    ("The video clip begins with a girl.", "boilerplate"), ("This is a scene. A girl.", None),
])  # fmt: skip
def test_a_flag_is_seen(text, flag):
    assert flags(text) == ([flag] if flag else [])


@pytest.mark.parametrize("text", [
    GOOD, 'A girl says "I\'m sorry" to the old man.', "A sorry little dog waits in the rain.",
    "The man cannot see the bird behind him.", "A robot with an AI core opens its hand.",
    "1girl, red coat, rain, night, cel shading", "A video screen shows a face.", "A cat. A dog. A cat. A dog.",
    "The scene of a market at dawn, full of people.", "Der König, a puppet, bows to the crowd and the crowd cheers.",
])  # fmt: skip
def test_what_is_right_has_no_flag(text):
    assert flags(text) == []


def test_measured_captions_have_no_flag():
    timings, pans, speeds = ("ones", "twos", "still", "mixed"), (-40.0, 0.0, 9.0), (1.0, 4.0)
    for timing, across, up, speed in itertools.product(timings, pans, pans, speeds):
        facts = replace(FACTS, timing=timing, pan_x_px=across, pan_y_px=up, static_share=0.4)
        assert flags(describe_facts(facts, 3.2, speed)) == []


def test_another_language_is_right_where_it_is_wanted_and_a_cut_is_told():
    assert flags("一个女孩在雨中奔跑。", language="any") == []
    assert flags("A girl in a red", cut=True) == ["cut"]


@pytest.mark.parametrize(("text", "rest"), [
    ("The video shows a girl who runs.", "A girl who runs."), ("In this clip, we see a dog.", "A dog."),
    ("this animated scene begins with rain", "Rain"), (GOOD, GOOD), ("The video shows.", "The video shows."),
    ("The video shows ", "The video shows "), ("", ""),
])  # fmt: skip
def test_an_opening_is_taken_away(text, rest):
    assert without_opening(text) == rest
    assert effective_prompt(text, EncodeConfig(strip_openings=True, suffix="x")) == f"{rest.strip()} x".strip()
    assert effective_prompt(text, EncodeConfig()) == text.strip()


# ---------------------------------------------------------------------------------------------- alike


def test_a_caption_but_for_a_word_or_a_number_is_near_identical():
    alike = Alike()
    assert alike.find("a", GOOD) == ("", 0.0)
    assert alike.find("b", GOOD.replace("red", "blue"))[0] == "a"
    assert alike.find("c", GOOD.upper()) == ("a", 1.0)
    assert alike.find("d", "A dog sleeps on a sofa while the sun goes down behind the house.") == ("", 0.0)
    assert alike.find("e", "A shot of 3.2 seconds in blue.") == ("", 0.0)
    assert alike.find("f", "A shot of 4.5 seconds in blue.") == ("e", 1.0)
    assert alike.find("g", "") == alike.find("h", "...") == ("", 0.0)
    assert alike.find("i", "rain") == ("", 0.0) and alike.find("j", "Rain!") == ("i", 1.0)


def test_what_is_found_is_what_comparing_all_pairs_finds():
    dice = random.Random(0)
    words = [f"word{place}" for place in range(300)]
    texts = []
    for _ in range(60):
        text = [dice.choice(words) for _ in range(60)]
        texts.append(text)
        for changes in (1, 2, 3, 6, 12, 30):
            texts.append([dice.choice(words) if place in dice.sample(range(60), changes) else word
                          for place, word in enumerate(text)])  # fmt: skip
    dice.shuffle(texts)
    alike, kept_ones, agree = Alike(), [], 0
    for place, text in enumerate(" ".join(one) for one in texts):
        shingles = frozenset(shingles_of(text))
        best = max((shared(shingles, one) for one in kept_ones), default=0.0)
        name, share = alike.find(f"{place}", text)
        agree += (share if name else 0.0) == (best if best >= 0.8 else 0.0)
        if not name:
            kept_ones.append(shingles)
    assert agree >= 0.98 * len(texts)  # sketches are drawn by chance, and a group holds four


def test_many_cost_what_few_cost_each():
    """Templates that share most of their words: groups are never compared pair by pair."""
    dice, names = random.Random(1), [f"name{place}" for place in range(5000)]

    def each_s(count):
        alike, begun = Alike(), time.process_time()
        for place in range(count):
            alike.find(f"{place}", f"The camera pans slowly over {' and '.join(dice.sample(names, 12))} in the rain.")
        return (time.process_time() - begun) / count

    # ten times as much each, were they compared pair by pair; the least of two, since others use the machine's caches
    assert min(each_s(6000), each_s(6000)) < 5 * min(each_s(600), each_s(600))


# ---------------------------------------------------------------------------------------------- admit


def test_admit_stores_every_flag_and_refuses_what_the_recipe_names(curated, curated_home):
    def open_view(**more):
        settings = IN_PROCESS | {"select.theta": 6.0, "select.max_motion_px": 40.0} | more
        return runs.open_view("laptop", "laptop", settings, str(curated), str(curated_home / "footage"))

    view = open_view()
    refused, flagged, again, cut, first = kept(view)[:5]
    texts = {refused: "I'm sorry, I cannot see it.", flagged: f"The video shows that. {GOOD}", again: GOOD,
             cut: "A dog sleeps on a", first: GOOD.upper()}  # fmt: skip
    for clip, text in texts.items():
        revise(view, "caption", clip, text=text, caption_id=clip, cut=clip == cut)

    def decided(**more):
        now = open_view(**more)
        memo.run(now.stage("admit"), now)
        return {row["clip_id"]: row for row in now.rows("admit").to_pylist() if row["clip_id"] in texts}

    rows = decided()
    assert {clip: row["flags"] for clip, row in rows.items() if clip in (refused, cut)} == {
        refused: "refusal", cut: "cut"}  # fmt: skip
    assert "boilerplate" in rows[flagged]["flags"]
    assert {clip for clip, row in rows.items() if not row["kept"]} == {refused, cut}
    assert rows[refused]["reason"] == "refuse refusal: \"I'm sorry\""
    assert admit_rule(rows[cut]["reason"]) == "admit.refuse cut"
    near = [clip for clip in (flagged, again, first) if "near_identical" in rows[clip]["flags"]]
    assert len(near) == 2
    strict = decided(**{"admit.refuse": ["near_identical"]})
    assert {clip for clip, row in strict.items() if not row["kept"]} == set(near)
    assert all(row["flags"] == rows[clip]["flags"] for clip, row in strict.items())
    assert all(row["kept"] for row in decided(**{"admit.refuse": []}).values())
