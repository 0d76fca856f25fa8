"""Items -> results over a pool of workers: the only Ray pool.

A bad item must cost exactly itself. So: plain actors that Ray never restarts, one call in flight each, a fresh actor
after any death, and a batch that raises, exits, dies or hangs is cut in half until one item is left. An item alone that
raises or exits has failed; one that killed or hung its worker gets a second chance first, because the machine may have
been at fault. With `workers.count = 0` the same rules run in this process, except that nothing can be killed here: a
hang hangs and a crash crashes.
"""

import errno
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from ptta_core.cluster import FleetError, asked, must_fit, prepare, start, stop
from ptta_core.config import RaySite, Workers

__all__ = [
    "Failed",
    "FleetError",
    "Spent",
    "Worker",
    "WorkerStartError",
    "fan_out",
    "must_fit",
    "prepare",
    "start",
    "stop",
]

Item = TypeVar("Item")
Result = Any  # a row, a list of rows, or Failed

STRIKES = 2  # deaths of an item alone in its worker before it is the one to blame
START_TRIES = 2  # failed starts before any worker has ever started
RESTART_TRIES = 5  # failed starts in a row, once one has
START_S = 1800.0  # loading a large model from a slow disk takes minutes; waiting for ever would hide a full cluster
MESSAGE_CHARS = 2000
DISK_FULL = "disk_full"

log = logging.getLogger(__name__)


class WorkerStartError(FleetError):
    """No worker could be built: the cause is the stage's model or settings, not an item."""


@dataclass(frozen=True)
class Failed:
    """An item that could not be computed. `retryable`: the same item may well succeed another time."""

    kind: str
    message: str
    retryable: bool = False


@dataclass
class Spent:
    """Where a pool's time goes, added up while it runs; what a worker did in a call that killed it is not known."""

    start_up_s: float = 0.0  # until the first worker could take a batch: Ray, imports, models
    compute_s: float = 0.0  # inside the workers' calls, over all workers


class Worker(Protocol):
    """One worker's models, loaded once; a call returns one result an item, in order."""

    def __call__(self, items: list[Any], /) -> Sequence[Result]: ...


# ------------------------------------------------------------------------------------------------ what goes wrong


@dataclass(frozen=True)
class _Trouble:
    """Why a batch gave no results; `fatal`: its worker is gone or no longer to be trusted."""

    failed: Failed
    fatal: bool = False


def _from_exception(error: BaseException) -> _Trouble:
    """The trouble that an exception in a worker's call stands for. An exception may carry `kind` and `retryable`."""
    name = type(error).__name__
    if isinstance(error, SystemExit):
        return _Trouble(Failed("exited", f"the worker's code called sys.exit({error.code!r})"))
    message = (str(error) or name)[:MESSAGE_CHARS]
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":  # torch's own, by name: torch stays outside
        return _Trouble(Failed("out_of_memory", f"{name}: {message}", retryable=True))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _Trouble(Failed(DISK_FULL, message, retryable=True))
    # After an illegal access or a failed device assert every later CUDA call of that process fails too.
    lost = name == "AcceleratorError" or message.startswith("CUDA error")
    kind = str(getattr(error, "kind", "crashed" if lost else "error"))
    text = message if hasattr(error, "kind") or message.startswith(name) else f"{name}: {message}"
    return _Trouble(Failed(kind, text, bool(getattr(error, "retryable", False))), fatal=lost)


@dataclass(frozen=True)
class _Call:
    """What came of a worker's call, and the seconds inside it."""

    outcome: list[Result] | _Trouble
    seconds: float


def _compute(worker: Worker, items: list[Any]) -> _Call:
    """One call of a worker, its errors turned into values (KeyboardInterrupt passes)."""
    begun = time.perf_counter()
    outcome = _attempt(worker, items)
    return _Call(outcome, time.perf_counter() - begun)


def _attempt(worker: Worker, items: list[Any]) -> list[Result] | _Trouble:
    try:
        results = list(worker(items))
        if len(results) != len(items):
            message = f"the worker returned {len(results)} results for {len(items)} items"
            return _Trouble(Failed("wrong_result_count", message))
        return results
    except (Exception, SystemExit) as error:
        return _from_exception(error)


@dataclass
class _Batch:
    """Places in the list of items, and how often the (single) item killed its worker."""

    places: list[int]
    strikes: int = 0

    def halves(self) -> list["_Batch"]:
        middle = len(self.places) // 2
        return [_Batch(self.places[:middle]), _Batch(self.places[middle:])]


def _batches(n_items: int, size: int) -> deque[_Batch]:
    return deque(_Batch(list(range(at, min(at + size, n_items)))) for at in range(0, n_items, size))


