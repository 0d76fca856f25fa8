"""clips -> scores: how much each clip moves and how good it looks.

A clip is decoded once, in colour at the size that motion is measured at; three of its frames are kept in colour.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ptta_core import fleet
from ptta_core.config import ScoreConfig
from ptta_core.memo import Batch, Items, Job, stage
from ptta_core.rows import Score, Thumbnail
from ptta_core.view import View

if TYPE_CHECKING:
    import numpy as np

LOOKED_AT = (0.1, 0.5, 0.9)  # of the clip's length


@dataclass(frozen=True)
class ScoreItem:
    """A clip to score: a span of a file."""

    clip_id: str
    path: str  # absolute
    start_pts: int
    end_pts: int
    time_base: str
    stream: int
    crop: str  # "x,y,w,h" in shown pixels, "" for the whole picture
    start_s: float
    end_s: float
    width: int = 0  # px, as shown; only tells portrait from landscape, 0 counts as landscape
    height: int = 0

    @property
    def portrait(self) -> bool:
        """Whether the picture is taller than wide."""
        width, height = (int(part) for part in self.crop.split(",")[2:]) if self.crop else (self.width, self.height)
        return height > width


class Scorer:
    """One worker's flow and aesthetic models, loaded once."""

    def __init__(
        self, config: ScoreConfig, threads: int = 1, device: str = "cpu", models_folder: str | Path = ""
    ) -> None:
        import cv2

        from ptta_core.models import aesthetic, motion

        cv2.setNumThreads(threads)
        if config.motion == "raft" or config.aesthetic == "laion-v2":
            import torch

            torch.set_num_threads(threads)
        self.config = config
        self.flow = motion.make_flow(config, device, models_folder)
        self.aesthetic = aesthetic.make_aesthetic(config, device, models_folder)
        self.backends = backends(config, models_folder)

    def __call__(self, items: list[ScoreItem]) -> list[list[Score | Thumbnail]]:
        """A Score and a Thumbnail for each clip. Raises video's errors, and EmptyClip for a span without frames."""
        return [self._score(item) for item in items]

    def _score(self, item: ScoreItem) -> list[Score | Thumbnail]:
        from ptta_core import video
        from ptta_core.models import aesthetic, motion

        grays, times_s, pictures = self._decode(item)
        moved = motion.measure(grays, times_s, self.flow, self.config.gap_s)
        seen = [aesthetic.looks(picture) for picture in pictures]
        values = self.aesthetic(pictures)
        score = Score(
            clip_id=item.clip_id,
            **moved._asdict(),
            aesthetic=_mean(values),
            aesthetic_frames=values,
            brightness=_mean([one.brightness for one in seen]),
            colourfulness=_mean([one.colourfulness for one in seen]),
            sharpness=_mean([one.sharpness for one in seen]),
            palette=", ".join(aesthetic.palette(pictures)),
            motion_backend=self.backends[0],
            aesthetic_backend=self.backends[1],
        )
        width = self.config.thumbnail_px
        return [score, Thumbnail(item.clip_id, video.jpeg(pictures[len(pictures) // 2], width=width, quality=85))]

    def _decode(self, item: ScoreItem) -> tuple[list["np.ndarray"], list[float], list["np.ndarray"]]:
        """(gray frames [H,W], their times in s, the colour frames [H,W,3] nearest to 10, 50 and 90 %) of a clip."""
        from ptta_core import video
        from ptta_core.models import aesthetic
        from ptta_core.models.frames import Nearest

        width, height = self.config.width, self.config.height
        if item.portrait:
            width, height = height, width
        nearest = Nearest(item.start_pts, item.end_pts, LOOKED_AT)
        grays, times_s = [], []
        for frame in video.read_frames(
            item.path, stream=item.stream, start_pts=item.start_pts, end_pts=item.end_pts, width=width, height=height,
            pixel="rgb24",
        ):  # fmt: skip
            grays.append(aesthetic.luma(frame.image))
            times_s.append(frame.time_s)
            nearest.offer(frame)
        return grays, times_s, nearest.images()


def backends(config: ScoreConfig, models_folder: str | Path = "") -> tuple[str, str]:
    """(motion, aesthetic): the names of the estimators, with their models, as stored with every score."""
    from ptta_core.models import describe

    flow, looks = str(config.motion), str(config.aesthetic)
    if config.motion == "raft" and config.motion_model:
        flow = f"raft {describe(config.motion_model, models_folder)}"
    if config.aesthetic == "laion-v2" and config.aesthetic_model and config.aesthetic_head:
        names = [describe(ref, models_folder) for ref in (config.aesthetic_model, config.aesthetic_head)]
        looks = f"laion-v2 {' + '.join(names)}"
    return flow, looks


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def inputs(view: View) -> Items:
    """One item a clip; a clip's id says everything that a score depends on."""
    return view.clip_items(ScoreItem)


@stage(Score, version=1, id_field="clip_id", inputs=inputs, also=(Thumbnail,), models=lambda recipe: [
    ref for name, ref in recipe.models().items() if name.startswith("score.")])  # fmt: skip
def score(todo: list[ScoreItem], job: Job) -> Iterator[Batch]:
    """Measure each clip once; nothing here decides."""
    make = partial(Scorer, job.config, job.site.score.threads, job.device(), str(job.models))
    yield from fleet.fan_out(make, todo, job.site.score, job.site.ray, job.spent)
