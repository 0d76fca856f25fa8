"""What became of every selected clip, from one window a clip to many, with every way to be left out; all in counts."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from demo import computed, go, open_demo
from test_upstream import kept, revise, windows_of

from ptta_core import memo, stages
from ptta_core.ops import fates, ledger, remove, report, show
from ptta_core.stages.encode import EncodeItem
from ptta_core.windows import item_id, length_s

THROUGH_ENCODE = (*stages.CURATE, "encode")


def adds_up(view) -> dict:
    """The run's footage, after every sum in it, and those of the ledger, were found to hold."""
    each = fates.fates(view)
    found = fates.footage(view)
    assert sorted(one.clip_id for one in each) == kept(view)
    for one in each:
        assert one.selected_s == pytest.approx(one.learnt_s + sum(one.lost_s.values()), abs=1e-9)
        assert (one.learnt_s > 0) == (one.latents > 0) == (one.fate in ("whole", "shortened"))
    clips, seconds = found["clips"], found["seconds"]
    assert clips["selected"] == sum(clips[fate] for fate in fates.FATES) == len(each)
    assert clips["selected"] == clips["whole"] + sum(found["causes"].values())
    assert seconds["selected"] == pytest.approx(seconds["learnt"] + sum(seconds["lost"].values()))
    assert seconds["selected"] == pytest.approx(float(sum(length_s(clip) for clip in view.clip_rows(kept(view)))))
    rows = view.rows("encode").to_pylist()
    assert found["latents"] == len(rows) == sum(one.latents for one in each) == sum(found["buckets"].values())
    assert seconds["learnt"] == pytest.approx(sum(row["shown_s"] for row in rows))
    for row in ledger.ledger(str(view.home)):
        assert row["count_in"] == pytest.approx(row["count_out"] + sum(row["lost"].values())), row
        assert "not reached" not in row["lost"]
    return found


def test_one_window_a_clip(finished, videos):
    view = open_demo(finished, videos)
    found = adds_up(view)
    assert found["clips"]["shortened"] == found["latents"] == len(kept(view))  # 9 of some 50 frames
    assert found["causes"] == {"shortened: encode.frames": len(kept(view))}
    assert found["seconds"]["learnt"] == pytest.approx(9 / 24 * found["latents"])
    first, second = fates.sentences(found)
    assert f"{found['latents']} latents from {len(kept(view))} selected clips" in first
    assert re.fullmatch(r"\d+\.\d s selected, \d\.\d s learnt; left out: \d+\.\d s encode\.frames", second)
    source_id = view.clip_rows(kept(view))[0]["source_id"]
    top, *clips = ledger.ledger(str(finished), source_id)
    assert top["end"] == "in the dataset" and {one["name"] for one in clips} >= {
        clip["clip_id"] for clip in view.clip_rows(kept(view)) if clip["source_id"] == source_id}  # fmt: skip
    assert all(("learnt shortened: 9 of" in one["why"]) == (one["name"] in kept(view)) for one in clips)
    page = report.find(str(finished)).read_text(encoding="utf-8")
    assert first in page and second in page
    assert page.count('<ul class="looks">') == 1 and page.count("<b>9x64x112</b>") == 3
    section = page.partition('<section id="latents">')[2].partition("</section>")[0]
    assert "random tiny model: no quality figure" in section and section.count("data:image/jpeg;base64,") == 3


def test_several_windows_a_clip_through_the_river_and_out_again(workspace, videos):
    """Chunks, one of which is refused; then everything of one source is removed."""
    chunks = {"encode.window": "chunks", "encode.frames": 17, "select.theta": 18.0}
    view = open_demo(workspace, videos, **chunks)
    go(view, THROUGH_ENCODE)
    planned = windows_of(view)
    rows = view.rows("encode").to_pylist()
    expected = {item_id(clip_id, one): one for clip_id, windows in planned.items() for one in windows}
    assert {row["item_id"]: row["frames"] for row in rows} == {name: one.frames for name, one in expected.items()}
    captions = view.rows("caption").to_pylist()
    assert {row["item_id"] for row in captions} == expected.keys()
    assert len({row["caption_id"] for row in captions}) == len({row["latent_id"] for row in rows}) == len(expected)
    found = adds_up(view)
    assert found["seconds"]["lost"].keys() <= {"the rest of chunks", fates.LESS}
    for one in fates.fates(view):
        windows = planned[one.clip_id]
        assert one.latents == len(windows) > 1 and one.selected_s - one.learnt_s < 17 / 24
        (told,) = ledger.ledger(str(workspace), one.clip_id)
        assert told["end"] == "in the dataset" and f"{len(windows)} of {len(windows)} windows learnt" in told["why"]
    assert computed(go(open_demo(workspace, videos, **chunks), THROUGH_ENCODE)) == {}

    clip_id, source_id = next((clip["clip_id"], clip["source_id"]) for clip in view.clip_rows(kept(view)))
    second = item_id(clip_id, planned[clip_id][1])
    revise(view, "caption", second, text="Short.", caption_id="refused")
    again = open_demo(workspace, videos, **chunks)
    go(again, THROUGH_ENCODE)
    found = adds_up(again)
    assert found["seconds"]["lost"]["refused: admit.min_words"] == pytest.approx(17 / 24)
    (one,) = fates.fates(again, [clip_id])
    assert one.fate == "shortened" and one.why.endswith("1 refused: admit.min_words")

    remove.remove(str(workspace), source_id, yes=True)
    mine = {clip["clip_id"] for clip in view.clip_rows() if clip["source_id"] == source_id}
    for noun in ("captions", "admissions", "latents", "decoded", "failures"):
        left = show.rows(noun, str(workspace), "all")
        assert not [row for row in left if row.get("clip_id", row.get("item_id", "")).partition("@")[0] in mine]


