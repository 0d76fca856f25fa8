"""Work at the same time in one workspace: while a training runs, others score, select and evaluate."""

import os
import signal
import subprocess
import sys
import time

from demo import IN_PROCESS, open_demo

from ptta_core import memo

LONG = {"train.rank": 2, "train.epochs": 4000}
TRAIN = """
import sys
from ptta_core import memo
from ptta_core.ops import runs
view = runs.open_view("demo", "laptop", {settings!r}, sys.argv[1], sys.argv[2])
memo.run(view.stage("train"), view)
"""


def test_curation_and_evaluation_finish_while_a_training_runs(workspace, videos):
    known = {path.name for path in (workspace / "training").iterdir()}
    script = TRAIN.format(settings=IN_PROCESS | LONG)
    training = subprocess.Popen([sys.executable, "-c", script, str(workspace), str(videos)], start_new_session=True)
    try:
        steps = begin(workspace, known, training)
        view = open_demo(workspace, videos, **{"score.gap_s": 0.5, "select.theta": 4.0, "generate.seeds": [1]})
        outcomes = {name: memo.run(view.stage(name), view) for name in ("score", "select", "caption", "admit")}
        assert outcomes["score"].computed and outcomes["select"].computed
        other = open_demo(workspace, videos, **{"generate.seeds": [1]})
        outcomes = {name: memo.run(other.stage(name), other) for name in ("generate", "evaluate")}
        assert outcomes["generate"].computed == 4 and outcomes["evaluate"].computed == 4
        assert training.poll() is None, "the training ended before the others had finished"
        assert begin(workspace, known, training) > steps, "the training stood still meanwhile"
    finally:
        os.killpg(training.pid, signal.SIGKILL)
        training.wait()


def begin(workspace, known, training) -> int:
    """How many steps the new training has made; waits for the first."""
    limit = time.monotonic() + 240
    while time.monotonic() < limit and training.poll() is None:
        found = [path for path in (workspace / "training").glob("*/metrics.jsonl") if path.parent.name not in known]
        if found and (lines := found[0].read_text().splitlines()):
            return len(lines)
        time.sleep(0.1)
    raise AssertionError("the training made no step")
