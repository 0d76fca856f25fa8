"""A run of some stages under Prefect: opened, recorded, reported, and always closed with its record."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.states import Completed
from pydantic import BaseModel

from ptta_core import fleet, memo
from ptta_core.config import ConfigError
from ptta_core.ops import calibrate, fates, report, runs
from ptta_core.stages import RIVER, load
from ptta_core.stages.select import require_some
from ptta_core.view import Options, View
from tasks.meter import Meter, to_prefect
from tasks.watching import Watching

log = logging.getLogger("ptta")


class RunOptions(BaseModel, extra="forbid"):
    """How a run goes about its work; none of it changes a result."""

    workspace: str | None = None
    videos: str | None = None
    only: list[str] = []
    from_stage: str | None = None
    force: list[str] = []
    limit: int | None = None
    retry_failed: bool = False
    fresh: bool = False

    def wanted(self, until: str) -> list[str]:
        """The stages to run, in order: up to the last one of the recipe, or those asked for. Raises ValueError."""
        for name in [*self.only, *([self.from_stage] if self.from_stage else [])]:
            load(name)
        first = RIVER.index(self.from_stage) if self.from_stage else 0
        last = RIVER.index(until)
        found = [name for name in RIVER[first:] if name in self.only or (not self.only and RIVER.index(name) <= last)]
        if not found:
            raise ConfigError(f"no stage is left to run: the recipe ends with until = {until}, and asked was "
                              f"{' '.join(['from_stage', str(self.from_stage), *self.only])}")  # fmt: skip
        return found

    def core(self) -> Options:
        """The part that the core reads."""
        return Options(tuple(self.force), self.retry_failed, self.limit, self.fresh)


class Session:
    """What tasks share: the view of the workspace and what each stage did."""

    def __init__(self, view: View, options: RunOptions) -> None:
        self.view, self.wanted = view, options.wanted(view.recipe.until)
        self.outcomes: list[memo.Outcome] = []
        self.started = memo.now()
        self.run_id = runs.begin(view)
        self.report = ""
        self.footage: dict[str, Any] = {}  # what is learnt of the selected clips, once the run has come so far

    def result(self) -> dict[str, Any]:
        """What a flow returns and the command line prints."""
        stages = {one.stage: one.counts() for one in self.outcomes}
        return {"run_id": self.run_id, "stages": stages, "footage": self.footage, "report": self.report}


_LAST: list[Session] = []


def last_result() -> dict[str, Any] | None:
    """What the last session of this process had done when it ended, well or not."""
    return _LAST[-1].result() if _LAST else None


@contextlib.contextmanager
def session(recipe: str, site: str, overrides: dict[str, Any] | None, options: RunOptions | None) -> Iterator[Session]:
    """Open a workspace for a recipe; at the end, however it ends, stop Ray, write the report and the record."""
    options = options or RunOptions()
    view = runs.open_view(recipe, site, overrides, options.workspace, options.videos, options.core())
    opened = Session(view, options)
    _LAST[:] = [opened]
    message = ""
    try:
        yield opened
        if not opened.outcomes:
            raise ConfigError(f"nothing to run: recipe {view.recipe.name} ends with until = {view.recipe.until}, "
                              "before every stage of this flow")  # fmt: skip
    except BaseException as error:
        message = f"{type(error).__name__}: {error}".rstrip(": ")[:2000]
        raise
    finally:
        fleet.stop()
        _close(opened, message)


def _close(opened: Session, message: str) -> None:
    """Write the report and the record. Where that fails too, the message that ended the run comes first."""
    view = opened.view
    try:
        opened.footage = fates.footage(view)
        path = report.write(view, opened.run_id, opened.started, opened.outcomes, message, footage=opened.footage)
        opened.report = str(view.home / path)
        runs.finish(view, opened.run_id, opened.outcomes, message, path.as_posix())
    except OSError as error:  # a full disk, a workspace that is gone
        if not message:
            raise
        log.warning("this run has no report or no record: %s", error)
    _publish(opened)


def bring(name: str, opened: Session) -> Any:
    """Bring one stage up to date; the state is Cached when nothing was left to do."""
    if name not in opened.wanted:
        return Completed(name="Skipped", message="not asked for")
    shown = meter(name, opened)
    try:
        outcome = memo.run(opened.view.stage(name), opened.view, shown)
    finally:
        shown.end()
    opened.outcomes.append(outcome)
    log.info("%-9s %s in %.1f s", name, outcome.line(), outcome.seconds)
    if name == "select":
        require_some(opened.view)
        with to_prefect():
            create_table_artifact(table=calibrate.rows(opened.view), key="calibration", description="theta -> kept")
    return Completed(name="Cached" if outcome.cached else "Completed", message=outcome.line())


def meter(name: str, opened: Session) -> Meter:
    """What takes a stage's progress in. Training takes long: it can be looked at meanwhile."""
    if name != "train":
        return Meter(name)
    watching = Watching(opened.view, opened.run_id)
    return Meter(name, lambda: runs.note(opened.view, opened.run_id, opened.outcomes), watching, watching.show)


def _publish(opened: Session) -> None:
    """A summary table and a link to the report, for the Prefect UI."""
    table = [{"stage": one.stage, "computed": one.computed, "reused": one.reused, "failed": one.failed,
              "seconds": round(one.seconds, 1)} for one in opened.outcomes]  # fmt: skip
    try:
        create_table_artifact(table=table, key="summary", description=f"Run {opened.run_id}")
        create_link_artifact(link=f"file://{opened.report}", link_text="report", key="report",
                             description=f"The report of run {opened.run_id}")  # fmt: skip
    except Exception as error:  # the server may be what broke; the run's own record is already written
        log.warning("no artifacts: %s", error)
