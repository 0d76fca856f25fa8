"""An OpenAI-compatible server on loopback that says which picture it was shown, and misbehaves as it is told.

Every picture's mean colour is one of COLOURS; the answer names it, so a caption on the wrong clip shows. `script` says,
colour by colour, how requests about it are treated, one after the other; after those they are simply answered.
"""

import base64
import contextlib
import http.server
import io
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

COLOURS = [(red, green, blue) for red in (40, 130, 220) for green in (40, 130, 220) for blue in (70, 190)]


def colour_of(body: dict[str, Any]) -> int:
    """Which of COLOURS the pictures of a request are; AssertionError where they are not all of one. -1 for none."""
    from PIL import Image

    found = set()
    for jpeg in pictures_of(body):
        mean = np.asarray(Image.open(io.BytesIO(jpeg))).reshape(-1, 3).mean(axis=0)
        apart = np.abs(np.array(COLOURS) - mean).max(axis=1)
        assert apart.min() < 20, mean
        found.add(int(apart.argmin()))
    assert len(found) <= 1, found
    return found.pop() if found else -1


def pictures_of(body: dict[str, Any]) -> list[bytes]:
    """The pictures of a request, as JPEGs."""
    content = body["messages"][0]["content"]
    parts = [part for part in content if part["type"] == "image_url"] if isinstance(content, list) else []
    return [base64.b64decode(part["image_url"]["url"].removeprefix("data:image/jpeg;base64,")) for part in parts]


@dataclass
class ChatServer:
    """What a test tells the server, and what the server saw."""

    script: dict[int, list[str]] = field(default_factory=dict)
    answer: Callable[[int, dict[str, Any]], str] = lambda colour, body: f"This one shows colour {colour}."
    look: Callable[[dict[str, Any]], int] = colour_of
    hold: int = 1  # requests that must be under way before any is answered; then they are, the last one first
    slow_s: float = 0.0
    url: str = ""
    seen: list[tuple[int, dict[str, Any], dict[str, str], float]] = field(default_factory=list)
    most: int = 0  # requests at once
    connections: int = 0
    lock: Any = field(default_factory=threading.Condition)
    waiting: list[int] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)  # colours, in the order of going out
    asked: Counter[int] = field(default_factory=Counter)
    now: int = 0

    def arrive(self, colour: int, body: dict[str, Any], headers: dict[str, str]) -> str:
        """How this request is to be treated; "" to be answered."""
        with self.lock:
            self.seen.append((colour, body, headers, time.monotonic()))
            self.now += 1
            self.most = max(self.most, self.now)
            script, number = self.script.get(colour, []), self.asked[colour]
            self.asked[colour] += 1
        return script[number] if number < len(script) else ""

    def wait_for_company(self, colour: int) -> None:
        """The first `hold` requests wait for one another, and come back in the reverse order of arrival."""
        with self.lock:
            me = len(self.waiting)
            self.waiting.append(me)
            self.lock.notify_all()
            self.lock.wait_for(lambda: len(self.waiting) >= self.hold and me == max(self.waiting), timeout=5)
            self.waiting[me] = -1
            self.answered.append(colour)
            self.lock.notify_all()


def completion(text: str | None, finish: str = "stop") -> bytes:
    """The body of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return json.dumps({"object": "chat.completion", "model": "m", "choices": [choice]}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the ChatServer `told` says."""

    protocol_version = "HTTP/1.1"  # connections stay open, as those of real servers do
    told: ChatServer

    def setup(self) -> None:
        super().setup()
        with self.told.lock:
            self.told.connections += 1

    def log_message(self, *words: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"object": "list", "data": [{"id": "m"}]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self.reply(404, b'{"error": "not here"}')
            return
        colour = self.told.look(body)
        how = self.told.arrive(colour, body, dict(self.headers))
        try:
            self.behave(how, self.told.answer(colour, body), colour)
        finally:
            with self.told.lock:
                self.told.now -= 1

    def behave(self, how: str, text: str, colour: int) -> None:
        name, _, value = how.partition(" ")
        if how == "":
            self.told.wait_for_company(colour)
            time.sleep(self.told.slow_s)
            self.reply(200, completion(text))
        elif name == "late":
            time.sleep(float(value))
            self.reply(200, completion(text))
        elif name == "lost":
            self.close_connection = True
        elif name == "half":
            whole = completion(text)
            self.head(200, len(whole))
            self.wfile.write(whole[: len(whole) // 2])
            self.close_connection = True
        elif name == "twice":  # and the second time it says something else, in the same packet
            stale = completion("A stale answer.")
            first = completion(text)
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            self.wfile.write(head % len(first) + first + head % len(stale) + stale)
        elif name == "say":
            self.reply(200, completion(value))
        elif name == "cut":
            self.reply(200, completion(text, "length"))
        elif name == "garbage":
            self.reply(200, f"<html>not what you think</html> {self.headers.get('Authorization')}".encode())
        elif name == "null":
            self.reply(200, completion(None))
        else:  # a status, and perhaps when to come back
            words = f"no: {self.headers.get('Authorization')}".encode()
            self.reply(int(name), words, {"Retry-After": value} if value else {})

    def head(self, status: int, length: int, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        known = {"Content-Type": "application/json", "Content-Length": str(length)}
        for one, value in (known | (more or {})).items():
            self.send_header(one, value)
        self.end_headers()

    def reply(self, status: int, body: bytes, more: dict[str, str] | None = None) -> None:
        with contextlib.suppress(ConnectionError):
            self.head(status, len(body), more)
            self.wfile.write(body)


@contextlib.contextmanager
def chat_server(**told: Any) -> Iterator[ChatServer]:
    """A server of its own, gone at the end."""
    server = ChatServer(**told)
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Handler,), {"told": server}))
    listening.daemon_threads = True
    server.url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def said(text: str) -> int:
    """The colour that an answer names."""
    found = re.search(r"colour (-?\d+)", text)
    assert found, text
    return int(found[1])
