"""Plain LoRA files read back: into a model as they are, and as the start of an adapter, whoever made them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_lora_files import MIX, adapter, base, pipeline, velocity
from test_training import samples

from ptta_core.config import TrainConfig
from ptta_core.models import hunyuan, hydralora, lora_files, lora_reading, tiny
from ptta_core.training import dataset, loop, objective, passes

__all__ = ["base"]  # the fixture


def fresh(base: str, gate: str, rank: int = 2, branches: int = 3, placement: str = "non_attention") -> Any:
    model = hunyuan.load_transformer(base, dtype="float32")
    settings = {"rank": rank, "alpha": 6.0, "branches": branches, "gate": gate, "placement": placement}
    hydralora.inject(model, **settings, seed=9)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("gate", ["token", "sample", "label", "static"])
def test_training_may_go_on_from_a_plain_lora_in_every_branch(base: str, tmp_path: Path, gate: str) -> None:
    adapter(base, tmp_path / "a.safetensors", "static")
    mixes = lora_files.gates(tmp_path / "a.safetensors")
    assert mixes
    lora_files.write(tmp_path / "l.safetensors",
                     lora_files.diffusers_keys(lora_files.merged(tmp_path / "a.safetensors", mixes)), {})  # fmt: skip
    pipe = pipeline(base)
    pipe.load_lora_weights(str(tmp_path / "l.safetensors"))
    model = fresh(base, gate, rank=3, placement="all")
    lora_reading.start_from(model, tmp_path / "l.safetensors")
    hydralora.set_condition(model, torch.tensor([MIX]), torch.ones(1, tiny.POOLED_WIDTH))
    torch.testing.assert_close(velocity(model), velocity(pipe.transformer), atol=2e-5, rtol=1e-4)
    layer = hydralora.layers(model)["transformer_blocks.0.ff.net.2"]
    layer(torch.randn(1, 5, layer.in_features)).square().sum().backward()
    first, *others = layer.lora_B.grad.unflatten(1, (3, 3)).unbind(1)
    assert all((first - other).abs().max() > 1e-3 * first.abs().max() for other in others)  # branches come apart


def test_going_on_from_a_native_file_needs_equal_settings(base: str, tmp_path: Path) -> None:
    model = adapter(base, tmp_path / "a.safetensors", "token")
    again = fresh(base, "token")
    lora_reading.start_from(again, tmp_path / "a.safetensors")
    assert torch.equal(velocity(again), velocity(model))
    with pytest.raises(ValueError, match="the model has one of"):
        lora_reading.start_from(fresh(base, "token", rank=4), tmp_path / "a.safetensors")


def test_a_file_of_diffusers_own_making_is_read_with_its_scale(base: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model_state_dict

    pipe = pipeline(base)
    targets = [f"transformer_blocks.{number}.ff.net.2" for number in (0, 1)]
    pipe.transformer.add_adapter(LoraConfig(r=2, lora_alpha=6, target_modules=targets, init_lora_weights=False))
    expected = velocity(pipe.transformer)
    weights, told = get_peft_model_state_dict(pipe.transformer), pipe.transformer.peft_config["default"].to_dict()
    pipe.save_lora_weights(tmp_path, weights, weight_name="own.safetensors", transformer_lora_adapter_metadata=told)
    model = fresh(base, "token")
    lora_reading.start_from(model, tmp_path / "own.safetensors")
    torch.testing.assert_close(velocity(model), expected, atol=2e-5, rtol=1e-4)


def test_a_lora_that_does_not_fit_is_refused(base: str, tmp_path: Path) -> None:
    name = "transformer_blocks.0.attn.to_q"
    pair = {name: (torch.zeros(2, 32), torch.zeros(32, 2))}
    lora_files.write(tmp_path / "l.safetensors", lora_files.diffusers_keys(pair), {})
    with pytest.raises(ValueError, match=r"to_q.*train.placement"):
        lora_reading.start_from(fresh(base, "token"), tmp_path / "l.safetensors")
    with pytest.raises(ValueError, match="rank 2 does not fit into rank 1"):
        lora_reading.start_from(fresh(base, "token", rank=1, placement="all"), tmp_path / "l.safetensors")
    save_file({"something": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="neither an adapter of ours nor a plain LoRA"):
        lora_reading.start_from(fresh(base, "token"), tmp_path / "other.safetensors")




# ------------------------------------------------------------------------------------------- ComfyUI's names


def exported(base: str, folder: Path, comfyui: bool, placement: str = "all") -> Any:
    """A static adapter's model; its plain LoRA is in folder/l.safetensors."""
    model = adapter(base, folder / "a.safetensors", "static", placement=placement)
    mixes = lora_files.gates(folder / "a.safetensors")
    assert mixes
    pairs = lora_files.merged(folder / "a.safetensors", mixes)
    keys = lora_files.comfyui_keys(pairs) if comfyui else lora_files.diffusers_keys(pairs)
    lora_files.write(folder / "l.safetensors", keys, {})
    return model


