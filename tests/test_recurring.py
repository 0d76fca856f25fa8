"""What recurs at one place in the clips of a source, and what is chance."""

import numpy as np
import pyarrow as pa

from ptta_core.models.recurring import MOST_PLACES, recurring_box, source_shares
from ptta_core.stages.select import over_sources

HERE, NEAR, THERE = "500,280,50,20", "503,281,50,20", "20,20,60,30"


def test_a_box_recurs_when_enough_clips_of_a_source_have_it():
    assert recurring_box([HERE, "", NEAR, "", ""]) == HERE
    assert recurring_box([HERE, THERE, "", ""]) == ""
    assert recurring_box([HERE, NEAR, *[""] * 8]) == ""  # two of ten are chance
    assert recurring_box([]) == "" and recurring_box(["", ""]) == ""


def test_each_source_speaks_for_its_own_clips_only():
    boxes = [HERE, HERE, "", None, NEAR, THERE, "", HERE]
    sources = np.array([0, 1, 0, 1, 0, 1, 0, 2])
    assert source_shares(sources, boxes).tolist() == [0.5, 0, 0.5, 0, 0.5, 0, 0.5, 0]
    assert source_shares(sources, [""] * 8).tolist() == [0.0] * 8


def test_a_band_of_subtitles_counts_by_its_height_in_the_picture():
    lines = ["100,270,300,20", "200,272,90,19", "40,250,400,41", "", "10,30,80,60"]
    assert source_shares(np.zeros(5, int), lines, band=True).tolist() == [0.6] * 5
    assert source_shares(np.zeros(5, int), lines).tolist() == [0.0] * 5  # as logos they are at different places


def test_a_source_of_many_clips_is_looked_at_whole():
    boxes = [HERE if index % 3 == 0 else f"{index},{index % 200},10,10" for index in range(3 * MOST_PLACES)]
    shares = source_shares(np.zeros(len(boxes), int), boxes)
    assert np.allclose(shares, 1 / 3, atol=0.001)


def test_a_rule_sees_the_shares_beside_the_clips():
    table = pa.table({"clip_id": list("abc"), "source_id": ["x", "x", "y"], "static_box": [HERE, NEAR, HERE],
                      "text_box": ["", "", ""]})  # fmt: skip
    found = over_sources(table, {"source_overlay", "source_text", "motion_px"})
    assert found["source_overlay"].to_pylist() == [1.0, 1.0, 0.0]
    assert found["source_text"].to_pylist() == [0.0, 0.0, 0.0]
