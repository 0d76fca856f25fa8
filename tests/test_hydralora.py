"""HydraLoRA: the fast form against the paper's loop, what it touches in the model, and its file."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ptta_core.models import hydralora
from ptta_core.models.hydralora import HydraLinear

IN, OUT, RANK, BRANCHES, POOLED, BATCH = 12, 20, 3, 4, 6, 2
SHAPES = [(BATCH, IN), (BATCH, 5, IN), (BATCH, 3, 5, IN), (BATCH, 2, 3, 5, IN)]
SETTINGS: dict[str, Any] = {"placement": "non_attention", "rank": 2, "alpha": 4.0, "branches": 4, "gate": "token"}


def layer(
    gate: str, branches: int = BRANCHES, dtype: torch.dtype = torch.float32, unread: int = 0
) -> HydraLinear:
    torch.manual_seed(0)
    made = HydraLinear(
        nn.Linear(IN, OUT).to(dtype), rank=RANK, alpha=8.0, branches=branches, gate=gate, pooled_dim=POOLED,
        unread=unread, generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    nn.init.normal_(made.lora_B, std=0.3)
    return made


def conditions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return (
        torch.softmax(torch.randn(BATCH, BRANCHES, generator=generator), -1),
        torch.randn(BATCH, POOLED, generator=generator),
    )


def naive(one: HydraLinear, x: Tensor, labels_BN: Tensor | None, pooled_BP: Tensor | None) -> Tensor:
    """A sample, a token and a branch at a time, in the words of the paper's formula."""
    rows = []
    for b in range(len(x)):
        for token in x[b].reshape(-1, IN):
            if one.branches == 1:
                w = torch.ones(1, dtype=x.dtype)
            elif one.gate == "token":
                w = torch.softmax(one.router @ token[one.unread :], 0)
            elif one.gate == "static":
                w = torch.softmax(one.router, 0)
            elif one.gate == "sample" and pooled_BP is not None:
                w = torch.softmax(one.router @ pooled_BP[b], 0)
            elif one.gate == "label" and labels_BN is not None:
                w = labels_BN[b]
            else:
                w = torch.full((one.branches,), 1 / one.branches)
            w = w if one.mix is None else one.mix
            y = one.base.weight @ token + one.base.bias
            for i in range(one.branches):
                B_i = one.lora_B[:, i * one.rank : (i + 1) * one.rank]
                y = y + one.alpha / one.rank * w[i] * (B_i @ (one.lora_A @ token[one.unread :]))
            rows.append(y)
    return torch.stack(rows).reshape(*x.shape[:-1], OUT)


def gradients(output: Tensor, one: HydraLinear, x: Tensor) -> list[Tensor]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
    wanted = [x, *(p for p in one.parameters() if p.requires_grad)]
    return list(torch.autograd.grad((output * weights).sum(), wanted))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{len(shape)}d")
