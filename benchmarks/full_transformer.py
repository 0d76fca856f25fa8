"""Training steps of HunyuanVideo's whole transformer (12.8 billion random weights) on one GPU: seconds and memory.

Run by `training.py --gpu`; see there. One process holds one base and puts one adapter after another on it, so that the
weights are drawn once. Every case is a line of JSON as soon as it is measured: what was done before a limit is kept.
"""

import argparse
import gc
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ptta_core.models import hydralora, placement
from ptta_core.models.hunyuan import quietly
from ptta_core.training.objective import velocity_loss

SIZES = ["33x512x512", "49x512x768"]  # frames x height x width
LARGEST = ["129x720x1280", "129x544x960", "97x544x960", "65x544x960"]  # tried in this order until one fits
TEXT_TOKENS, SCALE = 256, 0.02
SMALL: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "num_single_layers": 2,
    "num_refiner_layers": 1, "text_embed_dim": 32, "pooled_projection_dim": 16, "rope_axes_dim": (4, 6, 6),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What is measured."""

    storage: str  # bf16 | fp8
    adapter: str  # lora (peft's) | hydra (four branches, token gate)
    rank: int
    size: str  # frames x height x width


def build(device: str, storage: str, small: bool) -> Any:
    """The transformer with random weights, made on the device, as it is trained: frozen, activations checkpointed."""
    from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel

    with torch.device("meta"):
        model = HunyuanVideoTransformer3DModel(guidance_embeds=True, **(SMALL if small else {}))
    with quietly():
        model = model.to(torch.bfloat16).to_empty(device=device).requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0.0, SCALE, generator=generator)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    if storage == "fp8":
        model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    model.train()
    model.enable_gradient_checkpointing()
    return model


def put(model: Any, adapter: str, rank: int) -> list[nn.Parameter]:
    """An adapter on the paper's Linears; its parameters, float32 and away from zero."""
    if adapter == "hydra":
        hydralora.inject(model, placement="non_attention", rank=rank, alpha=rank, branches=4, gate="token", seed=0)
        parameters = hydralora.adapter_parameters(model)
    else:
        names = placement.target_names(model, "non_attention")
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=names), model)
        parameters = [one for name, one in model.named_parameters() if "lora_" in name]
    for one in parameters:
        one.data = torch.randn(one.shape, device=one.device) * SCALE
        one.requires_grad_(True)
    return parameters


def take_off(model: Any) -> None:
    """The base alone again."""
    from diffusers.utils.peft_utils import recurse_remove_peft_layers

    hydralora.remove(model)
    recurse_remove_peft_layers(model)
    model.requires_grad_(False)
    gc.collect()  # graphs of a step that ran out of memory may hang together in circles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def sample(size: str, model: Any) -> dict[str, torch.Tensor]:
    """Random latents [16,T,h,w], text and pooled of one clip, on the CPU as they come from the disk."""
    frames, height, width = (int(part) for part in size.split("x"))
    shape = model.config.in_channels, (frames - 1) // 4 + 1, height // 8, width // 8
    generator = torch.Generator().manual_seed(0)
    return {"latents": torch.randn(shape, generator=generator).bfloat16(),
            "text": torch.randn(TEXT_TOKENS, model.config.text_embed_dim, generator=generator).bfloat16(),
            "pooled": torch.randn(model.config.pooled_projection_dim, generator=generator).bfloat16()}  # fmt: skip


