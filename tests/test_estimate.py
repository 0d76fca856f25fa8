"""The estimate against real counts, the allocator's own peak, a whole model counted at once, and known figures."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel

from ptta_core.config import BaseConfig, EncodeConfig, ModelRef, Recipe, Site, TrainConfig, TrainWorkers
from ptta_core.models import fp8, hunyuan, hydralora, tiny
from ptta_core.ops import training
from ptta_core.training import adamw8bit, costs, estimate, memory
from ptta_core.view import View

SMALL: dict[str, Any] = dict(
    in_channels=16, out_channels=16, num_attention_heads=4, attention_head_dim=64, num_layers=3, num_single_layers=4,
    num_refiner_layers=1, patch_size=2, patch_size_t=1, guidance_embeds=True, text_embed_dim=64,
    pooled_projection_dim=32, rope_axes_dim=(16, 24, 24),
)  # fmt: skip
BUCKET = estimate.Bucket("17x256x384", estimate.tokens_of(17, 256, 384))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.hunyuan(tmp_path_factory.mktemp("models") / "base", 0))


@pytest.mark.parametrize(
    ("storage", "train"),
    [
        ("dtype", {"gate": "token", "ema_decay": 0.0}),
        ("fp8", {"gate": "static", "ema_decay": 0.9}),
        ("fp8", {"rank": 32, "optimizer": "adamw8bit"}),
    ],
)
def test_the_counts_are_those_of_the_real_model_and_optimizer(base: str, storage: Any, train: dict[str, Any]) -> None:
    config = TrainConfig.model_validate({"rank": 3} | train)
    kind = BaseConfig(dtype="float32", storage=storage)
    found = estimate.estimate(base, None, kind, config, TrainWorkers(), [BUCKET])
    model = hunyuan.load_transformer(base, dtype="float32", storage=storage)
    weights = sum(one.nbytes for one in model.parameters())
    hydralora.inject(model, placement="non_attention", rank=config.rank, alpha=1.0, branches=4, gate=config.gate,
                     seed=0)  # fmt: skip
    parameters = hydralora.adapter_parameters(model)
    make = adamw8bit.AdamW8bit if config.optimizer == "adamw8bit" else torch.optim.AdamW
    optimizer = make(parameters, lr=1e-3)
    for one in parameters:
        one.grad = torch.zeros_like(one)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    held = [*parameters, *(one.grad for one in parameters), *moments, *(parameters if config.ema_decay else [])]
    assert found and found.base_bytes == weights
    assert found.total == sum(one.numel() for one in parameters)
    assert found.adapter_bytes == sum(one.nbytes for one in held if one is not None)
    assert sorted(found.trainable) == [
        "single_transformer_blocks proj_mlp", "single_transformer_blocks proj_out", "transformer_blocks ff.net.0.proj",
        "transformer_blocks ff.net.2", "transformer_blocks ff_context.net.0.proj",
        "transformer_blocks ff_context.net.2",
    ]  # fmt: skip


def test_tokens_are_those_that_the_blocks_see(base: str) -> None:
    model, seen = hunyuan.load_transformer(base, dtype="float32"), []
    model.single_transformer_blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    latents = torch.zeros(1, 16, 3, 4, 6)
    with torch.no_grad():
        model(**hunyuan.model_inputs(latents, torch.ones(1), [torch.zeros(5, tiny.TEXT_WIDTH)], torch.zeros(1, 16), 1.0,
                                     torch.float32))  # fmt: skip
    planned = estimate.planned(EncodeConfig(area=32 * 48, frames=9))
    assert seen == [planned.tokens] == [estimate.tokens_of(9, 32, 48)]
    buckets = estimate.real({"9x32x48": 5, "5x32x32": 2}, 2)
    assert [(one.tokens, one.steps) for one in buckets] == [(8, 1), (18, 3)]


# ------------------------------------------------------------------------------------------------- activations


def allocated(base: BaseConfig, train: TrainConfig) -> int:
    """The most bytes that torch's allocator handed out at one time, as its profiler saw it, beside what was there."""
    model: Any = HunyuanVideoTransformer3DModel(**SMALL).to(hunyuan.torch_dtype(base.dtype)).requires_grad_(False)
    model = fp8.store(model) if base.storage == "fp8" else model
    hydralora.inject(model, placement=train.placement, rank=train.rank, alpha=1.0, branches=train.branches,
                     gate=train.gate, seed=0)  # fmt: skip
    if train.checkpointing:
        memory.keep_inputs_only(model)
    for one in hydralora.adapter_parameters(model):
        one.grad = torch.zeros_like(one)
    inputs = hunyuan.model_inputs(torch.randn(1, 16, 5, 32, 48), torch.ones(1), [torch.randn(40, 64)],
                                  torch.randn(1, 32), 1.0, hunyuan.torch_dtype(base.dtype))  # fmt: skip
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        velocity = model(**inputs)[0].float()
        loss = torch.nn.functional.mse_loss(velocity, torch.empty_like(velocity))
        del velocity
        loss.backward()
    events: Any = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    now = most = 0
    for _, size in sorted((one.start_ns(), one.nbytes()) for one in events if one.name() == "[memory]"):
        now += size
        most = max(most, now)
    return most


