"""An adapter to verdicts."""

from typing import Any

from prefect import flow

from tasks import river
from tasks.session import RunOptions, session


@flow(name="evaluate", flow_run_name="evaluate-{recipe}")
def evaluate(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
             options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """Generate with base and adapter, and judge."""
    with session(recipe, site, overrides, options) as run:
        river.generate(run)
        river.evaluate(run)
    return run.result()
