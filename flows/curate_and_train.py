"""The whole river: footage to verdicts."""

from typing import Any

from prefect import flow

from tasks import river
from tasks.session import RunOptions, session


@flow(name="curate-and-train", flow_run_name="curate-and-train-{recipe}")
def curate_and_train(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
                     options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """From a folder of videos to a judged adapter."""
    with session(recipe, site, overrides, options) as run:
        river.gather(run)
        river.split(run)
        river.score(run)
        river.select(run)
        river.caption(run)
        river.admit(run)
        river.encode(run)
        river.train(run)
        river.generate(run)
        river.evaluate(run)
    return run.result()
