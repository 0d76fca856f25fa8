"""How long a stage will take: from its latest pace, also after a resume and when its count changes."""

import pytest

from ptta_core.memo import Progress
from ptta_core.pace import REPORTS, Pace, length


def test_the_time_left_follows_the_latest_pace() -> None:
    pace = Pace()
    assert pace.left_s(0.0, 0, 100) is None  # nothing is known yet
    assert pace.left_s(20.0, 10, 100) == pytest.approx(180.0)
    for step in range(11, 11 + REPORTS):  # it becomes ten times as fast
        left = pace.left_s(20.0 + 0.2 * (step - 10), step, 1000 if step == 0 else 100)
    assert left == pytest.approx(0.2 * (100 - step))
    assert pace.left_s(40.0, 100, 100) is None


def test_a_resumed_run_is_not_judged_by_the_steps_it_found_done() -> None:
    pace = Pace()
    pace.left_s(0.0, 0, 1)  # the item that begins
    assert pace.left_s(30.0, 900, 1000) is None  # workers have loaded; 900 steps were there
    assert pace.left_s(40.0, 910, 1000) == pytest.approx(90.0)
    assert pace.left_s(50.0, 905, 1000) is None  # a worker died: steps are done again
    assert pace.left_s(60.0, 910, 1000) == pytest.approx(180.0)


def test_lengths_and_lines_are_for_people() -> None:
    assert [length(seconds) for seconds in (0, 42.4, 119, 754, 3600, 7325, 200_000)] == [
        "0 s", "42 s", "119 s", "13 min", "1 h 0 min", "2 h 2 min", "2 d 7 h"]  # fmt: skip
    assert Progress("train", 5, 18, 12.0, "loss 0.5", 7300.0).line() == (
        "train: 5 of 18 in 12 s, 2 h 2 min left (loss 0.5)")  # fmt: skip
    assert Progress("split", 3, 3, 12.0).line() == "split: 3 of 3 in 12 s"
