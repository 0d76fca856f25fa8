"""sources -> clips: where one shot ends and the next begins.

A source is decoded once, small. Nothing is transcoded: a clip is a span of its source. Where several workers stand
ready, a long source is measured in chunks by all of them; the clips are the same.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptta_core import fleet
from ptta_core.config import Recipe, SplitConfig
from ptta_core.ids import digest
from ptta_core.memo import Batch, Items, Job, stage
from ptta_core.rows import Clip
from ptta_core.view import View

if TYPE_CHECKING:
    import numpy as np

    from ptta_core.models.shot_features import Features
    from ptta_core.models.shots import Network, Shots, Span
    from ptta_core.video import VideoInfo

CHUNK_S = 300.0  # of a source that several workers share; of no influence on the clips
THREAD_S = 20.0  # the least that is worth a thread of its own, likewise


class NoClips(Exception):
    """A source that gives no clip; the message says why."""

    kind = "no_clips"


@dataclass(frozen=True)
class SplitItem:
    """A source to split."""

    source_id: str
    path: str  # absolute


@dataclass(frozen=True)
class Long:
    """What is known of a source that is to be measured in chunks."""

    info: "VideoInfo"
    cleanup: str


@dataclass(frozen=True)
class Chunk:
    """The part of a source with start_pts <= pts < end_pts, None for an open end."""

    item: SplitItem
    long: Long
    start_pts: int | None
    end_pts: int | None


class Splitter:
    """One worker that finds shots; `threads` is for decoding and OpenCV.

    chunk_s: sources longer than this are only looked at, to be measured in chunks; None measures all of them whole.
    """

    def __init__(
        self, config: SplitConfig, threads: int = 1, chunk_s: float | None = None, device: str = "cpu",
        models_folder: str | Path = "",
    ) -> None:  # fmt: skip
        import cv2

        cv2.setNumThreads(threads)
        self.config, self.threads, self.chunk_s = config, threads, chunk_s
        self.network = network_of(config, threads, device, models_folder)

    def __call__(self, items: "list[SplitItem | Chunk]") -> "list[list[Clip] | Long | Features]":
        """The clips of each source in time order, or Long for a long one; the features of each chunk.

        Raises NoClips, Combed, and video's errors for a file it cannot read.
        """
        return [self._measured(item) if isinstance(item, Chunk) else self._split(item) for item in items]

    def _split(self, item: SplitItem) -> list[Clip] | Long:
        from ptta_core import video

        info = video.probe(item.path)
        long = Long(info, cleanup_of(item.path, info, self.config))
        if self.chunk_s is not None and info.duration_s > self.chunk_s:
            return long
        return clips_of(item, long, self._measured(Chunk(item, long, None, None)), self.config, self.network)

    def _measured(self, chunk: Chunk) -> "Features":
        return measured(chunk, self.config, self.threads)


def network_of(config: SplitConfig, threads: int, device: str, models_folder: str | Path) -> "Network | None":
    """The network that decides, None for the detectors without one. Raises ConfigError and WeightsError."""
    if config.detector != "transnetv2":
        return None
    import torch

    from ptta_core.models import transnet

    torch.set_num_threads(threads)
    return transnet.make_network(config, device, models_folder)


def cleanup_of(path: str, info: "VideoInfo", config: SplitConfig) -> str:
    """What undoes a source's interlacing or telecine, "" for nothing. Raises Combed where nothing would."""
    from ptta_core.models import interlace

    return interlace.detect(path, info) if config.cleanup == "auto" else ""


def measured(chunk: Chunk, config: SplitConfig, threads: int) -> "Features":
    """Decode a chunk small and keep what the decision needs; a whole long source in as many parts as threads."""
    parts = min(threads, int(chunk.long.info.duration_s / THREAD_S))
    if chunk.start_pts is not None or chunk.end_pts is not None or parts < 2 or config.detector != "steps":
        return _measured_alone(config, threads, chunk)
    from ptta_core.models import shot_features

    chunks = chunks_of(chunk.item, chunk.long, chunk.long.info.duration_s / parts)
    with ThreadPoolExecutor(parts) as pool:
        return shot_features.join(list(pool.map(partial(_measured_alone, config, 1), chunks)))


