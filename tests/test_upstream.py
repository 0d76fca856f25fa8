"""One upstream field changed: exactly the items that read it are to do again, stage by stage, and no other."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from demo import open_demo, todo

from ptta_core import cartoon, memo
from ptta_core.ids import digest
from ptta_core.looks import PREFIX
from ptta_core.rows import MEMO_COLUMNS, NOUNS, TABLE_OF, Done, table_schema, to_arrow
from ptta_core.view import View
from ptta_core.windows import Window, item_id, plan

NEVER_SEEN = "0" * 16


def revise(view: View, stage: str, item_id: str, **changes) -> None:
    """Give an item of a stage another result, as a newer attempt that came out differently."""
    store, noun = view.store, TABLE_OF[view.stage(stage).noun]
    where = f"item_id = '{item_id}' AND fingerprint = '{view.fingerprint(stage)}'"
    rows = store.read(noun, where=where).to_pylist()
    assert rows, f"{stage} has no row of {item_id}"
    attempt = max(row["attempt"] for row in rows) + 1
    for place, row in enumerate(rows):
        row |= changes | {"attempt": attempt, "key": digest(row["key"], attempt, place)}
        row["content_id"] = memo.content_id({name: row[name] for name in row if name not in MEMO_COLUMNS})
    store.insert(noun, pa.Table.from_pylist(rows, schema=table_schema(NOUNS[noun])))
    done = Done(stage, view.fingerprint(stage), rows[0]["input_id"], attempt, len(rows), memo.now())
    store.append("done", to_arrow([done], table_schema(Done)))


def kept(view: View) -> list[str]:
    return sorted(row["clip_id"] for row in view.rows("select", ["clip_id", "kept"]).to_pylist() if row["kept"])


def test_nothing_is_to_do_in_a_finished_workspace(workspace, videos):
    view = open_demo(workspace, videos)
    names = ("split", "score", "select", "caption", "admit", "encode", "train", "generate", "evaluate")
    assert [name for name in names if todo(view, name)] == []


def test_split_follows_the_bytes_of_a_file(workspace, videos, tmp_path):
    other = tmp_path / "other"
    cartoon.draw(other, 8)
    mine = Path(shutil.copytree(videos, tmp_path / "mine"))
    changed = sorted(mine.glob("*.mp4"))[0]
    unchanged = open_demo(workspace, videos).source_names()
    shutil.copy(sorted(other.glob("*.mp4"))[0], changed)
    view = open_demo(workspace, mine)
    memo.run(view.stage("gather"), view)
    named = {Path(path).name: source_id for source_id, path in view.source_names().items()}
    assert named[changed.name] not in unchanged
    assert todo(view, "split") == [named[changed.name]]


def test_score_follows_a_clips_span(workspace, videos):
    view = open_demo(workspace, videos)
    clip = view.rows("split").to_pylist()[0]
    siblings = [row for row in view.rows("split").to_pylist() if row["item_id"] == clip["item_id"]]
    revise(view, "split", clip["item_id"], clip_id=NEVER_SEEN, end_pts=clip["end_pts"] - 1)
    again = open_demo(workspace, videos)
    assert siblings and todo(again, "score") == [NEVER_SEEN]


@pytest.mark.parametrize("field", ["motion_px", "aesthetic"])
def test_select_and_one_caption_follow_a_score(workspace, videos, field):
    view = open_demo(workspace, videos)
    clip_id = kept(view)[0]
    revise(view, "score", clip_id, **{field: 99.0})
    again = open_demo(workspace, videos)
    assert len(todo(again, "select")) == 1
    memo.run(again.stage("select"), again)
    assert todo(again, "caption") == [clip_id]
    assert todo(again, "score") == []


def test_admit_follows_a_captions_text(workspace, videos):
    view = open_demo(workspace, videos)
    clip_id = kept(view)[0]
    revise(view, "caption", clip_id, text="A quite different sentence about it.", caption_id=NEVER_SEEN)
    assert len(todo(open_demo(workspace, videos), "admit")) == 1


def looked_at(view: View) -> set[str]:
    """The items of encode that decode a latent for people."""
    return {one for one in view.items("encode").item_ids if one.startswith(PREFIX)}


@pytest.mark.parametrize(
    ("field", "value"), [("text", "A quite different sentence about it."), ("labels", '{"male": 1}')]
)
def test_encode_follows_the_text_and_the_labels_of_one_caption(workspace, videos, field, value):
    view = open_demo(workspace, videos)
    clip_id, before = kept(view)[-1], looked_at(view)
    revise(view, "caption", clip_id, **{field: value, "caption_id": NEVER_SEEN})
    again = open_demo(workspace, videos)
    memo.run(again.stage("admit"), again)
    assert todo(again, "encode") == sorted([clip_id, *looked_at(again) - before])


def windows_of(view: View) -> dict[str, list[Window]]:
    """clip_id -> its windows, of every kept clip."""
    return {clip["clip_id"]: plan(clip, view.recipe.encode).windows for clip in view.clip_rows(kept(view))}


def caption_and_admit(view: View) -> View:
    for name in ("caption", "admit"):
        memo.run(view.stage(name), view)
    return view


def test_captions_follow_the_frames_of_their_window_and_only_them(workspace, videos):
    """From at most 41 to at most 45 frames: the longer clips are described anew, those that hold fewer are not."""
    before = caption_and_admit(open_demo(workspace, videos, **{"encode.frames": 41}))
    after = open_demo(workspace, videos, **{"encode.frames": 45})
    old, new = windows_of(before), windows_of(after)
    changed = sorted(clip_id for clip_id in new if new[clip_id] != old[clip_id])
    assert todo(after, "caption") == changed and 0 < len(changed) < len(new)
    caption_and_admit(after)
    for unread in ({"encode.area": 4096}, {"encode.trigger": "ptta"}, {"encode.tile": True}, {"train.rank": 2}):
        assert todo(open_demo(workspace, videos, **{"encode.frames": 45}, **unread), "caption") == []
    assert todo(open_demo(workspace, videos, **{"encode.frames": 45, "encode.fps": 12.0}), "caption") == sorted(new)


def test_several_windows_of_a_clip_have_captions_and_latents_of_their_own(workspace, videos):
    view = open_demo(workspace, videos, **{"encode.window": "chunks"})
    new = [item_id(clip_id, window) for clip_id, windows in windows_of(view).items() for window in windows[1:]]
    assert todo(view, "caption") == sorted(new) and len(new) > len(kept(view))
    caption_and_admit(view)
    before = looked_at(open_demo(workspace, videos))
    assert todo(view, "encode") == sorted([*new, *looked_at(view) - before])  # the first window is encoded already
    one = next(row for row in view.rows("caption").to_pylist() if row["item_id"] == new[0])
    revise(view, "caption", new[0], text="Quite another sentence.", caption_id=NEVER_SEEN)
    again = open_demo(workspace, videos, **{"encode.window": "chunks"})
    memo.run(again.stage("admit"), again)
    assert set(again.items("encode").input_ids) - set(view.items("encode").input_ids) >= {
        digest(one["clip_id"], NEVER_SEEN, windows_of(view)[one["clip_id"]][1].span(), "24", "9x64x112")}  # fmt: skip
    more = set(todo(again, "encode")) - set(todo(view, "encode"))
    assert all(one.startswith(PREFIX) for one in more)


def test_encode_follows_size_and_words_but_no_speed_setting(workspace, videos):
    clips = kept(open_demo(workspace, videos))
    for changed in ({"encode.area": 4096}, {"encode.trigger": "ptta"}, {"encode.tile": True}):
        found = todo(open_demo(workspace, videos, **changed), "encode")
        assert [one for one in found if not one.startswith(PREFIX)] == clips
    for same in ({"site.encode.batch": 1}, {"train.batch": 2}, {"generate.frames": 5}):
        assert todo(open_demo(workspace, videos, **same), "encode") == []


def test_a_language_models_caption_does_not_read_the_score(workspace, videos):
    settings = {"caption.captioner": "transformers", "caption.model": {"id": "tiny:vlm", "revision": "0"}}
    view = open_demo(workspace, videos, **settings)
    before = dict(zip(view.items("caption").item_ids, view.items("caption").input_ids))
    revise(view, "score", kept(view)[0], motion_px=99.0)
    again = open_demo(workspace, videos, **settings)
    memo.run(again.stage("select"), again)
    assert dict(zip(again.items("caption").item_ids, again.items("caption").input_ids)) == before
    chunks = open_demo(workspace, videos, **settings, **{"encode.window": "chunks"}).items("caption")
    assert before.items() < dict(zip(chunks.item_ids, chunks.input_ids)).items()


def test_train_follows_its_latents(workspace, videos):
    view = open_demo(workspace, videos)
    before = view.items("train").item_ids
    revise(view, "encode", kept(view)[0], latent_id=NEVER_SEEN)
    found = todo(open_demo(workspace, videos), "train")
    assert len(found) == 1 and found != before


def test_generate_follows_the_adapters_bytes_and_leaves_the_base_alone(workspace, videos):
    view = open_demo(workspace, videos)
    revise(view, "train", view.items("train").item_ids[0], adapter_id=NEVER_SEEN)
    again = open_demo(workspace, videos)
    items = again.items("generate")
    adapted = sorted(item.generation_id for item in items.make(list(range(len(items.item_ids)))) if item.adapter_id)
    assert adapted and todo(again, "generate") == adapted


def test_evaluate_follows_the_bytes_of_one_video(workspace, videos):
    view = open_demo(workspace, videos)
    generation_id = view.items("generate").item_ids[1]
    revise(view, "generate", generation_id, video_sha=NEVER_SEEN)
    assert todo(open_demo(workspace, videos), "evaluate") == [generation_id]
