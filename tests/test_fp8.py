"""The base in 8-bit floats: diffusers' own numbers, gradients near bfloat16's, learning, export and generation."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_training import SIZES, metrics, samples

from ptta_core.config import TrainConfig
from ptta_core.models import fp8, hunyuan, hydralora, tiny
from ptta_core.training import calibrate, dataset, loop, passes

CONFIG = TrainConfig(rank=4, branches=2, batch=2, learning_rate=1e-2, epochs=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.hunyuan(tmp_path_factory.mktemp("fp8") / "base", 0))


def inputs(dtype: torch.dtype) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(1, 16, *SIZES["9x32x48"], generator=generator)
    text, pooled = (torch.randn(*size, generator=generator) for size in ((5, tiny.TEXT_WIDTH), (1, tiny.POOLED_WIDTH)))
    return hunyuan.model_inputs(noisy, torch.tensor([0.6]), [text], pooled, 1.0, dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_numbers_are_those_of_diffusers(base: str, dtype: str) -> None:
    """The same layers are stored, the same bits come out."""
    theirs = hunyuan.load_transformer(base, dtype=dtype)
    ours = hunyuan.load_transformer(base, dtype=dtype, storage="fp8")
    theirs.enable_layerwise_casting(torch.float8_e4m3fn, hunyuan.torch_dtype(dtype))
    types = [{name: one.dtype for name, one in model.named_parameters()} for model in (theirs, ours)]
    assert types[0] == types[1] and set(types[0].values()) == {fp8.STORED, hunyuan.torch_dtype(dtype)}
    assert ours.dtype == hunyuan.torch_dtype(dtype)  # what diffusers' pipeline computes in
    with torch.no_grad():
        one, two = (model(**inputs(hunyuan.torch_dtype(dtype)))[0] for model in (theirs, ours))
    assert torch.equal(one, two) and bool(torch.isfinite(one).all())


def test_stored_weights_take_half(base: str) -> None:
    half, whole = (hunyuan.load_transformer(base, storage=storage) for storage in ("fp8", "dtype"))
    names = set(fp8.stored_names(whole))
    assert len(names) == 40 and not any("norm" in name or "embedder.proj" in name for name in names)

    def held(model: torch.nn.Module, stored: bool) -> int:
        return sum(one.nbytes for name, one in model.named_parameters() if (name.rpartition(".")[0] in names) == stored)

    assert 2 * held(half, True) == held(whole, True) and held(half, False) == held(whole, False)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_near_those_of_a_bfloat16_base(base: str, checkpointing: bool) -> None:
    """The same product with the weights as rounded, and near the one with those that were not."""
    gradients = []
    for storage in ("dtype", "rounded", "fp8"):
        model: Any = hunyuan.load_transformer(base, storage="fp8" if storage == "fp8" else "dtype")
        if storage == "rounded":
            for name in fp8.stored_names(model):
                for one in model.get_submodule(name).parameters():
                    one.data = one.data.to(fp8.STORED).to(one.dtype)
        hydralora.inject(model, placement="all", rank=2, alpha=2.0, branches=2, gate="token", seed=0)
        parameters = hydralora.adapter_parameters(model)
        generator = torch.Generator().manual_seed(2)
        for one in parameters:
            one.data += 0.1 * torch.randn(one.shape, generator=generator)
        if checkpointing:
            model.enable_gradient_checkpointing()
        model(**inputs(torch.bfloat16))[0].float().square().mean().backward()
        assert all(one.dtype == torch.float32 for one in parameters)
        gradients.append(torch.cat([one.grad.flatten() for one in parameters if one.grad is not None]))
    assert torch.equal(gradients[1], gradients[2])
    assert float((gradients[2] - gradients[0]).norm() / gradients[0].norm()) < 0.1


def settings(folder: Path, base: str, storage: str, **config: Any) -> passes.Settings:
    dataset.pin(folder, samples(), ["sample0"])
    chosen = CONFIG.model_dump() | config
    return passes.Settings(str(folder), base, None, "bfloat16", "cpu", 1, chosen, {"base_storage": storage},
                           storage=storage)  # fmt: skip


def test_an_adapter_learns_on_it_as_on_bfloat16_and_export_and_generation_see_the_same_base(
    base: str, tmp_path: Path
) -> None:
    runs = {storage: settings(tmp_path / storage, base, storage) for storage in ("dtype", "fp8")}
    for run in runs.values():
        loop.train_loop(run)
    losses = {storage: [line["loss"] for line in metrics(run)] for storage, run in runs.items()}
    assert losses["fp8"] == pytest.approx(losses["dtype"], rel=0.05) and losses["fp8"] != losses["dtype"]
    held = {storage: [json.loads(line) for line in (tmp_path / storage / loop.HELD_OUT).read_text().splitlines()]
            for storage in runs}  # fmt: skip
    assert held["fp8"][-1]["loss"] == pytest.approx(held["dtype"][-1]["loss"], rel=0.05)
    assert held["fp8"][-1]["loss"] != held["dtype"][-1]["loss"]
    adapter = tmp_path / "fp8" / loop.ADAPTER
    assert all(value.dtype == torch.float32 for value in load_file(adapter).values())
    probe = calibrate.Probe(adapter, tmp_path / "fp8", base, None, "bfloat16", "cpu", CONFIG)
    generator = hunyuan.Generator(base, storage="fp8")
    for model in (probe.model, generator.pipeline.transformer):
        assert sum(one.dtype == fp8.STORED for one in model.parameters()) == 80
    generator.use(str(adapter))
    made = generator("a red ball", 0, 2, 6.0, 7.0, 5, 32, 32)
    assert made.shape == (5, 32, 32, 3)