def stepper(model: Any, parameters: list[nn.Parameter], size: str, device: str) -> Callable[[], None]:
    """One optimizer step on one clip, as the training loop takes it."""
    clip = sample(size, model)
    noise = torch.randn(clip["latents"].shape, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        velocity_loss(model, clip, noise, 0.5, 1.0, torch.bfloat16, device).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def _addmm_flop(out: Any, left: Any, right: Any, **_: Any) -> int:
    """Of the product that is added in place, which torch's counter does not know; arguments are shapes."""
    return 2 * left[0] * left[1] * right[1]


def measure(step: Callable[[], None], device: str, steps: int) -> dict[str, Any]:
    """Median seconds of `steps` steps after one to warm up, peak memory, and what the step computes."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm_flop})
    with counter:
        step()
    wait()
    seconds = []
    for _ in range(steps):
        begun = time.perf_counter()
        step()
        wait()
        seconds.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {"step_s": statistics.median(seconds), "steps_s": seconds, "peak_gib": peak / 2**30,
            "reserved_gib": torch.cuda.max_memory_reserved() / 2**30 if device == "cuda" else 0.0,
            "tflop": counter.get_total_flops() / 1e12}  # fmt: skip


def matrix_rate(device: str, side: int, times: int = 20) -> float:
    """TFLOP/s of bfloat16 products of two square matrices: what this device reaches, not what its sheet says."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    best = 0.0
    for _ in range(3):
        wait()
        begun = time.perf_counter()
        for _ in range(times):
            torch.mm(a, b)
        wait()
        best = max(best, times * 2 * side**3 / (time.perf_counter() - begun) / 1e12)
    return best


def cases(asked: argparse.Namespace) -> Iterator[Case]:
    """In an order that changes the base least often and keeps the expensive sizes for the end."""
    for storage in asked.storage:
        for rank, adapter, size in itertools.product(asked.rank, asked.adapter, asked.size):
            yield Case(storage, adapter, rank, size)


def one_case(model: Any, case: Case, device: str, steps: int) -> dict[str, Any]:
    """A case's line; `failed` says why there is no figure."""
    known = asdict(case)
    try:
        parameters = put(model, case.adapter, case.rank)
        found = measure(stepper(model, parameters, case.size, device), device, steps)
        return known | {"parameters": sum(one.numel() for one in parameters)} | found
    except torch.cuda.OutOfMemoryError as error:
        return known | {"failed": f"out of memory: {str(error).splitlines()[0][:160]}"}
    finally:
        take_off(model)


def run(asked: argparse.Namespace, tell: Callable[[dict[str, Any]], None]) -> None:
    """Measure every case, and for each base the largest size that fits rank 16 HydraLoRA; `tell` gets every line."""
    device, small = asked.device, asked.quick
    rate = matrix_rate(device, 256 if small else 8192)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    tell({"device": name, "matrix_tflops": rate, "torch": torch.__version__})
    for storage in asked.storage:
        begun = time.perf_counter()
        model = build(device, storage, small)
        held = torch.cuda.memory_allocated() / 2**30 if device == "cuda" else 0.0
        tell({"storage": storage, "built_s": time.perf_counter() - begun, "base_gib": held,
              "base_parameters": sum(one.numel() for one in model.parameters())})  # fmt: skip
        for case in cases(argparse.Namespace(**{**vars(asked), "storage": [storage]})):
            tell(_with_share(one_case(model, case, device, asked.steps), rate))
        for size in asked.largest:
            line = one_case(model, Case(storage, "hydra", asked.rank[0], size), device, 1)
            tell(_with_share(line, rate))
            if "failed" not in line:
                break
        del model
        if device == "cuda":
            torch.cuda.empty_cache()


def _with_share(line: dict[str, Any], rate: float) -> dict[str, Any]:
    """With the share of the device's measured matrix rate; what checkpointing computes again counts as computed."""
    return line if "failed" in line else line | {"matrix_share": line["tflop"] / line["step_s"] / rate}


def as_text(line: dict[str, Any]) -> str:
    """A line for people."""
    if "failed" in line:
        return f"{line['storage']} {line['adapter']} r {line['rank']} {line['size']}: {line['failed']}"
    if "step_s" not in line:
        return json.dumps(line)
    return (f"{line['storage']} {line['adapter']} r {line['rank']} {line['size']}: {line['step_s']:.2f} s a step, peak "
            f"{line['peak_gib']:.1f} GiB, {100 * line['matrix_share']:.0f} % of the matrix rate")  # fmt: skip