def _judge(batch: _Batch, trouble: _Trouble) -> tuple[list[_Batch], Failed | None]:
    """What to try again after `trouble`, or the verdict on the one item that is left. Raises FleetError: disk full."""
    if trouble.failed.kind == DISK_FULL:  # no item's fault, and the next would fail alike
        raise FleetError(f"the disk is full: {trouble.failed.message}. What was committed is kept. "
                         "Free some space and run again: it goes on from there.")  # fmt: skip
    if len(batch.places) > 1:
        return batch.halves(), None
    if trouble.fatal and batch.strikes + 1 < STRIKES:
        return [_Batch(batch.places, batch.strikes + 1)], None
    return [], trouble.failed


# ------------------------------------------------------------------------------------------------ the two ways to run


def fan_out(
    make_worker: Callable[[], Worker],
    todo: Sequence[Item],
    workers: Workers,
    ray_site: RaySite | None = None,
    spent: Spent | None = None,
) -> Iterator[list[tuple[Item, Result]]]:
    """Run every item through a worker; yield finished batches of (item, result) as they come, in no set order.

    Every item comes out exactly once: with its worker's result, or with Failed. Kinds given here: error (or the
    exception's own `kind`), exited, crashed, timeout, out_of_memory, wrong_result_count.
    `make_worker` is called once a worker, usually `functools.partial(Class, config)`; it, the items and the results
    travel by value. Ray is started only when there is an item to compute and `workers.count` > 0. A call may take
    `workers.timeout_s` an item. `workers.threads` is set in pool workers only: this process keeps its own.
    `spent` gathers where the time goes.
    Raises WorkerStartError when workers cannot be built, FleetError when Ray cannot be reached or is too small.
    Closing the generator early ends its workers.
    """
    if not todo:
        return
    spent = spent or Spent()
    if workers.count == 0:
        yield from _run_here(make_worker, todo, workers, spent)
        return
    pool = _Pool(make_worker, todo, workers, spent)
    start(ray_site)
    must_fit(workers)
    try:
        yield from pool.run()
    finally:
        pool.close()


def _run_here(
    make_worker: Callable[[], Worker], todo: Sequence[Item], workers: Workers, spent: Spent
) -> Iterator[list[tuple[Item, Result]]]:
    """The same in this process, in order of the first cut."""
    began = time.monotonic()
    try:
        worker = make_worker()
    except (Exception, SystemExit) as error:
        raise WorkerStartError(f"a worker could not be built: {_from_exception(error).failed.message}") from error
    spent.start_up_s = time.monotonic() - began
    queue = _batches(len(todo), workers.batch)
    while queue:
        batch = queue.popleft()
        items = [todo[place] for place in batch.places]
        call = _compute(worker, items)
        spent.compute_s += call.seconds
        outcome = call.outcome
        if not isinstance(outcome, _Trouble):
            yield list(zip(items, outcome))
            continue
        if outcome.fatal:  # nothing computed in this process can be trusted any more, and it cannot be replaced
            raise FleetError(f"{outcome.failed.message} (workers.count 1 or more would survive it)")
        again, verdict = _judge(batch, outcome)
        queue.extendleft(reversed(again))
        if verdict:
            yield [(items[0], verdict)]


class _Actor:
    """The inside of a Ray actor: a worker, built by `load` so that a failure there is told from an item's."""

    def load(self, make_worker: Callable[[], Worker]) -> str:
        """Build the worker. The empty string, or why not."""
        try:
            self.worker = make_worker()
        except (Exception, SystemExit) as error:
            return f"{type(error).__name__}: {error}"[:MESSAGE_CHARS]
        return ""

    def call(self, items: list[Any]) -> _Call:
        return _compute(self.worker, items)


@dataclass(eq=False)
class _Slot:
    """One actor, what it is doing (`pending` is a Ray reference), and by when it must be done."""

    actor: Any
    pending: Any
    deadline: float
    batch: _Batch | None = None
    ready: bool = False


