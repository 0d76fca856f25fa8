"""Generating: a video file that says what made it, and the same one again from the same words and seed."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from ptta_core import ids
from ptta_core.config import BaseConfig, GenerateConfig, ModelRef, Recipe
from ptta_core.memo import StageError
from ptta_core.models import hunyuan, hydralora
from ptta_core.prompts import Prompt
from ptta_core.stages import generate
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


# ------------------------------------------------------------------------------------------------- gates


LABELS = ["male", "object"]


def adapter_file(maker: VideoMaker, path: Path, gate: str, std: float) -> GenerateItem:
    """An item for an adapter whose branches are far apart, or all zero for std 0."""
    model = hunyuan.load_transformer(maker.generator.path, dtype="float32")
    hydralora.inject(model, placement="non_attention", rank=2, alpha=4.0, branches=2, gate=gate, seed=0)
    generator = torch.Generator().manual_seed(3)
    for parameter in hydralora.adapter_parameters(model):
        parameter.data += std * torch.randn(parameter.shape, generator=generator)
    hydralora.save_adapter(path, model, {"labels": LABELS, "label_mean": [0.25, 0.75]})
    return item(path.parent, path.stem, variant="adapter", adapter_id="x", adapter_path=str(path))


def test_other_labels_other_videos_with_a_trained_label_gate(maker: VideoMaker, tmp_path: Path) -> None:
    one = adapter_file(maker, tmp_path / "trained.safetensors", "label", 0.3)
    texts = ['{"male": 1}', '{"object": 2}', '{"male": 0.25, "object": 0.75}', "", '{"female": 1}']
    rows = maker([dataclasses.replace(one, generation_id=str(place), out_path=str(tmp_path / f"{place}.mp4"),
                                      labels=labels) for place, labels in enumerate(texts)])  # fmt: skip
    male, object_, mixed, mean, unknown = rows
    assert len({male.video_sha, object_.video_sha, mixed.video_sha}) == 3
    assert json.loads(male.labels) == {"male": 1.0, "object": 0.0} and json.loads(object_.labels)["object"] == 1.0
    for row in (mean, unknown):  # without labels of its own: the training clips' mean
        assert json.loads(row.labels) == {"male": 0.25, "object": 0.75}
        assert frames(tmp_path, row) == frames(tmp_path, mixed)
    base = maker([item(tmp_path, "base")])[0]
    assert base.labels == "" and frames(tmp_path, base) != frames(tmp_path, male)


def frames(folder: Path, row: object) -> list[bytes]:
    from ptta_core import video

    path = folder / f"{row.generation_id}.mp4"  # type: ignore[attr-defined]
    return [frame.image.tobytes() for frame in video.read_frames(str(path), stream=0, pixel="rgb24")]


def test_labels_change_nothing_with_a_zero_adapter(maker: VideoMaker, tmp_path: Path) -> None:
    one = adapter_file(maker, tmp_path / "zero.safetensors", "label", 0.0)
    told = [dataclasses.replace(one, generation_id=name, out_path=str(tmp_path / f"{name}.mp4"), labels=labels)
            for name, labels in (("a", '{"male": 1}'), ("b", '{"object": 1}'))]  # fmt: skip
    first, second = maker(told)
    base = maker([item(tmp_path, "base")])[0]
    assert frames(tmp_path, first) == frames(tmp_path, second) == frames(tmp_path, base)


def test_a_sample_gate_reads_the_prompts_pooled_embedding(
    maker: VideoMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = adapter_file(maker, tmp_path / "sample.safetensors", "sample", 0.3)
    assert maker([one])[0].labels == ""
    transformer = maker.generator.pipeline.transformer
    for layer in hydralora.layers(transformer).values():
        assert layer.condition is not None and layer.router is not None
        assert torch.equal(layer.condition[0], maker.generator.prompts["a girl runs"].pooled.float())
    monkeypatch.setattr(maker.generator, "_condition", lambda *_: hydralora.set_condition(transformer))
    equal = dataclasses.replace(one, generation_id="equal", out_path=str(tmp_path / "equal.mp4"))
    maker([equal])
    assert frames(tmp_path, equal) != frames(tmp_path, one)


def prompt_file(tmp_path: Path, *lines: str) -> GenerateConfig:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return GenerateConfig(prompts=str(path))


def test_prompt_files_carry_labels(tmp_path: Path) -> None:
    found = generate.read_prompts(prompt_file(tmp_path, '{"prompt": "a", "labels": {"male": 1}}', '{"prompt": "b"}'))
    assert found == [Prompt("a", '{"male":1}'), Prompt("b")]
    shipped = generate.read_prompts(GenerateConfig())
    assert len(shipped) == 20 and all(sum(json.loads(one.labels).values()) == pytest.approx(1) for one in shipped)
    recipe = Recipe.model_validate({"train": {"gate": "label"}})
    assert generate.labels_for(found[0], recipe) == '{"male":1}' and generate.labels_for(found[1], recipe) == ""
    assert generate.labels_for(found[0], Recipe()) == ""  # no gate reads them
    assert json.loads(generate.labels_for(Prompt("A woman."), recipe)) == {"female": 1.0}  # read from the words
    assert generate.labels_for(Prompt("A woman."), Recipe()) == ""
    with pytest.raises(StageError, match=r"robot.*none is among.*male, female, object, background"):
        generate.labels_for(Prompt("a", '{"robot":1}'), recipe)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2 is not JSON"), ('["a"]', "line 2"), ('{"prompt": 3}', "line 2"),
        ('{"prompt": "b", "labels": {"male": -1}}', "labels"), ('{"prompt": "b", "labels": {"male": 0}}', "labels"),
        ('{"prompt": "a", "labels": {"male": 1}}', "other labels"),
    ],
)  # fmt: skip
def test_a_bad_prompt_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(StageError, match=words):
        generate.read_prompts(prompt_file(tmp_path, '{"prompt": "a"}', line))
