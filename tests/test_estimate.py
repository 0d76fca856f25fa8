"""The memory estimate against the tiny model's real counts and the published model's known ones."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel

from ptta_core.config import BaseConfig, EncodeConfig, ModelRef, Recipe, Site, TrainConfig
from ptta_core.models import hunyuan, hydralora, tiny
from ptta_core.ops import check
from ptta_core.training import estimate
from ptta_core.view import View


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.hunyuan(tmp_path_factory.mktemp("models") / "base", 0))


@pytest.mark.parametrize(("gate", "ema_decay"), [("token", 0.0), ("static", 0.9)])
def test_the_counts_are_those_of_the_real_model_and_optimizer(base: str, gate: str, ema_decay: float) -> None:
    config = TrainConfig.model_validate({"rank": 3, "gate": gate, "ema_decay": ema_decay})
    found = estimate.estimate(base, None, BaseConfig(dtype="float32"), EncodeConfig(), config)
    model = hunyuan.load_transformer(base, dtype="float32")
    weights = sum(one.numel() * one.element_size() for one in model.parameters())
    hydralora.inject(model, placement="non_attention", rank=3, alpha=1.0, branches=4, gate=gate, seed=0)
    parameters = hydralora.adapter_parameters(model)
    optimizer = torch.optim.AdamW(parameters)
    for one in parameters:
        one.grad = torch.zeros_like(one)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    held = [*parameters, *(one.grad for one in parameters), *moments, *(parameters if ema_decay else [])]
    assert found and found.base_bytes == weights
    assert found.total == sum(one.numel() for one in parameters)
    assert found.adapter_bytes == sum(one.numel() * one.element_size() for one in held if one is not None)
    assert sorted(found.trainable) == [
        "single_transformer_blocks proj_mlp", "single_transformer_blocks proj_out", "transformer_blocks ff.net.0.proj",
        "transformer_blocks ff.net.2", "transformer_blocks ff_context.net.0.proj",
        "transformer_blocks ff_context.net.2",
    ]  # fmt: skip


def test_tokens_are_those_that_the_blocks_see(base: str) -> None:
    encode = EncodeConfig(area=32 * 48, frames=9)
    model, seen = hunyuan.load_transformer(base, dtype="float32"), []
    model.single_transformer_blocks[0].register_forward_pre_hook(
        lambda module, args: seen.append(args[0].shape[1] + args[1].shape[1])
    )
    text = torch.zeros(hunyuan.MAX_TEXT_TOKENS, tiny.TEXT_WIDTH)
    latents = torch.zeros(1, 16, 3, 4, 6)
    with torch.no_grad():
        model(**hunyuan.model_inputs(latents, torch.ones(1), [text], torch.zeros(1, 16), 1.0, torch.float32))
    assert seen == [estimate.token_count(encode, 2, 1)]


def published(folder: Path) -> str:
    """The published model's configuration, without weights."""
    with torch.device("meta"):
        config = dict(HunyuanVideoTransformer3DModel().config)
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_the_published_model(tmp_path: Path) -> None:
    encode, config = EncodeConfig(area=512 * 768, frames=49), TrainConfig()
    found = estimate.estimate(published(tmp_path / "m"), None, BaseConfig(), encode, config)
    assert found and found.total == 105_676_800 and found.base_bytes == pytest.approx(25.64e9, rel=1e-3)
    assert found.adapter_bytes == 16 * 105_676_800 and found.tokens == 13 * 32 * 48 + 256
    assert found.input_bytes == 60 * found.tokens * 3072 * 2
    assert "105.7M trainable parameters" in found.note() and "at least 34.8 GB" in found.note()
    assert estimate.estimate(str(tmp_path / "none"), None, BaseConfig(), encode, config) is None


def test_check_tells_it(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    ref = ModelRef(id=published(tmp_path / "m" / "x"))
    (Path(ref.id) / "transformer" / "w.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    recipe = Recipe(base=BaseConfig(model=ref))
    view = View(recipe, Site(workspace=str(tmp_path / "w")), lambda name: pytest.fail("no stage is asked"))
    found = check._training(view)
    assert found.ok and "105.7M trainable parameters" in found.note
