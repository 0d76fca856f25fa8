"""What "done" means: the only place that knows. A stage is a memoised map from items to rows.

    items(view) -> input_ids        what there is to do, each item named by the content of everything it reads
    fingerprint                     what would change the result: stage, version, recipe fields, model identities
    todo = items - done             computed, committed in batches: outputs first, then failures and done rows
    done(fingerprint, input_id)     alone means done; a kill before it loses at most the batch in flight

Readers take the highest attempt that is done. Nothing is ever updated in place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ptta_core.config import Recipe, Section, Site
from ptta_core.done import current_rows, plan, read_ledger, write_table
from ptta_core.fleet import Failed, Spent
from ptta_core.ids import digest, digest_bytes
from ptta_core.lease import Lease
from ptta_core.pace import Pace, length
from ptta_core.rows import NOUNS, TABLE_OF, Done, Failure, Fingerprint, table_schema, to_arrow

if TYPE_CHECKING:
    from ptta_core.done import Plan
    from ptta_core.view import View

__all__ = ["current_rows", "plan", "read_ledger"]  # from done.py, for readers of the memo

log = logging.getLogger("ptta")

Batch = list[tuple[Any, Any]]  # (item, row | list of rows | pa.Table of the noun's columns | Failed)


class StageError(RuntimeError):
    """A stage cannot go on; the message says why and what to do. What was computed is kept."""


@dataclass(frozen=True)
class Items:
    """What a stage has to do: ids at once, values only when asked, since most are usually done already."""

    item_ids: Sequence[str]
    input_ids: Sequence[str]
    make: Callable[[list[int]], list[Any]]
    note: str = ""

    @classmethod
    def of(cls, values: Sequence[Any], item_id: str, input_ids: Sequence[str], note: str = "") -> Items:
        """Items whose values are at hand; `item_id` names the field of a value that identifies it."""
        return cls([getattr(v, item_id) for v in values], list(input_ids), lambda rows: [values[i] for i in rows], note)


@dataclass(frozen=True)
class Progress:
    """Where a stage stands; `total` counts what this run has to compute."""

    stage: str
    done: int
    total: int
    seconds: float
    note: str = ""
    left_s: float | None = None  # None: not known yet

    @property
    def share(self) -> float:
        """0..1."""
        return self.done / self.total if self.total else 1.0

    def line(self) -> str:
        """One readable line with the time left."""
        left = "" if self.left_s is None else f", {length(self.left_s)} left"
        note = f" ({self.note})" if self.note else ""
        return f"{self.stage}: {self.done} of {self.total} in {length(self.seconds)}{left}{note}"


class Unfinished:
    """The rows of an item that takes long, in the tables while it is computed.

    They count as its rows once it is done; until then they may be taken back. Both may be called from another thread
    than the stage's own, one at a time. Outside `run` nothing is kept.
    """

    def publish(self, item: Any, rows: Sequence[tuple[str, Any]]) -> None:
        """Commit rows, each with a word on its place among the item's: one that is there already stays as it is."""

    def retract(self, item: Any, noun: type, where: str) -> None:
        """Take rows of a noun back: what they say is being computed again."""


@dataclass(frozen=True)
class Job:
    """What a stage needs beside its items."""

    stage: str
    config: Any  # the stage's own section of the recipe
    recipe: Recipe
    site: Site
    home: Path  # the workspace
    fingerprint: str
    report: Callable[[int, int, str], None]  # done, total, note: for a stage whose one item takes long
    say: Callable[[str], None]  # a note beside the progress
    store: Any = None  # for a stage that reads wide columns itself
    spent: Spent = field(default_factory=Spent)  # filled by the stage's pool
    unfinished: Unfinished = field(default_factory=Unfinished)

    def device(self) -> str:
        """Where the stage's models run: the site's word; auto means a GPU when the stage's workers have one."""
        if self.site.device != "auto":
            return self.site.device
        workers = getattr(self.site, self.stage, None)
        return "cuda" if workers is not None and workers.gpus > 0 else "cpu"

    @property
    def models(self) -> Path:
        """Where tiny models are made and converted weights are kept."""
        return self.home / "models"


