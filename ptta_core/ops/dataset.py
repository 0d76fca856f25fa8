"""export dataset: what a run would learn from, as mp4 files and captions that other trainers read.

A file holds the pictures that encode would learn, at encode.fps: trainers read files picture by picture, and most take
the rate as it comes. A held drawing is held there, and no picture of a neighbouring shot can slip in.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ptta_core import ids, video
from ptta_core.buckets import crop_of
from ptta_core.config import ConfigError
from ptta_core.ops import layouts, runs, show
from ptta_core.rows import Source
from ptta_core.stages.encode import admitted, effective_prompt
from ptta_core.view import View
from ptta_core.windows import SLACK, Window, length_s

CRF = 14  # x264's quality: above what write_mp4 takes for looking at, as these files are learnt from
MIN_PSNR_DB = 28.0  # of the first and last picture read back; coding noise at CRF is above it, another picture below
PARTS = ("subject", "action", "setting", "style", "camera")


@dataclass(frozen=True)
class Piece:
    """One file to be made: some pictures of a clip, and what is said of them."""

    key: str  # content id: clip, span, rate and quality
    clip: dict[str, Any]
    window: Window
    caption: str
    facts: dict[str, Any]


@dataclass
class Made:
    """What became of the pieces. failed: a line each."""

    folder: str
    format: str
    made: int = 0
    reused: int = 0
    failed: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)  # what describes the pieces, relative to the folder


def dataset(workspace: str, format: str, out: str | None = None, run: str | None = None) -> Made:
    """Write the admitted windows of a run (default: the last) below `out` (default: exports/dataset-FORMAT).

    Raises ConfigError for an unknown format, and where no run has admitted captions.
    """
    if format not in layouts.FORMATS:
        raise ConfigError(f"--format {format}; choices: {', '.join(layouts.FORMATS)}")
    store, site = show.open_store(workspace)
    record = runs.last(store, run_id=run)
    if record is None:
        raise ConfigError(f"no run {run!r} in {workspace}" if run else f"no run in {workspace} yet")
    view = runs.view_of(record, site)
    if "admit" not in view.pinned["inputs"]:
        raise ConfigError(f"run {record['run_id']} admitted no captions; `ptta run` it as far as admit")
    folder = Path(out).expanduser() if out else site.home / "exports" / f"dataset-{format}"
    clips = folder / layouts.CLIPS
    clips.mkdir(parents=True, exist_ok=True)
    done = Made(str(folder), format)
    if format == "webdataset":
        layouts.unpack(folder)
    written = [piece for piece in pieces(view) if _made(piece, clips, done)]
    entries = [layouts.Entry(one.key, one.caption, one.facts) for one in written]
    done.files = layouts.write(format, folder, entries, view.recipe.encode)
    return done


def pieces(view: View) -> Iterator[Piece]:
    """A piece a window with an admitted caption, or a clip where captions are of clips; in order of clip and time."""
    config, whole = view.recipe.encode, view.recipe.caption.of == "clip"
    scores = {row["clip_id"]: row["score"] for row in view.rows("select", ["clip_id", "score"]).to_pylist()}
    sources = {row["source_id"]: row for row in view.rows("gather", noun=Source).to_pylist()}
    said = {row["caption_id"]: row for row in view.rows("caption", ["caption_id", *PARTS]).to_pylist()}
    names, seen = view.source_names(), set()
    for clip, window in admitted(view):
        if whole:
            if clip["clip_id"] in seen:
                continue
            seen.add(clip["clip_id"])
            fps = Fraction(config.fps).limit_denominator(10_000)
            window = Window(Fraction(0), max(1, int(length_s(clip) * fps + SLACK)), fps)
        _, _, width, height = crop_of(clip["crop"], clip["width"], clip["height"])
        source, parts = sources[clip["source_id"]], said[clip["caption_id"]]
        facts = {
            "clip_id": clip["clip_id"], "source": relative(names[clip["source_id"]], view),
            "start_s": clip["start_s"] + float(window.offset_s), "end_s": clip["start_s"] + float(window.end_s),
            "fps": float(window.fps), "frames": window.frames, "speed": float(window.speed),
            "width": width // 2 * 2, "height": height // 2 * 2, "labels": clip["labels"],
            "score": scores.get(clip["clip_id"]), "licence": source["licence"],
        } | {name: parts[name] for name in PARTS if parts[name]}  # fmt: skip
        key = ids.digest(clip["clip_id"], window.span(), str(window.fps), window.frames, CRF)[:24]
        yield Piece(key, clip, window, effective_prompt(clip["text"], config), facts)


def relative(named: str, view: View) -> str:
    """A source's name without a place of this machine: below its root, or below its folder of the recipe."""
    root, sign, rest = named.partition(":")
    if sign and root in view.site.roots:
        return rest
    path = PurePath(named)
    for one in view.recipe.sources.folders:
        folder = view.absolute(one.folder)
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name if path.is_absolute() or sign else path.as_posix()


