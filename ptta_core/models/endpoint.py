"""Captions from a server that answers chat completions as OpenAI's API defines them: vLLM, llama.cpp, a provider.

An answer belongs to the request that asked for it: every request has a connection to itself, so that whatever else a
server sends (an answer twice, or one that comes too late) is never read as the answer about another clip. Opening a
connection costs nothing beside a caption. asking.py keeps many requests under way.

What goes wrong is sorted by whose fault it is. A busy or broken server, and a lost connection: asked again, ever later,
with jitter, or when the server says. A wrong key, address or model: Refused, since nobody will be answered. Anything
else is this one item's.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email.utils
import json
import os
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ptta_core import video
from ptta_core.config import CaptionConfig
from ptta_core.models.captioner import CaptionItem, Words, sample_frames
from ptta_core.models.dialogue import Answer, dialogue

if TYPE_CHECKING:
    import httpx

JPEG_QUALITY = 90
CONNECT_S = 30.0
BACK_OFF_S = 1.0  # before the second try; doubled before every further one
LONGEST_BACK_OFF_S = 60.0
LONGEST_WAIT_S = 900.0  # that a server may ask for; one that wants more wants us to come back another day
SHOWN = 300  # characters of a server's own words in a message
NOBODY = {401: "the key was not accepted", 402: "it wants to be paid", 403: "access is forbidden",
          404: "there is no such address or model", 405: "the address takes no questions",
          410: "the address or model is gone"}  # fmt: skip
BUSY = (408, 409, 425, 429)


class Refused(RuntimeError):
    """The server answers nobody who asks as we do: no item's fault. The message says what to set right."""


class Unanswered(RuntimeError):
    """One item's requests came to nothing; others may fare better, and so may it another time."""

    kind = "endpoint"
    retryable = True


class Rejected(RuntimeError):
    """The server will not take this item's request as it is."""

    kind = "endpoint_rejected"


class Trouble(NamedTuple):
    """Why an attempt came to nothing that may go well another time."""

    what: str
    after_s: float | None = None  # when the server wants to be asked again
    unreachable: bool = False


class FrameReader:
    """One worker's reading of pictures; needs neither GPU nor key."""

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def __call__(self, items: list[CaptionItem]) -> list[list[bytes]]:
        """Each item's frames as JPEGs. Raises video's errors, and EmptyClip for a span without frames."""
        return [[video.jpeg(frame, frame.shape[1], JPEG_QUALITY) for frame in sample_frames(item, self.frames)]
                for item in items]  # fmt: skip


class Turnstile:
    """When the next request may begin: so many a minute, and none while the server asks for patience."""

    def __init__(self, per_minute: float | None) -> None:
        self.gap_s = 60 / per_minute if per_minute else 0.0
        self.free_at = self.open_at = 0.0  # of time.monotonic

    async def turn(self) -> None:
        """Wait for it."""
        at = max(time.monotonic(), self.free_at)
        self.free_at = at + self.gap_s
        while (wait_s := max(at, self.open_at) - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)

    def close(self, seconds: float) -> None:
        """Let nobody through for a while."""
        self.open_at = max(self.open_at, time.monotonic() + seconds)


