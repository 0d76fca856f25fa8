"""Where every file and clip ended: counts that add up against the tables, and one answer for each thing asked."""

import pytest
from demo import IN_PROCESS, go

from ptta_core import stages
from ptta_core.config import ConfigError
from ptta_core.ops import edits, ledger, runs, show

SETTINGS = IN_PROCESS | {"select.theta": 6.0, "select.max_motion_px": 40.0}


def again(workspace, footage, **overrides):
    view = runs.open_view("laptop", "laptop", SETTINGS | overrides, str(workspace), str(footage))
    return go(view, stages.CURATE)


def test_the_counts_add_up_at_every_stage_and_agree_with_the_tables(curated):
    funnel = {row["stage"]: row for row in ledger.ledger(str(curated))}
    assert list(funnel) == ["gather", "split", "score", "select", "caption", "admit"]
    for row in funnel.values():
        assert row["count_in"] == row["count_out"] + sum(row["lost"].values())
        assert "not reached" not in row["lost"] and all(count > 0 for count in row["lost"].values())
    rows = {noun: show.rows(noun, str(curated)) for noun in ("sources", "clips", "scores", "selection", "captions")}
    assert funnel["gather"]["lost"] == {"failed: not_video": 1, "the same bytes as another file": 1}
    assert funnel["gather"]["count_out"] == funnel["split"]["count_in"] == len(rows["sources"])
    assert funnel["score"]["count_in"] == len({row["clip_id"] for row in rows["clips"]})
    assert funnel["select"]["count_in"] == len(rows["scores"])
    kept = [row for row in rows["selection"] if row["kept"]]
    assert funnel["select"]["count_out"] == funnel["caption"]["count_in"] == len(kept) > 0
    assert sum(funnel["select"]["lost"].values()) == len(rows["selection"]) - len(kept) > 0
    assert funnel["admit"]["count_in"] == len(rows["captions"])


def test_the_rules_of_the_funnel_are_those_of_the_reasons(curated, curated_home):
    again(curated, curated_home / "footage", **{"select.rule": "brightness > 0.5"})
    reasons = [row["reason"] for row in show.rows("selection", str(curated)) if not row["kept"]]
    lost = {row["stage"]: row for row in ledger.ledger(str(curated))}["select"]["lost"]
    assert lost.get("rejected: select.theta", 0) == sum(reason.startswith("S ") for reason in reasons)
    assert lost["rejected: select.rule"] == sum(reason.endswith("(select.rule)") for reason in reasons) > 0


def test_a_clip_a_source_and_a_file_are_each_told_where_they_ended(curated):
    for row in show.rows("selection", str(curated)):
        (fate,) = ledger.ledger(str(curated), row["clip_id"][:12])
        assert (fate["what"], fate["name"]) == ("clip", row["clip_id"])
        if row["kept"]:
            assert fate["end"] in ("in the dataset", "rejected") and fate["why"]
        else:
            assert (fate["end"], fate["stage"], fate["why"]) == ("rejected", "select", row["reason"])
    source = show.rows("sources", str(curated))[0]
    clips = [row for row in show.rows("clips", str(curated)) if row["source_id"] == source["source_id"]]
    by_id, by_path = (ledger.ledger(str(curated), name) for name in (source["source_id"][:10], source["path"]))
    assert [one["what"] for one in by_id] == ["source", *["clip"] * len(clips)]
    assert [one["name"] for one in by_id[1:]] == [one["name"] for one in by_path[1:]]


def test_a_broken_file_says_why_and_an_unknown_name_is_refused(curated):
    (fate,) = ledger.ledger(str(curated), "broken.mp4")
    assert (fate["end"], fate["stage"]) == ("failed", "gather") and fate["why"].startswith("not_video: ")
    with pytest.raises(ConfigError, match="no clip 'nothing-like-it'"):
        ledger.ledger(str(curated), "nothing-like-it")


def test_a_persons_word_shows_in_the_ledger_and_outlives_a_new_theta(curated, curated_home):
    rows = show.rows("selection", str(curated))
    kept = next(row["clip_id"] for row in rows if row["kept"])
    refused = next(row["clip_id"] for row in rows if not row["kept"])
    edits.decide(str(curated), pin=[refused[:10]], veto=[kept], author="Ann")
    outcomes = again(curated, curated_home / "footage")
    assert (outcomes["select"].computed, outcomes["score"].computed) == (1, 0)
    for theta in (6.0, 2.0):
        again(curated, curated_home / "footage", **{"select.theta": theta})
        assert ledger.ledger(str(curated), kept)[0]["why"] == "vetoed by hand (Ann)"
        assert ledger.ledger(str(curated), refused)[0]["why"] == "kept by hand (Ann)"
    assert again(curated, curated_home / "footage", **{"select.theta": 2.0})["select"].computed == 0
    lost = {row["stage"]: row for row in ledger.ledger(str(curated))}["select"]["lost"]
    assert lost["rejected: by hand"] == 1
    edits.decide(str(curated), unpin=[kept, refused])
    assert again(curated, curated_home / "footage")["select"].computed == 0  # as it was: decided long ago
    assert ledger.ledger(str(curated), kept)[0]["why"].startswith("S ")
