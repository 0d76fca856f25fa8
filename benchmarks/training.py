"""Training: a whole step against peft's LoRA, two workers against one, reading samples, and the time until it goes on.

    python benchmarks/training.py [--part step workers loader resume] [--rounds N] [--quick] [--json] [--markdown]
    python benchmarks/training.py --gpu [--storage bf16 fp8] [--rank 16 128] [--adapter lora hydra] [--size FxHxW ...]

step: forward, backward, clipping and AdamW on one clip of 1,280 video tokens through a scaled-down transformer of the
real class (width 384, 2 dual and 4 single blocks, bfloat16), activations checkpointed, with four-branch HydraLoRA and
with peft's LoRA of the same rank. workers: the same batch by one and by two Ray workers of one thread each. loader: the
samples as a run pins them, the same from Lance, and as .pt files, in random order, page cache warm. resume: a fresh
process until its first new step is written, from nothing and from a checkpoint.

--gpu: the whole transformer with random weights; see full_transformer.py. `--quick` takes a tiny one on the CPU, which
tries the code without a GPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from adapter import bootstrap
from measure import ROOT, Result, arguments, interleave, say, scratch, show

from ptta_core.config import RaySite, TrainConfig, TrainWorkers
from ptta_core.models.hunyuan import quietly

PARTS = ("step", "workers", "loader", "resume")
SCALED = {"num_attention_heads": 3, "attention_head_dim": 128, "num_layers": 2, "num_single_layers": 4,
          "num_refiner_layers": 1, "text_embed_dim": 512, "pooled_projection_dim": 128}  # fmt: skip
RANK, BATCH = 16, 4
LATENT = (16, 5, 32, 32)  # 17 frames of 256 x 256 px


def transformer(quick: bool) -> Any:
    """The scaled-down transformer, or a tiny one, with random weights in bfloat16."""
    import full_transformer
    from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel

    torch.manual_seed(0)
    model = HunyuanVideoTransformer3DModel(guidance_embeds=True, **(full_transformer.SMALL if quick else SCALED))
    with quietly():
        return model.to(torch.bfloat16).requires_grad_(False)


def clips(model: Any, count: int, latent: tuple[int, ...]) -> dict[str, dict[str, torch.Tensor]]:
    """Random samples by id, of one size."""
    generator, found = torch.Generator().manual_seed(0), {}
    for number in range(count):
        text = torch.randn(64, model.config.text_embed_dim, generator=generator)
        pooled = torch.randn(model.config.pooled_projection_dim, generator=generator)
        latents = torch.randn(latent, generator=generator)
        found[f"sample{number:03d}"] = {"latents": latents, "text": text, "pooled": pooled}
    return {name: {key: value.bfloat16() for key, value in one.items()} for name, one in found.items()}


# ------------------------------------------------------------------------------------------------ a step


def part_step(result: Result, asked: argparse.Namespace, folder: Path) -> None:
    """HydraLoRA's step over peft's, on copies of one base, in turn."""
    import copy

    import full_transformer

    base = transformer(asked.quick)
    latent = (16, 2, 4, 4) if asked.quick else LATENT
    clip = next(iter(clips(base, 1, latent).values()))
    calls: dict[str, Callable[[], float]] = {}
    for name in ("lora", "hydra"):
        model = copy.deepcopy(base).train()
        model.enable_gradient_checkpointing()
        parameters = full_transformer.put(model, name, 4 if asked.quick else RANK)
        calls[name] = timed_step(model, parameters, clip, name == "hydra")
    for call in calls.values():
        call()
    seconds = interleave(asked.rounds, **calls)
    result.timed("step", "peft LoRA", seconds["lora"])
    result.timed("step", "HydraLoRA, 4 branches", seconds["hydra"])
    middle, low, high = bootstrap(list(zip(seconds["hydra"], seconds["lora"])), ratio_of_medians)
    result.figure("step", "hydra_step_over_peft_step", middle)
    result.note("step", "95 % interval", f"{low:.3f} to {high:.3f}")
    result.figures["hydra_step_over_peft_step_interval"] = [low, high]


def timed_step(model: Any, parameters: list[Any], clip: dict[str, torch.Tensor], hydra: bool) -> Callable[[], float]:
    """What takes one optimizer step and says its seconds; with the gate statistics that our loop takes."""
    from ptta_core.models import hydralora
    from ptta_core.training.objective import velocity_loss

    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    noise = torch.randn(clip["latents"].shape, generator=torch.Generator().manual_seed(1))

    def step() -> float:
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        if hydra:
            hydralora.collect_gates(model, True)
        velocity_loss(model, clip, noise, 0.5, 1.0, torch.bfloat16, "cpu").backward()
        if hydra:
            hydralora.layer_stats(model)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return time.perf_counter() - begun

    return step


def ratio_of_medians(rounds: list[tuple[float, float]]) -> float:
    """Of first over second."""
    return statistics.median(one for one, _ in rounds) / statistics.median(other for _, other in rounds)


# ------------------------------------------------------------------------------------------------ runs


def settings(asked: argparse.Namespace, folder: Path, name: str, steps: int) -> Any:
    """A training run on the scaled-down transformer, its samples pinned; `steps` steps of BATCH clips."""
    from ptta_core.models import hunyuan
    from ptta_core.training import dataset
    from ptta_core.training.passes import Settings

    base, run = folder / "base", folder / name
    model = transformer(asked.quick)
    if not base.exists():
        model.save_pretrained(base / "transformer")
    samples = clips(model, BATCH, (16, 2, 4, 4) if asked.quick else (16, 3, 16, 16))
    dataset.pin(run, ((key, "bucket", "", hunyuan.pack(one)) for key, one in samples.items()))
    rank = 4 if asked.quick else RANK
    config = TrainConfig(rank=rank, batch=BATCH, epochs=steps, checkpoint_every=max(1, steps // 2))
    return Settings(str(run), str(base), None, "bfloat16", "cpu", 1, config.model_dump(mode="json"), {})


def lines(run_folder: str | Path) -> list[dict[str, Any]]:
    """What a run has measured so far."""
    from ptta_core.training import loop

    path = Path(run_folder) / loop.METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def part_workers(result: Result, asked: argparse.Namespace, folder: Path) -> None:
    """Seconds a step with one and with two workers, the first steps left out."""
    from ptta_core import fleet
    from ptta_core.training import launch

    steps, skipped = (4, 1) if asked.quick else (12, 3)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for number in range(1 if asked.quick else max(1, asked.rounds // 5)):
        for count in seconds:
            run = settings(asked, folder, f"workers{count}-{number}", steps)
            launch.fit(run, TrainWorkers(count=count, cpus=1, threads=1), RaySite())
            seconds[count] += [line["step_s"] for line in lines(run.run_folder)[skipped:]]
            say(f"{count} worker(s): {statistics.median(seconds[count]):.2f} s a step")
    fleet.stop()
    one = result.timed("workers", f"one worker, a step of {BATCH} clips", seconds[1])
    two = result.timed("workers", "two workers", seconds[2])
    result.figure("workers", "two_training_workers_speedup", one / two)


def part_resume(result: Result, asked: argparse.Namespace, folder: Path) -> None:
    """Seconds from the start of a process until a step's line is on the disk."""
    fresh: list[float] = []
    resumed: list[float] = []
    for number in range(1 if asked.quick else max(1, asked.rounds // 5)):
        run = settings(asked, folder, f"resume{number}", 4)
        fresh.append(until_a_step(run, 2))  # the checkpoint is written with step 2; the process is then stopped
        resumed.append(until_a_step(run, 3))
        say(f"fresh {fresh[-1]:.1f} s, resumed {resumed[-1]:.1f} s")
    result.timed("resume", "a new run until its second step", fresh)
    result.timed("resume", "a resumed run until its first new step", resumed)
    result.figure("resume", "resume_s", statistics.median(resumed), unit="s")


def until_a_step(run: Any, step: int) -> float:
    """Start the run in a process of its own, and stop it (SIGKILL) once it has written `step`."""
    import dataclasses

    code = ("import json, sys; from ptta_core.training import loop, passes; "
            "loop.train_loop(passes.Settings(**json.loads(sys.argv[1])))")  # fmt: skip
    begun = time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", code, json.dumps(dataclasses.asdict(run))], cwd=ROOT)
    try:
        while child.poll() is None:
            found = lines(run.run_folder)
            if found and found[-1]["step"] >= step:
                return time.monotonic() - begun
            time.sleep(0.02)
        found = lines(run.run_folder)
        if child.returncode or not found or found[-1]["step"] < step:
            raise RuntimeError(f"the run ended with status {child.returncode} before step {step}")
        return time.monotonic() - begun
    finally:
        child.kill()
        child.wait()


def part_loader(result: Result, asked: argparse.Namespace, folder: Path) -> None:
    """See loader.py."""
    import loader

    sizes = argparse.Namespace(text_embed_dim=4096, pooled_projection_dim=768)  # HunyuanVideo's
    wide = argparse.Namespace(config=sizes)
    loader.compare(result, clips(wide, 8 if asked.quick else 64, (16, 9, 64, 64)), asked.rounds, folder)


# ------------------------------------------------------------------------------------------------ command line


def on_gpu(asked: argparse.Namespace) -> None:
    """The whole transformer; every line as it comes, the table of all at the end."""
    import full_transformer

    asked.device = "cpu" if asked.quick else "cuda"
    asked.size = asked.size or (["5x32x32"] if asked.quick else full_transformer.SIZES)
    asked.largest = ["9x32x48"] if asked.quick else [] if asked.no_largest else full_transformer.LARGEST
    asked.rank = [4] if asked.quick else asked.rank
    found: list[dict[str, Any]] = []

    def tell(line: dict[str, Any]) -> None:
        found.append(line)
        print(json.dumps(line) if asked.json else full_transformer.as_text(line), flush=True)

    full_transformer.run(asked, tell)
    if asked.json:
        print(json.dumps({"cases": found}))


def main() -> None:
    """Run the parts asked for and print the table."""
    parser = arguments(__doc__, rounds=10)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--gpu", action="store_true", help="the whole transformer on a GPU, and nothing else")
    parser.add_argument("--storage", nargs="+", choices=["bf16", "fp8"], default=["bf16", "fp8"])
    parser.add_argument("--rank", nargs="+", type=int, default=[16, 128])
    parser.add_argument("--adapter", nargs="+", choices=["lora", "hydra"], default=["lora", "hydra"])
    parser.add_argument("--size", nargs="+", metavar="FxHxW", help="frames, height and width in px")
    parser.add_argument("--no-largest", action="store_true", help="do not look for the largest size that fits")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each case on a GPU")
    asked = parser.parse_args()
    if asked.gpu:
        on_gpu(asked)
        return
    asked.rounds = min(asked.rounds, 3) if asked.quick else asked.rounds
    result = Result()
    with scratch() as folder:
        for part in asked.part:
            globals()[f"part_{part}"](result, asked, folder)
    show(result, asked)


if __name__ == "__main__":
    main()