@pytest.mark.parametrize("placement", ["all", "non_attention", "non_attention_strict"])
def test_an_exported_file_gives_back_the_pairs_that_it_was_made_of(base: str, tmp_path: Path, placement: str) -> None:
    exported(base, tmp_path, True, placement)
    mixes = lora_files.gates(tmp_path / "a.safetensors")
    wanted = lora_files.merged(tmp_path / "a.safetensors", mixes or {})
    found = lora_reading.read_pairs(tmp_path / "l.safetensors")
    assert found.keys() == wanted.keys()  # the pair that only tells diffusers the naming is gone
    for name, (A, B) in wanted.items():
        assert torch.equal(found[name][0], A) and torch.equal(found[name][1], B), name


@pytest.mark.parametrize("gate", ["token", "sample", "label", "static"])
@pytest.mark.parametrize(("placement", "rank"), [("all", 2), ("all", 5), ("non_attention_strict", 3)])
def test_training_may_go_on_from_comfyuis_names_and_another_rank(
    base: str, tmp_path: Path, gate: str, placement: str, rank: int
) -> None:
    """At step 0 the new adapter computes what the file's does, and its branches come apart from there."""
    old = exported(base, tmp_path, True, placement)
    model = fresh(base, gate, rank=rank, branches=4, placement=placement)
    assert (velocity(model) - velocity(old)).abs().max() > 0.1
    lora_reading.start_from(model, tmp_path / "l.safetensors")
    hydralora.set_condition(model, torch.tensor([[*MIX, 0.0]]), torch.ones(1, tiny.POOLED_WIDTH))
    torch.testing.assert_close(velocity(model), velocity(old), atol=2e-5, rtol=1e-4)
    layer = hydralora.layers(model)["single_transformer_blocks.1.proj_out"]
    layer(torch.randn(1, 5, layer.in_features)).square().sum().backward()
    first, *others = layer.lora_B.grad.unflatten(1, (4, rank)).unbind(1)
    assert all((first - other).abs().max() > 1e-3 * first.abs().max() for other in others)


def test_a_run_begins_where_the_file_that_it_goes_on_from_is(base: str, tmp_path: Path) -> None:
    """The first step's loss is that of the model with the file's LoRA, on the same samples, noise and t."""
    old = exported(base, tmp_path, True, "non_attention")
    config = TrainConfig(rank=4, branches=2, batch=2, learning_rate=1e-3)
    run = tmp_path / "run"
    dataset.pin(run, samples())
    (run / loop.INIT).write_bytes((tmp_path / "l.safetensors").read_bytes())
    loop.train_loop(passes.Settings(str(run), base, None, "float32", "cpu", 1, config.model_dump(), {}))
    index = dataset.read_index(run)
    first = dataset.epoch_batches(index, 2, config.seed, 0)[0]
    by_hand = []
    for model in (old, hunyuan.load_transformer(base, dtype="float32")):
        losses = []
        for place, sample_index in first.share(0, 1):
            sample = dataset.read_sample(run, index[place])
            noise, t = objective.draw(sample["latents"].shape, config.seed, sample_index, config.shift)
            losses.append(float(objective.velocity_loss(model, sample, noise, t, 1.0, torch.float32, "cpu").detach()))
        by_hand.append(sum(losses) / len(losses))
    told = json.loads((run / loop.METRICS).read_text().splitlines()[0])["loss"]
    assert told == pytest.approx(by_hand[0], rel=1e-5) and abs(told - by_hand[1]) > 0.01 * told


def test_a_lora_that_reads_attention_does_not_fit_the_strict_placement(base: str, tmp_path: Path) -> None:
    exported(base, tmp_path, True, "non_attention")
    with pytest.raises(ValueError, match="proj_out: reads what comes from attention"):
        lora_reading.start_from(fresh(base, "token", placement="non_attention_strict"), tmp_path / "l.safetensors")
    exported(base, tmp_path, True, "all")
    with pytest.raises(ValueError, match=r"attn\.to_q.*train.placement leaves alone"):
        lora_reading.start_from(fresh(base, "token", placement="non_attention"), tmp_path / "l.safetensors")


def in_original_code(model: Any) -> dict[str, torch.Tensor]:
    """The weights as HunyuanVideo's own code keeps them, under the names that ComfyUI's LoRA loader knows them by.

    ComfyUI takes "transformer.NAME" and "diffusion_model.NAME" for its module NAME, with its own img_attn.qkv written
    img_attn_qkv, img_attn.proj img_attn_proj, img_mlp.0 img_mlp.fc1 and img_mlp.2 img_mlp.fc2 (the same for txt).
    """
    state, found = model.state_dict(), {}
    for at in range(len(model.transformer_blocks)):
        block, theirs = f"transformer_blocks.{at}", f"double_blocks.{at}"
        for ours, sort in (("attn.to_{}", "img"), ("attn.add_{}_proj", "txt")):
            found[f"{theirs}.{sort}_attn_qkv"] = torch.cat([state[f"{block}.{ours.format(x)}.weight"] for x in "qkv"])
        for ours, name in (("attn.to_out.0", "img_attn_proj"), ("attn.to_add_out", "txt_attn_proj"),
                           ("ff.net.0.proj", "img_mlp.fc1"), ("ff.net.2", "img_mlp.fc2"),
                           ("ff_context.net.0.proj", "txt_mlp.fc1"), ("ff_context.net.2", "txt_mlp.fc2")):  # fmt: skip
            found[f"{theirs}.{name}"] = state[f"{block}.{ours}.weight"]
    for at in range(len(model.single_transformer_blocks)):
        block, theirs = f"single_transformer_blocks.{at}", f"single_blocks.{at}"
        first = [*(f"attn.to_{x}" for x in "qkv"), "proj_mlp"]
        found[f"{theirs}.linear1"] = torch.cat([state[f"{block}.{name}.weight"] for name in first])
        found[f"{theirs}.linear2"] = state[f"{block}.proj_out.weight"]
    return found


