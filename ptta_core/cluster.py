"""One Ray for this process: joined where the site names a cluster, else begun here; and whether it is large enough.

Ray is imported inside functions only: a run that computes nothing must not wait for it.
"""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from ptta_core.config import RaySite, Workers

REACH_S = 20.0  # for a named cluster to answer

_ours = False  # whether `start` began the Ray that this process talks to, so that `stop` may end it


class FleetError(RuntimeError):
    """Ray cannot be reached, or cannot ever give what was asked; the message says which."""


def prepare() -> None:
    """Settings that Ray reads when it is imported; whoever starts Ray some other way calls this first."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # under `uv run` workers would rebuild the environment
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # its token is on by default, and told


def start(ray_site: RaySite | None = None) -> None:
    """Join the Ray that this process already has, else the one the site names, else begin our own on this machine.

    Takes 7 to 20 s when it has to begin one, nothing afterwards. Raises FleetError naming the address within about
    20 s when a named cluster does not answer (`ray.init` itself would wait for minutes and then exit).
    """
    global _ours
    prepare()
    import ray

    if ray.is_initialized():
        return
    site = ray_site or RaySite()
    address = site.address or "local"  # a bare init might join a stranger's cluster
    options: dict[str, Any] = {"namespace": "ptta", "logging_level": logging.WARNING, "log_to_driver": False}
    if address == "local":
        options |= {"include_dashboard": site.dashboard, "dashboard_host": "127.0.0.1"}
    else:
        _must_answer(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, SystemExit) as error:
        raise FleetError(f"Ray at {address!r} could not be started or joined: {error}") from error
    _ours = True


def stop() -> None:
    """Leave Ray (and end it, if local) where `start` began it; a Ray that was already there is left alone."""
    global _ours
    if _ours:
        import ray

        ray.shutdown()
        _ours = False


def _must_answer(address: str) -> None:
    """Raise FleetError unless a Ray answers at `address` ("HOST:PORT", "ray://HOST:PORT", "auto") within REACH_S."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise FleetError(f"ray.address is {address!r}: expected HOST:PORT, ray://HOST:PORT or auto")
    deadline = time.monotonic() + REACH_S
    try:
        socket.create_connection((host, int(port)), timeout=REACH_S).close()
        if not address.startswith("ray://"):  # something listens: is it Ray?
            command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
            left_s = max(1.0, deadline - time.monotonic())
            subprocess.run(command, timeout=left_s, check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise FleetError(f"no Ray cluster answers at ray.address {address!r} ({error})") from error


def must_fit(workers: Workers, beside: Workers | None = None) -> None:
    """Raise FleetError where the cluster could never hold all the workers: Ray would wait for ever without a word.

    beside: one more worker that runs at the same time.
    """
    import ray

    if workers.gpus > 1 and workers.gpus != int(workers.gpus):
        raise FleetError(f"workers.gpus is {workers.gpus:g}: more than one GPU must be a whole number")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(sum(_places(node, workers) for node in left) >= workers.count for left in _without(nodes, beside)):
        there = " + ".join(f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU" for node in nodes)
        more = f" and beside them {asked(beside)}" if beside else ""
        raise FleetError(
            f"the Ray cluster cannot hold {asked(workers)}{more}; there is {there or 'no node'} (a machine each). "
            "Lower workers.count, workers.cpus or workers.gpus in the site."
        )


def _without(nodes: list[dict[str, float]], one: Workers | None) -> Iterator[list[dict[str, float]]]:
    """What is left of the machines with one more worker on one of them, for every machine that holds it."""
    if one is None:
        yield nodes
        return
    for place, node in enumerate(nodes):
        if _places(node, one):
            left = node | {"CPU": node.get("CPU", 0.0) - one.cpus, "GPU": node.get("GPU", 0.0) - one.gpus}
            yield [*nodes[:place], left, *nodes[place + 1 :]]


def asked(workers: Workers) -> str:
    """What a pool takes, for messages."""
    return f"{workers.count} worker(s) of {workers.cpus:g} CPU and {workers.gpus:g} GPU each"


def _places(node: dict[str, float], workers: Workers) -> int:
    """How many such workers one machine holds; a share of a GPU never spans two."""
    slack = 1e-6
    by_cpu = int(node.get("CPU", 0.0) / workers.cpus + slack)
    if not workers.gpus:
        return by_cpu
    gpus = node.get("GPU", 0.0)
    by_gpu = int(gpus) * int(1 / workers.gpus + slack) if workers.gpus <= 1 else int(gpus / workers.gpus)
    return min(by_cpu, by_gpu)
