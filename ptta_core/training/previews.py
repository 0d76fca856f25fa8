"""Videos of an adapter while it is trained: the same prompts and seeds after 0, K, 2K, ... steps and at the end.

A preview is what `generate` would make with the adapter of that moment: the same pipeline, sampler and sizes, the
weights that would be exported. It draws no number that training draws and puts back every weight that it moves, so that
what is learned is the same to the bit with and without it. RUN/previews holds the videos and a file of JSON a preview.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from ptta_core import fleet, ids, video
from ptta_core.config import RaySite, Workers
from ptta_core.models.hunyuan import Generator, Text, TextEncoder
from ptta_core.training.dataset import gate_labels
from ptta_core.whole import write_whole

FOLDER, PROMPTS, WAITING = "previews", "prompts", "waiting"
ERRORS = (RuntimeError, ValueError, OSError)  # also torch's own for memory, and a full disk
MESSAGE_CHARS = 300

log = logging.getLogger("ptta")


class PromptError(ValueError):
    """A preview prompt cannot be embedded; the message names it."""


@dataclass(frozen=True)
class Plan:
    """What is previewed, and when. Travels to other processes."""

    every: int  # steps
    share: float  # of the training time that previews may take
    prompts: tuple[tuple[str, str], ...]  # text, and its labels as a JSON object or ""
    seeds: tuple[int, ...]
    sampling: Mapping[str, Any]  # steps, guidance, shift, frames, height, width
    fps: float
    base: str  # what the base is called, for the files
    apart: bool = False  # in a worker of their own, not in training's
    videos: tuple[tuple[str, str, int], ...] = field(init=False)  # prompt, labels, seed

    def __post_init__(self) -> None:
        found = tuple((text, labels, seed) for text, labels in self.prompts for seed in self.seeds)
        object.__setattr__(self, "videos", found)

    def due(self, step: int, total: int) -> list[int]:
        """After how many steps previews were to be made, up to `step` of `total`."""
        return [*range(0, step + 1, self.every), *([total] if step == total and total % self.every else [])]


def name_of(run: Path, due: int) -> Path:
    """Where a preview's JSON is; its videos are beside it."""
    return run / FOLDER / f"step-{due:08d}.json"


def told(run: Path) -> dict[int, dict[str, Any]]:
    """Every preview that was made or left out, by the step at which it was due."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((run / FOLDER).glob("step-*.json"))]
    return {one["due"]: one for one in found}


def tell(run: Path, due: int, step: int, videos: Sequence[dict[str, Any]], seconds: float, note: str = "") -> None:
    """Write a preview down; its videos are whole by now. Raises OSError."""
    told = {"due": due, "step": step, "seconds": seconds, "note": note, "videos": list(videos)}
    name_of(run, due).parent.mkdir(exist_ok=True)
    write_whole(name_of(run, due), json.dumps(told).encode())
    if note:
        log.warning("preview of step %d: %s", due, note)


# ---------------------------------------------------------------------------------------------------- prompts


class PromptEmbedder:
    """A fleet worker that writes prompts' embeddings into the run's folder, as the transformer reads them."""

    def __init__(self, run: str, base: str, revision: str | None, dtype: str, device: str) -> None:
        self.run, self.encoder = Path(run), TextEncoder(base, revision, dtype, device)

    def __call__(self, prompts: list[str]) -> list[str]:
        """The prompts, once they are there."""
        for prompt, text in zip(prompts, self.encoder(prompts)):
            path = _prompt_file(self.run, prompt)
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = {"text": text.text.contiguous(), "pooled": text.pooled.contiguous()}
            write_whole(path, save(tensors, {"prompt": prompt}))
        return prompts


def embed(
    plan: Plan, make: Callable[[], PromptEmbedder], run: Path, workers: Workers, ray_site: RaySite | None
) -> None:
    """Embed the prompts that are not in the run's folder yet, on one worker; the text encoders are gone afterwards.

    Raises PromptError, FleetError.
    """
    new = [text for text, _ in plan.prompts if not _prompt_file(run, text).exists()]
    one = workers.model_copy(update={"count": min(workers.count, 1)})
    for batch in fleet.fan_out(make, new, one, ray_site):
        for text, result in batch:
            if isinstance(result, fleet.Failed):
                raise PromptError(f"preview prompt {text[:80]!r} cannot be embedded: {result.message}")


def embedded(run: Path, plan: Plan) -> dict[str, Text]:
    """The prompts' embeddings, on the CPU. Raises OSError."""
    found = {text: load_file(_prompt_file(run, text)) for text, _ in plan.prompts}
    return {text: Text(one["text"], one["pooled"], len(one["text"]), False) for text, one in found.items()}


def _prompt_file(run: Path, prompt: str) -> Path:
    return run / FOLDER / PROMPTS / f"{ids.digest(prompt)}.safetensors"


# ---------------------------------------------------------------------------------------------------- videos


class Painter:
    """Makes the videos of a plan with whatever adapter is in the generator's transformer.

    adapter: as hydralora.read_config gives it, for the labels. train_id: for the files.
    """

    def __init__(self, generator: Generator, plan: Plan, run: Path, train_id: str) -> None:
        self.generator, self.plan, self.run, self.train_id = generator, plan, run, train_id
        generator.prompts.update(embedded(run, plan))

    def latents(
        self, video_of: tuple[str, str, int], adapter: Mapping[str, Any], on_step: Callable[[], None] | None = None
    ) -> torch.Tensor:
        """One video before it is decoded."""
        prompt, labels, seed = video_of
        shares = list(gate_labels(labels, adapter).values()) or None
        return self.generator.latents(prompt, seed, **self.plan.sampling, labels=shares, on_step=on_step)

    def write(
        self, place: int, latents: torch.Tensor, adapter: Mapping[str, Any], due: int, step: int
    ) -> dict[str, Any]:
        """Decode the video of this place in the plan and write it whole; what is told of it. Raises ERRORS."""
        prompt, labels, seed = self.plan.videos[place]
        images_THWC = self.generator.pictures(latents)
        path = name_of(self.run, due).with_name(f"step-{due:08d}-{place}.mp4")
        path.parent.mkdir(exist_ok=True)
        shares = gate_labels(labels, adapter)
        made = {"made_by": "a text-to-video model", "base": self.plan.base, "variant": "preview", "step": step,
                "train_id": self.train_id, "prompt": prompt, "seed": seed, **self.plan.sampling}  # fmt: skip
        made |= {"labels": shares} if shares else {}
        video.write_mp4(path, images_THWC, self.plan.fps, metadata={"title": prompt, "comment": ids.canonical(made)})
        frames, height, width, _ = images_THWC.shape
        return {"prompt": prompt, "seed": seed, "path": f"{FOLDER}/{path.name}", "video_sha": ids.digest_file(path),
                "frames": frames, "height": height, "width": width, "fps": self.plan.fps,
                "labels": ids.canonical(shares) if shares else ""}  # fmt: skip


def brief(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:MESSAGE_CHARS]


def seconds_since(begun: float) -> float:
    """Of the monotonic clock."""
    return time.monotonic() - begun


def waiting(run: Path) -> Iterator[tuple[int, Path]]:
    """(due step, adapter file) of every preview that waits for a worker of its own, the first due first."""
    for path in sorted((run / FOLDER / WAITING).glob("step-*.safetensors")):
        yield int(path.stem.removeprefix("step-")), path
