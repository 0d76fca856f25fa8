"""generations -> verdicts: what each judge says about each generated video."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ptta_core import fleet
from ptta_core.config import EvaluateConfig, Recipe
from ptta_core.ids import digest
from ptta_core.memo import Batch, Items, Job, stage
from ptta_core.rows import Verdict
from ptta_core.view import View


@dataclass(frozen=True)
class EvaluateItem:
    """One generated video and what it was made from."""

    generation_id: str
    variant: str  # base | adapter
    prompt: str
    seed: int
    path: str  # absolute
    video_sha: str


class NoFrames(ValueError):
    """A video without a single frame to judge."""

    kind = "unreadable"


class Judge:
    """One worker: all judges of the recipe, loaded once; each video is decoded once for all of them."""

    def __init__(
        self, config: EvaluateConfig, judge_names: list[str], models_folder: str, threads: int = 1, device: str = "cpu"
    ) -> None:
        from ptta_core.models.judge import make_judge

        self._judges = [make_judge(name, config, models_folder, device, threads) for name in judge_names]

    def __call__(self, items: list[EvaluateItem]) -> list[list[Verdict]]:
        """The verdicts of each item, one a judge and dimension. Raises NoFrames, or what the video raises."""
        return [self._verdicts(item) for item in items]

    def _verdicts(self, item: EvaluateItem) -> list[Verdict]:
        frames, fps = load_video(item.path)
        return [
            _verdict(item, judge.name, dimension, value)
            for judge in self._judges
            for dimension, value in judge(frames, item.prompt, fps).items()
        ]


def load_video(path: str) -> tuple[np.ndarray, float]:
    """All frames as uint8 [T, H, W, 3] RGB, and the mean rate in 1/s from their times (1.0 for a single frame).

    Counts frames by decoding, never by the container's word. Raises NoFrames.
    """
    from ptta_core.video import read_frames

    images: list[np.ndarray] = []
    times_s: list[float] = []
    for frame in read_frames(path, pixel="rgb24"):
        images.append(frame.image)
        times_s.append(frame.time_s)
    if not images:
        raise NoFrames(f"{path} holds no frames")
    length_s = times_s[-1] - times_s[0]
    return np.stack(images), (len(images) - 1) / length_s if length_s > 0 else 1.0


def _verdict(item: EvaluateItem, judge: str, dimension: str, value: float) -> Verdict:
    return Verdict(
        verdict_id=digest(item.generation_id, judge, dimension),
        generation_id=item.generation_id,
        variant=item.variant,
        prompt=item.prompt,
        seed=item.seed,
        judge=judge,
        dimension=dimension,
        value=value,
    )


def inputs(view: View) -> Items:
    """One item a generated video; what is judged is its bytes and its prompt."""
    rows = view.rows("generate").to_pylist()
    items = [
        EvaluateItem(
            row["generation_id"],
            row["variant"],
            row["prompt"],
            row["seed"],
            str(view.home / row["path"]),
            row["video_sha"],
        )
        for row in rows
    ]
    return Items.of(items, "generation_id", [digest(item.generation_id, item.video_sha, item.prompt) for item in items])


def result_fields(recipe: Recipe) -> dict[str, Any]:
    """The judges; VideoScore's own settings only when it judges."""
    config = recipe.evaluate
    own: dict[str, Any] = {"evaluate.judges": list(config.judges)}
    if "videoscore" in config.judges:
        own["evaluate.videoscore_max_frames"] = config.videoscore_max_frames
    return own


@stage(Verdict, version=1, id_field="generation_id", inputs=inputs, fields=result_fields, models=lambda recipe: [
    ref for name, ref in recipe.models().items() if name.startswith("evaluate.")])  # fmt: skip
def evaluate(todo: list[EvaluateItem], job: Job) -> Iterator[Batch]:
    """Judge each generated video."""
    names = [str(name) for name in job.config.judges]
    make = partial(Judge, job.config, names, str(job.models), job.site.evaluate.threads, job.device())
    yield from fleet.fan_out(make, todo, job.site.evaluate, job.site.ray, job.spent)
