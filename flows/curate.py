"""Footage to admitted captions."""

from typing import Any

from prefect import flow

from tasks import river
from tasks.session import RunOptions, session


@flow(name="curate", flow_run_name="curate-{recipe}")
def curate(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
           options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """Find, cut, measure, select, describe, admit."""
    with session(recipe, site, overrides, options) as run:
        river.gather(run)
        river.split(run)
        river.score(run)
        river.select(run)
        river.caption(run)
        river.admit(run)
    return run.result()
