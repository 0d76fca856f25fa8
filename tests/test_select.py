"""What is kept and why: every rule alone, their order, targets, near-duplicates, and people's words."""

import numpy as np
import pyarrow as pa
import pytest

from ptta_core.config import SelectConfig
from ptta_core.stages.select import SelectItem, decide, rule_of

MOTION = [20.0, 12.0, 90.0, 5.0, 14.0, 13.0]
LOOKS = [6.0, 5.0, 5.0, 5.0, 2.0, 6.0]
SOURCES = ["one", "one", "one", "two", "two", "two"]


def run(words=None, groups=None, **config) -> list[tuple[bool, str]]:
    """(kept, reason) of six clips named a to f, of which a, b, c come from one source."""
    clips = pa.table({"clip_id": list("abcdef"), "motion_px": MOTION, "aesthetic": LOOKS, "source_id": SOURCES,
                      "duration_s": [2.0, 4.0, 6.0, 8.0, 10.0, 12.0], "licence": ["CC0", "CC0", None, "BY", "BY", "BY"],
                      "text_share": [0.0, 0.5, 0.0, 0.0, 0.1, 0.3]})  # fmt: skip
    item = SelectItem("s", clips, words or {}, lambda: np.array(groups or [-1] * 6, np.int32))
    table = decide(item, SelectConfig(**{"alpha": 0.5, "theta": 8.0, **config}))
    assert table.column_names == ["selection_id", "clip_id", "score", "kept", "reason"]
    assert table["score"].to_pylist() == [0.5 * m + 0.5 * a for m, a in zip(MOTION, LOOKS)]
    return list(zip(table["kept"].to_pylist(), table["reason"].to_pylist()))


def kept(found: list[tuple[bool, str]]) -> str:
    return "".join(clip for clip, (yes, _) in zip("abcdef", found) if yes)


def test_the_papers_score_decides_by_default():
    found = run()
    assert kept(found) == "abcef"
    assert found[0][1] == "S 13.00 >= theta 8" and found[3][1] == "S 5.00 < theta 8"


def test_a_score_equal_to_theta_is_kept():
    assert kept(run(theta=8.5)) == "abcf"  # b's is 8.5 exactly


def test_bounds_name_the_value_and_the_rule():
    found = run(max_motion_px=80, min_aesthetic=3)
    assert kept(found) == "abf"
    assert found[2][1] == "motion 90.00 px > max_motion_px 80"
    assert found[4][1] == "aesthetic 2.00 < min_aesthetic 3"


def test_a_rule_is_joined_with_theta_and_names_the_condition_that_failed():
    found = run(rule="motion_px < 60 and text_share + 0.1 < 0.35")
    assert kept(found) == "ae"
    assert found[1][1] == "text_share 0.50: not text_share + 0.1 < 0.35 (select.rule)"
    assert found[2][1] == "motion_px 90.00: not motion_px < 60 (select.rule)"
    assert found[3][1].startswith("S ")


def test_a_rule_may_name_s_and_texts():
    assert kept(run(rule="S > 9.6 or licence == 'BY'", theta=0)) == "acdef"


def test_only_accepted_licences_and_an_unknown_one_is_not_accepted():
    found = run(licences=["CC0"])
    assert kept(found) == "ab"
    assert found[2][1] == "licence '' is not in licences CC0" and "licence 'BY'" in found[3][1]


@pytest.mark.parametrize(
    ("target", "clips"),
    [("2 clips", "ac"), ("100 clips", "abcdef"), ("50 %", "acf"), ("20 s", None), ("0.005 h", "acf"), ("0 clips", "")],
)
def test_a_target_solves_for_theta(target, clips):
    if clips is None:
        with pytest.raises(ValueError, match="none of '12000 clips'"):
            run(target=target)
    else:
        found = run(target=target, theta=99)
        assert kept(found) == clips
        assert all("select.target" in reason for _, reason in found)


def test_a_target_counts_what_is_left_after_the_other_rules_and_what_is_kept_by_hand():
    assert kept(run(target="2 clips", max_motion_px=80)) == "af"
    assert kept(run(target="2 clips", max_motion_px=80, words={"d": ("keep", "Ann")})) == "ad"


def test_of_near_duplicates_the_best_is_kept_and_the_others_say_which_it_is():
    found = run(groups=[0, 0, -1, 1, 1, 1])
    assert kept(found) == "acf"
    assert found[1][1] == "near-duplicate of a" and found[4][1] == "near-duplicate of f"
    assert found[3][1].startswith("S 5.00 <")  # what it fails by itself comes first
    assert kept(run(groups=[0, 0, -1, 1, 1, 1], duplicates="keep")) == "abcef"


def test_the_best_of_a_group_is_the_best_of_those_that_pass_the_other_rules():
    found = run(groups=[0, 0, 0, -1, -1, -1], max_motion_px=80)
    assert kept(found) == "aef"
    assert found[1][1] == "near-duplicate of a" and found[2][1].startswith("motion")