@pytest.mark.parametrize(
    ("dtype", "storage", "checkpointing"),
    [("bfloat16", "fp8", True), ("float32", "dtype", False)],
)
def test_activations_are_what_the_allocator_sees(dtype: Any, storage: Any, checkpointing: bool) -> None:
    base, train = BaseConfig(dtype=dtype, storage=storage), TrainConfig(rank=8, checkpointing=checkpointing)
    small = costs.Small(HunyuanVideoTransformer3DModel(**SMALL).config, base, train)
    counted = costs.Costs(small, base, train, False, BUCKET.tokens, 40).peak_bytes(BUCKET.tokens)
    # autograd sums two gradients in place where it may, which is not counted: too much rather than too little
    assert 0.99 < counted / allocated(base, train) < 1.06


def test_small_models_and_two_sizes_stand_for_the_whole_one() -> None:
    """Three more buckets than were counted, all blocks at once; offloaded inputs take no memory here."""
    base, train = BaseConfig(), TrainConfig(rank=8)
    config = dict(HunyuanVideoTransformer3DModel(**SMALL).config)
    found = costs.Costs(costs.Small(config, base, train), base, train, False, 480, 40)
    for tokens in (480, 400, 240):
        whole = costs.count(costs.build(config, base, train), base, tokens, 40, False)
        assert found.peak_bytes(tokens) == pytest.approx(max(whole.peak_all, whole.peak_dual), rel=0.01)
        attention = 4 * (tokens + 40) ** 2 * 256 * 7 * 4.5
        assert found.flops(tokens) - attention == pytest.approx(whole.flops, rel=1e-6)
    offloaded = costs.Costs(costs.Small(config, base, train, True), base, train, True, 480, 40)
    inputs = 7 * (480 + 40) * 256 * 2
    assert found.peak_bytes(480) - offloaded.peak_bytes(480) == pytest.approx(inputs, rel=0.2)
    assert offloaded.kept_bytes(480) < found.kept_bytes(480) - inputs


# ---------------------------------------------------------------------------------------------- known figures


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The published model's configuration, without weights."""
    folder = tmp_path_factory.mktemp("published")
    with torch.device("meta"):
        config = dict(HunyuanVideoTransformer3DModel(num_layers=1, num_single_layers=1).config)
    (folder / "transformer").mkdir()
    config |= {"num_layers": 20, "num_single_layers": 40}  # the class's defaults
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_the_published_model(published: str, tmp_path: Path) -> None:
    one = estimate.Bucket("33x512x512", estimate.tokens_of(33, 512, 512))
    found = estimate.estimate(published, None, BaseConfig(), TrainConfig(), TrainWorkers(), [one])
    assert found and found.total == 105_676_800 and found.base_bytes == pytest.approx(25.64e9, rel=1e-3)
    assert found.adapter_bytes == 16 * 105_676_800 and one.tokens == 9 * 32 * 32
    assert found.memory_note(one.name).startswith("33.7 GB a worker: base 25.6, adapter with optimizer 1.7")
    assert found.flops[one.name] / 400e12 == pytest.approx(1.7, abs=0.1)  # seconds at 400 TFLOP/s
    assert estimate.estimate(str(tmp_path), None, BaseConfig(), TrainConfig(), TrainWorkers(), [one]) is None
    spread = estimate.estimate(published, None, BaseConfig(), TrainConfig(), TrainWorkers(count=8, shard=True), [one])
    assert spread and spread.base_bytes == found.base_bytes // 8 and 1.5e9 < spread.gathered_bytes < 3e9


