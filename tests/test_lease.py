"""One holder at a time, whoever dies, stops or races; real processes throughout."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ptta_core import lease as lease_module
from ptta_core.lease import Holder, Lease, LeaseHeld, LeaseLost, process_start

HOLD = """
import sys, time
from pathlib import Path
from ptta_core.lease import Lease, LeaseLost
with Lease(Path(sys.argv[1]), "scores", 30.0, lambda text: None) as lease:
    print("held", flush=True)
    sys.stdin.readline()
    try:
        lease.check()
        print("still mine", flush=True)
    except LeaseLost as error:
        print("lost:", error, flush=True)
"""

# Each racer adds one to a number by reading, waiting and writing: two at once would lose an addition.
RACE = """
import sys, time
from pathlib import Path
from ptta_core.lease import Lease
folder = Path(sys.argv[1])
while not (folder / "go").exists():
    time.sleep(0.001)
for _ in range(3):
    with Lease(folder, "scores", 60.0, lambda text: None) as lease:
        count = int((folder / "count").read_text())
        time.sleep(0.005)
        lease.check()
        (folder / "count").write_text(str(count + 1))
"""


def python(code: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> str:
    """Let a HOLD process go on; what it says then."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()
    return line(process)


def now(folder: Path, wait_s: float = 0.0) -> Lease:
    return Lease(folder, "scores", wait_s, lambda text: None)


def holder(folder: Path) -> Holder:
    return Holder(**json.loads((folder / "leases" / "scores.json").read_text()))


def put(folder: Path, who: Holder) -> None:
    (folder / "leases").mkdir(exist_ok=True)
    (folder / "leases" / "scores.json").write_text(json.dumps(asdict(who)))


def dead_local(folder: Path) -> Holder:
    """The lease of a process that has ended on this machine, its heartbeat fresh."""
    process = python(HOLD, folder)
    assert line(process) == "held"
    process.kill()
    process.wait()
    return holder(folder)


def test_held_then_free(tmp_path: Path) -> None:
    with now(tmp_path) as first:
        first.check()
        with pytest.raises(LeaseHeld, match=rf"scores: held by pid {os.getpid()} on host .+ since 2"), now(tmp_path):
            pass
        with Lease(tmp_path, "clips", 0.0, print):
            pass  # another table is another lease
    with now(tmp_path):
        pass
    assert not [path.name for path in (tmp_path / "leases").iterdir() if path.suffix != ".lock"]


def test_released_after_an_error_and_not_entered_twice(tmp_path: Path) -> None:
    lease = now(tmp_path)
    with pytest.raises(ZeroDivisionError), lease:
        with pytest.raises(RuntimeError, match="already in use"):
            lease.__enter__()
        raise ZeroDivisionError
    with lease:
        lease.check()


def test_another_thread_waits_and_is_told_for_whom(tmp_path: Path) -> None:
    told: list[str] = []
    order: list[str] = []

    def second() -> None:
        with Lease(tmp_path, "scores", None, told.append):
            order.append("second")

    with now(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.7)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert len(told) == 1 and told[0].startswith(f"waiting for scores: held by pid {os.getpid()} on host ")


def test_waiting_ends_in_time(tmp_path: Path) -> None:
    process = python(HOLD, tmp_path)
    assert line(process) == "held"
    began = time.monotonic()
    with pytest.raises(LeaseHeld, match=f"pid {process.pid} "), now(tmp_path, wait_s=1.0):
        pass
    assert 1.0 <= time.monotonic() - began < 3.0
    assert tell(process) == "still mine"
    assert process.wait(10) == 0
    with now(tmp_path):
        pass


def test_a_killed_holder_is_followed_at_once(tmp_path: Path) -> None:
    dead = dead_local(tmp_path)
    assert time.time() - dead.heartbeat < 30  # not by expiry, then
    with now(tmp_path) as lease:
        lease.check()
        assert holder(tmp_path).pid == os.getpid()


def test_a_later_process_with_the_same_id_is_not_the_holder(tmp_path: Path) -> None:
    with now(tmp_path):
        mine = holder(tmp_path)
    put(tmp_path, replace(mine, started="1"))  # this process's id, but a start long ago
    with now(tmp_path):
        pass


@pytest.mark.parametrize("where", [{"host": "elsewhere"}, {"machine": "another container"}])
def test_a_holder_elsewhere_is_followed_only_after_expiry(tmp_path: Path, where: dict[str, str]) -> None:
    dead = replace(dead_local(tmp_path), **where)
    put(tmp_path, dead)
    with pytest.raises(LeaseHeld, match=f"on host {dead.host} "), now(tmp_path):
        pass
    put(tmp_path, replace(dead, heartbeat=time.time() - lease_module.EXPIRY_S - 1))
    with now(tmp_path):
        pass


def test_the_heartbeat_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT_S", 0.05)
    with now(tmp_path) as lease:
        first = holder(tmp_path)
        time.sleep(0.5)
        later = holder(tmp_path)
        lease.check()
    assert later.heartbeat > first.heartbeat + 0.1
    assert replace(later, heartbeat=0.0) == replace(first, heartbeat=0.0)


def test_a_stopped_holder_finds_that_it_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = python(HOLD, tmp_path)
    assert line(process) == "held"
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(LeaseHeld), now(tmp_path):
        pass
    monkeypatch.setattr(lease_module, "EXPIRY_S", 1.0)  # its heartbeats are 5 s apart and it is stopped
    time.sleep(1.1)
    with now(tmp_path) as lease:
        process.send_signal(signal.SIGCONT)
        assert tell(process).startswith(f"lost: scores: the lease is gone or held by pid {os.getpid()} ")
        assert process.wait(10) == 0
        lease.check()  # and its release did not take ours away
        assert holder(tmp_path).pid == os.getpid()


def test_a_removed_lease_is_lost(tmp_path: Path) -> None:
    with now(tmp_path) as lease:
        lease.path.unlink()
        with pytest.raises(LeaseLost):
            lease.check()


def test_a_file_that_is_no_lease_is_named(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "scores.json").write_text("{")
    with pytest.raises(ValueError, match=r"scores\.json is not a lease"), now(tmp_path):
        pass


def test_this_process_and_no_process() -> None:
    assert process_start(os.getpid()) is not None
    assert process_start(os.getpid()) == process_start(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    time.sleep(1.0)
    assert process_start(child.pid) is None  # a zombie: it has ended, its parent has not looked
    child.wait()
    assert process_start(child.pid) is None


def test_slower_of_two_who_saw_the_same_dead_lease_removes_nothing(tmp_path: Path) -> None:
    dead_local(tmp_path)
    slow = now(tmp_path)
    seen = slow._read()
    assert seen and seen.dead
    with now(tmp_path) as fast:
        slow._remove_dead()  # goes by what it saw before
        fast.check()


@pytest.mark.parametrize("time_", range(2))
def test_eight_processes_race_for_a_dead_holders_lease(tmp_path: Path, time_: int) -> None:
    dead_local(tmp_path)
    (tmp_path / "count").write_text("0")
    racers = [python(RACE, tmp_path) for _ in range(8)]
    time.sleep(2.0)
    (tmp_path / "go").touch()
    assert [racer.wait(60) for racer in racers] == [0] * 8
    assert (tmp_path / "count").read_text() == "24"
