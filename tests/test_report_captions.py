"""The report on captions: its counts, the worst first, and what a run really judged."""

from demo import IN_PROCESS
from test_report import Page, data, section
from test_upstream import kept, revise

from ptta_core import memo
from ptta_core.ops import captioned, runs
from ptta_core.report.data import CaptionCard
from ptta_core.report.page import render

REFUSED = CaptionCard("c1", "I'm sorry, <b>I</b> cannot.", 1.0, 2.5, "refusal", False, "refuse refusal: \"I'm sorry\"")
FLAGGED = CaptionCard("c2", "", 0.0, 1.0, "boilerplate, cut", True, "admitted")


def test_a_run_that_judged_nothing_says_so():
    assert "No caption was judged in this run." in section(render(data()), "captions")
    assert "No caption has a flag." in section(render(data(captions=3)), "captions")


def test_counts_and_the_worst_stand_in_the_section():
    page = render(data(captions=1200, refused=1, flags=[("cut", 7), ("refusal", 1)], worst=[REFUSED, FLAGGED]))
    html, said = section(page, "captions"), Page(page).said()
    for words in ("1,200 captions, 1 refused.", "cut 7", "refusal 1", "I'm sorry, <b>I</b> cannot.", "(no text)",
                  "boilerplate, cut", "not kept: refuse refusal", "0:01.0"):  # fmt: skip
        assert words in said, words
    assert "<b>I</b>" not in html and html.index("sorry") < html.index("(no text)") and 'href="#c1"' in html


def test_what_was_judged_is_what_the_tables_say(curated, curated_home):
    settings = IN_PROCESS | {"select.theta": 6.0, "select.max_motion_px": 40.0}
    view = runs.open_view("laptop", "laptop", settings, str(curated), str(curated_home / "footage"))
    one, other = kept(view)[:2]
    revise(view, "caption", one, text="The video shows a dog, asleep under a table.", caption_id=one)
    revise(view, "caption", other, text="No image was provided.", caption_id=other)
    again = runs.open_view("laptop", "laptop", settings, str(curated), str(curated_home / "footage"))
    memo.run(again.stage("admit"), again)
    found = captioned.judged(again)
    rows = again.rows("admit").to_pylist()
    assert (found["captions"], found["refused"]) == (len(rows), 1) and dict(found["flags"])["boilerplate"] == 1
    first = found["worst"][0]
    assert (first.clip_id, first.text, first.kept) == (other, "No image was provided.", False)
    assert any(card.flags == "boilerplate" and card.clip_id == one for card in found["worst"])
    assert {card.clip_id for card in found["worst"]} == {row["clip_id"] for row in rows if row["flags"]}
