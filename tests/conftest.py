"""What the tests share. One Ray a session: starting it takes 7 to 20 s, and a machine has room for one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Server, server


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


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn cartoon of the demo."""
    from ptta_core import cartoon

    folder = tmp_path_factory.mktemp("videos")
    cartoon.draw(folder, 7)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, videos: Path, ray_session: None) -> Path:
    """A workspace after one whole river on the cartoon; never written to: see `workspace`."""
    from demo import go, open_demo

    place = tmp_path_factory.mktemp("finished") / "w"
    outcomes = go(open_demo(place, videos))
    assert all(one.computed for one in outcomes.values())
    return place


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished workspace."""
    return Path(shutil.copytree(finished, tmp_path / "w"))


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Prefect server on loopback, one a session; its home and database are its own."""
    with server(tmp_path_factory.mktemp("prefect")) as found:
        yield found
