"""The Prefect server of a run: the one that the settings name, asked once whether it answers, or a temporary one.

Prefect would start a temporary server itself, but in the terminal's process group: Ctrl-C then ends it with the run,
whose last words nobody takes, and Prefect retries for minutes. So it is started here, out of the terminal's reach.
"""

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO

REACH_S = 20.0  # for a named server to answer
START_S = 120.0  # for a temporary one to start: 10 to 30 s on two cores
END_S = 5.0
PORT_TAKEN = 3  # uvicorn's exit status when somebody took the port in between
REMEDY = ("Start it with `prefect server start`, or correct PREFECT_API_URL; without an address each run starts a "
          "temporary server of its own.")  # fmt: skip


class ServerError(ConnectionError):
    """No Prefect server; the message names the address and what to do."""


@contextlib.contextmanager
def server() -> Iterator[None]:
    """Run flows inside against the server that the settings name, or else a temporary one that ends with this process.

    Raises ServerError when the named one does not answer within 20 s, or the temporary one does not start.
    """
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    address = get_current_settings().api.url
    if address:
        must_answer(address)
        yield
        return
    with temporary_settings(updates={PREFECT_API_URL: start()}):
        yield


def must_answer(address: str) -> None:
    """Raise ServerError unless a server answers at the API address, if only to say no."""
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=REACH_S):
            pass
    except urllib.error.HTTPError:
        return  # what it wants (a key, a workspace) Prefect's own client knows
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ServerError(f"no Prefect server answers at PREFECT_API_URL = {address} ({reason}). {REMEDY}") from error


def start() -> str:
    """Start a temporary server; returns its API address. It ends with this process. Raises ServerError."""
    limit_s = float(os.environ.get("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", START_S))
    deadline = time.monotonic() + limit_s
    with tempfile.TemporaryFile("w+") as log:
        port = _free_port()
        process = _launch(port, log)
        while time.monotonic() < deadline and process.poll() in (None, PORT_TAKEN):
            if process.poll() == PORT_TAKEN:
                port = _free_port()
                process = _launch(port, log)
            if _up(port):
                return f"http://127.0.0.1:{port}/api"
            time.sleep(0.1)
        log.seek(0)
        told = log.read()[-1000:].strip()
    raise ServerError(f"Prefect's temporary server did not start within {limit_s:g} s. {told}\n"
                      "Start one with `prefect server start` and name it with PREFECT_API_URL.")  # fmt: skip


def _launch(port: int, log: IO[str]) -> subprocess.Popen[bytes]:
    """As Prefect starts its own: no web pages, its database in PREFECT_HOME. Ended at exit, after Prefect is done."""
    quick = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1",
         "--port", str(port), "--log-level", "error", "--lifespan", "on"],
        env=os.environ | quick, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