@dataclass(eq=False)
class _Pool(Generic[Item]):
    """The actors of one `fan_out`."""

    make_worker: Callable[[], Worker]
    todo: Sequence[Item]
    workers: Workers
    spent: Spent
    slots: list[_Slot] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    started: int = 0
    failed_starts: int = 0  # in a row

    def run(self) -> Iterator[list[tuple[Item, Result]]]:
        import ray

        self.queue = _batches(len(self.todo), self.workers.batch)
        self.remote = ray.remote(_Actor).options(
            num_cpus=self.workers.cpus,
            num_gpus=self.workers.gpus,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": _environment(self.workers)},
        )
        self.make_worker_ref = ray.put(self.make_worker)
        self.feed()
        while any(slot.pending is not None for slot in self.slots):
            finished = self.collect()
            self.feed()  # before handing over: writing the results may take a while
            yield from finished

    def feed(self) -> None:
        """Give every idle actor a batch, then start actors while batches outnumber those on their way."""
        for slot in self.slots:
            if slot.ready and slot.pending is None and self.queue:
                self.submit(slot, self.queue.popleft())
        coming = sum(not slot.ready for slot in self.slots)
        while len(self.slots) < self.workers.count and coming < len(self.queue):
            actor: Any = self.remote.remote()
            pending = actor.load.remote(self.make_worker_ref)
            self.slots.append(_Slot(actor, pending, time.monotonic() + START_S))
            coming += 1

    def submit(self, slot: _Slot, batch: _Batch) -> None:
        items = [self.todo[place] for place in batch.places]
        slot.batch = batch
        slot.deadline = time.monotonic() + self.workers.timeout_s * len(items)
        slot.pending = slot.actor.call.remote(items)

    def collect(self) -> list[list[tuple[Item, Result]]]:
        """Wait for at least one actor to finish or to overrun; the finished batches."""
        import ray

        busy = [slot for slot in self.slots if slot.pending is not None]
        refs = [slot.pending for slot in busy]
        wait_s = max(0.0, min(slot.deadline for slot in busy) - time.monotonic())
        ray.wait(refs, num_returns=1, timeout=wait_s)
        # All that is ready is taken before any deadline is looked at: the caller may have kept us for long.
        ready = set(ray.wait(refs, num_returns=len(refs), timeout=0)[0])
        now = time.monotonic()
        finished = []
        for slot in busy:
            if slot.pending in ready:
                outcome = _outcome(slot.pending)
            elif now >= slot.deadline:
                outcome = self.overrun(slot)
            else:
                continue
            slot.pending = None
            finished += self.loaded(slot, outcome) if slot.batch is None else self.called(slot, slot.batch, outcome)
        return finished

    def overrun(self, slot: _Slot) -> _Trouble:
        if slot.batch is None:
            return _Trouble(Failed("timeout", f"not ready after {START_S:g} s; asked: {asked(self.workers)}"), True)
        n_items = len(slot.batch.places)
        message = f"no result within {self.workers.timeout_s * n_items:g} s"
        return _Trouble(Failed("timeout", message, retryable=True), fatal=True)

    def loaded(self, slot: _Slot, outcome: Any) -> list[list[tuple[Item, Result]]]:
        """An actor is ready, or could not be: no item's fault, so it is tried again and then everything stops."""
        cause = outcome.failed.message if isinstance(outcome, _Trouble) else outcome
        if not cause:
            slot.ready, self.failed_starts, self.started = True, 0, self.started + 1
            if self.started == 1:
                self.spent.start_up_s = time.monotonic() - self.began
            return []
        self.dismiss(slot)
        self.failed_starts += 1
        tries = RESTART_TRIES if self.started else START_TRIES
        log.warning("a worker could not be built (%d of %d): %s", self.failed_starts, tries, cause)
        if self.failed_starts >= tries:
            raise WorkerStartError(f"a worker could not be built, {self.failed_starts} tries in a row: {cause}")
        return []

    def called(self, slot: _Slot, batch: _Batch, outcome: Any) -> list[list[tuple[Item, Result]]]:
        """A call has ended: its results, or the verdict on its last item, or nothing yet."""
        slot.batch = None
        items = [self.todo[place] for place in batch.places]
        if isinstance(outcome, _Call):
            self.spent.compute_s += outcome.seconds
            outcome = outcome.outcome
        if not isinstance(outcome, _Trouble):
            return [list(zip(items, outcome))]
        if outcome.fatal:
            self.dismiss(slot)
        again, verdict = _judge(batch, outcome)
        self.queue.extend(again)  # at the end: the unsuspected go first
        return [[(items[0], verdict)]] if verdict else []

    def dismiss(self, slot: _Slot) -> None:
        import ray

        self.slots.remove(slot)
        ray.kill(slot.actor, no_restart=True)

    def close(self) -> None:
        """End every actor, whatever it is doing."""
        for slot in list(self.slots):
            self.dismiss(slot)


def _environment(workers: Workers) -> dict[str, str]:
    """Environment of a pool worker: its share of threads, and no GPU that it did not ask for."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
    environment = dict.fromkeys((*names, "RAYON_NUM_THREADS"), str(workers.threads))
    return environment if workers.gpus else environment | {"CUDA_VISIBLE_DEVICES": ""}


def _outcome(ref: Any) -> Any:
    """A finished call's value, or the trouble that took its place."""
    import ray
    from ray import exceptions

    try:
        return ray.get(ref)
    except exceptions.RayTaskError as error:  # raised outside `_compute`: an item or a result that does not travel
        return _Trouble(Failed("error", str(error.cause or error)[-MESSAGE_CHARS:]))
    except exceptions.OutOfMemoryError as error:
        return _Trouble(Failed("out_of_memory", str(error)[:MESSAGE_CHARS], retryable=True), fatal=True)
    except exceptions.RayError as error:
        # Ray's text is a page with this process's ids and a list of guesses; its middle says what was seen.
        seen = str(error).partition("Worker exit detail: ")[2].partition(" Some common causes")[0]
        text = f"its worker crashed or was killed ({seen or type(error).__name__})"
        log.debug("%s", error)
        return _Trouble(Failed("crashed", text[:MESSAGE_CHARS]), fatal=True)