@dataclass(frozen=True)
class Outcome:
    """What a stage did in one run."""

    stage: str
    computed: int = 0
    reused: int = 0
    failed: int = 0
    seconds: float = 0.0
    note: str = ""
    start_up_s: float = 0.0  # until the first item could be worked on: workers, imports, models
    compute_s: float = 0.0  # inside the workers' calls, over all workers

    @property
    def cached(self) -> bool:
        """Nothing was left to do."""
        return self.computed == 0

    def line(self) -> str:
        """For people and for Prefect's state message."""
        text = f"computed {self.computed}, reused {self.reused}, failed {self.failed}"
        return f"{text} ({self.note})" if self.note else text

    def counts(self) -> dict[str, Any]:
        """For --json."""
        return {"computed": self.computed, "reused": self.reused, "failed": self.failed,
                "seconds": round(self.seconds, 3)}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A memoised map: see `stage`."""

    name: str
    compute: Callable[[list[Any], Job], Iterator[Batch]]
    noun: type
    version: int
    also: tuple[type, ...] = ()
    section: str | None = None
    leave_out: tuple[str, ...] = ()
    fields: Callable[[Recipe], dict[str, Any]] | None = None
    models: Callable[[Recipe], list[Any]] = lambda recipe: []
    named: Callable[[Recipe, Path], dict[str, Any]] = lambda recipe, home: {}  # what fields name there, by its bytes
    hold_lease: bool = True  # False: the table's lease is taken for each commit only (training takes days)
    inputs: Callable[[View], Items] = field(default=lambda view: Items([], [], lambda rows: []))
    id_field: str = "item_id"
    by_items: tuple[str, ...] = ()  # recipe fields that change what items read, not what is made of them: `plan` names

    @property
    def nouns(self) -> tuple[type, ...]:
        """Every table the stage writes, its own first."""
        return (self.noun, *self.also)

    def config(self, recipe: Recipe) -> Any:
        """The stage's section of the recipe."""
        return getattr(recipe, self.section or self.name, None)

    def parts(self, recipe: Recipe, models_folder: Path) -> dict[str, Any]:
        """What the fingerprint is made of: everything that changes the result, and nothing that only speeds it up."""
        from ptta_core.models import identity

        found: dict[str, Any] = {"stage": self.name, "version": self.version}
        config = self.config(recipe)
        if self.fields is not None:
            found |= self.fields(recipe)
        elif isinstance(config, Section):
            found |= {f"{self.section or self.name}.{name}": value
                      for name, value in result_fields(config).items() if name not in self.leave_out}  # fmt: skip
        found |= self.named(recipe, models_folder.parent)
        for ref in self.models(recipe):
            found[f"model {ref.id}"] = identity(ref, models_folder)
        return found


def stage(noun: type, *, version: int, id_field: str, inputs: Callable[[View], Items], **more: Any) -> Any:
    """Turn `verb(todo, job) -> Iterator[Batch]` into a Stage named after the function.

    version: raise it when the code changes the result. id_field: the field of an item that identifies it.
    inputs: what there is to do. more: also, section, leave_out, fields, models, named, hold_lease, by_items of Stage.
    """

    def wrap(compute: Callable[[list[Any], Job], Iterator[Batch]]) -> Stage:
        return Stage(compute.__name__, compute, noun, version, inputs=inputs, id_field=id_field, **more)

    return wrap


def result_fields(config: Section) -> dict[str, Any]:
    """A section's fields as JSON values, without those marked as not changing the result."""
    dumped = config.model_dump(mode="json")
    extras = {name: info.json_schema_extra for name, info in type(config).model_fields.items()}
    return {name: value for name, value in dumped.items()
            if not (isinstance(extra := extras[name], dict) and extra.get("result") is False)}  # fmt: skip


