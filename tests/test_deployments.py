"""prefect.yaml as the README says to use it: a server, a work pool, every deployment, a worker, and runs of one."""

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Iterator
from uuid import UUID

import pytest
import yaml
from servers import PREFECT, ROOT, Server

from ptta_core.store import Store

pytestmark = pytest.mark.slow  # a minute and a half: server, 15 deployments, worker, three runs in new processes

CURATION = {"until": "admit", "site.split.count": 0, "site.score.count": 0}
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]


def prefect(server: Server, *words: str, timeout_s: float = 150) -> str:
    done = subprocess.run([*PREFECT, *words], cwd=ROOT, env=server.environment, capture_output=True, text=True,
                          timeout=timeout_s, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ask(server: Server, question):
    """The answer of Prefect's client to `question(client)`."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    async def asking():
        async with get_client() as client:
            return await question(client)

    with temporary_settings(updates={PREFECT_API_URL: server.url}):
        return asyncio.run(asking())


@pytest.fixture(scope="module")
def deployed(prefect_server: Server) -> Iterator[Server]:
    """The server with a pool, every deployment and a worker, as the README says."""
    before = (ROOT / "prefect.yaml").read_bytes()
    prefect(prefect_server, "work-pool", "create", "ptta", "--type", "process")
    prefect(prefect_server, "--no-prompt", "deploy", "--all")
    assert (ROOT / "prefect.yaml").read_bytes() == before, "deploying rewrote prefect.yaml"
    with prefect_server.running([*PREFECT, "worker", "start", "--pool", "ptta"]):
        yield prefect_server


def run(server: Server, deployment: str, **parameters) -> tuple[str, dict[str, str]]:
    """Run a deployment to its end; the state of the flow run, and its tasks' states by name."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    told = prefect(server, "deployment", "run", deployment, "--params", json.dumps(parameters))
    run_id = UUID(next(line.split()[-1] for line in told.splitlines() if "UUID" in line))
    begun, state = time.monotonic(), None
    while state is None or not state.is_final():
        assert time.monotonic() - begun < 150, f"{deployment} is still {state.name if state else 'unknown'}"
        time.sleep(0.5)
        state = ask(server, lambda client: client.read_flow_run(run_id)).state
    tasks = ask(server, lambda client: client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))))  # fmt: skip
    return f"{state.name} {state.message or ''}".strip(), {one.task_key.split("-")[0]: one.state.name for one in tasks}


def test_every_flow_has_a_deployment_and_the_nightly_one_its_schedule(deployed):
    found = ask(deployed, lambda client: client.read_deployments())
    flows = {one.id: one.name for one in ask(deployed, lambda client: client.read_flows(limit=200))}
    named = {f"{flows[one.flow_id]}/{one.name}": one for one in found}
    assert {"curate-and-train/demo", "curate-and-train/paper", "select/default", "evaluate/nightly"} <= named.keys()
    entrypoints = {one["entrypoint"] for one in DEPLOYMENTS}
    assert {one.entrypoint for one in found} == entrypoints and len(found) == len(DEPLOYMENTS)
    assert {name: one.schedules[0].schedule.cron for name, one in named.items() if one.schedules} == {
        "evaluate/nightly": "0 3 * * *"}  # fmt: skip
    written = {f"flows/{path.name}:{name}" for path in (ROOT / "flows").glob("*.py")
               for name in re.findall(r"(?m)^@flow\(.*\)\ndef (\w+)", path.read_text(encoding="utf-8"))}  # fmt: skip
    assert written == entrypoints


def test_a_worker_runs_a_deployment_and_the_second_run_is_cached(deployed, tmp_path, videos):
    options = {"workspace": str(tmp_path / "w"), "videos": str(videos)}
    ended, states = run(deployed, "curate-and-train/demo", overrides=CURATION, options=options)
    assert ended == "Completed"
    curated = ("gather", "split", "score", "select", "caption", "admit")
    assert {name: states.pop(name) for name in curated} == dict.fromkeys(curated, "Completed")
    assert states == dict.fromkeys(("encode", "train", "generate", "evaluate"), "Skipped")
    store = Store(tmp_path / "w" / "tables")
    rows = {noun: store.read(noun, ["key"]).num_rows for noun in ("sources", "clips", "scores", "captions")}
    assert rows["sources"] == 3 and rows["clips"] == rows["scores"] > rows["captions"] > 0
    ended, states = run(deployed, "curate/default", recipe="demo", overrides=CURATION, options=options)
    assert ended == "Completed" and states == dict.fromkeys(curated, "Cached")
    assert rows == {noun: store.read(noun, ["key"]).num_rows for noun in rows}


def test_a_bad_parameter_fails_the_run_with_its_reason(deployed, tmp_path):
    options = {"workspace": str(tmp_path / "w")}
    ended, states = run(deployed, "select/default", overrides={"select.thta": 8}, options=options)
    assert ended.startswith("Failed") and "did you mean theta?" in ended and not states
