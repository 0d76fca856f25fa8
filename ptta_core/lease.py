"""One writer a table: a lease is a small file that its holder keeps fresh and anyone can read.

The rules that make it safe:
- It is taken by hard-linking a finished file to its name: the link fails if the name exists, and is never half written.
- A holder's death is seen at once on its machine (the process is gone, or its id belongs to a later one). From
  anywhere else, and where a holder is alive but stopped, it takes EXPIRY_S without a heartbeat; machines that share a
  workspace must agree on the time to well within that.
- A dead lease is removed only under a lock file (flock, freed by the kernel with its process), after looking again: so
  of two who saw the same dead lease, the slower one cannot remove what the faster has just taken.
- A holder that was stopped and continued finds another owner in the file: `check` raises, and its release does nothing.

Works on a local disk and on shared folders with hard links and flock; an object store has neither.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType

HEARTBEAT_S = 5.0
EXPIRY_S = 60.0
POLL_S = 0.2
TELL_S = 10.0


class LeaseHeld(TimeoutError):
    """Another process holds the lease and did not let go in time; the message says which and since when."""


class LeaseLost(RuntimeError):
    """The lease that we held is another's now: whatever was about to be written must not be."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease. Times are seconds since the epoch; `started` is the process's, as its machine counts."""

    owner: str
    host: str
    machine: str
    pid: int
    started: str
    since: float
    heartbeat: float

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since).isoformat(" ", "seconds")
        return f"held by pid {self.pid} on host {self.host} since {since}"

    @property
    def dead(self) -> bool:
        """Whether it can be taken over: its process is gone from this machine, or its heartbeat is too old."""
        here = (self.host, self.machine) == (socket.gethostname(), _machine())
        if here and process_start(self.pid) != self.started:
            return True
        return time.time() - self.heartbeat > EXPIRY_S


class Lease:
    """The right to write one table: `with Lease(folder, "scores", 60.0, print) as lease: ... lease.check()`.

    `folder` is the workspace (the file is leases/NAME.json in it). `wait_s` is how long to wait for another holder:
    None for ever, 0 not at all. While waiting, `on_wait` is told whom for, at most every 10 s.
    Two threads of one process exclude each other like two processes: each makes its own Lease.
    Raises LeaseHeld naming host, pid and since.
    """

    def __init__(self, folder: Path, name: str, wait_s: float | None, on_wait: Callable[[str], None]) -> None:
        self.name, self.wait_s, self.on_wait = name, wait_s, on_wait
        self.path = folder / "leases" / f"{name}.json"
        self.owner = ""
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Lease":
        if self._thread:
            raise RuntimeError(f"this Lease of {self.name} is already in use: make one a holder")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        began, told = time.monotonic(), -TELL_S
        while not self._take():
            holder = self._read()
            if holder is None:
                continue  # let go between our two looks
            if holder.dead:
                self._remove_dead()
                continue
            now = time.monotonic()
            if self.wait_s is not None and now - began >= self.wait_s:
                raise LeaseHeld(f"{self.name}: {holder}")
            if now - told >= TELL_S:
                self.on_wait(f"waiting for {self.name}: {holder}")
                told = now
            time.sleep(POLL_S)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease of {self.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go, if it is still ours."""
        self._done.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        with contextlib.suppress(FileNotFoundError), self._locked():  # the whole workspace may have been removed
            if self._is_ours():
                self.path.unlink()

    def check(self) -> None:
        """Raise LeaseLost if the lease is no longer ours: call it before every commit."""
        if not self._is_ours():
            raise LeaseLost(f"{self.name}: the lease is gone or {self._read() or 'free'}; nothing more is written")

    def _take(self) -> bool:
        """Try to become the holder: write a whole file beside the name, then link it there."""
        now, pid = time.time(), os.getpid()
        owner = uuid.uuid4().hex
        mine = Holder(owner, socket.gethostname(), _machine(), pid, process_start(pid) or "", since=now, heartbeat=now)
        with self._written(mine) as temporary:
            try:
                os.link(temporary, self.path)
            except FileExistsError:
                return False
        self.owner = owner
        return True

    def _remove_dead(self) -> None:
        """Remove a dead holder's file, looking again under the lock: it may be a live one's by now."""
        with self._locked():
            holder = self._read()
            if holder and holder.dead:
                self.path.unlink()

    def _beat(self) -> None:
        """Keep the heartbeat fresh until released, or until another holds the lease."""
        while not self._done.wait(HEARTBEAT_S):
            # A full disk may have room again at the next beat; if not, the lease expires and `check` will tell.
            with contextlib.suppress(OSError), self._locked():
                holder = self._read()
                if holder is None or holder.owner != self.owner:
                    return
                with self._written(replace(holder, heartbeat=time.time())) as temporary:
                    os.replace(temporary, self.path)

    def _is_ours(self) -> bool:
        holder = self._read()
        return holder is not None and holder.owner == self.owner

    def _read(self) -> Holder | None:
        """Who holds it, or None. Raises ValueError naming the file where it is not a lease."""
        try:
            return Holder(**json.loads(self.path.read_text()))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.path} is not a lease ({error}): remove it if nothing runs") from error

    @contextlib.contextmanager
    def _written(self, holder: Holder) -> Iterator[Path]:
        temporary = self.path.with_name(f".{self.name}-{uuid.uuid4().hex}")
        try:
            with open(temporary, "w") as file:
                file.write(json.dumps(asdict(holder)))
                file.flush()
                os.fsync(file.fileno())  # or a power cut may leave an empty file under the lease's name
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold leases/.NAME.lock for a moment: whoever removes or rewrites the lease does it alone."""
        with open(self.path.with_name(f".{self.name}.lock"), "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _machine() -> str:
    """This boot and this process namespace: containers may share a host's name but not its process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """What tells this process from another that had or will have its id; None if there is no such process.

    On Linux the start in clock ticks since boot, field 22 of /proc/PID/stat (proc(5)); a zombie counts as gone.
    Elsewhere only that it is alive.
    """
    if not Path("/proc/self/stat").exists():
        return _alive(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _alive(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