class Endpoint:
    """A server, asked from the coroutines of one loop."""

    def __init__(self, config: CaptionConfig) -> None:
        """Raises Refused where the environment does not hold the key that the recipe names."""
        if config.endpoint is None:
            raise ValueError("caption.captioner endpoint needs caption.endpoint (model and url)")
        self.caption_config, self.config = config, config.endpoint
        self._key = key_of(self.config.api_key_env)
        self.turnstile = Turnstile(self.config.requests_per_minute)
        self.slots = asyncio.Semaphore(self.config.concurrency)

        import httpx

        self.client = httpx.AsyncClient(
            headers=authorization(self._key), timeout=httpx.Timeout(None, connect=CONNECT_S),
            limits=httpx.Limits(max_keepalive_connections=0),  # see above: no connection serves twice
        )  # fmt: skip

    async def close(self) -> None:
        """Drop what is under way."""
        await self.client.aclose()

    async def caption(self, item: CaptionItem, jpegs: Sequence[bytes]) -> Words:
        """One window's caption. Raises Refused, Unanswered, Rejected and Malformed."""
        talk = dialogue(item, self.caption_config)
        ask = next(talk)
        while True:
            answer = await self.ask(ask.turns, jpegs if ask.seen else ())
            try:
                ask = talk.send(answer)
            except StopIteration as done:
                return done.value

    async def ask(self, turns: Sequence[str], jpegs: Sequence[bytes]) -> Answer:
        """What the server says to a chat whose first turn shows the pictures. Raises Refused, Unanswered, Rejected."""
        body = json.dumps(self.body(turns, jpegs)).encode()
        tries, trouble = self.config.retries + 1, Trouble("")
        for attempt in range(tries):
            async with self.slots:
                await self.turnstile.turn()
                said = await self.attempt(body)
            if isinstance(said, Answer):
                return said
            trouble = said
            if attempt + 1 < tries:
                await self.wait(attempt, trouble)
        after = f"{trouble.what}, {tries} times in a row" if tries > 1 else trouble.what
        if trouble.unreachable:
            raise Refused(f"{self.config.url} cannot be reached ({after}): is the server running there?")
        raise Unanswered(after)

    def body(self, turns: Sequence[str], jpegs: Sequence[bytes]) -> dict[str, Any]:
        """A request: greedy, and no more tokens than the recipe grants, unless its options say otherwise."""
        pictures = [{"type": "image_url", "image_url": {"url": data_url(one)}} for one in jpegs]
        messages: list[dict[str, Any]] = [{"role": "assistant" if place % 2 else "user", "content": text}
                                          for place, text in enumerate(turns)]  # fmt: skip
        if pictures:
            messages[0]["content"] = [*pictures, {"type": "text", "text": turns[0]}]
        known = {"model": self.config.model, "messages": messages, "temperature": 0, "stream": False,
                 "max_tokens": self.caption_config.max_new_tokens} | self.config.options  # fmt: skip
        return {name: value for name, value in known.items() if value is not None}

    async def attempt(self, body: bytes) -> Answer | Trouble:
        """One request. Raises Refused, Rejected."""
        import httpx

        try:
            async with asyncio.timeout(self.config.timeout_s):
                reply = await self.client.post(
                    f"{self.config.url}/chat/completions", content=body, headers={"Content-Type": "application/json"}
                )
        except TimeoutError:
            return Trouble(f"no answer within {self.config.timeout_s:g} s")
        except httpx.RequestError as error:
            lost = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError))
            return Trouble(self.clean(f"{type(error).__name__}: {error}"), unreachable=lost)
        return self.read(reply)

    def read(self, reply: httpx.Response) -> Answer | Trouble:
        """A reply by its status. Raises Refused, Rejected."""
        if reply.is_success:
            return completion(hide(reply.text, self._key))
        said = f"HTTP {reply.status_code}: {self.clean(reply.text)}"
        if reply.status_code in NOBODY or reply.is_redirect or "insufficient_quota" in reply.text:
            why = NOBODY.get(reply.status_code, "it sends us elsewhere" if reply.is_redirect else "the quota is spent")
            raise Refused(f"{self.config.url} refuses: {why} ({said}). See caption.endpoint: model "
                          f"{self.config.model!r}, api_key_env {self.config.api_key_env!r}")  # fmt: skip
        if reply.status_code in BUSY or reply.is_server_error:
            after_s = retry_after_s(reply.headers.get("Retry-After", ""))
            if after_s is not None and after_s > LONGEST_WAIT_S:
                raise Refused(f"{self.config.url} asks to come back in {after_s / 60:.0f} minutes ({said})")
            return Trouble(said, after_s)
        raise Rejected(said)

    async def wait(self, attempt: int, trouble: Trouble) -> None:
        """Before the next try: as long as the server asks, of everybody, else doubled each time; with jitter."""
        jitter = random.uniform(0.5, 1.0)
        if trouble.after_s is not None:
            self.turnstile.close(trouble.after_s)
            await asyncio.sleep(trouble.after_s + BACK_OFF_S * jitter)
        else:
            await asyncio.sleep(min(LONGEST_BACK_OFF_S, BACK_OFF_S * 2**attempt) * jitter)

    def clean(self, text: str) -> str:
        """A server's words for a message: short, on one line, and without the key that some of them repeat."""
        return hide(" ".join(text.split()), self._key)[:SHOWN]


def data_url(jpeg: bytes) -> str:
    """A picture as an address that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def look_up(config: CaptionConfig) -> str:
    """What the server says of the recipe's model, asked without spending anything. Raises Refused."""
    import httpx

    assert config.endpoint is not None
    url, wanted, key = config.endpoint.url, config.endpoint.model, key_of(config.endpoint.api_key_env)
    try:
        reply = httpx.get(f"{url}/models", headers=authorization(key), timeout=CONNECT_S)
    except httpx.RequestError as error:
        raise Refused(f"{url} cannot be reached ({hide(str(error), key)}): is the server running there?") from error
    if reply.status_code in (401, 402, 403):
        raise Refused(f"{url} refuses: {NOBODY[reply.status_code]} (HTTP {reply.status_code})")
    try:
        names = [str(one["id"]) for one in reply.json()["data"]]
    except (ValueError, LookupError, TypeError):
        return f"{url} is there and does not list its models (HTTP {reply.status_code})"
    if wanted not in names:
        raise Refused(f"{url} has no model {wanted!r}; choices: {', '.join(names[:20]) or 'none'}")
    return f"{wanted} at {url}"


def key_of(variable: str) -> str:
    """The key that an environment variable holds; "" where none is named. Raises Refused where it is not set."""
    if variable and not os.environ.get(variable):
        raise Refused(f"the environment variable {variable} (caption.endpoint.api_key_env) is not set")
    return os.environ[variable].strip() if variable else ""


def authorization(key: str) -> dict[str, str]:
    """The header that carries the key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def hide(text: str, key: str) -> str:
    """A text without the key."""
    return text.replace(key, "***") if key else text


def completion(text: str) -> Answer:
    """The words in the body of a chat completion; `problem` where it is none."""
    try:
        choice = json.loads(text)["choices"][0]
        content = choice["message"]["content"]
        if isinstance(content, list):  # in parts
            content = "".join(part["text"] for part in content if part.get("type") == "text")
        if not isinstance(content, str | None):
            raise TypeError("content is no text")
        return Answer(content or "", choice.get("finish_reason") == "length")
    except (ValueError, LookupError, TypeError, AttributeError):
        return Answer(text, problem="the reply is no chat completion")


def retry_after_s(value: str) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date (RFC 9110, 10.2.3); None for neither."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