def pictures(piece: Piece) -> Iterator[np.ndarray]:
    """The pictures of a piece, uint8 RGB [H,W,3] each, cropped and cleaned; decoded as they are asked for."""
    clip, window = piece.clip, piece.window
    base = Fraction(clip["time_base"])
    frames = video.read_frames(clip["path"], stream=clip["stream"], start_pts=clip["start_pts"],
                               end_pts=clip["end_pts"], crop=clip["crop"], cleanup=clip["cleanup"])  # fmt: skip
    for frame in video.on_screen(frames, window.times_s(), lambda one: (one.pts - clip["start_pts"]) * base):
        yield frame.image


def _made(piece: Piece, clips: Path, done: Made) -> bool:
    """Whether the piece's file is there and whole now; counts it."""
    target = clips / f"{piece.key}.mp4"
    try:
        if target.is_file() and video.probe(target).frames == piece.window.frames:
            done.reused += 1
            return True
    except (video.VideoError, OSError):
        pass  # damaged: made again
    try:
        _make(piece, target)
    except (video.VideoError, ValueError, OSError) as error:
        reason = str(error).replace(str(piece.clip["path"]), piece.facts["source"])
        done.failed.append(f"{piece.clip['clip_id']} at {piece.facts['start_s']:.3f} s of {piece.facts['source']}: "
                           f"{reason}")  # fmt: skip
        return False
    done.made += 1
    return True


def _make(piece: Piece, target: Path) -> None:
    """Write the file beside its place, read it back, and only then give it its name. Raises ValueError."""
    if not Path(piece.clip["path"]).is_file():
        raise ValueError("the source is gone")
    ends: list[np.ndarray] = []

    def kept() -> Iterator[np.ndarray]:
        for image in pictures(piece):
            ends[1 if ends else 0 :] = [image]
            yield image

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as place:
        part = Path(place) / target.name
        video.write_mp4(part, kept(), float(piece.window.fps), crf=CRF)
        check(part, piece.window.frames, ends[0], ends[-1])
        part.replace(target)


def check(path: Path, frames: int, first: np.ndarray, last: np.ndarray) -> None:
    """Read a file back. Raises ValueError for another number of pictures, or a first or last one unlike what it was."""
    count = 0
    ends: list[np.ndarray] = []
    for frame in video.read_frames(path):
        count += 1
        ends[1 if ends else 0 :] = [frame.image]
    if count != frames:
        raise ValueError(f"{count} pictures were read back, not {frames}")
    for name, image, wanted in (("first", ends[0], first), ("last", ends[-1], last)):
        if (near := psnr_db(image, wanted[: image.shape[0], : image.shape[1]])) < MIN_PSNR_DB:
            raise ValueError(f"the {name} picture read back is unlike the source's: {near:.1f} dB")


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal to noise of two uint8 images, in dB; infinite where they are equal."""
    error = float(np.mean((one.astype(np.float32) - other.astype(np.float32)) ** 2))
    return float("inf") if not error else float(10 * np.log10(255**2 / error))


def as_text(done: Made) -> str:
    """For people."""
    lines = [f"{done.folder}: {done.made} files made, {done.reused} were there, {len(done.failed)} failed"]
    return "\n".join([*lines, *(f"  {name}" for name in done.files), *(f"  failed: {one}" for one in done.failed)])


def as_dict(done: Made) -> dict[str, Any]:
    """For machines."""
    return asdict(done)
