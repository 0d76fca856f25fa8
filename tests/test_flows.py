"""The flows under a real Prefect server: states, artifacts and the record of a run, on curation of the cartoon."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo import IN_PROCESS
from servers import Server

from ptta_core.stages import RIVER


@pytest.fixture(scope="module")
def served(prefect_server: Server) -> Iterator[None]:
    """This process's flows run on the session's server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(updates={PREFECT_API_URL: prefect_server.url}):
        yield


@pytest.fixture(scope="module")
def twice(served, tmp_path_factory) -> tuple[Path, list[dict]]:
    """The flow curate on the cartoon, run twice in this process."""
    from prefect import tags

    from flows.curate import curate
    from tasks.session import RunOptions

    workspace = tmp_path_factory.mktemp("flow") / "w"
    overrides = {"site.split.count": 0, "site.score.count": 0}
    options = RunOptions(workspace=str(workspace))
    with tags("twice"):
        return workspace, [curate("demo", "laptop", overrides, options) for _ in range(2)]


def seen(tag: str):
    """What the server holds of the flow runs with this tag: the runs, their tasks' runs, their artifacts."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

    async def read():
        async with get_client() as client:
            ours = FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]))
            return [await one(flow_run_filter=ours) for one in
                    (client.read_flow_runs, client.read_task_runs, client.read_artifacts)]  # fmt: skip

    return asyncio.run(read())


def test_the_second_run_is_cached_and_says_so(twice):
    _, (first, second) = twice
    assert all(counts["computed"] > 0 for counts in first["stages"].values())
    assert all(counts["computed"] == 0 for counts in second["stages"].values())
    flow_runs, tasks, _ = seen("twice")
    states = sorted(run.state.name for run in tasks)
    assert states == ["Cached"] * 6 + ["Completed"] * 6
    assert {run.state.name for run in flow_runs} == {"Completed"}
    assert all("computed" in (run.state.message or "") for run in tasks)


def test_a_run_leaves_a_table_progress_and_a_link_to_the_report(twice):
    workspace, (_, second) = twice
    _, _, artifacts = seen("twice")
    keys = {artifact.key for artifact in artifacts}
    assert {"summary", "report", "progress-score"} <= keys
    assert Path(second["report"]).is_file() and Path(second["report"]).is_relative_to(workspace)


def test_a_failing_run_is_recorded_with_its_reason(served, tmp_path):
    from flows.curate import curate
    from ptta_core.memo import StageError
    from ptta_core.ops import status
    from tasks.session import RunOptions

    options = RunOptions(workspace=str(tmp_path / "w"), videos=str(tmp_path))
    with pytest.raises(StageError, match="no videos found"):
        curate("laptop", "laptop", {}, options)
    found = status.status(str(tmp_path / "w"))["recipes"][0]
    assert found["status"] == "failed" and "no videos found" in found["message"]


def test_a_stage_that_was_not_asked_for_says_so(served, twice):
    from prefect import tags

    from flows.curate_and_train import curate_and_train
    from flows.stages import select as select_flow
    from tasks.session import RunOptions

    workspace, _ = twice
    overrides = {"site.split.count": 0, "site.score.count": 0, "select.theta": 4.0}
    options = RunOptions(workspace=str(workspace), only=["select"])
    for flow in (curate_and_train, select_flow):
        with tags(flow.name):
            done = flow("demo", "laptop", overrides, options)
        assert list(done["stages"]) == ["select"]
    _, tasks, _ = seen("curate-and-train")
    states = {run.task_key.split("-")[0]: (run.state.name, run.state.message) for run in tasks}
    assert {name for name, (state, _) in states.items() if state == "Skipped"} == set(RIVER) - {"select"}
    assert states["score"] == ("Skipped", "not asked for") and states["select"][0] == "Completed"
    _, tasks, _ = seen("select")
    assert [run.state.name for run in tasks] == ["Cached"]


def test_a_run_with_nothing_to_run_is_refused(served, tmp_path):
    from flows.curate_and_train import curate_and_train
    from flows.finetune import finetune
    from ptta_core.config import ConfigError
    from tasks.session import RunOptions

    with pytest.raises(ConfigError, match="until = admit"):
        curate_and_train("laptop", "laptop", {}, RunOptions(workspace=str(tmp_path / "w"), from_stage="train"))
    with pytest.raises(ConfigError, match="until = admit"):
        finetune("laptop", "laptop", {}, RunOptions(workspace=str(tmp_path / "w")))


def test_a_training_is_shown_while_it_lasts_and_a_stop_is_told_everywhere(served, workspace, videos, capsys):
    """It stops by itself, says why and what to do, and goes on from there when told so; the server has it all."""
    import json

    from prefect import tags

    from flows.cli import main
    from flows.finetune import finetune
    from ptta_core.ops import report
    from ptta_core.training.stops import RouterCollapsed
    from tasks.session import RunOptions

    options = RunOptions(workspace=str(workspace), videos=str(videos))
    stops = {"train.rank": 3, "train.stop_on_collapse": 1 - 1e-9, "train.stop_after": 3, "train.checkpoint_every": 2}
    with tags("watched"):
        with pytest.raises(RouterCollapsed):
            finetune("demo", "laptop", IN_PROCESS | stops, options)
        assert main(["show", "runs", "-w", str(workspace)]) == 0
        told = [line for line in capsys.readouterr().out.splitlines() if "RouterCollapsed" in line]
        assert len(told) == 1 and "step 3: " in told[0] and "Set train.balance_weight" in told[0]
        page = report.find(str(workspace)).read_text(encoding="utf-8")
        assert "This run failed: RouterCollapsed: step 3: one branch takes nearly everything" in page
        assert "<figcaption>Loss</figcaption>" in page  # of the three steps
        assert main(["status", "-w", str(workspace)]) == 0 and "train.balance_weight" in capsys.readouterr().out
        done = finetune("demo", "laptop", IN_PROCESS | stops | {"train.stop_on_collapse": 0.0}, options)
    assert done["stages"]["train"]["computed"] == 1
    _, _, artifacts = seen("watched")
    newest = {one.key: one for one in sorted(artifacts, key=lambda one: one.created) if one.key}
    steps, routers = (json.loads(newest[key].data) for key in ("training-steps", "training-routers"))
    assert [row["step"] for row in steps] == list(range(6, 0, -1))
    assert all(row["forward_s"] > 0 and row["loss"] > 0 for row in steps)
    assert [row["label"] for row in routers] == ["all"]  # measured captions know no labels
    assert sum(routers[0][f"branch {number}"] for number in range(1, 5)) == pytest.approx(1, abs=0.01)
    words = newest["training"]
    assert words.type == "markdown" and f"{workspace}/reports/demo-running.html" in words.data
    assert "1 of 1" in newest["progress-train"].description and float(newest["progress-train"].data) == 100.0
    assert not (workspace / "reports/demo-running.html").exists()  # gone with the end of the run
    assert report.find(str(workspace)).name == "demo.html"