def now() -> str:
    """The time as ISO 8601 in UTC, to the millisecond."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def run(stage: Stage, view: View, on_progress: Callable[[Progress], None] = lambda progress: None) -> Outcome:
    """Bring a stage up to date: compute what is not done, commit it in batches, count everything.

    Raises StageError when more than recipe.max_failed_share of the items failed, or when the stage itself cannot work.
    """
    begun = time.monotonic()
    fingerprint = view.fingerprint(stage.name)
    items = view.items(stage.name)
    options = view.options
    lease = Lease(view.home / "leases", TABLE_OF[stage.noun], options.wait_s, log.info)

    def open_plan() -> Plan:
        ledger = read_ledger(view.store, stage.name, fingerprint)
        return plan(items, ledger, force=stage.name in options.force, retry_failed=options.retry_failed)

    planned = open_plan()
    computed = failed = 0
    spent = Spent()
    if planned.todo:
        with lease if stage.hold_lease else contextlib.nullcontext():
            planned = open_plan()  # another run may have done some of it while we waited
            if planned.todo:
                computed, failed = _compute(stage, view, items, planned, lease, on_progress, spent)
        view.forget(stage.name)
    outcome = Outcome(
        stage.name,
        computed,
        planned.reused,
        planned.failed + failed,
        time.monotonic() - begun,
        items.note,
        spent.start_up_s,
        spent.compute_s,
    )
    _judge_failures(stage, view, outcome)
    return outcome


def _compute(stage: Stage, view: View, items: Items, planned: Plan, lease: Lease,
             on_progress: Callable[[Progress], None], spent: Spent) -> tuple[int, int]:  # fmt: skip
    view.remember_fingerprint(stage.name)
    values = items.make(planned.todo)
    ids = {getattr(value, stage.id_field): (items.input_ids[index], attempt)
           for value, index, attempt in zip(values, planned.todo, planned.attempts)}  # fmt: skip
    writer = Writer(stage, view, ids, lease)
    begun = time.monotonic()

    pace = Pace()

    def report(done: int, total: int, note: str = "") -> None:
        seconds = time.monotonic() - begun
        on_progress(Progress(stage.name, done, total, seconds, note, pace.left_s(seconds, done, total)))

    report(0, len(values), "starting")
    said: list[str] = [""]
    job = Job(
        stage.name,
        stage.config(view.recipe),
        view.recipe,
        view.site,
        view.home,
        view.fingerprint(stage.name),
        report,
        lambda note: said.__setitem__(0, note),
        view.store,
        spent,
        writer,
    )
    try:
        with contextlib.closing(stage.compute(values, job)) as batches:  # type: ignore[type-var]
            for batch in batches:
                writer.add(batch)
                if len(values) > 1 or writer.finished:
                    report(writer.finished, len(values), said[0])
    except StageError:
        writer.commit()
        raise
    writer.commit()
    for noun in (*stage.nouns, Done):
        view.store.compact(TABLE_OF[noun])
    missing = len(values) - writer.finished
    if missing:
        raise StageError(f"{stage.name} returned no result for {missing} of {len(values)} items: a defect of the stage")
    return writer.computed, writer.failed


class Writer(Unfinished):
    """The one writer: gathers results and commits outputs first, then failures and done rows."""

    def __init__(self, stage: Stage, view: View, ids: dict[str, tuple[str, int]], lease: Lease) -> None:
        self.stage, self.view, self.ids, self.lease = stage, view, ids, lease
        self.computed = self.failed = 0
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._tables: list[tuple[dict[str, Any], pa.Table]] = []  # the memo's columns, and the noun's
        self._done: list[Done] = []
        self._failures: list[Failure] = []
        self._last = time.monotonic()

    @property
    def finished(self) -> int:
        """Items with a result, good or bad."""
        return self.computed + self.failed

    def add(self, batch: Batch) -> None:
        """Take results in; commit when enough rows or seconds have gathered."""
        for item, result in batch:
            item_id = getattr(item, self.stage.id_field)
            input_id, attempt = self.ids[item_id]
            if isinstance(result, Failed):
                self._fail(item, item_id, input_id, attempt, result)
            else:
                rows = result if isinstance(result, (list, pa.Table)) else [result]
                self._succeed(item_id, input_id, attempt, rows)
        pending = len(self._done) + len(self._failures)
        if pending >= self.view.site.commit_rows or time.monotonic() - self._last > self.view.site.commit_s:
            self.commit()

    def _succeed(self, item_id: str, input_id: str, attempt: int, rows: list[Any] | pa.Table) -> None:
        fingerprint = self.view.fingerprint(self.stage.name)
        if isinstance(rows, pa.Table):
            memo = {"fingerprint": fingerprint, "item_id": item_id, "input_id": input_id, "attempt": attempt}
            self._tables.append((memo, rows))
        listed = rows if isinstance(rows, list) else []
        for ordinal, row in enumerate(listed):  # an item's rows are committed together: their order names them
            values = dataclasses.asdict(row)
            noun = TABLE_OF[type(row)]
            self._rows.setdefault(noun, []).append(self._memo(item_id, noun, ordinal, values) | values)
        self._done.append(Done(self.stage.name, fingerprint, input_id, attempt, len(rows), now()))
        self.computed += 1

    def _memo(self, item_id: str, noun: str, place: int | str, values: dict[str, Any]) -> dict[str, Any]:
        """The memo's columns of one row."""
        fingerprint, (input_id, attempt) = self.view.fingerprint(self.stage.name), self.ids[item_id]
        return {"key": digest(noun, fingerprint, input_id, place, attempt), "fingerprint": fingerprint,
                "item_id": item_id, "input_id": input_id, "attempt": attempt,
                "content_id": content_id(values)}  # fmt: skip

    def publish(self, item: Any, rows: Sequence[tuple[str, Any]]) -> None:
        """See Unfinished. Raises LeaseHeld, OSError."""
        found: dict[str, list[dict[str, Any]]] = {}
        for place, row in rows:
            values, noun = dataclasses.asdict(row), TABLE_OF[type(row)]
            memo = self._memo(getattr(item, self.stage.id_field), noun, place, values)
            found.setdefault(noun, []).append(memo | values)
        with self._held():
            self.lease.check()
            for noun, listed in found.items():
                self.view.store.insert(noun, pa.Table.from_pylist(listed, schema=table_schema(NOUNS[noun])))
                self.view.store.compact(noun)

    def retract(self, item: Any, noun: type, where: str) -> None:
        """See Unfinished. Raises LeaseHeld, OSError."""
        input_id, attempt = self.ids[getattr(item, self.stage.id_field)]
        own = (f"fingerprint = '{self.view.fingerprint(self.stage.name)}' AND input_id = '{input_id}' "
               f"AND attempt = {attempt} AND ({where})")  # fmt: skip
        with self._held():
            self.lease.check()
            self.view.store.delete(TABLE_OF[noun], own)

    def _held(self) -> contextlib.AbstractContextManager[Any]:
        """The right to write: the stage's own for all of its time, or taken for this commit."""
        return contextlib.nullcontext() if self.stage.hold_lease else self.lease

    def _fail(self, item: Any, item_id: str, input_id: str, attempt: int, bad: Failed) -> None:
        path = str(getattr(item, "path", "") or "")
        fingerprint = self.view.fingerprint(self.stage.name)
        self._failures.append(
            Failure(
                item_id,
                self.view.named_path(path),
                self.stage.name,
                bad.kind,
                bad.message[:2000],
                attempt,
                bad.retryable,
                fingerprint,
                input_id,
                now(),
            )
        )
        log.warning("%s: %s: %s: %s", self.stage.name, path or item_id, bad.kind, bad.message.splitlines()[0][:200])
        self.failed += 1

    def commit(self) -> None:
        """Outputs, then failures, then done: whatever is killed in between, done rows never lie."""
        with self._held():
            self.lease.check()
            store = self.view.store
            for noun in sorted(self._rows, key=lambda name: name == TABLE_OF[self.stage.noun]):
                store.insert(noun, pa.Table.from_pylist(self._rows[noun], schema=table_schema(NOUNS[noun])))
            for memo, table in self._tables:
                write_table(store, self.stage.noun, memo, table)
            if self._failures:
                store.append("failures", to_arrow(self._failures, table_schema(Failure)))
            if self._done:
                store.append("done", to_arrow(self._done, table_schema(Done)))
        self._rows, self._tables, self._done, self._failures = {}, [], [], []
        self._last = time.monotonic()


def content_id(values: dict[str, Any]) -> str:
    """The id of a row's own values: what a reader of the row depends on."""
    return digest({name: digest_bytes(value) if isinstance(value, bytes) else value for name, value in values.items()})


def _judge_failures(stage: Stage, view: View, outcome: Outcome) -> None:
    total = outcome.computed + outcome.reused + outcome.failed
    if not outcome.failed or outcome.failed / total <= view.recipe.max_failed_share:
        return
    failures = view.open_failures(stage.name)
    kind, count = Counter(row["kind"] for row in failures).most_common(1)[0]
    worst = next(row for row in failures if row["kind"] == kind)
    raise StageError(
        f"{stage.name}: {outcome.failed} of {total} items failed, more than max_failed_share = "
        f"{view.recipe.max_failed_share}. Most often ({count}) {kind}: {worst['path'] or worst['item_id']}: "
        f"{worst['message'].splitlines()[0][:300]}. `ptta show failures` lists all, `--retry-failed` tries them again."
    )


def fingerprint_row(stage_name: str, fingerprint: str, parts: str) -> pa.Table:
    """A row for the table that remembers what fingerprints were made of."""
    return to_arrow([Fingerprint(stage_name, fingerprint, parts)], table_schema(Fingerprint))
