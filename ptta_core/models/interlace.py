"""Whether a source is interlaced or telecined, seen in its pictures: flags are often wrong.

Two fields of one moment fit each other better than fields of different moments. So, where something moves, combing
is measured in each picture as it is and in pictures woven from two neighbours (`video.fields.measure`):

    progressive   a picture's own fields fit best
    telecined     in two of five pictures they do not, but the pictures of some 3:2 phase are all whole
    interlaced    a top field fits the bottom fields before and after it equally well, and better than the next but one
    combed        finer detail down than along lines where something moves, and only there: scaled after weaving

Fine horizontal lines add the same to every measure and so tip none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from ptta_core.video import VideoInfo
    from ptta_core.video.fields import Weave

Verdict = Literal["still", "progressive", "telecined", "tff", "bff", "combed", "unclear"]

PLACES = (0.5, 0.15, 0.8, 0.33, 0.65, 0.05)  # of the source's length, where windows begin
WINDOW = 16  # pictures: three cycles of 3:2 pulldown
ENOUGH = 2  # windows with motion that are clearly progressive end the search
MIN_LINES = 160  # smaller pictures are no interlaced standard, and too small to tell
MAX_FPS = 31.0  # interlaced video has at most 30 pictures a second
MOVES = 2.0  # pictures with motion that a window needs
WHOLE = 0.75  # Weave.whole of progressive pictures: 0.95 and more
UNSPLIT = 0.04  # Weave.split of progressive pictures: 0.00
FITS = 0.05  # Weave.film of telecined pictures: 0.01 and less; of all others with motion 0.07 and more
CHANGES = 0.48  # Weave.whole + Weave.split of telecined pictures: 0.5 to 0.7; of interlaced ones 0.25 to 0.45
LATER = 1.3  # times: how much worse the far field fits than the near one
VISIBLE = 1.0  # levels: less combing is not seen
FINER = 1.3  # times the combing along lines that combing between them is: below it is texture, in fast motion
STRONG = 3.0  # levels of combing above that of still places ...
ALONG = 5.0  # ... times that along lines ...
STILL = 3.0  # ... and times that of still places, which only pictures scaled after weaving show
HALVED_LINES = 700  # larger pictures are looked at in half their size too: they may have been enlarged


class Combed(Exception):
    """Combing that no cleanup undoes."""

    kind = "combed"


@dataclass(frozen=True)
class Evidence:
    """Combing of one window, in levels a moving pixel: means over its pictures."""

    weight: float  # pictures with motion
    weave: "Weave"
    near: float  # of the better weave of two pictures
    far: float  # of the worse one
    own: float  # of the pictures as they are
    across: float  # the same measure along lines
    still: float  # of the pictures as they are, where nothing moves


def detect(path: str, info: "VideoInfo") -> str:
    """The cleanup that a source needs, as video.read_frames takes it.

    "" for none | "deinterlace" | "deinterlace bff" (bottom field first) | "detelecine".

    Decodes at most six windows of 16 pictures, for clearly progressive sources two. Raises Combed (kind "combed")
    where combing is left that no cleanup undoes, and VideoError.
    """
    from ptta_core import video

    if info.fps > MAX_FPS and not 49 < info.fps < 61:
        return ""
    verdicts: list[Verdict] = []
    for place in PLACES:
        near_pts = info.start_pts + int(place * info.duration_s / Fraction(info.time_base))
        pictures = video.read_luma(path, stream=info.stream, near_pts=near_pts, count=WINDOW)
        if len(pictures) and pictures[0].shape[0] < MIN_LINES:
            return ""
        verdicts.append(judge_window(pictures))
        if verdicts.count("progressive") >= ENOUGH and set(verdicts) <= {"progressive", "still"}:
            return ""
        if info.duration_s * info.fps <= WINDOW:
            break
    return _cleanup(path, verdicts)


def _cleanup(path: str, verdicts: Sequence[Verdict]) -> str:
    """What the windows call for together. Raises Combed."""
    decided = [one for one in verdicts if one not in ("still", "unclear")]
    telecined, combed = decided.count("telecined"), decided.count("combed")
    fielded = [one for one in decided if one in ("tff", "bff")]
    if combed and 3 * combed >= 2 * len(decided):
        raise Combed(f"{path}: combed, and neither deinterlacing nor inverse telecine undoes it")
    if telecined and telecined >= len(fielded):
        return "detelecine"
    if fielded and 3 * len(fielded) >= len(decided):
        return "deinterlace" if 2 * fielded.count("tff") >= len(fielded) else "deinterlace bff"
    return ""


def judge_window(pictures: Sequence[np.ndarray]) -> Verdict:
    """What pictures in a row are; luma uint8 [H,W] each, all of one size or "unclear"."""
    if len({picture.shape for picture in pictures}) > 1:
        return "unclear"
    verdict = judge(evidence(pictures))
    if verdict == "progressive" and pictures[0].shape[0] >= HALVED_LINES:
        height, width = (side // 2 * 2 for side in pictures[0].shape)
        halved = [
            ((one[0:height:2, :width:2].astype(np.uint16) + one[1:height:2, :width:2] + 1) // 2).astype(np.uint8)
            for one in pictures
        ]
        if judge(evidence(halved)) not in ("progressive", "still", "unclear"):
            return "combed"
    return verdict


def evidence(pictures: Sequence[np.ndarray]) -> Evidence:
    """Combing of pictures in a row; luma uint8 [H,W] each."""
    from ptta_core.video import fields

    halves = [fields.fields_of(picture) for picture in pictures]
    pairs = [fields.measure(first, second) for first, second in pairwise(halves)]
    weight = sum(pair.weight for pair in pairs)
    if weight < MOVES:
        return Evidence(weight, fields.weave_of([]), 0, 0, 0, 0, 0)

    def mean(values: Sequence[float]) -> float:
        return sum(value * pair.weight for value, pair in zip(values, pairs)) / weight

    sides = [_beside(first, second) for first, second in pairwise(pictures)]
    near, far = sorted((mean([pair.top_later for pair in pairs]), mean([pair.bottom_later for pair in pairs])))
    return Evidence(
        weight, fields.weave_of(list(enumerate(pairs))), near, far, mean([pair.own for pair in pairs]),
        mean([across for across, _ in sides]), mean([still for _, still in sides]),
    )  # fmt: skip


def _beside(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """(combing along lines where something moves, combing between lines where nothing does), levels a pixel."""
    from ptta_core.video import fields

    one, two = (fields.fields_of(picture) for picture in (first, second))
    moved = np.abs(one.top - two.top)[:-1] > fields.MOVED_LEVELS
    between = fields.combing(one.top, one.bottom)
    lines = first[0 : moved.shape[0] * 2 : 2].astype(np.int16)
    along = fields.combing(lines[:, 0::2][:, : lines.shape[1] // 2].T, lines[:, 1::2].T).T
    step = max(1, round(first.shape[1] / fields.COLUMNS))
    turned = np.repeat(along, 2, axis=1)[:, ::step][:, : moved.shape[1]]
    moving = moved[:, : turned.shape[1]]
    return _mean(turned[moving]), _mean(between[~moved])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def judge(seen: Evidence) -> Verdict:
    """What one window is."""
    weave = seen.weave
    if seen.weight < MOVES:
        return "still"
    if seen.own > max(STRONG + seen.still, ALONG * seen.across, STILL * seen.still) and weave.whole >= WHOLE:
        return "combed"
    if (weave.whole >= WHOLE and weave.split <= UNSPLIT) or seen.own < FINER * seen.across:
        return "progressive"
    if weave.film <= FITS and weave.split > UNSPLIT and weave.whole + weave.split >= CHANGES:
        return "telecined"
    if seen.own < 2 * FINER * seen.across:  # no cycle bears witness
        return "progressive"
    if seen.far >= LATER * max(seen.near, seen.own) and seen.own >= VISIBLE:
        return "bff" if weave.bottom_first else "tff"
    return "progressive" if weave.whole >= WHOLE / 2 else "unclear"
