"""A real Prefect server on loopback and the `ptta` command in processes of their own, for tests that need them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PTTA = [sys.executable, "-m", "flows.cli"]
PREFECT = [sys.executable, "-m", "prefect"]


@dataclass(frozen=True)
class Server:
    """A running Prefect server: its API address, and the environment of whoever talks to it."""

    url: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.home)}

    def run(self, *words: str, timeout_s: float = 120, **more: str) -> subprocess.CompletedProcess[str]:
        """`ptta WORDS` against this server."""
        return subprocess.run([*PTTA, *words], cwd=ROOT, env=self.environment | more, capture_output=True, text=True,
                              timeout=timeout_s, check=False)  # fmt: skip

    @contextlib.contextmanager
    def running(self, command: list[str], alone: bool = False) -> Iterator[subprocess.Popen[str]]:
        """A command in a process group of its own, all of which is gone at the end. alone: it knows of no server."""
        environment = {name: value for name, value in self.environment.items()
                       if not (alone and name == "PREFECT_API_URL")}  # fmt: skip
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, start_new_session=True, preexec_fn=heed_interrupts)  # fmt: skip  # noqa: PLW1509
        try:
            yield process
        finally:
            end(process)


def heed_interrupts() -> None:
    """Tests that a shell has put into the background hand on an ignored SIGINT; a command must hear it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def end(process: subprocess.Popen[str]) -> None:
    """SIGTERM to the whole group, SIGKILL after 10 s."""
    for word, wait_s in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, word)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=wait_s)
            return


def wait_for(happened: Callable[[], bool], limit_s: float, what: str) -> None:
    """Poll until `happened`; AssertionError naming `what` after `limit_s`."""
    begun = time.monotonic()
    while not happened():
        assert time.monotonic() - begun < limit_s, f"{what} took more than {limit_s:g} s"
        time.sleep(0.05)


@contextlib.contextmanager
def server(home: Path) -> Iterator[Server]:
    """`prefect server start` with a home and a database of its own."""
    port = free_port()
    found = Server(f"http://127.0.0.1:{port}/api", home)
    off = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_HOME": str(home)}
    with open(home / "server.log", "w") as log:
        process = subprocess.Popen([*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)],
                                   env=os.environ | off, stdout=log, stderr=log, text=True,
                                   start_new_session=True)  # fmt: skip
    try:
        wait_for(lambda: answers(found.url, process), 120, "the Prefect server's start")
        yield found
    finally:
        end(process)


def answers(url: str, process: subprocess.Popen[str]) -> bool:
    """Whether the server is up. AssertionError when it has ended instead."""
    assert process.poll() is None, "the Prefect server ended instead of serving"
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False
