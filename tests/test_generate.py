"""Generating: a video file that says what made it, and the same one again from the same words and seed."""

import dataclasses
import json
from pathlib import Path

import pytest

from ptta_core import ids
from ptta_core.config import BaseConfig, GenerateConfig, ModelRef
from ptta_core.stages.generate import GenerateItem, VideoMaker

BASE = BaseConfig(model=ModelRef(id="tiny:hunyuan", revision="0"), dtype="float32")
CONFIG = GenerateConfig(frames=5, height=32, width=48, steps=2, fps=24.0)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> VideoMaker:
    return VideoMaker(CONFIG, BASE, str(tmp_path_factory.mktemp("models")), device="cpu", prompts=("a girl runs",))


def item(folder: Path, name: str = "one", **changes: object) -> GenerateItem:
    plain = GenerateItem(
        generation_id=name, variant="base", adapter_id="", adapter_path="", prompt="a girl runs", seed=1,
        out_path=str(folder / f"{name}.mp4"), rel_path=f"generations/{name}.mp4",
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def test_writes_a_video_that_reads_back(maker: VideoMaker, tmp_path: Path) -> None:
    from ptta_core import video

    row = maker([item(tmp_path)])[0]
    path = tmp_path / "one.mp4"
    assert row.video_sha == ids.digest_file(path) and row.path == "generations/one.mp4"
    assert (row.frames, row.height, row.width, row.fps, row.seed) == (5, 32, 48, 24.0, 1)
    images = [frame.image for frame in video.read_frames(str(path), stream=0, pixel="rgb24")]
    assert len(images) == 5 and images[0].shape == (32, 48, 3) and images[0].std() > 10
    assert [file.name for file in tmp_path.iterdir()] == ["one.mp4"]


def test_the_same_again_is_the_same_bytes_and_results_keep_their_order(maker: VideoMaker, tmp_path: Path) -> None:
    rows = maker([item(tmp_path, "a"), item(tmp_path, "b", seed=2), item(tmp_path, "c")])
    assert [row.generation_id for row in rows] == ["a", "b", "c"]
    assert rows[0].video_sha == rows[2].video_sha != rows[1].video_sha


def test_the_file_says_what_made_it(maker: VideoMaker, tmp_path: Path) -> None:
    import av

    maker([item(tmp_path)])
    with av.open(str(tmp_path / "one.mp4")) as container:
        made = json.loads(container.metadata["comment"])
    assert made["base"] == "tiny:hunyuan@0 (random weights)" and made["variant"] == "base"
    assert (made["prompt"], made["seed"], made["steps"]) == ("a girl runs", 1, 2)
    assert str(tmp_path) not in (tmp_path / "one.mp4").read_bytes().decode("latin-1")


def test_a_failed_write_leaves_nothing(maker: VideoMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptta_core import video

    def fail(path: Path, *_: object, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(video, "write_mp4", fail)
    with pytest.raises(OSError, match="disk full"):
        maker([item(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_variant_without_its_adapter_is_refused(maker: VideoMaker, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="adapter"):
        maker([item(tmp_path, variant="adapter", adapter_id="x")])
    with pytest.raises(ValueError, match="base"):
        maker([item(tmp_path, adapter_path="/somewhere/adapter.safetensors")])