def test_a_higher_theta_never_keeps_another_clip():
    groups = [0, 0, -1, 1, 1, 1]
    for low, high in zip(range(0, 50), range(1, 51)):
        assert set(kept(run(groups=groups, theta=high, max_per_source=2))) <= set(
            kept(run(groups=groups, theta=low, max_per_source=2)))  # fmt: skip


def test_the_best_of_each_source():
    found = run(max_per_source=1)
    assert kept(found) == "cf"
    assert found[0][1] == "not among the best max_per_source 1 of its source"


def test_a_person_wins_over_every_rule():
    words = {"a": ("veto", "Ann"), "c": ("keep", "Ben"), "d": ("keep", "Ben"), "unknown": ("keep", "Ben")}
    found = run(words, groups=[0, 0, 0, -1, -1, -1], max_motion_px=80, licences=["CC0"])
    assert found[0] == (False, "vetoed by hand (Ann)")
    assert found[2] == (True, "kept by hand (Ben)") and found[3] == (True, "kept by hand (Ben)")
    assert found[1] == (False, "near-duplicate of c")  # what a person keeps is the best of its group


def test_every_reason_belongs_to_a_rule():
    words = {"a": ("veto", "Ann"), "d": ("keep", "Ben")}
    found = run(words, groups=[-1, 0, -1, -1, -1, 0], max_motion_px=80, rule="text_share < 0.4", duplicates="drop")
    assert [rule_of(reason) for _, reason in found] == [
        "by hand", "select.rule", "select.max_motion_px", "by hand", "select.theta", "select.theta"]  # fmt: skip
    assert rule_of(run(target="1 clips")[1][1]) == "select.target"
    assert rule_of(run(licences=["CC0"])[3][1]) == "select.licences"
    assert rule_of(run(max_per_source=1)[0][1]) == "select.max_per_source"
    assert rule_of(run(min_aesthetic=3)[4][1]) == "select.min_aesthetic"
    assert rule_of(run(groups=[0, 0, -1, -1, -1, -1])[1][1]) == "select.duplicates"


def test_values_that_are_no_numbers_are_rejected_not_kept():
    clips = pa.table({"clip_id": ["a", "b"], "motion_px": [float("nan"), 50.0], "aesthetic": [5.0, 5.0]})
    table = decide(SelectItem("s", clips, {}, lambda: np.full(2, -1, np.int32)), SelectConfig())
    assert table["kept"].to_pylist() == [False, True]
    assert table["reason"].to_pylist()[0] == "S nan < theta 10"


def test_a_rule_may_read_clips_and_sources_beside_scores(curated, curated_home):
    from demo import IN_PROCESS

    from ptta_core import memo
    from ptta_core.ops import runs, show

    folder = {"folder": str(curated_home / "footage"), "licence": "CC0", "provenance": "drawn here"}
    rule = "duration_s > 1.8 and width >= 64 and frames > 1 and licence == 'CC0' and source_id != ''"
    view = runs.open_view("laptop", "laptop", IN_PROCESS | {"sources.folders": [folder], "select.rule": rule,
                                                            "select.theta": -1.0, "select.duplicates": "keep"},
                          str(curated))  # fmt: skip
    outcomes = [memo.run(view.stage(name), view) for name in ("gather", "split", "score", "select")]
    assert [one.computed for one in outcomes[1:3]] == [0, 0]  # a licence is no reason to measure again
    lengths = {row["clip_id"]: row["end_s"] - row["start_s"] for row in view.rows("split").to_pylist()}
    for row in view.rows("select").to_pylist():
        assert row["kept"] == (lengths[row["clip_id"]] > 1.8), row["reason"]
    assert any(row["kept"] for row in view.rows("select").to_pylist())
    assert {row["licence"] for row in view.rows("gather", ["licence"], show.NOUNS["sources"]).to_pylist()} == {"CC0"}


def test_a_changed_licence_is_read_without_the_file(curated, curated_home, tmp_path):
    import shutil

    from demo import IN_PROCESS

    from ptta_core import memo
    from ptta_core.ops import runs
    from ptta_core.rows import Source

    shutil.move(curated_home / "footage", tmp_path / "away")
    try:
        folder = {"folder": str(curated_home / "footage"), "licence": "BY", "exclude": ["broken.mp4"]}
        view = runs.open_view("laptop", "laptop", IN_PROCESS | {"sources.folders": [folder]}, str(curated))
        outcome = memo.run(view.stage("gather"), view)
        assert outcome.computed > 0 and outcome.failed == 0
        assert set(view.rows("gather", ["licence"], Source)["licence"].to_pylist()) == {"BY"}
    finally:
        shutil.move(tmp_path / "away", curated_home / "footage")
