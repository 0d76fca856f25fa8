"""What a theta would keep is what it keeps: checked against selections that were really made."""

import json

import pytest
from demo import go
from test_ledger import SETTINGS

from ptta_core.config import ConfigError
from ptta_core.ops import calibrate, edits, runs, show


def opened(curated, footage, **overrides):
    return runs.open_view("laptop", "laptop", SETTINGS | overrides, str(curated), str(footage))


def selected(curated, footage, **overrides) -> dict[str, dict]:
    go(opened(curated, footage, **overrides), ("gather", "split", "score", "select"))
    return {row["clip_id"]: row for row in show.rows("selection", str(curated))}


def test_each_row_of_the_table_is_what_that_theta_keeps(curated, curated_home):
    footage = curated_home / "footage"
    rows = show.rows("selection", str(curated))
    edits.decide(str(curated), pin=[min(rows, key=lambda row: row["score"])["clip_id"]],
                 veto=[max(rows, key=lambda row: row["score"])["clip_id"]])  # fmt: skip
    found = calibrate.calibrate(opened(curated, footage))
    assert found["scored"] == len(rows) and found["by_hand"] == 1
    lengths = {row["clip_id"]: row["end_s"] - row["start_s"] for row in show.rows("clips", str(curated))}
    table = found["thetas"]
    assert [row["theta"] for row in table if row["here"]] == [6.0]
    assert [row["clips"] for row in table] == sorted((row["clips"] for row in table), reverse=True)
    for row in (table[0], table[len(table) // 2], table[-1]):
        made = selected(curated, footage, **{"select.theta": row["theta"]})
        kept = [clip_id for clip_id, one in made.items() if one["kept"]]
        assert row["clips"] == len(kept)
        assert row["hours"] == pytest.approx(sum(lengths[clip_id] for clip_id in kept) / 3600, abs=1e-4)


def test_nothing_is_computed_or_decided(curated, curated_home):
    before = runs.open_view("laptop", "laptop", SETTINGS, str(curated), str(curated_home / "footage")).store.versions()
    view = opened(curated, curated_home / "footage", **{"select.theta": 7.5, "select.alpha": 0.2})
    calibrate.calibrate(view)
    assert view.store.versions() == before


def test_the_distribution_holds_every_clip_and_the_line_lies_between_its_neighbours(curated, curated_home):
    found = calibrate.calibrate(opened(curated, curated_home / "footage"), near=3)
    assert sum(found["distribution"]["clips"]) == found["scored"]
    above = [clip["score"] for clip in found["near"]["above"]]
    below = [clip["score"] for clip in found["near"]["below"]]
    assert above == sorted(above) and below == sorted(below, reverse=True) and len(above) <= 3
    assert max(below, default=-1e9) < found["theta"] <= min(above, default=1e9)


@pytest.mark.parametrize("percent", [25, 50])
def test_a_percentile_theta_and_a_target_keep_as_many(curated, curated_home, percent):
    footage = curated_home / "footage"
    found = calibrate.calibrate(opened(curated, footage))
    row = next((row for row in found["percents"] if row["percent"] == percent), None)
    made = selected(curated, footage, **{"select.target": f"{percent} %"})
    kept = [one for one in made.values() if one["kept"]]
    assert kept and all("(select.target" in one["reason"] for one in kept)
    if row:
        assert row["clips"] == len(kept) == round(percent / 100 * found["scored"])
    target = calibrate.calibrate(opened(curated, footage, **{"select.target": f"{percent} %"}))
    assert target["theta"] == pytest.approx(min(one["score"] for one in kept))


def test_hours_as_a_target_are_reached_by_the_last_clip(curated, curated_home):
    footage = curated_home / "footage"
    lengths = {row["clip_id"]: row["end_s"] - row["start_s"] for row in show.rows("clips", str(curated))}
    made = selected(curated, footage, **{"select.target": "0.002 h"})
    kept = sorted((one["score"], lengths[clip_id]) for clip_id, one in made.items() if one["kept"])
    assert sum(length for _, length in kept) >= 7.2 > sum(length for _, length in kept[1:])


def test_a_recipe_without_sources_takes_those_of_its_last_run(curated):
    view = calibrate.with_sources(runs.open_view("laptop", "laptop", SETTINGS, str(curated)))
    assert calibrate.calibrate(view)["scored"] > 0
    with pytest.raises(ConfigError, match="name a folder with --videos"):
        calibrate.with_sources(runs.open_view("paper", "laptop", {"sources.folders": []}, str(curated)))


def test_the_command_prints_json_and_writes_a_contact_sheet(curated, tmp_path, capsys):
    from flows.cli import main

    page = tmp_path / "line.html"
    arguments = ["calibrate", "laptop", "-w", str(curated), "--set", "select.theta=6", "--json", "--sheet", str(page)]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    near = [clip["clip_id"] for clips in found["near"].values() for clip in clips]
    text = page.read_text(encoding="utf-8")
    assert near and all(clip_id in text for clip_id in near) and "data:image/jpeg" in text
    assert main(["calibrate", "laptop", "-w", str(curated), "--near", "2"]) == 0
    assert "<- here" in capsys.readouterr().out