def _measured_alone(config: SplitConfig, threads: int, chunk: Chunk) -> "Features":
    from ptta_core import video
    from ptta_core.models import shot_features

    info, cleanup = chunk.long.info, chunk.long.cleanup
    width = min(config.width, info.width)
    height = max(2, round(width * info.height / info.width / 2) * 2)  # said, so that all chunks agree
    frames = video.read_frames(
        chunk.item.path, stream=info.stream, start_pts=chunk.start_pts, end_pts=chunk.end_pts,
        width=width, height=height, pixel="rgb24", threads=threads, cleanup=cleanup, fast=True, draft=True,
    )  # fmt: skip
    return shot_features.measure_for(frames, config)


def clips_of(
    item: SplitItem, long: Long, features: "Features", config: SplitConfig, network: "Network | None" = None
) -> list[Clip]:
    """The clips of a source from what was measured on all of it. Raises NoClips."""
    from ptta_core.models import letterbox, shots

    info = long.info
    found = shots.decide(features, config, network)
    frame_s = 1.0 / info.fps if info.fps > 0 else 0.0
    spans = shots.to_spans(found, config, frame_s)
    if not spans:
        raise NoClips(why_none(found, config, frame_s))
    crops = [""] * len(spans)
    if config.crop_borders:
        crops = letterbox.crops(features, spans, config.min_border, partial(_luma, item.path, long))
    return [_clip(item.source_id, long, span, crop) for span, crop in zip(spans, crops)]


def _luma(path: str, long: Long, pts: int) -> "np.ndarray | None":
    """The picture at `pts` in full size; None when it cannot be read alone."""
    from ptta_core import video

    frames = video.read_frames(path, stream=long.info.stream, start_pts=pts, end_pts=pts + 1, pixel="gray",
                               cleanup=long.cleanup)  # fmt: skip
    return next((frame.image for frame in frames), None)


def why_none(found: "Shots", config: SplitConfig, frame_s: float) -> str:
    """One sentence on why a source gives no clip."""
    from ptta_core.models import shots

    if not found.pts:
        return "no frame could be decoded"
    lengths = [shot.duration_s for shot in shots.whole_shots(found, frame_s)]
    if not lengths and config.detector == "transnetv2":
        return f"every frame is part of a transition by split.transnet_threshold = {config.transnet_threshold}"
    if not lengths:
        return f"every frame is black or white: within split.fade_threshold = {config.fade_threshold} levels of it"
    if max(lengths) >= config.min_clip_s:
        return (
            f"the longest shot lasts {max(lengths):.2f} s, above split.max_clip_s = {config.max_clip_s}, "
            f"and its equal parts are below split.min_clip_s = {config.min_clip_s}"
        )
    return f"the longest shot lasts {max(lengths):.2f} s, below split.min_clip_s = {config.min_clip_s}"


def _clip(source_id: str, long: Long, span: "Span", crop: str) -> Clip:
    info = long.info
    named = (source_id, info.stream, span.start_pts, span.end_pts, info.time_base, crop)
    return Clip(
        clip_id=digest(*named, long.cleanup) if long.cleanup else digest(*named),
        source_id=source_id,
        start_s=span.start_s,
        end_s=span.end_s,
        start_pts=span.start_pts,
        end_pts=span.end_pts,
        time_base=info.time_base,
        stream=info.stream,
        crop=crop,
        cleanup=long.cleanup,
        frames=span.frames,
        begins_with=span.begins_with,
        ends_with=span.ends_with,
    )


# ------------------------------------------------------------------------------------------------ long sources


