"""Runs: opening a workspace for a recipe, and the record of what each run read, did and wrote."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ptta_core import columns as cols
from ptta_core import stages
from ptta_core.config import ConfigError, Recipe, Site, load_recipe, load_site
from ptta_core.ids import canonical, digest
from ptta_core.memo import Outcome, now
from ptta_core.rows import BOOKKEEPING, NOUNS, Run, table_schema, to_arrow
from ptta_core.store import Store
from ptta_core.view import Options, View

MOST_IDS = 10_000  # of one stage in the record of a run
FOLLOWS = ("score", "caption", "encode")  # a clip an item: the rows of the stages before say which


def open_view(
    recipe: str,
    site: str = "laptop",
    overrides: dict[str, Any] | None = None,
    workspace: str | None = None,
    videos: str | None = None,
    options: Options | None = None,
) -> View:
    """A recipe's view of a workspace. Raises ConfigError naming the field, the value and the choices."""
    options = options or Options()
    changed = dict(overrides or {})
    if videos:
        changed["sources.folders"] = [
            {"folder": str(Path(videos).expanduser().resolve()) if ":" not in videos else videos}
        ]
    of_site = {field.removeprefix("site."): changed.pop(field) for field in list(changed) if field.startswith("site.")}
    if workspace:
        of_site["workspace"] = workspace
    loaded = load_recipe(recipe, changed), load_site(site, of_site)
    for stage in options.force:
        stages.load(stage)
    return View(*loaded, stages.load, options)


def require_writable(home: Path) -> None:
    """Make the workspace folder. Raises ConfigError when it cannot be written."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"site.workspace = {home}: cannot be written: {error.strerror or error}") from error


def begin(view: View) -> str:
    """Record that a run starts; returns its id."""
    require_writable(view.home)
    run_id = f"{now()[:19].replace(':', '').replace('-', '')}-{secrets.token_hex(3)}"
    _append(view, run_id, "running", [], "", "", known=False)
    return run_id


def note(view: View, run_id: str, outcomes: list[Outcome]) -> None:
    """Record what a run stands on while it lasts, so that its training can be looked at from another process."""
    _append(view, run_id, "running", outcomes, "", "", known=True)


def finish(view: View, run_id: str, outcomes: list[Outcome], message: str = "", report: str = "") -> None:
    """Record how a run ended and what it stood on."""
    status = "failed" if message else "completed"
    _append(view, run_id, status, outcomes, message, report, known=True)


def _append(
    view: View, run_id: str, status: str, outcomes: list[Outcome], message: str, report: str, known: bool
) -> None:
    """known: what the run reads is known by now."""
    inputs = resolved_inputs(view) if known else {}
    fingerprints = {name: view.fingerprint(name) for name in stages.RIVER} if known else {}
    counts = {one.stage: one.counts() for one in outcomes}
    row = Run(
        run_id=run_id, recipe=view.recipe.name, status=status, at=now(),
        recipe_json=canonical(view.recipe.model_dump(mode="json")), fingerprints=canonical(fingerprints),
        inputs=canonical(inputs), stages=canonical(counts), versions=canonical(view.store.versions()),
        rows_digest=digest(fingerprints, inputs), message=message, report=report,
    )  # fmt: skip
    view.store.append("runs", to_arrow([row], table_schema(Run)))


def resolved_inputs(view: View) -> dict[str, Any]:
    """The inputs of every stage that this run has resolved, so that `show --run` finds the same rows later.

    Ids, or of a stage with very many that follow from the stages before it, only how many and their digest.
    """
    found: dict[str, Any] = {}
    for name, items in view.resolved().items():
        ids = cols.Ids(cols.as_array(items.input_ids)).array
        many = len(ids) > MOST_IDS and name in FOLLOWS
        found[name] = {"count": len(ids), "digest": cols.set_digest(ids)} if many else ids.to_pylist()
    return found


def last(
    view_or_store: Any, recipe: str | None = None, run_id: str | None = None, going: bool = False
) -> dict[str, Any] | None:
    """The newest record of a run: of one id, of one recipe, or of all.

    One that has ended, if there is any; going: also one that lasts or was killed, if it says what it stands on.
    """
    rows = [row for row in view_or_store.read("runs").to_pylist()
            if (recipe is None or row["recipe"] == recipe) and (run_id is None or row["run_id"] == run_id)]  # fmt: skip
    ended = [row for row in rows if row["status"] != "running" or (going and row["inputs"] != "{}")]
    return max(ended or rows, key=lambda row: row["at"], default=None)


def lasts(record: dict[str, Any]) -> bool:
    """Whether a record is of a run that had not ended, and says what the run stands on."""
    return record["status"] == "running" and record["inputs"] != "{}"


class Then(Store):
    """The tables as a run left them: what was done or failed later is not seen, so the attempts of its time count."""

    def __init__(self, folder: Path, at: str) -> None:
        super().__init__(folder)
        self.then = f"at <= '{at}'"

    def read(self, noun: str, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """As Store.read, without done and failures younger than the run's end, and without rows of later attempts."""
        if noun in ("done", "failures"):
            return super().read(noun, columns, f"({where}) AND {self.then}" if where else self.then)
        if noun in BOOKKEEPING:
            return super().read(noun, columns, where)
        names = list(columns or table_schema(NOUNS[noun]).names)
        table = super().read(noun, list(dict.fromkeys([*names, "fingerprint", "input_id", "attempt"])), where)
        if table.num_rows and pc.max(table["attempt"]).as_py() > 1:
            table = table.filter(pa.array(self._was_done(table), pa.bool_()))
        return table.select(names)

    def _was_done(self, table: pa.Table) -> list[bool]:
        done = self.read("done", ["fingerprint", "input_id", "attempt"]).to_pylist()
        known = {(row["fingerprint"], row["input_id"], row["attempt"]) for row in done}
        columns = (table[name].to_pylist() for name in ("fingerprint", "input_id", "attempt"))
        return [row in known for row in zip(*columns)]


def view_of(record: dict[str, Any], site: Site) -> View:
    """The workspace as a recorded run left it: its recipe, fingerprints, inputs and attempts."""
    recipe = Recipe.model_validate(json.loads(record["recipe_json"]))
    pinned = {"fingerprints": json.loads(record["fingerprints"]), "inputs": json.loads(record["inputs"])}
    view = View(recipe, site, stages.load, pinned=pinned)
    view.store = Then(site.home / "tables", record["at"])
    return view


def lasting_view(record: dict[str, Any], site: Site) -> View:
    """The workspace as a run that lasts (or was killed) has it now, apart from the run's own view of it."""
    view = view_of(record, site)
    view.store = Store(site.home / "tables")  # also what was done since the record
    for name in view.pinned["inputs"]:
        view.items(name)
    return view
