"""The small base of the learning benchmark: HunyuanVideo's classes in its layout, its transformer trained whole.

The text encoders are the tiny random ones: a fixed code of the prompt's words. The VAE is fitted, see learning_vae. The
transformer is the real class scaled down and learns the styles in `learning_styles.SEEN` alone, from scratch.
"""

import json
import math
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import NormalDist
from typing import Any

import learning_styles as styles
import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from learning_plan import SHIFT, TIMES, BasePlan
from learning_vae import CHANNELS, linear_vae
from measure import say
from torch import Tensor

from ptta_core import ids
from ptta_core.models import hunyuan, tiny
from ptta_core.training import dataset
from ptta_core.training.objective import shifted

VAE_CLIPS = 240
WARM_UP = 100
AT_ONCE = 32  # clips in one pass of a measure
Tensors = dict[str, Tensor]  # of a sample: latents [C,T,h,w], text [L,D], pooled [P]


# ------------------------------------------------------------------------------------------------ drawn sets


def drawn(name: str, count: int, names: Sequence[str]) -> Iterator[tuple[str, styles.Scene, styles.Style]]:
    """`count` clips of each style as (id, scene, style); `name` is the seed of their scenes."""
    for style in names:
        for number in range(count):
            shown = styles.scene(random.Random(f"{name} {style} {number}"))
            yield ids.digest("drawn", name, style, number), shown, styles.STYLES[style]


def encoded(base: Path, name: str, count: int, names: Sequence[str]) -> Path:
    """The folder of such a set, its clips and prompts encoded by `base` and pinned as for training; once."""
    place = base.parent / "sets" / f"{name}-{count}".replace(" ", "-")
    encoder = None if (place / "index.json").exists() else hunyuan.Encoder(str(base), None, "float32", "cpu", False)

    def samples() -> Iterator[tuple[str, str, str, bytes]]:
        assert encoder
        for latent_id, shown, style in drawn(name, count, names):
            text = encoder.text([shown.prompt(style.name)])[0]
            latents = encoder.latents(styles.clip(shown, style), latent_id)
            data = hunyuan.pack({"latents": latents, "text": text.text, "pooled": text.pooled})
            yield latent_id, "9x64x64", json.dumps({style.name: 1.0}), data

    if encoder:
        say(f"encoding {count * len(names)} clips: {name}")
        dataset.pin(place, samples())
    return place


def read(place: Path) -> list[tuple[dataset.Sample, Tensors]]:
    """The samples of a pinned set, float32."""
    index = dataset.read_index(place)
    return [(one, {name: tensor.float() for name, tensor in dataset.read_sample(place, one).items()}) for one in index]


# -------------------------------------------------------------------------------------------------- measuring


def errors(model: Any, samples: Sequence[Tensors], noise_BCTHW: Tensor, t_B: Tensor) -> Tensor:
    """The velocity loss of each sample, [B], with a gradient: what objective.velocity_loss gives for one."""
    clean_BCTHW = torch.stack([one["latents"] for one in samples])
    t = t_B.view(-1, 1, 1, 1, 1)
    inputs = hunyuan.model_inputs(
        (1 - t) * clean_BCTHW + t * noise_BCTHW, t_B, [one["text"] for one in samples],
        torch.stack([one["pooled"] for one in samples]), 1.0, torch.float32,
    )  # fmt: skip
    return (model(**inputs)[0].float() - (noise_BCTHW - clean_BCTHW)).square().mean((1, 2, 3, 4))


def levels() -> list[float]:
    """The noise levels of every measure, 0..1, rising."""
    normal = (NormalDist().inv_cdf((place + 0.5) / TIMES) for place in range(TIMES))
    return [shifted(1 / (1 + math.exp(-one)), SHIFT) for one in normal]


