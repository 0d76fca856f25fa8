"""sources -> clips: where one shot ends and the next begins.

A source is decoded once, small. Nothing is transcoded: a clip is a span of its source.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ptta_core import fleet
from ptta_core.config import SplitConfig
from ptta_core.ids import digest
from ptta_core.memo import Batch, Items, Job, stage
from ptta_core.rows import Clip
from ptta_core.view import View

if TYPE_CHECKING:
    from ptta_core.models.shots import Shots, Span
    from ptta_core.video import VideoInfo

NO_CROP = ""


class NoClips(Exception):
    """A source that gives no clip; the message says why."""

    kind = "no_clips"


@dataclass(frozen=True)
class SplitItem:
    """A source to split."""

    source_id: str
    path: str  # absolute


class Splitter:
    """One worker that finds shots; `threads` is for decoding and OpenCV."""

    def __init__(self, config: SplitConfig, threads: int = 1) -> None:
        import cv2

        cv2.setNumThreads(threads)
        self.config = config
        self.threads = threads

    def __call__(self, items: list[SplitItem]) -> list[list[Clip]]:
        """The clips of each source, in time order. Raises NoClips, and video's errors for a file it cannot read."""
        return [self._split(item) for item in items]

    def _split(self, item: SplitItem) -> list[Clip]:
        from ptta_core import video
        from ptta_core.models import shots

        info = video.probe(item.path)
        width = min(self.config.width, info.width)
        frames = video.read_frames(item.path, stream=info.stream, width=width, pixel="rgb24", threads=self.threads)
        found = shots.find_boundaries(frames, self.config)
        frame_s = 1.0 / info.fps if info.fps > 0 else 0.0
        spans = shots.to_spans(found, self.config, frame_s)
        if not spans:
            raise NoClips(why_none(found, self.config, frame_s))
        return [_clip(item.source_id, info, span) for span in spans]


def why_none(found: "Shots", config: SplitConfig, frame_s: float) -> str:
    """One sentence on why a source gives no clip."""
    from ptta_core.models import shots

    if not found.pts:
        return "no frame could be decoded"
    lengths = [shot.duration_s for shot in shots.whole_shots(found, frame_s)]
    if not lengths:
        return f"every frame is black: mean luma below split.fade_threshold = {config.fade_threshold}"
    if max(lengths) >= config.min_clip_s:
        return (
            f"the longest shot lasts {max(lengths):.2f} s, above split.max_clip_s = {config.max_clip_s}, "
            f"and its equal parts are below split.min_clip_s = {config.min_clip_s}"
        )
    return f"the longest shot lasts {max(lengths):.2f} s, below split.min_clip_s = {config.min_clip_s}"


def _clip(source_id: str, info: "VideoInfo", span: "Span") -> Clip:
    clip_id = digest(source_id, info.stream, span.start_pts, span.end_pts, info.time_base, NO_CROP)
    return Clip(
        clip_id=clip_id,
        source_id=source_id,
        start_s=span.start_s,
        end_s=span.end_s,
        start_pts=span.start_pts,
        end_pts=span.end_pts,
        time_base=info.time_base,
        stream=info.stream,
        crop=NO_CROP,
        frames=span.frames,
        begins_with=span.begins_with,
        ends_with=span.ends_with,
    )


def inputs(view: View) -> Items:
    """One item a source: its bytes are all that a split depends on."""
    names = view.source_names()
    items = [SplitItem(source_id, str(view.absolute(names[source_id]))) for source_id in sorted(names)]
    return Items.of(items, "source_id", [item.source_id for item in items])


@stage(Clip, version=1, id_field="source_id", inputs=inputs)
def split(todo: list[SplitItem], job: Job) -> Iterator[Batch]:
    """Cut each source once."""
    make = partial(Splitter, job.config, job.site.split.threads)
    yield from fleet.fan_out(make, todo, job.site.split, job.site.ray, job.spent)
