"""status: what the last run of each recipe did, what is held, and what failed."""

from __future__ import annotations

import json
from typing import Any

from ptta_core.config import Site
from ptta_core.ops import runs, watching
from ptta_core.ops.show import open_store
from ptta_core.stages import RIVER
from ptta_core.store import Store


def status(workspace: str) -> dict[str, Any]:
    """{"recipes": [...], "leases": [...], "tables": {...}} of a workspace. Raises ConfigError when there is none."""
    store, site = open_store(workspace)
    names = sorted({row["recipe"] for row in store.read("runs", ["recipe"]).to_pylist()})
    recipes = []
    for name in names:
        record = runs.last(store, recipe=name) or {}
        counts = json.loads(record["stages"])
        recipes.append({"recipe": name, "run_id": record["run_id"], "status": record["status"], "at": record["at"],
                        "stages": {stage: counts[stage] for stage in RIVER if stage in counts},
                        "report": record["report"], "message": record["message"],
                        "lasting": lasting(store, site, name)})  # fmt: skip
    leases = [
        json.loads(path.read_text()) | {"table": path.stem} for path in sorted((site.home / "leases").glob("*.json"))
    ]
    return {"workspace": str(site.home), "recipes": recipes, "leases": leases, "tables": store.versions()}


def lasting(store: Store, site: Site, recipe: str) -> dict[str, Any] | None:
    """A run of a recipe that trains, or was killed while it did: its id, and the latest step that is in the tables."""
    record = runs.last(store, recipe=recipe, going=True)
    if record is None or not runs.lasts(record):
        return None
    newest = watching.steps(runs.lasting_view(record, site), 1)
    return {"run_id": record["run_id"], "since": record["at"], "step": newest[0] if newest else None}


def as_text(found: dict[str, Any]) -> str:
    """For people."""
    lines = [f"workspace {found['workspace']}"]
    for one in found["recipes"]:
        lines.append(f"recipe {one['recipe']}: run {one['run_id']} {one['status']} at {one['at']}")
        for stage, counts in one["stages"].items():
            lines.append(f"  {stage:9} computed {counts['computed']:6} reused {counts['reused']:6} "
                         f"failed {counts['failed']:5}  {counts['seconds']:8.1f} s")  # fmt: skip
        lines += [f"  {one['message']}"] if one["message"] else []
        if run := one["lasting"]:
            step = run["step"]
            now = f"step {step['step']}, loss {step['loss']:g}, {step['step_s']:g} s a step" if step else "no step yet"
            lines.append(f"  run {run['run_id']} has not ended, training since {run['since']}: {now}")
        lines += [f"  report {found['workspace']}/{one['report']}"] if one["report"] else []
    lines += [f"held: {lease['table']} by pid {lease.get('pid')} on {lease.get('host')}" for lease in found["leases"]]
    return "\n".join(lines)
