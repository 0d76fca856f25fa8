"""generations -> verdicts: what each judge says about each generated video."""

from dataclasses import dataclass

import numpy as np

from ptta_core.config import EvaluateConfig
from ptta_core.ids import digest
from ptta_core.rows import Verdict


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
