"""What the tests share. One Ray a session: starting it takes 7 to 20 s, and a machine has room for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray of 2 CPUs and no GPU, ended with the session."""
    import ray

    from ptta_core import fleet

    fleet.prepare()
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        logging_level="WARNING",
        log_to_driver=False,
        namespace="ptta",
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}},  # workers defined in tests
    )
    yield
    ray.shutdown()
