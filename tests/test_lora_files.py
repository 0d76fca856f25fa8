"""Exported files, loaded by diffusers' own code: they compute what the adapter computes."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ptta_core.config import TrainConfig
from ptta_core.models import hunyuan, hydralora, lora_files, tiny
from ptta_core.training import calibrate, dataset, held_out

MIX = [0.5, 0.2, 0.3]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.hunyuan(tmp_path_factory.mktemp("models") / "base", 0))


def adapter(base: str, path: Path, gate: str, branches: int = 3, placement: str = "non_attention") -> Any:
    """A model with a strong adapter, which is also in the file."""
    model = hunyuan.load_transformer(base, dtype="float32")
    settings = {"rank": 2, "alpha": 6.0, "branches": branches, "gate": gate, "placement": placement}
    hydralora.inject(model, **settings, seed=0)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    for parameter in hydralora.adapter_parameters(model):
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    hydralora.save_adapter(path, model, {"labels": ["male", "female", "object"], "label_mean": MIX})
    return model


@torch.no_grad()
def velocity(model: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    noisy = torch.randn(1, 16, 2, 4, 6, generator=generator)
    texts, pooled = [torch.randn(6, tiny.TEXT_WIDTH, generator=generator)], torch.randn(1, tiny.POOLED_WIDTH)
    inputs = hunyuan.model_inputs(noisy, torch.tensor([0.4]), texts, pooled * 0, 1.0, torch.float32)
    return model(**inputs)[0]


def pipeline(base: str) -> Any:
    return hunyuan.make_pipeline(transformer=hunyuan.load_transformer(base, dtype="float32"))


@pytest.mark.parametrize("placement", ["non_attention", "all"])
@pytest.mark.parametrize(("gate", "branches"), [("static", 3), ("label", 3), ("token", 1)])
def test_diffusers_loads_what_the_adapter_computes(
    base: str, tmp_path: Path, gate: str, branches: int, placement: str
) -> None:
    model = adapter(base, tmp_path / "a.safetensors", gate, branches, placement)
    hydralora.set_condition(model, torch.tensor([MIX]) if gate == "label" else None)
    mixes = lora_files.gates(tmp_path / "a.safetensors")
    assert mixes and len(mixes) == len(hydralora.layers(model))
    file = tmp_path / "lora.safetensors"
    lora_files.write(file, lora_files.diffusers_keys(lora_files.merged(tmp_path / "a.safetensors", mixes)), {"a": 1})
    pipe = pipeline(base)
    plain = velocity(pipe.transformer)
    pipe.load_lora_weights(str(file))
    expected = velocity(model)
    assert (expected - plain).abs().max() > 0.1
    torch.testing.assert_close(velocity(pipe.transformer), expected, atol=2e-5, rtol=1e-4)
    assert all("lora" in key for key in load_file(file))
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {lora_files.HEADER_KEY: '{"a":1}'}


def test_branches_blend_with_set_adapters(base: str, tmp_path: Path) -> None:
    model = adapter(base, tmp_path / "a.safetensors", "label")
    pipe, names = pipeline(base), ["male", "female", "object"]
    for number, name in enumerate(names):
        file = tmp_path / f"{name}.safetensors"
        lora_files.write(file, lora_files.diffusers_keys(lora_files.branch(tmp_path / "a.safetensors", number)), {})
        pipe.load_lora_weights(str(file), adapter_name=name)
    for mix in ([1.0, 0.0, 0.0], [0.1, 0.6, 0.3]):
        pipe.set_adapters(names, mix)
        hydralora.set_condition(model, torch.tensor([mix]))
        torch.testing.assert_close(velocity(pipe.transformer), velocity(model), atol=2e-5, rtol=1e-4)


def real_sized(path: Path, modules: dict[str, tuple[int, int]]) -> None:
    """A static adapter of the published model's sizes: module -> (d_in, d_out)."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, (columns, rows) in modules.items():
        state |= {f"{name}.lora_A": torch.randn(2, columns, generator=generator),
                  f"{name}.lora_B": torch.randn(rows, 6, generator=generator),
                  f"{name}.router": torch.randn(3, generator=generator)}  # fmt: skip
    settings = {"rank": 2, "alpha": 4.0, "branches": 3, "gate": "static", "placement": "all", "metadata": {}}
    save_file(state, path, {hydralora.HEADER_KEY: hydralora.ids.canonical(settings)})


