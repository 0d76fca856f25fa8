"""dry run: what a run would compute, and why, without computing anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ptta_core import memo, stages
from ptta_core.memo import StageError
from ptta_core.ops import runs
from ptta_core.view import View


@dataclass(frozen=True)
class StagePlan:
    """What a stage would do: `compute` counts what is known now; `open_ended` says that more may follow."""

    stage: str
    compute: int
    reused: int
    failed: int
    open_ended: bool
    why: str


def plan(view: View) -> list[StagePlan]:
    """A plan a stage, up to the recipe's last. Stages after one with work to do depend on its results."""
    before = runs.last(view.store, recipe=view.recipe.name)
    old = json.loads(before["fingerprints"]) if before and before["fingerprints"] else {}
    then = json.loads(before["recipe_json"]) if before else {}
    found: list[StagePlan] = []
    for name in stages.RIVER[: stages.RIVER.index(view.recipe.until) + 1]:
        upstream = next((one.stage for one in found if one.compute), None)
        try:
            items = view.items(name)
            planned = memo.plan(items, view.ledger(name), force=name in view.options.force,
                                retry_failed=view.options.retry_failed)  # fmt: skip
            why = reason(view, name, old.get(name), len(planned.todo), bool(found and upstream))
            if planned.todo and old.get(name) and (fields := by_items(view, name, then)):
                why = f"{fields}; {why}"
            note = f"{why}; {items.note}" if items.note else why
            found.append(StagePlan(name, len(planned.todo), planned.reused, planned.failed, upstream is not None, note))
        except (StageError, KeyError) as error:
            waits = f"waits for {upstream}" if upstream else str(error)
            found.append(StagePlan(name, 0, 0, 0, upstream is not None, waits))
    return found


def reason(view: View, name: str, old: str | None, todo: int, upstream: bool) -> str:
    """Why a stage has something to do."""
    if name in view.options.force:
        return "forced"
    if not todo:
        return "depends on what comes before" if upstream else "nothing to do"
    if old is None:
        return "never run for this recipe"
    if old == view.fingerprint(name):
        return f"{todo} new or changed inputs"
    return changes(view, name, old)


def by_items(view: View, name: str, then: dict[str, Any]) -> str:
    """The recipe fields that enter by way of a stage's items and differ from an earlier run's, if any."""
    now = view.recipe.model_dump(mode="json")
    fields = [(dotted, _at(then, dotted), _at(now, dotted)) for dotted in view.stage(name).by_items]
    return ", ".join(f"{dotted} {before} -> {after}" for dotted, before, after in fields if before != after)


def _at(recipe: dict[str, Any], dotted: str) -> Any:
    section, _, name = dotted.partition(".")
    return recipe.get(section, {}).get(name)


def changes(view: View, name: str, old: str) -> str:
    """The recipe fields and models that differ from an earlier fingerprint: "score.gap_s 0.625 -> 0.5"."""
    table = view.store.read("fingerprints", ["parts"], f"fingerprint = '{old}'")
    before: dict[str, Any] = json.loads(table["parts"][0].as_py()) if table.num_rows else {}
    after = json.loads(json.dumps(view.parts(name)))
    names = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return ", ".join(f"{key} {before.get(key)} -> {after.get(key)}" for key in names) or "settings changed"


def as_text(found: list[StagePlan]) -> str:
    """For people, a line a stage."""
    return "\n".join(f"{one.stage:9} compute {one.compute}{'+' if one.open_ended else '':1} reused {one.reused} "
                     f"failed {one.failed}: {one.why}" for one in found)  # fmt: skip
