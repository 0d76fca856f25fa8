"""A person's captions: exactly what was edited is made anew, and nothing of a bad file is taken in silence."""

import csv
import json

import pytest
from demo import IN_PROCESS, computed, go, open_demo

from ptta_core import stages
from ptta_core.config import ConfigError
from ptta_core.ops import caption_edits, ledger, runs, show

SETTINGS = IN_PROCESS | {"select.theta": 6.0, "select.max_motion_px": 40.0}
SAID = 'A girl, "Mio",\nruns through rain: 雨'


def again(workspace, footage, **overrides):
    view = runs.open_view("laptop", "laptop", SETTINGS | overrides, str(workspace), str(footage))
    return go(view, stages.CURATE)


def captions(workspace) -> dict[str, dict]:
    return {row["item_id"]: row for row in caption_edits.current(ledger.last_view(str(workspace)))}


def save(path, rows, columns=("item_id", "text"), encoding="utf-8-sig"):
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def stored(workspace) -> list[dict]:
    return [row for row in show.rows("edits", str(workspace)) if row["field"].startswith("caption")]


@pytest.mark.parametrize("name", ["c.csv", "c.jsonl"])
def test_a_file_that_was_not_changed_makes_no_edit(curated, tmp_path, name):
    count = caption_edits.export(str(curated), tmp_path / name)
    found = caption_edits.take(str(curated), tmp_path / name)
    assert (found.same, found.edited, found.refused) == (count, [], []) and count > 1
    assert not stored(curated)


def test_an_edit_makes_one_caption_anew_wins_over_other_settings_and_can_be_taken_back(curated, curated_home, tmp_path):
    before = {row["clip_id"]: row for row in show.rows("captions", str(curated))}
    one = next(iter(captions(curated)))
    clip = captions(curated)[one]["clip_id"]
    found = caption_edits.take(str(curated), save(tmp_path / "c.csv", [(one, SAID.replace("\n", "\r\n"))]), "Ann")
    assert found.edited == [one] and stored(curated)[0]["value"] == SAID
    caption_edits.export(str(curated), tmp_path / "again.csv")  # before the next run, it stands already
    assert caption_edits.take(str(curated), tmp_path / "again.csv").edited == []

    assert again(curated, curated_home / "footage")["caption"].computed == 1
    after = {row["clip_id"]: row for row in show.rows("captions", str(curated))}
    assert (after[clip]["text"], after[clip]["captioner"]) == (SAID, "by hand (Ann)")
    assert after[clip]["caption_id"] != before[clip]["caption_id"]
    assert all(after[other] == before[other] for other in before if other != clip)
    assert "caption written by hand (Ann)" in ledger.ledger(str(curated), clip)[0]["why"]

    labels = {"caption.labels": ["male", "female"]}
    assert again(curated, curated_home / "footage", **labels)["caption"].computed == len(before)
    assert {row["clip_id"]: row["text"] for row in show.rows("captions", str(curated))}[clip] == SAID

    assert caption_edits.take_back(str(curated), [clip[:10]]).edited
    assert again(curated, curated_home / "footage")["caption"].computed == 0  # the model's row is still there
    assert {row["clip_id"]: row for row in show.rows("captions", str(curated))} == before
    assert caption_edits.take_back(str(curated), [clip]).refused == [f"no edited caption of {clip!r}"]


def test_each_bad_row_is_told_and_the_good_one_is_taken(curated, tmp_path):
    good, twice, empty, broken, *_ = items = list(captions(curated))
    rows = [(good, "A boy waves."), ("nobody", "x"), (twice, "a"), (twice, "b"), (empty, "  "), (broken, "caf?"),
            (items[-1], "x", "y")]  # fmt: skip
    path = save(tmp_path / "c.csv", rows)
    path.write_bytes(path.read_bytes().replace(b"caf?", b"caf\xe9"))
    found = caption_edits.take(str(curated), path)
    assert found.edited == [good] and [row["value"] for row in stored(curated)] == ["A boy waves."]
    said = "\n".join(found.refused)
    for line, why in ((3, "no caption of 'nobody'"), (4, "named 2 times"), (5, "named 2 times"), (6, "is empty"),
                      (7, "not UTF-8"), (8, "3 cells under 2 columns")):  # fmt: skip
        assert f"c.csv, line {line}: " in said and why in said
    assert len(found.refused) == 6


def test_bad_json_lines_are_told(curated, tmp_path):
    good, other, *_ = captions(curated)
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join([json.dumps({"item_id": good, "text": "Rain."}), "{", "[1]", json.dumps(
        {"item_id": other, "text": 7}), json.dumps({"item_id": other})]))  # fmt: skip
    found = caption_edits.take(str(curated), path)
    assert found.edited == [good] and [line.partition(": ")[0][-1] for line in found.refused] == ["2", "3", "4", "5"]


def test_a_spreadsheets_semicolons_and_a_file_without_columns(curated, tmp_path):
    one = next(iter(captions(curated)))
    path = tmp_path / "c.csv"
    path.write_text(f"Item_ID;Text\r\n{one};Rain, and wind\r\n")
    assert caption_edits.take(str(curated), path).edited == [one]
    with pytest.raises(ConfigError, match="columns text and item_id"):
        caption_edits.take(str(curated), save(tmp_path / "d.csv", [(one, "x")], ("item_id", "caption")))
    with pytest.raises(ConfigError, match="is empty"):
        (tmp_path / "e.csv").write_text("")
        caption_edits.take(str(curated), tmp_path / "e.csv")


def test_exactly_the_edited_clips_latents_are_made_anew(videos, tmp_path):
    names, workspace = stages.RIVER[: stages.RIVER.index("train")], tmp_path / "w"
    here = {f"site.{name}.count": 0 for name in ("split", "score", "caption", "encode")}
    go(open_demo(workspace, videos, **here), names)
    before = {row["latent_id"]: row for row in show.rows("latents", str(workspace))}
    one, row = next(iter(captions(workspace).items()))
    caption_edits.take(str(workspace), save(tmp_path / "c.csv", [(one, "A red ball falls on green grass, slowly.")]))
    done = computed(go(open_demo(workspace, videos, **here), names))
    after = {row["latent_id"]: row for row in show.rows("latents", str(workspace))}
    new = [latent for name, latent in after.items() if name not in before]
    assert done["caption"] == 1 and {latent["clip_id"] for latent in new} == {row["clip_id"]} and len(new) == 1
    assert len(before.keys() - after.keys()) == 1 and set(done) <= {"caption", "admit", "encode"}
    assert "red ball" in new[0]["prompt"]
