"""What several clips of one source show at the same place: its logo, its band of subtitles. Boxes only, no pictures."""

from collections.abc import Sequence

import numpy as np

LEAST_CLIPS = 2
LEAST_SHARE = 0.25  # of a source's clips: less is chance
LOGO_OVERLAP = 0.5  # intersection over union of two boxes of one logo
BAND_OVERLAP = 1 / 3  # of the heights of two subtitles in one band: one line covers half of two
MOST_PLACES = 1000  # places of a source that are tried; each is compared with all boxes


def recurring_box(boxes: Sequence[str], least_share: float = LEAST_SHARE) -> str:
    """The still logo of a source, "x,y,w,h", from its clips' `static_box`; "" when none recurs.

    A box recurs when at least two clips, and `least_share` of them all, have one that covers it by half. A shot with a
    still camera hides a logo that the other shots show: what recurs holds for every clip of the source.
    """
    seen = [box for box in boxes if box]
    best, count = most_common(corners(seen), LOGO_OVERLAP) if seen else (0, 0)
    return seen[best] if count >= max(LEAST_CLIPS, least_share * len(boxes)) else ""


def source_shares(source_N: np.ndarray, boxes: Sequence[str | None], band: bool = False) -> np.ndarray:
    """For every clip, the share (0..1) of its source's clips that show something at one place; 0 where nothing recurs.

    source_N: the number of each clip's source, from 0. boxes: "x,y,w,h" of each clip, "" or None for none. band: only
    the height in the picture counts, as for subtitles, whose width changes with the words.
    """
    at = np.flatnonzero([bool(box) for box in boxes])
    clips = np.bincount(source_N, minlength=1)
    shares = np.zeros(len(clips))
    if len(at):
        at = at[np.argsort(source_N[at], kind="stable")]
        places = corners([boxes[index] or "" for index in at.tolist()])
        if band:
            places[:, 0], places[:, 2] = 0, 1
        owners = source_N[at]
        for rows in np.split(np.arange(len(at)), np.flatnonzero(np.diff(owners)) + 1):
            count = most_common(places[rows], BAND_OVERLAP if band else LOGO_OVERLAP)[1]
            source = owners[rows[0]]
            if count >= max(LEAST_CLIPS, LEAST_SHARE * clips[source]):
                shares[source] = count / clips[source]
    return shares[source_N]


def corners(boxes: Sequence[str]) -> np.ndarray:
    """Boxes "x,y,w,h" as x1, y1, x2, y2, float64 [N,4]."""
    found = np.array(",".join(boxes).split(","), np.float64).reshape(-1, 4)
    found[:, 2:] += found[:, :2]
    return found


def most_common(places_N4: np.ndarray, least: float) -> tuple[int, int]:
    """(the index of the box that most boxes cover by more than `least`, how many do, itself among them)."""
    tried = np.unique(np.linspace(0, len(places_N4) - 1, min(len(places_N4), MOST_PLACES)).astype(int))
    count = np.array([int((overlaps(places_N4[index], places_N4) > least).sum()) for index in tried])
    return int(tried[count.argmax()]), int(count.max())


def overlaps(box_4: np.ndarray, places_N4: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with each of many, 0..1."""
    across = np.minimum(box_4[2], places_N4[:, 2]) - np.maximum(box_4[0], places_N4[:, 0])
    down = np.minimum(box_4[3], places_N4[:, 3]) - np.maximum(box_4[1], places_N4[:, 1])
    both = np.maximum(across, 0) * np.maximum(down, 0)
    areas = (places_N4[:, 2] - places_N4[:, 0]) * (places_N4[:, 3] - places_N4[:, 1])
    return np.asarray(both / np.maximum(areas + (box_4[2] - box_4[0]) * (box_4[3] - box_4[1]) - both, 1e-9))
