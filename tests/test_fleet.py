"""Exactly the guilty items fail, with the right kind; every other item is computed and comes out once."""

import ctypes
import itertools
import os
import random
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ptta_core import cluster, fleet
from ptta_core.config import RaySite, Workers
from ptta_core.fleet import Failed, FleetError, Spent, WorkerStartError, fan_out

KINDS = {"raise": "error", "known": "unreadable", "exit": "exited", "die": "crashed", "hang": "timeout"}
HANG_S = 0.5


class Unreadable(Exception):
    kind = "unreadable"


class Square:
    """Squares numbers; an item is (number, how it misbehaves or "")."""

    def __call__(self, items: list[tuple[int, str]]) -> list[int]:
        return [self.one(number, how) for number, how in items]

    def one(self, number: int, how: str) -> int:
        match how:
            case "raise":
                raise ArithmeticError(f"no square of {number}")
            case "known":
                raise Unreadable(f"{number} is not a video")
            case "exit":
                sys.exit(3)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                ctypes.string_at(0)
            case "hang":
                time.sleep(3600)
            case "full":
                with open("/dev/full", "w") as file:
                    file.write("x")
        return number * number


class Miscount(Square):
    """Loses the last result of any batch with 7 in it."""

    def __call__(self, items: list[tuple[int, str]]) -> list[int]:
        results = super().__call__(items)
        return results[:-1] if any(number == 7 for number, _ in items) else results


