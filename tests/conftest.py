"""What the tests share. One Ray a session: starting it takes 7 to 20 s, and a machine has room for one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Server, server


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Campaigns run only where they are asked for by name: `pytest -m campaign`."""
    if "campaign" not in config.getoption("-m"):
        for item in items:
            if item.get_closest_marker("campaign"):
                item.add_marker(pytest.mark.skip("a campaign of minutes: pytest -m campaign"))


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


@pytest.fixture(scope="session")
def curated_home(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    """A folder with footage (one file twice, one that is no video) and a workspace curated from it."""
    from demo import IN_PROCESS, go

    from ptta_core import stages
    from ptta_core.ops import runs

    place = tmp_path_factory.mktemp("curated")
    shutil.copytree(videos, place / "footage")
    first = sorted((place / "footage").glob("*.mp4"))[0]
    shutil.copy(first, first.with_name("again.mp4"))
    (place / "footage" / "broken.mp4").write_bytes(b"not a video" * 100)
    overrides = IN_PROCESS | {"select.theta": 6.0, "select.max_motion_px": 40.0}
    go(runs.open_view("laptop", "laptop", overrides, str(place / "w"), str(place / "footage")), stages.CURATE)
    return place


@pytest.fixture
def curated(curated_home: Path, tmp_path: Path) -> Path:
    """A copy of the curated workspace; its footage stays where it is."""
    return Path(shutil.copytree(curated_home / "w", tmp_path / "w"))