def chunks_of(item: SplitItem, long: Long, chunk_s: float) -> list[Chunk]:
    """A source in chunks of about `chunk_s` seconds."""
    info = long.info
    ticks = max(1, round(Fraction(chunk_s) / Fraction(info.time_base)))
    count = max(1, round(info.duration_s / chunk_s))
    edges = [None, *(info.start_pts + ticks * number for number in range(1, count)), None]
    return [Chunk(item, long, start, end) for start, end in pairwise(edges)]


def _joined(parts: "dict[int, Features | fleet.Failed]", chunks: list[Chunk], config: SplitConfig) -> object:
    """The clips of a long source from its chunks' features, or Failed."""
    from ptta_core import video
    from ptta_core.models import shot_features

    failed = next((part for part in parts.values() if isinstance(part, fleet.Failed)), None)
    if failed is not None:
        return failed
    whole = shot_features.join([parts[number] for number in range(len(chunks))])  # type: ignore[misc]
    try:
        return clips_of(chunks[0].item, chunks[0].long, whole, config)
    except (NoClips, video.VideoError) as error:
        return fleet.Failed(error.kind, str(error))


def _in_chunks(longs: list[tuple[SplitItem, Long]], job: Job, chunk_s: float) -> Iterator[Batch]:
    """Measure long sources chunk by chunk, each source done when its last chunk is."""
    make = partial(Splitter, job.config, job.site.split.threads)
    plans = {item.source_id: chunks_of(item, long, chunk_s) for item, long in longs}
    places = {(chunk.item.source_id, chunk.start_pts): number for chunks in plans.values()
              for number, chunk in enumerate(chunks)}  # fmt: skip
    parts: dict[str, dict[int, Features | fleet.Failed]] = {name: {} for name in plans}
    todo = [chunk for chunks in plans.values() for chunk in chunks]
    workers = job.site.split.model_copy(update={"batch": 1})
    for batch in fleet.fan_out(make, todo, workers, job.site.ray, job.spent):
        for chunk, result in batch:
            name = chunk.item.source_id
            parts[name][places[name, chunk.start_pts]] = result
            if len(parts[name]) == len(plans[name]):
                yield [(chunk.item, _joined(parts.pop(name), plans[name], job.config))]


def inputs(view: View) -> Items:
    """One item a source: its bytes are all that a split depends on."""
    names = view.source_names()
    items = [SplitItem(source_id, str(view.absolute(names[source_id]))) for source_id in sorted(names)]
    return Items.of(items, "source_id", [item.source_id for item in items])


def result_fields(recipe: Recipe) -> dict[str, Any]:
    """What the detector reads; its network enters by content."""
    rules = {"threshold", "min_content", "dissolves", "fade_threshold", "flash_s"}
    unread = {"model"} | (rules if recipe.split.detector == "transnetv2" else {"transnet_threshold"})
    return {f"split.{name}": value for name, value in recipe.split.model_dump(mode="json", exclude=unread).items()}


@stage(Clip, version=5, id_field="source_id", inputs=inputs, fields=result_fields, models=lambda recipe: [
    ref for name, ref in recipe.models().items() if name.startswith("split.")])  # fmt: skip
def split(todo: list[SplitItem], job: Job) -> Iterator[Batch]:
    """Cut each source once; the long ones last, in chunks, where there are workers to share them."""
    # PySceneDetect's rules need one pass, and a network decides where it is loaded
    shared = job.site.split.count > 1 and job.config.detector == "steps"
    chunk_s = CHUNK_S if shared else None
    make = partial(Splitter, job.config, job.site.split.threads, chunk_s, job.device(), str(job.models))
    longs: list[tuple[SplitItem, Long]] = []
    for batch in fleet.fan_out(make, todo, job.site.split, job.site.ray, job.spent):
        longs += [(item, result) for item, result in batch if isinstance(result, Long)]
        if done := [(item, result) for item, result in batch if not isinstance(result, Long)]:
            yield done
    yield from _in_chunks(longs, job, CHUNK_S)