@pytest.mark.parametrize("conditioned", [True, False])
@pytest.mark.parametrize("gate", hydralora.GATES)
def test_is_the_papers_loop(gate: str, conditioned: bool, shape: tuple[int, ...]) -> None:
    one = layer(gate)
    labels_BN, pooled_BP = conditions() if conditioned else (None, None)
    hydralora.set_condition(one, labels_BN, pooled_BP)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4)).requires_grad_()
    fast, slow = one(x), naive(one, x, labels_BN, pooled_BP)
    torch.testing.assert_close(fast, slow, atol=2e-6, rtol=2e-6)
    assert (fast - one.base(x)).abs().max() > 0.1  # the adapter is a visible part of it
    if gate == "sample" and not conditioned:
        one.router = None  # uniform gates do not come from it
    for ours, theirs in zip(gradients(fast, one, x), gradients(slow, one, x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{len(shape)}d")
@pytest.mark.parametrize("gate", hydralora.GATES)
@pytest.mark.parametrize(("how", "value"), [("one condition", None), ("mix", [0.1, 0.2, 0.3, 0.4]), ("unread", 5)])
def test_is_the_papers_loop_with_one_gate_for_all_or_inputs_left_out(
    how: str, value: Any, gate: str, shape: tuple[int, ...]
) -> None:
    one = layer(gate, unread=value if how == "unread" else 0)
    labels_BN, pooled_BP = (both[:1] for both in conditions())
    hydralora.set_condition(one, labels_BN, pooled_BP)
    if how == "mix":
        hydralora.set_mix(one, {"": value})
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4)).requires_grad_()
    fast = one(x)
    slow = naive(one, x, labels_BN.expand(BATCH, -1), pooled_BP.expand(BATCH, -1))
    torch.testing.assert_close(fast, slow, atol=2e-6, rtol=2e-6)
    if how == "mix":
        one.router = None  # nothing comes from it
    for ours, theirs in zip(gradients(fast, one, x), gradients(slow, one, x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    if how == "unread":
        assert one.lora_A.shape == (RANK, IN - 5)
        moved = torch.zeros_like(x).index_fill_(-1, torch.arange(5), 1.0)
        off_base = (one(x + moved) - one.base(x + moved)) - (fast - one.base(x))
        assert off_base.abs().max() < 1e-5  # the adapter does not see them


@pytest.mark.parametrize("gate", hydralora.GATES)
def test_compiled_and_checkpointed_it_computes_the_same(gate: str) -> None:
    one = layer(gate)
    hydralora.set_condition(one, *conditions())
    x = torch.randn(SHAPES[2], generator=torch.Generator().manual_seed(4)).requires_grad_()
    plain = one(x)
    expected = gradients(plain, one, x)
    for again in (torch.compile(one, backend="aot_eager", fullgraph=True)(x), checkpoint(one, x, use_reentrant=False)):
        torch.testing.assert_close(again, plain)
        for ours, theirs in zip(gradients(again, one, x), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("gate", hydralora.GATES)
def test_inputs_that_are_not_contiguous_and_without_gradients(gate: str) -> None:
    one = layer(gate)
    hydralora.set_condition(one, *conditions())
    x = torch.randn(BATCH, IN, 5, generator=torch.Generator().manual_seed(4))
    kept = x.clone()
    torch.testing.assert_close(one(x.transpose(1, 2)), one(x.transpose(1, 2).contiguous()))
    assert torch.equal(x, kept) and one(x.transpose(1, 2)).requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(one(x.transpose(1, 2)), one(x.transpose(1, 2).clone()))


@pytest.mark.parametrize("gate", hydralora.GATES)
def test_bfloat16_base_keeps_a_float32_adapter(gate: str) -> None:
    one = layer(gate, dtype=torch.bfloat16)
    labels_BN, pooled_BP = conditions()
    hydralora.set_condition(one, labels_BN, pooled_BP)
    x = torch.randn(SHAPES[1], generator=torch.Generator().manual_seed(4)).bfloat16()
    fast = one(x)
    assert fast.dtype == torch.bfloat16
    exact = layer(gate)
    exact.base.load_state_dict({key: value.float() for key, value in one.base.state_dict().items()})
    slow = naive(exact, x.float(), labels_BN, pooled_BP)
    assert (fast.float() - slow).norm() / slow.norm() < 0.01
    fast.float().sum().backward()
    trained = [p for p in one.parameters() if p.requires_grad]
    assert all(p.dtype == torch.float32 and p.grad is not None and p.grad.dtype == torch.float32 for p in trained)
    assert one.base.weight.grad is None
    exact.zero_grad()
    slow.sum().backward()
    wanted = dict(exact.named_parameters())
    for name, p in one.named_parameters():
        if p.requires_grad:
            assert (p.grad - wanted[name].grad).norm() < 0.02 * wanted[name].grad.norm(), name


@pytest.mark.parametrize("gate", hydralora.GATES)
def test_one_branch_is_lora(gate: str) -> None:
    one = layer(gate, branches=1)
    assert one.router is None
    x = torch.randn(SHAPES[1], generator=torch.Generator().manual_seed(4))
    hydralora.set_condition(one, *conditions())
    torch.testing.assert_close(one(x), one.base(x) + 8.0 / RANK * x @ one.lora_A.T @ one.lora_B.T)
    assert hydralora.gate_stats(one) == ([1.0], 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gate", hydralora.GATES)
def test_zero_or_disabled_is_the_base_exactly(gate: str, dtype: torch.dtype) -> None:
    one = layer(gate, dtype=dtype)
    x = torch.randn(SHAPES[2], generator=torch.Generator().manual_seed(4)).to(dtype)
    assert not torch.equal(one(x), one.base(x))
    hydralora.set_enabled(one, False)
    assert torch.equal(one(x), one.base(x))
    hydralora.set_enabled(one, True)
    nn.init.zeros_(one.lora_B)
    assert torch.equal(one(x), one.base(x))


@pytest.mark.parametrize("gate", ["token", "static", "sample"])
def test_branches_come_apart_from_the_zero_start(gate: str) -> None:
    one = layer(gate)
    nn.init.zeros_(one.lora_B)
    hydralora.set_condition(one, *conditions())
    one(torch.randn(SHAPES[1])).square().sum().backward()
    assert one.lora_B.grad is not None
    per_branch = one.lora_B.grad.unflatten(1, (BRANCHES, RANK))
    assert (per_branch - per_branch.mean(1, keepdim=True)).abs().max() > 0.01 * per_branch.abs().max()


def test_wrong_settings_and_conditions_are_refused() -> None:
    for wrong in ({"rank": 0}, {"branches": 0}, {"gate": "expert"}, {"gate": "sample"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            HydraLinear(nn.Linear(4, 4), **({"rank": 2, "alpha": 1.0, "branches": 2} | wrong))  # type: ignore[arg-type]
    one = layer("label")
    with pytest.raises(ValueError, match=r"\[B, 4\]"):
        hydralora.set_condition(one, torch.ones(BATCH, 3))
    hydralora.set_condition(one, torch.ones(3, BRANCHES))
    with pytest.raises(ValueError, match="batch of 2"):
        one(torch.randn(BATCH, 5, IN))
    hydralora.set_condition(one, torch.eye(BRANCHES)[:1])  # one for the whole batch
    only_first = one.base(x := torch.randn(BATCH, 5, IN)) + one.scale * x @ one.lora_A.T @ one.lora_B[:, :RANK].T
    torch.testing.assert_close(one(x), only_first)


# ----------------------------------------------------------------------------------------------- statistics


def test_gate_statistics() -> None:
    model = nn.ModuleList([layer("token"), layer("token")])
    with torch.no_grad():
        model[1].router.zero_()  # uniform: mean 1/N, entropy ln N
    x = torch.randn(SHAPES[1], generator=torch.Generator().manual_seed(4))
    model[0](x)
    with pytest.raises(ValueError, match="collect_gates"):
        hydralora.gate_stats(model)
    hydralora.collect_gates(model, True)
    for one in model:
        one(torch.randn(SHAPES[1]))  # overwritten by the next
        checkpoint(one, x, use_reentrant=False).sum().backward()
    w = torch.softmax(x @ model[0].router.T, -1).reshape(-1, BRANCHES).detach()
    mean, entropy = hydralora.gate_stats(model, reset=False)
    assert mean == pytest.approx(((w.mean(0) + 0.25) / 2).tolist(), abs=1e-6)
    assert entropy == pytest.approx((float(-(w * w.log()).sum(-1).mean()) + math.log(4)) / 2, abs=1e-6)
    assert hydralora.gate_stats(model) == (mean, entropy)
    with pytest.raises(ValueError, match="collect_gates"):
        hydralora.gate_stats(model)


def test_a_label_gate_of_one_label_has_no_entropy() -> None:
    one = layer("label")
    hydralora.set_condition(one, torch.eye(BRANCHES)[[0, 2]])
    hydralora.collect_gates(one, True)
    one(torch.randn(BATCH, 5, IN))
    assert hydralora.gate_stats(one) == ([0.5, 0.0, 0.5, 0.0], 0.0)


def test_label_loss_is_the_cross_entropy_of_the_video_tokens_mean_gate() -> None:
    text = nn.ModuleDict({"ff_context": nn.ModuleList([layer("token")])})
    model = nn.ModuleDict({"video": layer("token"), "context": text})
    x = torch.randn(1, 5, IN, generator=torch.Generator().manual_seed(4))
    with pytest.raises(ValueError, match="keep_live_gates"):
        hydralora.label_loss(model, [1, 0, 0, 0])
    hydralora.keep_live_gates(model, 3)
    checkpoint(model["video"], x, use_reentrant=False)
    model["context"]["ff_context"][0](x)
    shares = [0.5, 0.25, 0.25, 0.0]
    loss = hydralora.label_loss(model, shares)
    router = model["video"].router.detach().clone().requires_grad_()
    gate = torch.softmax(x[0, :3] @ router.T, -1).mean(0)  # the first three tokens; text-only layers do not count
    by_hand = -(torch.tensor(shares) * gate.log()).sum()
    assert float(loss.detach()) == pytest.approx(float(by_hand.detach()), abs=1e-6)
    loss.backward()
    by_hand.backward()
    assert model["video"].router.grad is not None and router.grad is not None
    torch.testing.assert_close(model["video"].router.grad, router.grad)
    assert model["context"]["ff_context"][0].router.grad is None
    hydralora.keep_live_gates(model, 0)
    model["video"](x)
    assert model["video"].live_gate is None


# ------------------------------------------------------------------------------------------------ the model


def tiny() -> Any:
    torch.manual_seed(0)
    return HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=2, num_single_layers=2,
        num_refiner_layers=1, patch_size=2, patch_size_t=1, guidance_embeds=True, text_embed_dim=16,
        pooled_projection_dim=8, rope_axes_dim=(2, 4, 4),
    ).eval()  # fmt: skip


def velocity(model: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return model(
        hidden_states=torch.randn(BATCH, 4, 2, 4, 4, generator=generator), timestep=torch.tensor([300.0, 900.0]),
        encoder_hidden_states=torch.randn(BATCH, 6, 16, generator=generator),
        encoder_attention_mask=torch.ones(BATCH, 6), pooled_projections=torch.randn(BATCH, 8, generator=generator),
        guidance=torch.full((BATCH,), 1000.0), return_dict=False,
    )[0]  # fmt: skip


def shake(model: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in hydralora.adapter_parameters(model):
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("gate", hydralora.GATES)
def test_injected_model_begins_as_the_base_and_trains_the_adapter_only(gate: str) -> None:
    model, base = tiny(), tiny()
    hydralora.inject(model, **(SETTINGS | {"gate": gate, "placement": "all"}), seed=0)
    expected = velocity(base)
    assert torch.equal(velocity(model), expected)
    trained = hydralora.adapter_parameters(model)
    assert {id(p) for p in trained} == {id(p) for p in model.parameters() if p.requires_grad}
    assert list(hydralora.adapter_state(model)) == sorted(hydralora.adapter_state(model))
    shake(model, 0)
    hydralora.set_condition(model, conditions()[0], torch.randn(BATCH, 8))
    model.train()
    model.enable_gradient_checkpointing()
    out = velocity(model)
    assert (out - expected).abs().max() > 0.01
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    hydralora.set_enabled(model.eval(), False)
    assert torch.equal(velocity(model), expected)


def test_the_start_depends_on_seed_and_name_only() -> None:
    states = []
    for seed, placement, dtype in [(0, "all", torch.float32), (0, "non_attention", torch.bfloat16), (1, "all", None)]:
        model = tiny().to(dtype) if dtype else tiny()
        hydralora.inject(model, **(SETTINGS | {"placement": placement}), seed=seed)
        states.append(hydralora.adapter_state(model))
    whole, part, other = states
    assert len(part) == 12 * 3 and all(torch.equal(part[name], whole[name]) for name in part)
    drawn = [name for name in whole if not name.endswith("lora_B")]
    assert drawn and not any(torch.equal(whole[name], other[name]) for name in drawn)
    bound = 1 / math.sqrt(20)  # kaiming-uniform(a = sqrt 5) is uniform within 1/sqrt(d_in)
    router = whole["transformer_blocks.0.ff.net.0.proj.router"]
    assert 0.8 * bound < router.abs().max() <= bound
    with pytest.raises(ValueError, match="already"):
        hydralora.inject(tiny_with_adapter(), **SETTINGS, seed=0)


def test_a_model_gives_its_adapter_back_and_takes_another() -> None:
    model, clean = tiny(), velocity(tiny())
    hydralora.inject(model, **SETTINGS, seed=0)
    shake(model, 0)
    assert not torch.equal(velocity(model), clean)
    hydralora.remove(model)
    assert not hydralora.layers(model) and torch.equal(velocity(model), clean)
    hydralora.inject(model, **(SETTINGS | {"placement": "attention"}), seed=0)
    assert torch.equal(velocity(model), clean)


def test_a_mix_stands_in_for_every_gate() -> None:
    model = tiny_with_adapter()
    names = list(hydralora.layers(model))
    gated = velocity(model)
    hydralora.set_mix(model, {name: [0.0, 1.0, 0.0, 0.0] for name in names})
    second = velocity(model)
    for one in hydralora.layers(model).values():
        one.lora_B.data.unflatten(1, (4, 2))[:, [0, 2, 3]] = 7.0  # the others do not count
    assert torch.equal(velocity(model), second) and not torch.equal(second, gated)
    hydralora.set_mix(model, None)
    assert not torch.equal(velocity(model), second)
    with pytest.raises(ValueError, match="3 weights for 4 branches"):
        hydralora.set_mix(model, {name: [1.0, 0.0, 0.0] for name in names})
    with pytest.raises(ValueError, match="mixes for 1 layers"):
        hydralora.set_mix(model, {names[0]: [1.0, 0.0, 0.0, 0.0]})


def tiny_with_adapter(**changes: Any) -> Any:
    model = tiny()
    hydralora.inject(model, **(SETTINGS | changes), seed=0)
    shake(model, 1)
    return model


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("gate", hydralora.GATES)
def test_round_trip(gate: str, tmp_path: Path) -> None:
    model, metadata = tiny_with_adapter(gate=gate), {"run": "abc", "step": 3, "seen": [1, 2]}
    hydralora.save_adapter(tmp_path / "a.safetensors", model, metadata)
    assert hydralora.read_config(tmp_path / "a.safetensors") == SETTINGS | {"gate": gate, "metadata": metadata}
    loaded = tiny()
    hydralora.load_adapter(str(tmp_path / "a.safetensors"), loaded)
    assert torch.equal(velocity(loaded), velocity(model)) and not torch.equal(velocity(loaded), velocity(tiny()))
    hydralora.save_adapter(tmp_path / "b.safetensors", loaded, dict(reversed(metadata.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]  # no temporary left
    hydralora.load_adapter(tmp_path / "a.safetensors", loaded)  # again, into the adapter that is there


def test_a_gathered_state_is_what_is_saved(tmp_path: Path) -> None:
    model = tiny_with_adapter()
    state = {name: value + 1 for name, value in hydralora.adapter_state(model).items()}
    hydralora.save_adapter(tmp_path / "a.safetensors", model, {}, state)
    hydralora.load_adapter(tmp_path / "a.safetensors", loaded := tiny())
    assert all(torch.equal(value, state[name]) for name, value in hydralora.adapter_state(loaded).items())


def test_a_state_that_does_not_fit_names_its_keys() -> None:
    model = tiny_with_adapter()
    before = hydralora.adapter_state(model)
    state = {name: value + 1 for name, value in before.items()}
    first, second, *_ = state
    value = state.pop(first)
    state[second] = state[second][:1]
    with pytest.raises(ValueError, match=f"missing: {first}; unexpected: extra; other shape: {second}"):
        hydralora.load_adapter_state(model, state | {"extra": value})
    assert all(torch.equal(value, before[name]) for name, value in hydralora.adapter_state(model).items())


def test_files_that_are_no_fitting_adapter_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="no adapter"):
        hydralora.save_adapter(file, tiny(), {})
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="not an adapter file"):
        hydralora.load_adapter(file, tiny())
    hydralora.save_adapter(file, tiny_with_adapter(), {})
    with pytest.raises(ValueError, match="the model has one of"):  # same tensors, other meaning
        hydralora.load_adapter(file, tiny_with_adapter(alpha=8.0))


def test_the_generator_takes_adapters_in_turn(tmp_path: Path) -> None:
    from ptta_core import models
    from ptta_core.config import ModelRef
    from ptta_core.models.hunyuan import Generator, load_transformer

    path = models.resolve(ModelRef(id="tiny:hunyuan", revision="0"), tmp_path)[0]
    for name, changes in {"one": {}, "two": {"placement": "attention", "gate": "static"}}.items():
        model = load_transformer(path, dtype="float32")
        hydralora.inject(model, **(SETTINGS | changes), seed=0)
        shake(model, 1)
        hydralora.save_adapter(tmp_path / name, model, {})
    generator = Generator(path, dtype="float32")
    videos = {}
    for name in ("", "one", "two", "", "one"):
        generator.use(str(tmp_path / name) if name else "")
        video = generator("a girl runs", 7, 2, 6.0, 7.0, 5, 32, 48)
        assert (videos.setdefault(name, video) == video).all()
    assert len({video.tobytes() for video in videos.values()}) == 3
