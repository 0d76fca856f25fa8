"""clips -> scores: how much each clip moves, how good it looks, what lies over it and what it resembles.

A clip is decoded once, at the size that motion is measured at. Every frame goes through the meters of motion, of black
and of freezes; a dozen are kept in gray for overlays and the perceptual hash, three in colour for looks.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ptta_core import fleet
from ptta_core.config import ScoreConfig
from ptta_core.memo import Batch, Items, Job, stage
from ptta_core.rows import VECTOR_WIDTH, Embedding, Score, Thumbnail, Vector
from ptta_core.view import View

if TYPE_CHECKING:
    import numpy as np

    from ptta_core.models.motion import Meter
    from ptta_core.models.overlay import Box
    from ptta_core.models.quality import Quality
    from ptta_core.video.looking import Reel

LOOKED_AT = (0.1, 0.5, 0.9)  # of the clip's length

Row = Score | Thumbnail | Embedding


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
    cleanup: str = ""  # "" | deinterlace | detelecine ...: what reading undoes

    @property
    def portrait(self) -> bool:
        """Whether the picture is taller than wide."""
        _, _, width, height = self.shown
        return height > width

    @property
    def shown(self) -> tuple[int, int, int, int]:
        """x, y, width, height of the clip's part of the shown picture, px; a width of 0 is unknown."""
        if self.crop:
            x, y, width, height = (int(part) for part in self.crop.split(","))
            return x, y, width, height
        return 0, 0, self.width, self.height


@dataclass(frozen=True)
class Decoded:
    """What one pass over a clip's frames leaves behind."""

    motion: "Meter"
    looks: "list[np.ndarray]"  # gray frames [H,W], evenly spread, for overlays
    hashed: "list[np.ndarray]"  # gray frames at the places of the perceptual hash
    pictures: "list[np.ndarray]"  # RGB [H,W,3] at 10, 50 and 90 %, as shown
    quality: "Quality"


