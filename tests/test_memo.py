"""What "done" means, on real tables: nothing is computed twice, nothing is lost, and a failure is a row."""

import dataclasses
from collections.abc import Iterator

import pyarrow as pa
import pytest

from ptta_core import done, memo
from ptta_core.config import Recipe, Site
from ptta_core.fleet import Failed
from ptta_core.rows import Thumbnail, table_schema
from ptta_core.view import Options, View


@dataclasses.dataclass(frozen=True)
class Letter:
    clip_id: str
    path: str = ""


class Bench:
    """One stage over letters, whose computations are counted."""

    def __init__(self, folder, letters="abcd", bad="", options=Options(), share=1.0, theta=10.0, stop_after=None):  # noqa: B008
        self.calls: list[str] = []
        self.letters, self.bad, self.stop_after = letters, bad, stop_after
        self.stage = memo.Stage(
            "score", self.compute, Thumbnail, 1, section="select", id_field="clip_id", inputs=self.inputs
        )
        recipe = Recipe.model_validate({"name": "t", "max_failed_share": share, "select": {"theta": theta}})
        self.view = View(recipe, Site(workspace=str(folder), commit_rows=1), lambda name: self.stage, options)

    def inputs(self, view: View) -> memo.Items:
        return memo.Items.of([Letter(one) for one in self.letters], "clip_id", list(self.letters))

    def compute(self, todo: list[Letter], job: memo.Job) -> Iterator[memo.Batch]:
        for item in todo:
            if self.stop_after is not None and len(self.calls) == self.stop_after:
                raise KeyboardInterrupt
            self.calls.append(item.clip_id)
            bad = item.clip_id in self.bad
            yield [(item, Failed("error", f"{item.clip_id} is bad") if bad else Thumbnail(item.clip_id, b"x"))]

    def run(self) -> memo.Outcome:
        return memo.run(self.stage, self.view)

    def rows(self) -> list[str]:
        return sorted(self.view.rows("score", ["clip_id"])["clip_id"].to_pylist())


def test_a_second_run_computes_nothing(tmp_path):
    assert Bench(tmp_path).run().computed == 4
    again = Bench(tmp_path)
    outcome = again.run()
    assert (outcome.computed, outcome.reused, again.calls) == (0, 4, [])
    assert outcome.cached and again.rows() == list("abcd")


def test_one_more_item_costs_one_item(tmp_path):
    Bench(tmp_path).run()
    more = Bench(tmp_path, "abcde")
    assert more.run().computed == 1
    assert more.calls == ["e"]


def test_a_changed_field_computes_again_and_the_old_rows_stay(tmp_path):
    Bench(tmp_path).run()
    assert Bench(tmp_path, theta=5.0).run().computed == 4
    assert Bench(tmp_path).run().computed == 0
    assert Bench(tmp_path).view.store.read("thumbnails", ["key"]).num_rows == 8


