"""The report on what the model learns from: its numbers, its pictures, and a word beside what is random."""

import base64
from dataclasses import replace
from typing import Any

from test_report import JPEG, Page, data, section

from ptta_core.ops.fates import sentences
from ptta_core.report import LookCard
from ptta_core.report.learning import LOOKS_BYTES
from ptta_core.report.page import render

FOOTAGE: dict[str, Any] = {
    "clips": {"selected": 12, "whole": 2, "shortened": 8, "dropped": 1, "refused": 1, "failed": 0, "not reached": 0},
    "seconds": {"selected": 40.0, "learnt": 25.0, "lost": {"encode.frames": 12.5, "dropped: too_small": 2.5}},
    "causes": {"shortened: encode.frames": 8, "dropped: too_small": 1, "refused: admit.min_words": 1},
    "latents": 10, "buckets": {"33x512x512": 8, "29x512x512": 2}, "batch": 4, "cut_prompts": 1,
}  # fmt: skip
LOOK = LookCard("c3", "33x512x512", "a <b>.mp4", 61.0, 62.375, "A fox & a hen <run>.", JPEG)


def shown(**more: Any) -> tuple[str, Page]:
    """The section's HTML, and the whole page parsed strictly."""
    page = render(data(footage=FOOTAGE, learnt=sentences(FOOTAGE), **more))
    return section(page, "latents"), Page(page)


def test_a_run_that_encoded_nothing_says_so() -> None:
    assert "Nothing was encoded in this run." in section(render(data()), "latents")


def test_every_count_stands_in_its_table() -> None:
    html, page = shown()
    said = page.said()
    for row in ("learnt whole 2", "shortened: encode.frames 8", "dropped: too_small 1", "refused: admit.min_words 1",
                "together 12", "learnt 25.0 s", "encode.frames 12.5 s", "together 40.0 s", "33x512x512 8",
                "29x512x512 2 *", "fewer than a batch of 4"):  # fmt: skip
        assert row in said, row
    assert "1 prompt longer than the text encoder reads" in said and "<ul" not in html


def test_pictures_come_with_their_words_and_a_link_to_their_clip() -> None:
    html, page = shown(looks=[LOOK, replace(LOOK, speed=4.9, bucket="49x64x64")], random_models=["base.model = tiny:x"])
    assert html.count(f'<a href="#c3"><img alt="" src="data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}">') == 2
    said = page.said()
    assert "2 of 10" in said and "A fox & a hen <run>." in said and "a <b>.mp4" in said
    assert "1:01.0–1:02.3, 4.9 times its speed" in said and said.count("times its speed") == 1
    assert "random tiny model: no quality figure" in html
    assert "random" not in shown(looks=[LOOK])[0]


def test_pictures_stay_within_their_budget() -> None:
    large = replace(LOOK, jpeg=b"x" * (LOOKS_BYTES // 3))
    html, _ = shown(looks=[large] * 8)
    assert html.count("<img") == 2 and "2 of 10" in html