MLP = {
    "transformer_blocks.3.ff.net.0.proj": (3072, 12288), "transformer_blocks.3.ff.net.2": (12288, 3072),
    "transformer_blocks.3.ff_context.net.0.proj": (3072, 12288), "transformer_blocks.3.ff_context.net.2": (12288, 3072),
    "single_transformer_blocks.7.proj_mlp": (3072, 12288), "single_transformer_blocks.7.proj_out": (15360, 3072),
}  # fmt: skip
ATTENTION = dict.fromkeys(
    [*(f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj",
                                                        "add_k_proj", "add_v_proj", "to_add_out")),
     *(f"single_transformer_blocks.7.attn.{name}" for name in ("to_q", "to_k", "to_v"))],
    (3072, 3072),
)  # fmt: skip


@pytest.mark.parametrize("modules", [MLP, ATTENTION, MLP | ATTENTION], ids=["mlp", "attention", "all"])
def test_comfyui_names_mean_the_same_changes_of_the_same_matrices(
    tmp_path: Path, modules: dict[str, tuple[int, int]]
) -> None:
    """Diffusers' converter from the original names gives back the product B A of every module, and nothing else."""
    real_sized(tmp_path / "a.safetensors", modules)
    mixes = lora_files.gates(tmp_path / "a.safetensors")
    assert mixes and set(mixes) == set(modules)
    pairs = lora_files.merged(tmp_path / "a.safetensors", mixes)
    keys = lora_files.comfyui_keys(pairs)
    named = r"transformer\.(double_blocks\.\d+\.(img|txt)_(mlp\.fc[12]|attn_(qkv|proj))|single_blocks\.\d+\.linear[12])"
    assert all(re.fullmatch(named + r"\.lora_[AB]\.weight", key) for key in keys)
    shapes = {key.split(".")[-3]: tuple(value.shape) for key, value in keys.items() if "lora_B" in key}
    assert shapes["linear1"][0] == 21504
    assert len({value.shape[0] for key, value in keys.items() if "lora_A" in key}) == 1  # one rank: one scale
    lora_files.write(tmp_path / "comfy.safetensors", keys, {})
    converted = HunyuanVideoPipeline.lora_state_dict(str(tmp_path / "comfy.safetensors"))
    converted = converted[0] if isinstance(converted, tuple) else converted
    probe = torch.randn(8, 15360, generator=torch.Generator().manual_seed(2))
    seen = set()
    for key, A in converted.items():
        if "lora_A" in key:
            name = key.removeprefix("transformer.").removesuffix(".lora_A.weight")
            x, B = probe[:, : A.shape[1]], converted[key.replace("lora_A", "lora_B")]
            ours = pairs.get(name)
            wanted = x @ ours[0].T @ ours[1].T if ours else torch.zeros(8, B.shape[0])
            torch.testing.assert_close(x @ A.T @ B.T, wanted, atol=2e-2, rtol=1e-4)
            seen.add(name)
    assert set(modules) <= seen


def test_a_name_comfyui_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="proj_in"):
        lora_files.comfyui_keys({"proj_in": (torch.zeros(1, 2), torch.zeros(2, 1))})


def test_a_mix_needs_a_weight_a_branch(base: str, tmp_path: Path) -> None:
    adapter(base, tmp_path / "a.safetensors", "token")
    assert lora_files.gates(tmp_path / "a.safetensors") is None  # the gate depends on the input
    mixes = lora_files.gates(tmp_path / "a.safetensors", MIX)
    assert mixes and set(map(tuple, mixes.values())) == {tuple(MIX)}
    with pytest.raises(ValueError, match="2 weights for 3 branches"):
        lora_files.gates(tmp_path / "a.safetensors", [0.5, 0.5])


