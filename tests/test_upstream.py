"""One upstream field changed: exactly the items that read it are to do again, stage by stage, and no other."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from demo import open_demo, todo

from ptta_core import cartoon, memo
from ptta_core.ids import digest
from ptta_core.rows import MEMO_COLUMNS, NOUNS, TABLE_OF, Done, table_schema, to_arrow
from ptta_core.view import View

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


@pytest.mark.parametrize(
    ("field", "value"), [("text", "A quite different sentence about it."), ("labels", '{"male": 1}')]
)
def test_encode_follows_the_text_and_the_labels_of_one_caption(workspace, videos, field, value):
    view = open_demo(workspace, videos)
    clip_id = kept(view)[-1]
    revise(view, "caption", clip_id, **{field: value, "caption_id": NEVER_SEEN})
    again = open_demo(workspace, videos)
    memo.run(again.stage("admit"), again)
    assert todo(again, "encode") == [clip_id]


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
