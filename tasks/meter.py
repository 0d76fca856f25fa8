"""How a stage gets on, for the log and for Prefect's pages."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from ptta_core import memo

LOG_S, SHOW_S = 5.0, 1.0  # at most so often

log = logging.getLogger("ptta")


class Meter:
    """Progress to the log at most every five seconds and to a Prefect artifact at most once a second.

    begins: called once, where there is something to compute. more: called with every report, for what a stage shows
    beside its progress. ends: called by `end`, where it had begun.
    """

    def __init__(
        self, stage: str, begins: Callable[[], None] = lambda: None, more: Callable[[], None] = lambda: None,
        ends: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.stage, self.begins, self.more, self.ends = stage, begins, more, ends
        self._artifact: UUID | None = None
        self._begun = False
        self._shown = self._logged = 0.0

    def __call__(self, progress: memo.Progress) -> None:
        """Take in a report."""
        if not self._begun:
            self._begun = True
            self.begins()
        now = time.monotonic()
        last = progress.done >= progress.total
        if now - self._logged > LOG_S or last:
            self._logged = now
            log.info("%s", progress.line())
        if now - self._shown > SHOW_S or last:
            self._shown = now
            with to_prefect():
                self._show(progress)
        self.more()

    def end(self) -> None:
        """The stage is over, well or not."""
        if self._begun:
            self.ends()

    def _show(self, progress: memo.Progress) -> None:
        percent = round(100 * progress.share, 1)
        if self._artifact is None:
            self._artifact = create_progress_artifact(progress=percent, key=f"progress-{self.stage}",
                                                      description=progress.line())  # type: ignore[assignment]  # fmt: skip
        else:
            update_progress_artifact(self._artifact, progress=percent, description=progress.line())


@contextlib.contextmanager
def to_prefect() -> Iterator[None]:
    """What only shows something may not end a run: outside a flow there is nobody to show it to, and servers die."""
    try:
        yield
    except RuntimeError:
        pass
    except Exception as error:
        log.warning("not shown on Prefect's pages: %s: %s", type(error).__name__, error)
