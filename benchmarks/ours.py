"""This project's stages in a process of their own, for the benchmarks to pin and to time.

    python ours.py run   WORKSPACE VIDEOS SETTINGS STAGE...   bring the stages up to date, in order
    python ours.py flows WORKSPACE VIDEOS SETTINGS            which flows `score` needs, clip by clip

SETTINGS is a JSON object of overrides, such as {"site.score.count": 0}; the recipe is `laptop`. The last line is one
JSON object: for `run` {stage: {seconds, cpu_s, start_up_s, compute_s, computed, failed}}, for `flows` {file: [[start_s,
end_s, flows], ...]}.
"""

import json
import sys
import time
from typing import Any

import cv2

from ptta_core import memo, video  # video here, so that no stage is charged with importing it
from ptta_core.ops import runs
from ptta_core.view import View

__all__ = ["flows", "open_view", "run", "video"]


def open_view(workspace: str, videos: str, settings: dict[str, Any]) -> View:
    """The laptop recipe's view of a workspace."""
    return runs.open_view("laptop", "laptop", settings, workspace, videos)


def run(view: View, stages: list[str]) -> dict[str, dict[str, float]]:
    """What each stage took."""
    found = {}
    assert view.store, "opened, and its libraries loaded, before anything is timed"
    for name in stages:
        used = time.process_time()
        one = memo.run(view.stage(name), view)
        found[name] = {"seconds": one.seconds, "cpu_s": time.process_time() - used, "start_up_s": one.start_up_s,
                       "compute_s": one.compute_s, "computed": one.computed, "failed": one.failed}  # fmt: skip
    return found


def flows(view: View) -> dict[str, list[tuple[float, float, int]]]:
    """Score every clip of a split workspace, one at a time, counting the flows that start from nothing.

    A second flow of the same pair, started from a guess, is not counted: a faster estimator might do without.
    """
    from ptta_core.stages.score import Scorer

    calls = [0]
    create = cv2.DISOpticalFlow.create

    class Counting:
        def __init__(self, preset: int) -> None:
            self.engine = create(preset)

        def calc(self, first: Any, second: Any, start: Any) -> Any:
            calls[0] += start is None
            return self.engine.calc(first, second, start)

    cv2.DISOpticalFlow.create = Counting  # type: ignore[assignment,method-assign]
    items = view.items("score")
    scorer, found = Scorer(view.recipe.score), {}
    for item in items.make(list(range(len(items.item_ids)))):
        calls[0] = 0
        scorer([item])
        found.setdefault(item.path, []).append((item.start_s, item.end_s, calls[0]))
    if not any(count for clips in found.values() for _, _, count in clips):
        raise SystemExit("no flow was counted: does the estimator still come from cv2.DISOpticalFlow.create?")
    return found


def main() -> None:
    """Run what is named."""
    what, workspace, videos, settings, *stages = sys.argv[1:]
    view = open_view(workspace, videos, json.loads(settings))
    print(json.dumps(run(view, stages) if what == "run" else flows(view)))


if __name__ == "__main__":
    main()
