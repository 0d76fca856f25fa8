"""Admitted captions to an adapter."""

from typing import Any

from prefect import flow

from tasks import river
from tasks.session import RunOptions, session


@flow(name="finetune", flow_run_name="finetune-{recipe}")
def finetune(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
             options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """Encode what was admitted and train on it."""
    with session(recipe, site, overrides, options) as run:
        river.encode(run)
        river.train(run)
    return run.result()