class Reels:
    """The file that the clips of a batch are read from; closed with the batch, or when another one is wanted."""

    def __init__(self) -> None:
        self._reel: Reel | None = None
        self._key: tuple[str, int, str] | None = None

    def close(self) -> None:
        """Let go of the file."""
        if self._reel is not None:
            self._reel.close()
            self._reel = None

    def of(self, item: ScoreItem) -> "Reel":
        """The reel that holds a clip. Raises video's errors."""
        from ptta_core.video.looking import Reel

        key = item.path, item.stream, item.cleanup
        if self._reel is None or self._key != key:
            self.close()
            self._reel, self._key = Reel(item.path, item.stream, cleanup=item.cleanup), key
        return self._reel


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
        self.config, self.threads = config, threads
        self.flow = motion.make_flow(config, device, models_folder)
        self.aesthetic = aesthetic.make_aesthetic(config, device, models_folder)
        self.backends = backends(config, models_folder)

    def __call__(self, items: list[ScoreItem]) -> list[list[Row]]:
        """A Score, a Thumbnail and with CLIP an Embedding for each clip, the next one decoded while one is measured.

        Raises video's errors, and EmptyClip for a span without frames.
        """
        with closing(Reels()) as reels:
            if self.threads < 2:
                return [self._score(item, self._decode(item, reels)) for item in items]
            with ThreadPoolExecutor(1) as ahead:
                coming = ahead.submit(self._decode, items[0], reels) if items else None
                found = []
                for item, following in zip(items, [*items[1:], None]):
                    assert coming is not None
                    decoded = coming.result()
                    coming = ahead.submit(self._decode, following, reels) if following else None
                    found.append(self._score(item, decoded))
        return found

    def _score(self, item: ScoreItem, seen: Decoded) -> list[Row]:
        from ptta_core import video
        from ptta_core.models import aesthetic, overlay, phash, quality

        moved = seen.motion.result()
        over = overlay.measure(seen.looks, seen.pictures)
        values, embedding = self._judge(item, seen.pictures)
        size = seen.looks[0].shape
        score = Score(
            clip_id=item.clip_id,
            **moved._asdict(),
            aesthetic=_mean(values),
            aesthetic_frames=values,
            brightness=_mean([aesthetic.brightness(picture) for picture in seen.pictures]),
            colourfulness=_mean([aesthetic.colourfulness(picture) for picture in seen.pictures]),
            sharpness=_mean([aesthetic.sharpness(picture) for picture in seen.pictures]),
            palette=", ".join(aesthetic.palette(seen.pictures)),
            blur=_mean([quality.blur(aesthetic.luma(picture)) for picture in seen.pictures]),
            **seen.quality._asdict(),
            text_share=over.text_share,
            text_box=in_shown_px(over.text_box, size, item),
            overlay=over.overlay,
            static_box=in_shown_px(over.static_box, size, item),
            phash=phash.clip_hash(seen.hashed),
            motion_backend=self.backends[0],
            aesthetic_backend=self.backends[1],
        )
        middle = seen.pictures[len(seen.pictures) // 2]
        jpeg = video.jpeg(middle, width=self.config.thumbnail_px, quality=85)
        return [score, Thumbnail(item.clip_id, jpeg), *embedding]

    def _judge(self, item: ScoreItem, pictures: "list[np.ndarray]") -> tuple[list[float], list[Embedding]]:
        """(the aesthetic of each picture, the clip's embedding when the aesthetic comes from CLIP)."""
        from ptta_core.models import aesthetic

        if not isinstance(self.aesthetic, aesthetic.LaionV2):
            return self.aesthetic(pictures), []
        embeddings = self.aesthetic.embed(pictures)
        vector = mean_vector(embeddings)
        return self.aesthetic.scores(embeddings), [Embedding(item.clip_id, vector, self.backends[1])]

    def _decode(self, item: ScoreItem, reels: "Reels") -> Decoded:
        """One pass over a clip's frames. Raises EmptyClip and video's errors."""
        from ptta_core.models import overlay, phash
        from ptta_core.models.frames import Look, Nearest
        from ptta_core.models.motion import Meter
        from ptta_core.models.quality import QualityMeter

        width, height = self.config.width, self.config.height
        if item.portrait:
            width, height = height, width
        evenly = [(look + 0.5) / overlay.LOOKS for look in range(overlay.LOOKS)]
        coloured, looks, hashed = (
            Nearest(item.start_pts, item.end_pts, places) for places in (LOOKED_AT, evenly, phash.PLACES)
        )
        meter, motion = QualityMeter(), Meter(self.flow, self.config.gap_s)
        for seen in reels.of(item).glimpses(
            item.start_pts, item.end_pts, width=width, height=height, coloured=coloured.may_be_nearest,
            short_px=min(width, height), crop=item.crop,
        ):  # fmt: skip
            meter.add(seen.gray, seen.time_s)
            motion.offer(seen.gray, seen.time_s)
            for nearest in (looks, hashed):
                nearest.offer(Look(seen.index, seen.pts, seen.gray))
            if seen.colour is not None:
                coloured.offer(Look(seen.index, seen.pts, seen.colour))
        return Decoded(motion, looks.distinct(), hashed.images(), coloured.images(), meter.result())


def in_shown_px(box: "Box | None", size: tuple[int, ...], item: ScoreItem) -> str:
    """A box in px of the measured size [H,W] as "x,y,w,h" in px of the source as shown; "" for none."""
    if box is None:
        return ""
    left, top, width, height = item.shown
    if not width or not height:
        height, width = size[:2]
    x1, x2 = (round(x * width / size[1]) for x in box[::2])
    y1, y2 = (round(y * height / size[0]) for y in box[1::2])
    return f"{left + x1},{top + y1},{x2 - x1},{y2 - y1}"


def mean_vector(embeddings_ND: "np.ndarray") -> Vector:
    """The mean of embeddings, of length 1 and with zeros up to the width of the column."""
    import numpy as np

    mean = embeddings_ND.mean(0)
    mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return Vector(np.pad(mean, (0, max(0, VECTOR_WIDTH - len(mean)))).astype(np.float32).tolist())


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


@stage(Score, version=7, id_field="clip_id", inputs=inputs, also=(Thumbnail, Embedding), models=lambda recipe: [
    ref for name, ref in recipe.models().items() if name.startswith("score.")])  # fmt: skip
def score(todo: list[ScoreItem], job: Job) -> Iterator[Batch]:
    """Measure each clip once; nothing here decides."""
    todo = sorted(todo, key=lambda item: (item.path, item.start_pts))  # a file's clips in order: few seeks are needed
    make = partial(Scorer, job.config, job.site.score.threads, job.device(), str(job.models))
    yield from fleet.fan_out(make, todo, job.site.score, job.site.ray, job.spent)