# --------------------------------------------------------------------------------------------- calibration


def probe(base: str, path: Path, run: Path) -> calibrate.Probe:
    from test_training import samples

    dataset.pin(run, samples())
    return calibrate.Probe(path, run, base, None, "float32", "cpu", TrainConfig())


def test_the_mean_gate_of_a_token_adapter_is_the_mean_over_its_samples(base: str, tmp_path: Path) -> None:
    adapter(base, tmp_path / "a.safetensors", "token")
    one = probe(base, tmp_path / "a.safetensors", tmp_path / "run")
    seen: list[Tensor] = []
    layer = hydralora.layers(one.model)["transformer_blocks.0.ff.net.0.proj"]
    hook = layer.register_forward_pre_hook(
        lambda module, args: seen.append(torch.softmax(args[0] @ module.router.T, -1).reshape(-1, 3).mean(0))
    )
    gates = one.mean_gates()
    hook.remove()
    assert len(seen) == 5 * held_out.QUANTILES and set(gates) == set(hydralora.layers(one.model))
    by_hand = torch.stack(seen).mean(0).tolist()
    assert gates["transformer_blocks.0.ff.net.0.proj"] == pytest.approx(by_hand, abs=1e-5)


def compared(base: str, path: Path, run: Path, mixes: Any, form: Any = lora_files.diffusers_keys) -> calibrate.Compared:
    pairs = lora_files.merged(path, mixes)
    lora_files.write(run.with_suffix(".safetensors"), form(pairs), {})
    return probe(base, path, run).compare(run.with_suffix(".safetensors"), pairs, mixes)


def test_the_error_of_a_mean_gate_is_measured_against_the_adapters_effect(base: str, tmp_path: Path) -> None:
    path, run = tmp_path / "a.safetensors", tmp_path / "run"
    model = adapter(base, path, "token")
    mixes = probe(base, path, run).mean_gates()
    mean = compared(base, path, run, mixes)
    assert 0.01 < mean.error < 1 and mean.output_error < 1e-5 and mean.weight_error < 1e-6
    assert mean.loader.startswith("diffusers 0.")
    read_by_us = compared(base, path, run, mixes, lora_files.comfyui_keys)  # too narrow for diffusers' own reading
    assert read_by_us.loader == "ptta" and read_by_us.error == pytest.approx(mean.error, rel=1e-3)
    assert compared(base, path, run, dict.fromkeys(mixes, (1.0, 0.0, 0.0))).error > mean.error
    nothing = compared(base, path, run, dict.fromkeys(mixes, (0.0, 0.0, 0.0)))
    assert nothing.error == pytest.approx(1, abs=1e-4)
    for layer in hydralora.layers(model).values():  # equal branches: the gate does not matter, any mix is exact
        layer.lora_B.data = layer.lora_B.data[:, :2].repeat(1, 3)
    hydralora.save_adapter(path, model, {})
    assert compared(base, path, run, mixes).error < 1e-4


def test_a_file_that_computes_something_else_is_found_out(base: str, tmp_path: Path) -> None:
    path, run = tmp_path / "a.safetensors", tmp_path / "run"
    adapter(base, path, "static")
    mixes = lora_files.gates(path)
    assert mixes
    pairs = lora_files.merged(path, mixes)
    one = probe(base, path, run)
    keys = lora_files.diffusers_keys(pairs)
    first, *_, last = sorted(keys)
    for wrong in (keys | {first: keys[first] * 1.001}, {k: v for k, v in keys.items() if k[:-14] != last[:-14]}):
        lora_files.write(tmp_path / "wrong.safetensors", wrong, {})
        assert one.compare(tmp_path / "wrong.safetensors", pairs, mixes).weight_error > 1e-4
    lora_files.write(tmp_path / "right.safetensors", keys, {})
    right = one.compare(tmp_path / "right.safetensors", pairs, mixes)  # the model is as it was, whatever was loaded
    assert right.weight_error < 1e-6 and right.error < 1e-5