@pytest.mark.parametrize("placement", ["all", "non_attention", "non_attention_strict"])
def test_a_stand_in_with_comfyuis_names_loads_every_key_and_computes_what_the_adapter_does(
    base: str, tmp_path: Path, placement: str
) -> None:
    """The file is added to the original code's matrices by name; diffusers' model with their parts must then agree."""
    old = exported(base, tmp_path, True, placement)
    clean = hunyuan.load_transformer(base, dtype="float32")
    matrices, state = in_original_code(clean), lora_reading.load_file(str(tmp_path / "l.safetensors"))
    used = set()
    for name, matrix in matrices.items():
        down, up = (f"transformer.{name}.lora_{part}.weight" for part in "AB")
        if down in state:
            matrices[name] = matrix + state[up] @ state[down]
            used |= {down, up}
    assert used == state.keys()  # no "lora key not loaded"
    for name, matrix in in_original_code(clean).items():
        assert matrices[name].shape == matrix.shape
    take_parts(clean, matrices)
    torch.testing.assert_close(velocity(clean), velocity(old), atol=2e-5, rtol=1e-4)


def take_parts(model: Any, matrices: dict[str, torch.Tensor]) -> None:
    """The inverse of in_original_code: a diffusers model's weights from the original code's matrices."""
    numbered = hunyuan_numbers(model)
    for name, numbers in in_original_code(numbered).items():
        flat = {int(number): value for number, value in zip(numbers.flatten(), matrices[name].flatten())}
        for parameter, where in zip(model.parameters(), numbered.parameters()):
            if int(where.flatten()[0]) in flat:
                parameter.data = torch.stack([flat[int(n)] for n in where.flatten()]).view_as(parameter)


def hunyuan_numbers(model: Any) -> Any:
    """The same model with every weight's own number in its place."""
    import copy

    numbered, at = copy.deepcopy(model).double(), 0
    for parameter in numbered.parameters():
        parameter.data = torch.arange(at, at + parameter.numel(), dtype=torch.float64).view_as(parameter)
        at += parameter.numel()
    return numbered


# ----------------------------------------------------------------------------------------- other people's files


def test_downs_ups_and_alphas_are_read_with_their_scale(tmp_path: Path) -> None:
    A, B = torch.randn(2, 32), torch.randn(128, 2)
    name = "single_transformer_blocks.0.proj_mlp"
    state = {"lora_down.weight": A.half(), "lora_up.weight": B.half(), "alpha": torch.tensor(1.0)}
    save_file({f"{name}.{key}": value for key, value in state.items()}, tmp_path / "l.safetensors")
    pairs = lora_reading.read_pairs(tmp_path / "l.safetensors")
    torch.testing.assert_close(pairs[name][1] @ pairs[name][0], 0.5 * B @ A, atol=1e-2, rtol=1e-2)
    save_file({f"{name}.lora_down.weight": A}, tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match="neither an adapter of ours nor a plain LoRA"):
        lora_reading.read_pairs(tmp_path / "half.safetensors")


def test_one_adapter_takes_the_place_of_another_in_the_same_model(base: str, tmp_path: Path) -> None:
    clean = hunyuan.load_transformer(base, dtype="float32")
    before = velocity(clean)
    native = adapter(base, tmp_path / "n.safetensors", "token", placement="attention")
    static = exported(base, tmp_path, True)
    for path, like in ((tmp_path / "n.safetensors", native), (tmp_path / "l.safetensors", static),
                       (tmp_path / "n.safetensors", native)):  # fmt: skip
        lora_reading.use(clean, path)
        torch.testing.assert_close(velocity(clean), velocity(like), atol=2e-5, rtol=1e-4)
    now = velocity(clean)
    alien = {"transformer_blocks.9.ff.net.2": (torch.zeros(2, 32), torch.ones(32, 2))}
    lora_files.write(tmp_path / "alien.safetensors", lora_files.diffusers_keys(alien), {})
    with pytest.raises(ValueError, match="1 Linears in all that the model lacks"):
        lora_reading.use(clean, tmp_path / "alien.safetensors")
    assert torch.equal(velocity(clean), now)
    hydralora.remove(clean)
    assert torch.equal(velocity(clean), before)
