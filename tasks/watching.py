"""A running training on Prefect's pages: tables of its latest steps and of its routers, and where its report is."""

from __future__ import annotations

import functools
import json
import time
from typing import Any
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from ptta_core.ops import report, runs, watching
from ptta_core.store import Store
from ptta_core.view import View
from tasks.meter import to_prefect

TABLES_S, PAGE_S = 10.0, 300.0  # at most so often: what is shown is read from the tables

WORDS = """Run `{run_id}` is training. Its page, as it was a few minutes ago at most:
[{page}](file://{page})

- `ptta report --workspace {home}` writes that page anew, `ptta show steps --workspace {home}` lists the steps
- `tensorboard --logdir {home}/training` draws them
"""


class Watching:
    """Call it as often as you like."""

    def __init__(self, view: View, run_id: str) -> None:
        self.own, self.run_id = view, run_id
        self.tables: dict[str, UUID] = {}
        self._shown = self._written = -PAGE_S
        self._linked = False

    def __call__(self) -> None:
        """Show what is new, if it is time."""
        now = time.monotonic()
        if now - self._written >= PAGE_S:
            self._written = now
            with to_prefect():
                self._page()
        if now - self._shown >= TABLES_S:
            self._shown = now
            self.show()

    @functools.cached_property
    def view(self) -> View:
        """A view beside the run's own: this is another thread than the one that writes the tables."""
        record = runs.last(Store(self.own.home / "tables"), run_id=self.run_id, going=True)
        assert record is not None
        return runs.lasting_view(record, self.own.site)

    def show(self) -> None:
        """Both tables as they are now."""
        with to_prefect():
            self._table("training-steps", watching.steps(self.view), "The latest steps; losses, routers and seconds")
            self._table("training-routers", watching.label_table(self.view), "Mean gate of each branch by label")

    def _page(self) -> None:
        home = str(self.own.home)
        page = report.find(home, self.run_id)
        if not self._linked:
            words = WORDS.format(run_id=self.run_id, page=page, home=home)
            create_markdown_artifact(markdown=words, key="training")
            self._linked = True

    def _table(self, key: str, rows: list[dict[str, Any]], words: str) -> None:
        """Fill a table artifact, the same one every time."""
        if not rows:
            return
        if key not in self.tables:
            self.tables[key] = create_table_artifact(table=rows, key=key, description=words)  # type: ignore[assignment]
        else:
            with get_client(sync_client=True) as client:
                client.update_artifact(self.tables[key], ArtifactUpdate(data=json.dumps(rows)))