@pytest.mark.parametrize(
    ("bucket", "storage", "rank", "placement", "told_gb"),
    [  # finetrainers' and diffusion-pipe's own tables, adapters in the attention layers or all
        ("49x512x768", "dtype", 128, "attention", 42.4 * 1.074),
        ("49x512x768", "fp8", 128, "attention", 32.0),
        ("33x512x512", "fp8", 32, "all", 23.0),
    ],
)
def test_what_others_publish_is_near(published: str, bucket: str, storage: Any, rank: int, placement: Any,
                                     told_gb: float) -> None:  # fmt: skip
    one = estimate.real({bucket: 1}, 1)[0]
    train = TrainConfig(rank=rank, branches=1, placement=placement)
    found = estimate.estimate(published, None, BaseConfig(storage=storage), train, TrainWorkers(), [one])
    assert found and (found.bytes_of(bucket) + estimate.OVERHEAD_BYTES) / 1e9 == pytest.approx(told_gb, rel=0.12)


# --------------------------------------------------------------------------------------------------- ptta check


@pytest.fixture
def view(published: str, tmp_path: Path) -> Any:
    (Path(published) / "transformer" / "w.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")

    def make(**workers: Any) -> View:
        recipe = Recipe(name="mine", base=BaseConfig(model=ModelRef(id=published)))
        site = Site(workspace=str(tmp_path / "w"), train=TrainWorkers.model_validate(workers))
        return View(recipe, site, lambda name: pytest.fail("no stage is asked"))

    return make


def test_check_tells_parameters_memory_steps_and_time(view: Any) -> None:
    first, one, time = training.findings(view(memory_gb=80, tflops=400))
    assert first.ok and first.note.startswith("105.7M trainable parameters (")
    assert one.ok and one.what == "training 33 frames of 262144 px" and "the device has 80" in one.note
    assert "once encode has run; about 6.86 s a step (686 TFLOP a sample" in time.note  # batches of 4
    first, one, time = training.findings(view(memory_gb=24))
    assert not one.ok and "Instead: base.storage = fp8 24.6 GB" in one.note and "site.train.offload" in one.note
    assert "these and train.optimizer = adamw8bit" in one.note and "site.train.tflops does not say" in time.note
    assert "memory_gb does not say" in training.findings(view())[1].note or torch.cuda.is_available()


def test_check_tells_what_earlier_steps_took_and_what_does_not_go_together(view: Any) -> None:
    made = view(tflops=400)
    folder = made.home / "training" / "one"
    folder.mkdir(parents=True)
    (folder / "pin.json").write_text(json.dumps({"recipe": "mine", "at": "2026"}))
    (folder / "metrics.jsonl").write_text('{"step": 1, "step_s": 3.0}\n{"step": 2, "step_s": 5.0}\n{"step": 3')
    assert "about 4 s a step (as measured in this workspace)" in training.findings(made)[-1].note
    wrong = view(offload=True)
    wrong.recipe = wrong.recipe.model_copy(update={"train": TrainConfig(checkpointing=False)})
    assert [one.ok for one in training.findings(wrong)] == [False]


def test_check_counts_the_real_buckets(workspace: Path, videos: Path, published: str,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    from demo import open_demo

    made = open_demo(workspace, videos)
    rows = made.rows("encode", ["bucket"]).to_pylist()
    counts, text = training.latents(made)
    assert sum(counts.values()) == len(rows) and 0 < text <= hunyuan.MAX_TEXT_TOKENS
    found = training.findings(made)
    steps = made.rows("train", ["steps"])["steps"].to_pylist()[0]
    assert f"{steps} steps (2 epochs of batches of 4)" in found[-1].note
    assert {one.what for one in found[1:-1]} == {f"training {name}" for name in counts}