@torch.no_grad()
def losses(model: Any, samples: Sequence[tuple[dataset.Sample, Tensors]]) -> Tensor:
    """[clips, levels]: each clip's loss at each level, its noise fixed by clip and level. Clips may differ in size."""
    found = torch.zeros(len(samples), TIMES)
    shapes = {one["latents"].shape for _, one in samples}
    for shape in shapes:
        places = [place for place, (_, one) in enumerate(samples) if one["latents"].shape == shape]
        for at in range(0, len(places), AT_ONCE):
            some = places[at : at + AT_ONCE]
            for level, t in enumerate(levels()):
                noise = torch.stack([_noise(shape, samples[place][0].latent_id, level) for place in some])
                tensors = [samples[place][1] for place in some]
                found[some, level] = errors(model, tensors, noise, torch.full((len(some),), t))
    return found


def _noise(shape: torch.Size, latent_id: str, level: int) -> Tensor:
    generator = torch.Generator().manual_seed(hunyuan.seed_of(f"measured:{latent_id}:{level}"))
    return torch.randn(shape, generator=generator)


# ------------------------------------------------------------------------------------------------ the base


def make(folder: Path, plan: BasePlan) -> Path:
    """The folder of this plan's base, whole or not at all; a finished one is kept. losses.json: of its training."""
    home = folder / ids.digest(asdict(plan))[:8]
    base, new = home / "base", home / "base.part"
    if not base.exists():
        shutil.rmtree(new, ignore_errors=True)
        home.mkdir(parents=True, exist_ok=True)
        _write(new, plan)
        new.rename(base)
    return base


def _write(new: Path, plan: BasePlan) -> None:
    shutil.copytree(tiny.hunyuan(new.parent / "tiny", 0), new)
    seen = [style.name for style in styles.SEEN]
    fitted = [styles.clip(shown, style) for _, shown, style in drawn("vae", VAE_CLIPS // len(seen), seen)]
    linear_vae(fitted).save_pretrained(new / "vae")
    (new / "NOTE.txt").write_text("Made by benchmarks/learning_base.py: a linear VAE, random text encoders, a small "
                                  "transformer trained on drawn clips. Not for use.\n")  # fmt: skip
    learned = read(encoded(new, "base", -(-plan.clips // len(seen)), seen))
    model, told = trained([tensors for _, tensors in learned], plan)
    model.save_pretrained(new / "transformer")
    (new / "losses.json").write_text(json.dumps(told))


def transformer(plan: BasePlan) -> HunyuanVideoTransformer3DModel:
    """A new one, its weights drawn with seed 0."""
    third = plan.head_dim // 3 // 2 * 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HunyuanVideoTransformer3DModel(
            in_channels=CHANNELS, out_channels=CHANNELS, num_attention_heads=plan.heads, num_layers=plan.blocks,
            attention_head_dim=plan.head_dim, num_single_layers=plan.blocks, num_refiner_layers=1, patch_size=2,
            patch_size_t=1, guidance_embeds=True, text_embed_dim=tiny.TEXT_WIDTH,
            pooled_projection_dim=tiny.POOLED_WIDTH, rope_axes_dim=(plan.head_dim - 2 * third, third, third),
        )  # fmt: skip


def trained(samples: Sequence[Tensors], plan: BasePlan) -> tuple[Any, list[float]]:
    """A transformer trained whole on these samples of one size, and its mean loss over every 100 steps."""
    model: Any = transformer(plan).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    shape, told, mean = (plan.batch, *samples[0]["latents"].shape), [], 0.0
    for step in range(plan.steps):
        done = max(0, step - WARM_UP) / max(1, plan.steps - WARM_UP)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * min((step + 1) / WARM_UP, (1 + math.cos(math.pi * done)) / 2)
        picked = torch.randint(len(samples), (plan.batch,), generator=generator).tolist()
        t_B = torch.sigmoid(torch.randn(plan.batch, generator=generator))
        loss = errors(model, [samples[one] for one in picked], torch.randn(shape, generator=generator), t_B).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean += float(loss.detach()) / 100
        if (step + 1) % 100 == 0:
            told.append(mean)
            say(f"base: step {step + 1} of {plan.steps}, loss {mean:.4f}")
            mean = 0.0
    return model.eval(), told