class Broken:
    def __init__(self, folder: Path | None = None, die: bool = False) -> None:
        if folder:
            (folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        if die:
            os.kill(os.getpid(), signal.SIGKILL)
        raise FileNotFoundError("no weights in models/raft")

    def __call__(self, items: list[Any]) -> list[Any]:
        raise AssertionError("never built")


class Pid:
    """Tells its process, threads and GPUs; slow enough for both workers to get a share."""

    def __call__(self, items: list[int]) -> list[tuple[int, str, str]]:
        time.sleep(0.3)
        return [(os.getpid(), os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"]) for _ in items]


class Flaky(Square):
    """Cannot be built for a while after "outage", which kills its first worker and is harmless afterwards."""

    def __init__(self, folder: Path, lasts: int) -> None:
        self.down, self.met, self.lasts = folder / "down", folder / "met", lasts
        if self.down.exists():
            left = int(self.down.read_text()) - 1
            self.down.write_text(str(left)) if left else self.down.unlink()
            raise OSError("the model server is away")

    def one(self, number: int, how: str) -> int:
        if how == "outage" and not self.met.exists():
            self.met.touch()
            self.down.write_text(str(self.lasts))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().one(number, how)


def outcomes(worker: Any, todo: list[Any], workers: Workers, **more: Any) -> dict[Any, Any]:
    """Item -> result; an item that comes out twice is an error."""
    pairs = list(itertools.chain.from_iterable(fan_out(worker, todo, workers, **more)))
    assert len(pairs) == len({item for item, _ in pairs})
    return dict(pairs)


def check(todo: list[tuple[int, str]], found: dict[tuple[int, str], Any]) -> None:
    """Good items have their squares, guilty ones the Failed of their kind."""
    assert set(found) == set(todo)
    for (number, how), result in found.items():
        if how:
            assert isinstance(result, Failed), (number, how, result)
            assert (result.kind, bool(result.message)) == (KINDS[how], True)
        else:
            assert result == number * number


def gone(pid: int, within_s: float = 15.0) -> bool:
    """Whether the process ends (or is a zombie) in time."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


# ------------------------------------------------------------------------------------------------ in this process


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_in_process_only_the_guilty_fail(batch: int) -> None:
    hows = {2: "raise", 3: "known", 9: "exit"}
    todo = [(n, hows.get(n, "")) for n in range(11)]
    spent = Spent()
    check(todo, found := outcomes(Square, todo, Workers(batch=batch), spent=spent))
    assert found[(2, "raise")].message == "ArithmeticError: no square of 2"
    assert found[(3, "known")].message == "3 is not a video"
    assert "sys.exit(3)" in found[(9, "exit")].message
    assert 0 < spent.compute_s < 10


def test_in_process_results_are_paired_by_place_and_order_is_kept() -> None:
    todo = [(n, "raise" if n == 5 else "") for n in range(10)]
    pairs = list(itertools.chain.from_iterable(fan_out(Square, todo, Workers(batch=4))))
    assert [item for item, _ in pairs] == todo


def test_seconds_inside_the_calls_are_added_up() -> None:
    spent = Spent()
    stream = fan_out(
        lambda: lambda items: [time.sleep(0.05) for _ in items], list(range(4)), Workers(batch=2), None, spent
    )
    for _ in stream:
        time.sleep(0.2)  # the reader's own time is no worker's
    assert 0.2 <= spent.compute_s < 0.35


def test_in_process_wrong_number_of_results() -> None:
    found = outcomes(Miscount, [(n, "") for n in range(10)], Workers(batch=4))
    assert {item[0]: result.kind for item, result in found.items() if isinstance(result, Failed)} == {
        7: "wrong_result_count"
    }
    assert found[(6, "")] == 36


def test_in_process_out_of_memory_is_worth_another_time() -> None:
    def worker(items: list[int]) -> list[int]:
        if len(items) > 2:
            raise MemoryError
        return items

    assert outcomes(lambda: worker, [1, 2, 3, 4], Workers(batch=4)) == {1: 1, 2: 2, 3: 3, 4: 4}

    def never(items: list[int]) -> list[int]:
        raise MemoryError("of 8 GiB")

    assert outcomes(lambda: never, [1], Workers()) == {1: Failed("out_of_memory", "MemoryError: of 8 GiB", True)}


def test_in_process_interrupt_and_a_lost_gpu_are_not_an_items_failure() -> None:
    def interrupted(items: list[int]) -> list[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcomes(lambda: interrupted, [1, 2], Workers())

    def lost(items: list[int]) -> list[int]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(FleetError, match="device-side assert"):
        outcomes(lambda: lost, [1, 2], Workers())


def test_in_process_constructor() -> None:
    with pytest.raises(WorkerStartError, match="no weights in models/raft"):
        outcomes(Broken, [1], Workers())


def test_nothing_to_do_starts_nothing() -> None:
    assert outcomes(Broken, [], Workers(count=2), ray_site=RaySite(address="127.0.0.1:1")) == {}


def test_a_share_of_a_gpu_never_spans_two() -> None:
    node = {"CPU": 16.0, "GPU": 2.0}
    found = {g: cluster._places(node, Workers(cpus=1, gpus=g)) for g in (0.0, 0.4, 0.5, 0.1, 1.0, 2.0)}
    assert found == {0.0: 16, 0.4: 4, 0.5: 4, 0.1: 16, 1.0: 2, 2.0: 1}
    assert cluster._places({"CPU": 2.0}, Workers(cpus=1, gpus=0.5)) == 0


def test_unreachable_cluster_is_named_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "REACH_S", 3.0)
    with pytest.raises(FleetError, match=r"127\.0\.0\.1:1'"):
        fleet.start(RaySite(address="127.0.0.1:1"))
    with pytest.raises(FleetError, match="expected HOST:PORT"):
        fleet.start(RaySite(address="somewhere"))
    with socket.create_server(("127.0.0.1", 0)) as mute:  # something listens but is no Ray
        began = time.monotonic()
        with pytest.raises(FleetError, match=str(mute.getsockname()[1])):
            fleet.start(RaySite(address=f"127.0.0.1:{mute.getsockname()[1]}"))
        assert time.monotonic() - began < 15


# ------------------------------------------------------------------------------------------------ over Ray


def campaign(seed: int) -> tuple[list[tuple[int, str]], int]:
    """A seeded arrangement: 8 items, one guilty item a kind at random places, batches of 2 or 3."""
    rng = random.Random(seed)
    n_items = 8
    guilty = dict(zip(rng.sample(range(n_items), 4), ["die", "hang", rng.choice(["raise", "known"]), "exit"]))
    return [(n, guilty.get(n, "")) for n in range(n_items)], rng.randint(2, 3)


@pytest.mark.parametrize("seed", range(2))
def test_only_the_guilty_fail(ray_session: None, seed: int) -> None:
    todo, batch = campaign(seed)
    began = time.monotonic()
    spent = Spent()
    workers = Workers(count=2, cpus=1, batch=batch, timeout_s=HANG_S)
    check(todo, outcomes(Square, todo, workers, spent=spent))
    assert 0 < spent.start_up_s < time.monotonic() - began


def test_two_killers_side_by_side_spare_their_neighbours(ray_session: None) -> None:
    todo = [(0, ""), (1, "die"), (2, "die")]
    check(todo, outcomes(Square, todo, Workers(count=2, batch=3)))


def test_segfault_and_wrong_count(ray_session: None) -> None:
    found = outcomes(Miscount, [(1, "segfault"), (6, ""), (7, ""), (8, "")], Workers(count=2, batch=2))
    kinds = {item[0]: result.kind for item, result in found.items() if isinstance(result, Failed)}
    assert "crashed or was killed (Worker " in found[(1, "segfault")].message
    assert kinds == {1: "crashed", 7: "wrong_result_count"}
    assert (found[(6, "")], found[(8, "")]) == (36, 64)


def test_results_that_do_not_travel_fail_alone(ray_session: None) -> None:
    def worker(items: list[int]) -> list[Any]:
        return [time.sleep if n != 2 else socket.socket() for n in items]

    found = outcomes(lambda: worker, [1, 2, 3], Workers(count=1, batch=3))
    assert [isinstance(found[n], Failed) for n in (1, 2, 3)] == [False, True, False]


def test_constructor_fails_twice_and_names_the_cause(ray_session: None, tmp_path: Path) -> None:
    with pytest.raises(WorkerStartError, match="no weights in models/raft"):
        outcomes(partial(Broken, tmp_path), [1, 2], Workers(count=1, batch=1))
    assert len(list(tmp_path.iterdir())) == 2


def test_constructor_that_dies(ray_session: None) -> None:
    with pytest.raises(WorkerStartError, match="2 tries"):
        outcomes(partial(Broken, die=True), [1], Workers(count=1))


def test_a_death_that_was_the_machines_fault_is_forgiven(ray_session: None, tmp_path: Path) -> None:
    """Its worker dies once, the next one cannot even be built, the third computes the item."""
    todo = [(1, ""), (2, "outage"), (3, "")]
    found = outcomes(partial(Flaky, tmp_path, 1), todo, Workers(count=1, batch=1))
    assert [found[item] for item in todo] == [1, 4, 9]
    assert (tmp_path / "met").exists() and not (tmp_path / "down").exists()


def test_an_outage_is_not_waited_out_for_ever(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "RESTART_TRIES", 3)
    with pytest.raises(WorkerStartError, match="3 tries in a row: OSError: the model server is away"):
        outcomes(partial(Flaky, tmp_path, 99), [(1, ""), (2, "outage")], Workers(count=1, batch=1))


def test_infeasible_requests_are_refused_at_once(ray_session: None) -> None:
    began = time.monotonic()
    with pytest.raises(FleetError, match=r"1 worker\(s\) of 1 CPU and 1 GPU each; there is 2 CPU and 0 GPU"):
        outcomes(Square, [(1, "")], Workers(count=1, gpus=1))
    with pytest.raises(FleetError, match=r"3 worker\(s\) of 1 CPU"):
        outcomes(Square, [(1, "")], Workers(count=3))
    with pytest.raises(FleetError, match="whole number"):
        outcomes(Square, [(1, "")], Workers(count=1, gpus=1.5))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("count", [0, 1])
def test_a_full_disk_is_no_items_fault(ray_session: None, count: int) -> None:
    with pytest.raises(FleetError, match=r"disk is full.*[Ff]ree some space"):
        outcomes(Square, [(1, ""), (2, "full"), (3, "")], Workers(count=count, batch=1))


def test_closing_early_leaves_no_worker_and_a_joined_ray_stays(ray_session: None) -> None:
    import ray

    stream = fan_out(Pid, list(range(20)), Workers(count=2, batch=1, threads=3))
    told = [next(stream)[0][1] for _ in range(6)]
    stream.close()
    assert {(threads, gpus) for _, threads, gpus in told} == {("3", "")}
    assert all(gone(pid) for pid, _, _ in told)
    fleet.stop()
    assert ray.is_initialized()


def test_no_more_workers_than_batches(ray_session: None) -> None:
    found = outcomes(Pid, [1, 2, 3], Workers(count=2, batch=3))
    assert len({pid for pid, _, _ in found.values()}) == 1


def test_a_slow_reader_does_not_make_a_finished_call_late(ray_session: None) -> None:
    stream = fan_out(Square, [(n, "") for n in range(4)], Workers(count=2, batch=1, timeout_s=0.5))
    found = []
    for batch in stream:
        time.sleep(0.8)  # longer than the deadline of the calls in flight
        found += [result for _, result in batch]
    assert sorted(found) == [0, 1, 4, 9]
