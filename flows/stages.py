"""One flow a stage: change a setting and rerun just that."""

from typing import Any

from prefect import flow

from tasks import river
from tasks.session import RunOptions, session


@flow(name="gather", flow_run_name="gather-{recipe}")
def gather(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
           options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """The stage gather alone, on what is there."""
    with session(recipe, site, overrides, options) as run:
        river.gather(run)
    return run.result()


@flow(name="split", flow_run_name="split-{recipe}")
def split(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
          options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """The stage split alone, on what is there."""
    with session(recipe, site, overrides, options) as run:
        river.split(run)
    return run.result()


@flow(name="score", flow_run_name="score-{recipe}")
def score(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
          options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """The stage score alone, on what is there."""
    with session(recipe, site, overrides, options) as run:
        river.score(run)
    return run.result()


@flow(name="select", flow_run_name="select-{recipe}")
def select(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
           options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """The stage select alone, on what is there."""
    with session(recipe, site, overrides, options) as run:
        river.select(run)
    return run.result()


@flow(name="caption", flow_run_name="caption-{recipe}")
def caption(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
            options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """The stage caption alone, on what is there."""
    with session(recipe, site, overrides, options) as run:
        river.caption(run)
    return run.result()


@flow(name="admit", flow_run_name="admit-{recipe}")
def admit(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
          options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """The stage admit alone, on what is there."""
    with session(recipe, site, overrides, options) as run:
        river.admit(run)
    return run.result()


@flow(name="encode", flow_run_name="encode-{recipe}")
def encode(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
           options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """The stage encode alone, on what is there."""
    with session(recipe, site, overrides, options) as run:
        river.encode(run)
    return run.result()


@flow(name="train", flow_run_name="train-{recipe}")
def train(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
          options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """The stage train alone, on what is there."""
    with session(recipe, site, overrides, options) as run:
        river.train(run)
    return run.result()


@flow(name="generate", flow_run_name="generate-{recipe}")
def generate(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
             options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """The stage generate alone, on what is there."""
    with session(recipe, site, overrides, options) as run:
        river.generate(run)
    return run.result()


@flow(name="judge", flow_run_name="judge-{recipe}")
def judge(recipe: str = "demo", site: str = "laptop", overrides: dict[str, Any] | None = None,
          options: RunOptions | None = None) -> dict[str, Any]:  # fmt: skip
    """The stage evaluate alone, on what is there."""
    with session(recipe, site, overrides, options) as run:
        river.evaluate(run)
    return run.result()
