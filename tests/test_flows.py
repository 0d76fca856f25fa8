"""The flows under a real Prefect server: states, artifacts and the record of a run, on curation of the cartoon."""

import asyncio
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def prefect_server():
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def twice(prefect_server, tmp_path_factory) -> tuple[Path, list[dict]]:
    """The flow curate on the cartoon, run twice in this process."""
    from flows.curate import curate
    from tasks.session import RunOptions

    workspace = tmp_path_factory.mktemp("flow") / "w"
    overrides = {"site.split.count": 0, "site.score.count": 0}
    options = RunOptions(workspace=str(workspace))
    return workspace, [curate("demo", "laptop", overrides, options) for _ in range(2)]


def task_runs():
    from prefect.client.orchestration import get_client

    async def read():
        async with get_client() as client:
            return await client.read_task_runs(), await client.read_flow_runs(), await client.read_artifacts()

    return asyncio.run(read())


def test_the_second_run_is_cached_and_says_so(twice):
    _, (first, second) = twice
    assert all(counts["computed"] > 0 for counts in first["stages"].values())
    assert all(counts["computed"] == 0 for counts in second["stages"].values())
    tasks, flow_runs, _ = task_runs()
    states = sorted(run.state.name for run in tasks)
    assert states == ["Cached"] * 6 + ["Completed"] * 6
    assert {run.state.name for run in flow_runs} == {"Completed"}
    assert all("computed" in (run.state.message or "") for run in tasks)


def test_a_run_leaves_a_table_progress_and_a_link_to_the_report(twice):
    workspace, (_, second) = twice
    _, _, artifacts = task_runs()
    keys = {artifact.key for artifact in artifacts}
    assert {"summary", "report", "progress-score"} <= keys
    assert Path(second["report"]).is_file() and Path(second["report"]).is_relative_to(workspace)


def test_a_failing_run_is_recorded_with_its_reason(prefect_server, tmp_path):
    from flows.curate import curate
    from ptta_core.memo import StageError
    from ptta_core.ops import status
    from tasks.session import RunOptions

    options = RunOptions(workspace=str(tmp_path / "w"), videos=str(tmp_path))
    with pytest.raises(StageError, match="no videos found"):
        curate("laptop", "laptop", {}, options)
    found = status.status(str(tmp_path / "w"))["recipes"][0]
    assert found["status"] == "failed" and "no videos found" in found["message"]
