"""The demo recipe on the core, without Prefect: what the tests of the whole river share."""

from pathlib import Path

from ptta_core import memo, stages
from ptta_core.ops import report, runs
from ptta_core.view import Options, View

IN_PROCESS = {"site.split.count": 0, "site.score.count": 0, "site.train.count": 1, "train.epochs": 2,
              "train.preview_share": 100.0, "train.export": []}  # fmt: skip


def open_demo(workspace: Path, videos: Path, options: Options | None = None, **overrides) -> View:
    """The demo recipe in `workspace` on `videos`, small and in this process."""
    return runs.open_view("demo", "laptop", IN_PROCESS | overrides, str(workspace), str(videos), options or Options())


def go(view: View, names=stages.RIVER) -> dict[str, memo.Outcome]:
    """Bring the named stages up to date, with the run's record and report as a flow leaves them."""
    run_id = runs.begin(view)
    outcomes = [memo.run(view.stage(name), view) for name in names]
    path = report.write(view, run_id, memo.now(), outcomes)
    runs.finish(view, run_id, outcomes, report=path.as_posix())
    return {one.stage: one for one in outcomes}


def computed(outcomes: dict[str, memo.Outcome]) -> dict[str, int]:
    """How much each stage computed, without those that computed nothing."""
    return {name: one.computed for name, one in outcomes.items() if one.computed}


def todo(view: View, name: str) -> list[str]:
    """The ids of the items that a stage would compute now, sorted."""
    items = view.items(name)
    return sorted(items.item_ids[index] for index in memo.plan(items, view.ledger(name)).todo)