def test_one_caption_for_all_windows_of_a_clip(workspace, videos):
    view = open_demo(workspace, videos, **{"encode.window": "chunks", "caption.of": "clip"})
    go(view, stages.CURATE)
    captions = {row["clip_id"]: row for row in view.rows("caption").to_pylist()}
    assert sorted(captions) == kept(view) and len(view.rows("caption")) == len(captions)
    for clip in view.clip_rows(captions):
        one = captions[clip["clip_id"]]
        assert (one["start_s"], one["end_s"]) == (clip["start_s"], pytest.approx(clip["end_s"]))
    items = view.items("encode").make(list(range(len(view.items("encode").item_ids))))
    windows = [one for one in items if isinstance(one, EncodeItem)]
    assert {one.item_id for one in windows} == {item_id(clip_id, one) for clip_id, each in windows_of(view).items()
                                                for one in each}  # fmt: skip
    assert all((one.caption_id, one.text) == (captions[one.clip_id]["caption_id"], captions[one.clip_id]["text"])
               for one in windows)  # fmt: skip


def test_dropped_refused_and_failed_clips_are_each_told(workspace, videos, tmp_path):
    """Clips of one source too small, one clip's caption refused, one clip whose file is gone: three ways out."""
    mine = Path(shutil.copytree(videos, tmp_path / "mine"))
    view = open_demo(workspace, mine)
    memo.run(view.stage("gather"), view)
    by_source = Counter(clip["source_id"] for clip in view.clip_rows(kept(view)))
    small = min(by_source, key=lambda one: by_source[one])
    revise(view, "split", small, crop="0,0,12,200")
    other = [clip["clip_id"] for clip in view.clip_rows(kept(view)) if clip["source_id"] != small]
    revise(view, "caption", other[0], text="Short.", caption_id="refused")
    revise(view, "caption", other[1], text="Words of another caption.", caption_id="unreadable")
    again = open_demo(workspace, mine)
    Path(view.clip_rows([other[1]])[0]["path"]).unlink()
    outcomes = go(again, THROUGH_ENCODE)
    assert outcomes["caption"].failed == by_source[small] and outcomes["encode"].failed >= 1
    found = adds_up(again)
    assert found["clips"]["dropped"] == by_source[small] and found["clips"]["refused"] == 1
    assert found["clips"]["failed"] == 1 and found["seconds"]["lost"].keys() >= {
        "dropped: too_small", "refused: admit.min_words", "failed: missing"}  # fmt: skip
    told = {one.clip_id: ledger.ledger(str(workspace), one.clip_id)[0] for one in fates.fates(again)
            if one.fate not in ("whole", "shortened")}  # fmt: skip
    assert len(told) == by_source[small] + 2
    assert (told[other[0]]["end"], told[other[0]]["stage"]) == ("rejected", "admit")
    assert (told[other[1]]["end"], told[other[1]]["stage"]) == ("failed", "encode")
    for clip_id, one in told.items():
        if clip_id not in other:
            assert (one["end"], one["stage"]) == ("failed", "caption")
            assert one["why"].startswith("too_small: no window to learn from: 12 x 200 px")


def test_what_should_not_go_unsaid_is_said():
    plain = {"clips": {"selected": 3, **dict.fromkeys(fates.FATES, 0), "whole": 2, "dropped": 1},
             "seconds": {"selected": 7300.0, "learnt": 3600.0, "lost": {"encode.frames": 3700.0}},
             "causes": {"dropped: too_small": 1}, "latents": 9, "buckets": {"9x64x112": 8, "5x64x112": 1}, "batch": 4,
             "cut_prompts": 2}  # fmt: skip
    assert fates.sentences(plain) == [
        "9 latents from 3 selected clips (2 whole, 1 dropped)",
        "2 h 1 min selected, 1 h 0 min learnt; left out: 1 h 1 min encode.frames",
        "1 of 2 buckets hold fewer latents than train.batch = 4, so their batches are smaller: 5x64x112 (1)",
        "2 prompts longer than the text encoder reads, cut at its end (latents.text_cut)",
    ]
    assert len(fates.sentences(plain | {"batch": 1, "cut_prompts": 0})) == 2
