"""Many requests to a server at once, on a loop in a thread of its own, while the stage reads pictures and commits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from ptta_core.config import CaptionConfig
from ptta_core.models.captioner import CaptionItem, Words
from ptta_core.models.endpoint import Endpoint, Refused


def answers(prepared: Iterable[list[tuple[CaptionItem, Any]]], config: CaptionConfig
            ) -> Iterator[tuple[CaptionItem, Any]]:  # fmt: skip
    """(item, its Words, or the error that is its own) as they come, of items with their pictures as JPEGs.

    `prepared` is read twice as far ahead as requests may run at once. What it brings instead of a list of pictures (an
    item that failed there) comes out as it is. Closing the generator early drops what is under way.
    Raises Refused, after everything that was answered before.
    """
    endpoint = Endpoint(config)
    most = 2 * endpoint.config.concurrency
    pending: dict[concurrent.futures.Future[Words], CaptionItem] = {}
    with _loop(endpoint.close) as loop:
        for batch in prepared:
            for item, pictures in batch:
                if isinstance(pictures, list):
                    pending[asyncio.run_coroutine_threadsafe(endpoint.caption(item, pictures), loop)] = item
                else:
                    yield item, pictures
            yield from _finished(pending, 0)
            while len(pending) >= most:
                yield from _finished(pending, None)
        while pending:
            yield from _finished(pending, None)


def _finished(pending: dict[concurrent.futures.Future[Words], CaptionItem], wait_s: float | None
              ) -> Iterator[tuple[CaptionItem, Any]]:  # fmt: skip
    """What has been answered, at least one unless wait_s ends before; taken out of `pending`. Raises Refused, last."""
    done, _ = concurrent.futures.wait(pending, wait_s, concurrent.futures.FIRST_COMPLETED)
    refused: Refused | None = None
    for future in done:
        item, error = pending.pop(future), future.exception()
        if isinstance(error, Refused):
            refused = error
        elif error is not None and not hasattr(error, "kind"):
            raise error  # a defect of ours
        else:
            yield item, error or future.result()
    if refused:
        raise refused


@contextlib.contextmanager
def _loop(close: Callable[[], Awaitable[None]]) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, which does not outlive the block, nor do its tasks; then `close`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="caption.endpoint", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_drop_all(close), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _drop_all(close: Callable[[], Awaitable[None]]) -> None:
    """End every other task of this loop, then `close`."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await close()