def test_a_stopped_run_keeps_what_it_committed(tmp_path):
    stopped = Bench(tmp_path, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    rest = Bench(tmp_path)
    outcome = rest.run()
    assert outcome.computed + outcome.reused == 4
    assert outcome.reused >= 1
    assert rest.rows() == list("abcd")
    assert rest.view.store.read("thumbnails", ["key"]).num_rows == 4


def test_outputs_without_their_done_row_are_not_doubled(tmp_path):
    first = Bench(tmp_path)
    first.run()
    rows = first.view.store.read("thumbnails")
    import lancedb

    lancedb.connect(str(tmp_path / "tables")).drop_table("done")  # as a kill between outputs and done leaves it
    again = Bench(tmp_path)
    assert again.run().computed == 4
    assert again.view.store.read("thumbnails").num_rows == rows.num_rows
    assert again.rows() == list("abcd")


def test_a_bad_item_is_a_row_and_is_tried_again_only_when_asked(tmp_path):
    first = Bench(tmp_path, bad="c")
    assert (first.run().failed, first.rows()) == (1, list("abd"))
    assert [row["message"] for row in first.view.open_failures("score")] == ["c is bad"]
    second = Bench(tmp_path, bad="c")
    assert (second.run().failed, second.calls) == (1, [])
    third = Bench(tmp_path, options=Options(retry_failed=True))
    outcome = third.run()
    assert (outcome.computed, outcome.failed, third.calls) == (1, 0, ["c"])
    assert third.view.open_failures("score") == []


def test_force_computes_a_new_attempt_and_readers_take_it(tmp_path):
    Bench(tmp_path).run()
    forced = Bench(tmp_path, options=Options(force=("score",)))
    assert forced.run().computed == 4
    assert set(forced.view.rows("score", ["attempt"])["attempt"].to_pylist()) == {2}
    assert forced.rows() == list("abcd")


def test_a_forced_attempt_killed_before_its_done_row_shows_nothing_twice(tmp_path):
    Bench(tmp_path).run()
    forced = Bench(tmp_path, options=Options(force=("score",)))
    append = forced.view.store.append

    def dying(noun, rows):
        if noun == "done":
            raise KeyboardInterrupt
        append(noun, rows)

    forced.view.store.append = dying
    with pytest.raises(KeyboardInterrupt):
        forced.run()
    assert forced.view.store.read("thumbnails", ["key"]).num_rows > 4
    assert Bench(tmp_path).rows() == list("abcd")


def test_too_many_failures_stop_the_stage_and_name_the_worst(tmp_path):
    with pytest.raises(memo.StageError, match=r"2 of 4 items failed.*max_failed_share = 0.25.*is bad"):
        Bench(tmp_path, bad="ab", share=0.25).run()
    assert Bench(tmp_path).rows() == list("cd")


class Whole(Bench):
    """A stage whose one item gives its rows as a table."""

    def inputs(self, view: View) -> memo.Items:
        return memo.Items.of([Letter(self.letters)], "clip_id", [self.letters])

    def compute(self, todo: list[Letter], job: memo.Job) -> Iterator[memo.Batch]:
        for item in todo:
            self.calls.append(item.clip_id)
            letters = list(item.clip_id)
            yield [(item, pa.table({"clip_id": letters, "jpeg": pa.array([b"x"] * len(letters), pa.large_binary())}))]


def test_a_table_of_rows_is_committed_like_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(done, "SLICE_ROWS", 3)
    first = Whole(tmp_path, "abcdefgh")
    assert first.run().computed == 1 and first.rows() == list("abcdefgh")
    again = Whole(tmp_path, "abcdefgh")
    assert (again.run().computed, again.calls) == (0, [])
    ordered = again.view.rows("score", ["key", "clip_id", "content_id"]).to_pylist()
    assert [row["clip_id"] for row in ordered] == list("abcdefgh")
    assert len({row["content_id"] for row in ordered}) == 8
    assert Whole(tmp_path, "abc").run().computed == 1 and Whole(tmp_path, "abc").rows() == list("abc")


def test_a_table_left_without_its_done_row_is_not_doubled(tmp_path):
    import lancedb

    Whole(tmp_path, "abcd").run()
    lancedb.connect(str(tmp_path / "tables")).drop_table("done")
    again = Whole(tmp_path, "abcd")
    assert again.run().computed == 1 and again.rows() == list("abcd")
    assert again.view.store.count("thumbnails") == 4


def test_force_decides_a_table_again_and_readers_take_the_newer(tmp_path):
    Whole(tmp_path, "abcd").run()
    forced = Whole(tmp_path, "abcd", options=Options(force=("score",)))
    assert forced.run().computed == 1 and forced.rows() == list("abcd")
    assert set(forced.view.rows("score", ["attempt"])["attempt"].to_pylist()) == {2}


def test_a_table_of_an_older_version_gains_its_new_columns(tmp_path):
    import lancedb

    old = pa.schema([field for field in table_schema(Thumbnail) if field.name != "jpeg"])
    lancedb.connect(str(tmp_path / "tables")).create_table("thumbnails", pa.Table.from_pylist(
        [{"key": "k", "clip_id": "z"}], schema=old))  # fmt: skip
    view = Bench(tmp_path).view
    assert view.store.read("thumbnails", ["jpeg", "clip_id"]).to_pylist() == [{"jpeg": None, "clip_id": "z"}]
    assert Bench(tmp_path).run().computed == 4
    rows = {row["clip_id"]: row["jpeg"] for row in view.store.read("thumbnails").to_pylist()}
    assert rows == {"z": None} | dict.fromkeys("abcd", b"x")


def test_fields_that_change_no_result_stay_out_of_the_fingerprint():
    left = memo.result_fields(Recipe().train)
    assert "checkpoint_every" not in left and "learning_rate" in left
