"""A run's files taken into tables and event files while they are written, cut back and written anew."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ptta_core.rows import HeldOut, Router, Step
from ptta_core.training import board, importing, loop, records


def line(step: int, loss: float = 1.0) -> dict[str, Any]:
    return {"step": step, "loss": loss, "grad_norm": 0.1, "lr": 1e-3, "gate_mean": [0.25, 0.75], "gate_entropy": 0.5,
            "gate_evenness": 0.9, "branch_cosine": 0.1, "dead_branches": 0.0, "data_s": 0.1, "forward_s": 0.2,
            "backward_s": 0.3, "sync_s": 0.0, "optimizer_s": 0.1, "step_s": 0.7}  # fmt: skip


def router_line(step: int) -> dict[str, Any]:
    return {"step": step, "labels": ["", "male"], "layers": ["a", "b"], "samples": [4.0, 1.5],
            "gate_mean": [[[0.5, 0.5], [0.4, 0.6]], [[0.9, 0.1], [0.7, 0.3]]],
            "gate_entropy": [[0.69, 0.67], [0.3, 0.6]], "branch_cosine": [0.0, 0.2],
            "dead_branches": [0, 1]}  # fmt: skip


def append(path: Path, *lines: dict[str, Any]) -> None:
    for one in lines:
        records.append(path, one, sync=False)


def test_a_tail_tells_each_line_once_and_what_was_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    tail = importing.Tail(path)
    assert tail.news() == (0, [])
    append(path, {"step": 1}, {"step": 2})
    with open(path, "a") as file:
        file.write('{"step": 3, "lo')
    assert tail.news() == (0, [{"step": 1}, {"step": 2}])
    assert tail.news() == (2, [])
    records.truncate(path, 1)  # as a worker does that begins again
    append(path, {"step": 2, "again": True}, {"step": 3})
    assert tail.news() == (1, [{"step": 2, "again": True}, {"step": 3}])
    records.truncate(path, 3)  # a new file with the very same lines: nothing is new
    assert tail.news() == (3, [])
    records.truncate(path, 1)
    assert tail.news() == (1, [])
    append(path, {"step": 2})
    assert tail.news() == (1, [{"step": 2}])
    content = path.read_bytes().replace(b'"step": 2', b'"step": 7') + b'{"step": 8}\n'
    before = path.stat().st_ino
    path.write_bytes(content)  # the file system may give a new file an old one's number
    assert path.stat().st_ino == before and tail.news() == (1, [{"step": 7}, {"step": 8}])


class Tables:
    """Keeps rows by place, as the memo does: what is there stays. Fails when told so."""

    def __init__(self) -> None:
        self.rows: dict[tuple[type, str], Any] = {}
        self.fails = 0

    def publish(self, rows: Any) -> None:
        self._may_fail()
        for place, row in rows:
            self.rows.setdefault((type(row), place), row)

    def retract(self, noun: type, last: int) -> None:
        self._may_fail()
        self.rows = {key: row for key, row in self.rows.items() if key[0] is not noun or row.step <= last}

    def _may_fail(self) -> None:
        self.fails -= 1
        if self.fails >= 0:
            raise OSError("busy")

    def losses(self) -> dict[int, float]:
        return {row.step: row.loss for (noun, _), row in self.rows.items() if noun is Step}


@pytest.fixture
def tables() -> Tables:
    return Tables()


def importer(run: Path, tables: Tables, shown: bool = False) -> importing.Importer:
    return importing.Importer(run, "t", tables.publish, tables.retract, board.Board(run) if shown else None)


def test_steps_done_again_take_the_place_of_the_lost_ones(tmp_path: Path, tables: Tables) -> None:
    take = importer(tmp_path, tables)
    append(tmp_path / loop.METRICS, *(line(step) for step in range(1, 6)))
    append(tmp_path / loop.HELD_OUT, {"step": 4, "t": [0.1, 0.9], "loss": [1.0, 2.0], "samples": 3})
    append(tmp_path / loop.ROUTERS, router_line(2), router_line(4))
    take()
    assert tables.losses() == dict.fromkeys(range(1, 6), 1.0)
    assert [(row.step, row.quarter, row.loss) for row in tables.rows.values() if isinstance(row, HeldOut)] == [
        (4, 0, 1.0), (4, 1, 2.0)]  # fmt: skip
    found = [row for row in tables.rows.values() if isinstance(row, Router)]
    assert len(found) == 8
    assert found[3] == Router("t", 2, "b", "male", 1.5, [0.7, 0.3], 0.6, 0.2, 1)
    for name in (loop.METRICS, loop.HELD_OUT, loop.ROUTERS):
        records.truncate(tmp_path / name, 2)
    append(tmp_path / loop.METRICS, line(3, 3.0), line(4, 4.0))
    tables.fails = 2  # what cannot be committed now is tried again
    for _ in range(2):
        with pytest.raises(OSError, match="busy"):
            take()
    take()
    assert tables.losses() == {1: 1.0, 2: 1.0, 3: 3.0, 4: 4.0}
    assert {row.step for row in tables.rows.values() if isinstance(row, Router)} == {2}
    assert not [row for row in tables.rows.values() if isinstance(row, HeldOut)]


def test_a_new_driver_takes_back_what_no_checkpoint_holds(tmp_path: Path, tables: Tables) -> None:
    append(tmp_path / loop.METRICS, *(line(step) for step in range(1, 6)))
    importer(tmp_path, tables)()
    kept = tmp_path / loop.CHECKPOINTS / "step-00000003"
    kept.mkdir(parents=True)
    (kept / "state.json").write_text('{"step": 3, "held_out": null}')
    records.truncate(tmp_path / loop.METRICS, 3)
    append(tmp_path / loop.METRICS, line(4, 4.0))
    importer(tmp_path, tables)()
    assert tables.losses() == {1: 1.0, 2: 1.0, 3: 1.0, 4: 4.0}
    (tmp_path / loop.ADAPTER).write_bytes(b"")  # finished: every line stands
    importer(tmp_path, tables)()
    assert tables.losses() == {1: 1.0, 2: 1.0, 3: 1.0, 4: 4.0}


def test_trouble_on_the_way_ends_no_run_but_trouble_at_its_end_is_told(tmp_path: Path, tables: Tables) -> None:
    append(tmp_path / loop.METRICS, line(1))
    tables.fails = 5
    with importing.meanwhile(importer(tmp_path, tables), 0.01):
        while tables.fails > 0:
            os.sched_yield()
    assert tables.losses() == {1: 1.0}
    append(tmp_path / loop.METRICS, line(2))
    tables.fails = 10**9
    with pytest.raises(OSError, match="busy"), importing.meanwhile(importer(tmp_path, tables), 60.0):
        pass
    with pytest.raises(ValueError, match="its own"), importing.meanwhile(importer(tmp_path, tables), 60.0):
        raise ValueError("its own")


def test_tensorboard_reads_the_run_and_forgets_the_steps_that_were_lost(tmp_path: Path, tables: Tables) -> None:
    """With TensorBoard's own reader."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    take = importer(tmp_path, tables, shown=True)
    append(tmp_path / loop.METRICS, *(line(step) for step in range(1, 6)))
    append(tmp_path / loop.ROUTERS, router_line(4))
    append(tmp_path / loop.HELD_OUT, {"step": 4, "t": [0.1, 0.9], "loss": [1.0, 2.0], "samples": 3})
    take()
    reader = accumulator.EventAccumulator(str(tmp_path / board.FOLDER)).Reload()
    scalars = {tag: {one.step: one.value for one in reader.Scalars(tag)} for tag in reader.Tags()["scalars"]}
    assert scalars["train/loss"] == dict.fromkeys(range(1, 6), 1.0)
    assert scalars["gates/branch2"][3] == 0.75 and scalars["routers/gate_evenness"][1] == pytest.approx(0.9)
    assert scalars["seconds/backward_s"][1] == pytest.approx(0.3) and "seconds/step_s" in scalars
    assert scalars["held_out/quarter2"] == {4: 2.0}
    assert scalars["gates_of_male/branch1"] == {4: pytest.approx(0.8)} and "gates_of_/branch1" not in scalars
    times = [one.wall_time for one in reader.Scalars("train/loss")]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == pytest.approx([0.7] * 4, abs=1e-3)
    records.truncate(tmp_path / loop.METRICS, 3)
    append(tmp_path / loop.METRICS, line(4, 4.0))
    take()
    again = {one.step: one.value for one in reader.Reload().Scalars("train/loss")}
    assert again == {1: 1.0, 2: 1.0, 3: 1.0, 4: 4.0}
    importer(tmp_path, tables, shown=True)()  # a new driver begins the files anew
    fresh = accumulator.EventAccumulator(str(tmp_path / board.FOLDER)).Reload()
    assert {one.step: one.value for one in fresh.Scalars("train/loss")} == again
    assert len(list((tmp_path / board.FOLDER).iterdir())) == 1


def test_the_lines_of_a_real_run_become_rows(tmp_path: Path, tables: Tables) -> None:
    from test_training import samples

    from ptta_core.config import TrainConfig
    from ptta_core.models import tiny
    from ptta_core.training import dataset, passes

    base = str(tiny.hunyuan(tmp_path / "base", 0))
    dataset.pin(tmp_path / "run", samples(), ("sample1",))
    config = TrainConfig(rank=2, branches=2, batch=2, epochs=1, router_every=1).model_dump()
    metadata = {"labels": ["male"]}
    loop.train_loop(passes.Settings(str(tmp_path / "run"), base, None, "float32", "cpu", 1, config, metadata))
    importer(tmp_path / "run", tables)()
    steps = [json.loads(one) for one in (tmp_path / "run" / loop.METRICS).read_text().splitlines()]
    assert [row for row in tables.rows.values() if isinstance(row, Step)] == [Step("t", **one) for one in steps]
    labels = {(row.step, row.label) for row in tables.rows.values() if isinstance(row, Router)}
    assert labels == {(step, label) for step in (1, 2) for label in ("", "male")}
    assert len([row for row in tables.rows.values() if isinstance(row, HeldOut)]) == 4
