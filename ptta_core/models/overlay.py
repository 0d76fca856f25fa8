"""Text and logos that lie over the picture: where they are in a clip, from a dozen of its frames.

Text: strokes brighter than their surroundings, all of one brightness, of letter size, in a row, and still there at the
next look. A logo: a small patch near a corner whose edges stay while the picture around it changes. Both are judged by
a logistic function of a few plain features; its numbers (overlay_fit.py) were fitted on drawn subtitles and
logos over real animation. A small network (logo_net.py) judges the look of the corners too: over a still camera every
edge stays. A dark text on a bright ground is not looked for: outlines of drawings are too much like it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ptta_core.models import logo_net
from ptta_core.models.overlay_fit import EDGES_SHARE, LOGO, LOGO_BIAS, MARK_BIAS, TEXT, TEXT_BIAS

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in px, the ends not included
Line = tuple[float, Box]  # log odds of being text

LOOKS = 12  # frames of a clip that are looked at, spread evenly
STROKE_PX = 13  # wider things than this are no strokes, at 320 x 576
CONTRAST = 40  # gray levels by which a stroke is brighter than its surroundings
LOCAL = 0.6  # and by which share of the strongest stroke beside it: keeps strokes apart inside outlines
MOST_STROKES = 300  # the strongest of a frame; more is texture
# how still edges are looked for: (least mean gradient, gray levels a px; least coherence 0..1; gap to close, px)
LEVELS = ((2.5, 0.8, 9), (5, 0.8, 9), (5, 0.8, 5), (8, 0.85, 9), (8, 0.85, 5), (12, 0.85, 9), (12, 0.85, 5),
          (18, 0.9, 9), (26, 0.9, 9))  # fmt: skip
CORNER = 0.25  # a logo's centre is this near to the picture's edge, as a share of its size, in both directions
RING_PX = 10  # around a logo
LEAST_LETTERED = -4.0  # log odds of text below which a logo counts as having no letters
MOST_EDGES = 6.0  # log odds of a logo from its edges are held between this and its negative


class Overlay(NamedTuple):
    """What lies over a clip's picture. Boxes are in px of the frames given."""

    text_share: float  # 0..1 of the picture under text, at the look that shows most; text must show at two looks
    text_box: Box | None  # around all that text
    overlay: float  # 0..1: how surely a still logo lies near a corner
    static_box: Box | None  # the likeliest logo, when likelier than not


def measure(grays: Sequence[np.ndarray], pictures: Sequence[np.ndarray] = ()) -> Overlay:
    """Text and logos over a clip, from some of its frames (uint8 [H,W], about 320 x 576, in order of time).

    pictures: a few of the clip's frames in colour, uint8 RGB [H,W,3] of any size, for the look of a logo; without them
    it is judged in gray. With fewer than three grays no logo is looked for, and with one text is judged by its form.
    """
    looks = [strokes(gray) for gray in grays]
    scored = [scored_lines(looks, at) for at in range(len(looks))]
    lines = [[box for score, box in look if score > 0] for look in scored]
    seen = [_seen_twice(lines, at) for at in range(len(looks))]
    size = grays[0].size
    shares = [sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes) / size for boxes in seen]
    letters = [line for look in scored for line in look if line[0] > LEAST_LETTERED]
    logo, box = (0.0, None) if len(grays) < 3 else find_logo(grays, pictures, letters)
    return Overlay(min(1.0, max(shares)), _around([box for boxes in seen for box in boxes]), logo, box)


# ------------------------------------------------------------------------------------------------------- text


class Strokes(NamedTuple):
    """The bright strokes of one frame."""

    mask_HW: np.ndarray  # uint8, 0 or 1
    parts_N9: np.ndarray  # x, y, w, h, area, peak, core share, stroke width, contrast of each


def strokes(gray_HW: np.ndarray) -> Strokes:
    """Thin parts of a uint8 picture [H,W] that are brighter than their surroundings, of the size of letters."""
    import cv2

    window = np.ones((STROKE_PX, STROKE_PX), np.uint8)
    hat = cv2.morphologyEx(gray_HW, cv2.MORPH_TOPHAT, window)
    least = np.maximum(cv2.convertScaleAbs(cv2.dilate(hat, window), alpha=LOCAL), CONTRAST)
    mask = np.asarray(hat >= least).view(np.uint8)
    labels, stats = _patches(mask)
    x, y, w, h, area = stats.T
    letter = (h >= 4) & (h <= 40) & (w <= 110) & (area >= 6) & (w <= 8 * h) & (h <= 12 * w)
    letter &= (x > 0) & (y > 0) & (x + w < gray_HW.shape[1]) & (y + h < gray_HW.shape[0])
    letter[0] = False  # the background
    ids = np.flatnonzero(letter)
    if len(ids) < 2:
        return Strokes(mask, np.zeros((0, 9)))
    edge = np.bitwise_xor(mask, cv2.erode(mask, np.ones((3, 3), np.uint8)))
    peak, core, outline, contrast = _inside(labels, letter, gray_HW, hat, edge)
    own = area[ids]
    width = 2 * own / np.maximum(outline, 1)
    columns = (x[ids], y[ids], w[ids], h[ids], own, peak, core / own, width, contrast)
    parts = np.stack(columns, 1).astype(np.float64)
    if len(parts) > MOST_STROKES:
        parts = parts[np.sort(np.argsort(-parts[:, 8], kind="stable")[:MOST_STROKES])]
    return Strokes(mask, parts)


def _inside(labels: np.ndarray, wanted: np.ndarray, gray: np.ndarray, hat: np.ndarray, edge: np.ndarray) -> Any:
    """(brightest, pixels within 25 of it, outline's pixels, strongest contrast) of each wanted component."""
    places = np.flatnonzero(labels)
    owners = labels.ravel()[places]
    keep = wanted[owners]
    places, owners = places[keep], owners[keep]
    order = np.argsort(owners, kind="stable")
    places = places[order]
    starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    levels = gray.ravel()[places].astype(np.int16)
    peak = np.maximum.reduceat(levels, starts)
    core = levels >= np.repeat(peak - 25, np.diff(starts, append=len(places)))
    outline = np.add.reduceat(edge.ravel()[places].astype(np.int32), starts)
    contrast = np.maximum.reduceat(hat.ravel()[places], starts)
    return peak, np.add.reduceat(core.astype(np.int32), starts), outline, contrast


def text_rows(parts_N9: np.ndarray) -> np.ndarray:
    """The number of the row that each stroke belongs to: side by side, alike in height, brightness and width."""
    x, y, w, h, _, peak, _, width, contrast = parts_N9.T
    lower, higher = np.minimum.outer(h, h), np.maximum.outer(h, h)
    alike = np.minimum.outer(y + h, y + h) - np.maximum.outer(y, y) >= 0.5 * lower
    alike &= np.maximum.outer(x, x) - np.minimum.outer(x + w, x + w) <= 0.9 * higher + 2
    alike &= (higher <= 3 * lower) & (np.abs(np.subtract.outer(peak, peak)) < 25)
    alike &= np.abs(np.subtract.outer(contrast, contrast)) < 90
    alike &= np.maximum.outer(width, width) <= 2.2 * np.minimum.outer(width, width)
    labels = np.arange(len(parts_N9), dtype=np.int32)
    while True:
        following = np.where(alike, labels[None], np.int32(len(labels))).min(1)
        if (following == labels).all():
            return labels
        labels = following


def text_features(look: Strokes, others: Sequence[Strokes]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Boxes [R,4] of the rows of at least two strokes, and what each row is like; `others`: looks before and after."""
    labels = text_rows(look.parts_N9)
    counts = np.bincount(labels, minlength=1)
    rows = np.flatnonzero(counts[labels] >= 2)
    rows = rows[np.argsort(labels[rows], kind="stable")]
    if not len(rows):
        return np.zeros((0, 4), np.int64), {}
    starts = np.flatnonzero(np.diff(labels[rows], prepend=-1))
    x, y, w, h, area, peak, core, width, contrast = look.parts_N9[rows].T
    count = np.diff(starts, append=len(rows))
    edges = [np.minimum.reduceat(x, starts), np.minimum.reduceat(y, starts),
             np.maximum.reduceat(x + w, starts), np.maximum.reduceat(y + h, starts)]  # fmt: skip
    boxes = np.stack(edges, 1).astype(np.int64)
    long, tall = (boxes[:, 2:] - boxes[:, :2]).T

    def mean(values: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
        weights = weights + np.zeros_like(values)
        return np.add.reduceat(values * weights, starts) / np.add.reduceat(weights, starts)

    def spread(values: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(0, mean(values * values) - mean(values) ** 2))

    letter, mask = mean(h, area), look.mask_HW
    inside = _sums(mask, boxes)
    begins = _sums(mask[:, 1:] & ~mask[:, :-1], boxes - np.array([1, 0, 1, 0]))
    stays = np.zeros(len(boxes))
    for other in others:
        both = _sums(mask & other.mask_HW, boxes)
        stays = np.maximum(stays, both / np.maximum(1, inside + _sums(other.mask_HW, boxes) - both))
    dense = inside / (long * tall)
    return boxes, {
        "strokes": np.log(count), "length": np.log(long / letter), "lines": np.log(tall / letter),
        "peak_spread": spread(peak) / 50, "width_spread": spread(width) / mean(width), "contrast": mean(contrast) / 50,
        "density": dense, "density_squared": dense**2, "own": np.add.reduceat(area, starts) / np.maximum(1, inside),
        "stays": stays, "boldness": mean(width, area) / letter, "peak": mean(peak) / 50, "letter": np.log(letter),
        "starts": begins / (tall * long / letter), "core": mean(core, area), "height_spread": spread(h) / letter,
        "foot_spread": spread(y + h) / letter,
    }  # fmt: skip


def _sums(mask: np.ndarray, boxes_R4: np.ndarray) -> np.ndarray:
    """How many pixels of a 0-or-1 mask [H,W] lie in each box."""
    import cv2

    total = cv2.integral(mask)
    height, width = mask.shape
    x1, x2 = (np.clip(boxes_R4[:, at], 0, width) for at in (0, 2))
    y1, y2 = (np.clip(boxes_R4[:, at], 0, height) for at in (1, 3))
    return total[y2, x2] - total[y1, x2] - total[y2, x1] + total[y1, x1]


def scored_lines(looks: Sequence[Strokes], at: int) -> list[Line]:
    """Possible lines of text at one look; above a score of 0 (log odds) they are taken for text."""
    others = [looks[near] for near in (at - 1, at + 1) if 0 <= near < len(looks)]
    if len(looks[at].parts_N9) < 2:
        return []
    boxes, features = text_features(looks[at], others)
    if not features:
        return []
    scores = TEXT_BIAS + sum(TEXT[name] * values for name, values in features.items())
    x1, y1, x2, y2 = boxes.T.tolist()
    return list(zip(np.asarray(scores).tolist(), zip(x1, y1, x2, y2)))


def _seen_twice(lines: Sequence[list[Box]], at: int) -> list[Box]:
    """The lines of one look that the look before or after has too; all of them when there is only one look."""
    if len(lines) == 1:
        return lines[0]
    near = [box for other in (at - 1, at + 1) if 0 <= other < len(lines) for box in lines[other]]
    return [box for box in lines[at] if any(_overlap(box, other) > 0.3 for other in near)]


# ------------------------------------------------------------------------------------------------------ logos


class Edges(NamedTuple):
    """How the edges of some frames [H,W] behave over time; gray levels a px."""

    mean: np.ndarray  # length of the mean gradient: edges that stay
    length: np.ndarray  # mean length of the gradient: all edges
    spread: np.ndarray  # standard deviation of the brightness, gray levels
    level: np.ndarray  # mean brightness, gray levels


def edges(grays: Sequence[np.ndarray]) -> Edges:
    """Edges over time of uint8 frames [H,W]; one frame at a time is worked on."""
    import cv2

    sums = np.zeros((5, *grays[0].shape), np.float32)
    for gray in grays:
        smooth = cv2.GaussianBlur(gray, (3, 3), 0)
        across, down = (cv2.Sobel(smooth, cv2.CV_32F, *way, scale=1 / 8) for way in ((1, 0), (0, 1)))
        for total, more in zip(sums, (across, down, cv2.magnitude(across, down), smooth)):
            cv2.accumulate(more, total)
        cv2.accumulateSquare(smooth, sums[4])
    sums /= len(grays)
    across, down, length, level, square = sums
    return Edges(cv2.magnitude(across, down), length, np.sqrt(np.maximum(0, square - level * level)), level)


def logo_candidates(over_time: Edges, letters: Sequence[Line]) -> list[tuple[Box, dict[str, float]]]:
    """Patches of still edges near a corner, with what they are like; the same logo usually comes several times.

    letters: possible lines of text of all looks; a logo is often made of letters.
    """
    import cv2

    still = (over_time.mean > 3) & (over_time.mean > 0.85 * over_time.length)
    frame = {
        "frame_still": float(still.sum() / max(1, (over_time.length > 3).sum())),
        "frame_edges": float(np.log1p(np.percentile(over_time.mean, 97))),
    }
    found = []
    for least, coherence, gap in LEVELS:
        strong = (over_time.mean > least) & (over_time.mean > coherence * over_time.length)
        patches = cv2.morphologyEx(strong.view(np.uint8), cv2.MORPH_CLOSE, np.ones((gap, gap), np.uint8))
        patches = cv2.morphologyEx(patches, cv2.MORPH_OPEN, np.ones((4, 4), np.uint8))
        labels, stats = _patches(patches)
        for label in range(1, len(stats)):
            x, y, w, h, area = (int(value) for value in stats[label])
            if _in_corner(x, y, w, h, still.shape):
                inside = strong[y : y + h, x : x + w] & (labels[y : y + h, x : x + w] == label)
                if inside.sum() >= 12:
                    box = (x, y, x + w, y + h)
                    features = _logo_features(over_time, still, box, inside, area, least)
                    found.append((box, frame | features | {"letters": _lettered(box, letters)}))
    return found


def _in_corner(x: int, y: int, w: int, h: int, shape: tuple[int, ...]) -> bool:
    """Whether a box has a logo's size and place."""
    height, width = shape
    sized = 0.02 * width <= w <= 0.25 * width and 0.025 * height <= h <= 0.25 * height
    whole = x > 1 and y > 1 and x + w < width - 1 and y + h < height - 1
    across, down = (x + w / 2) / width, (y + h / 2) / height
    return sized and whole and min(across, 1 - across) <= CORNER and min(down, 1 - down) <= CORNER


def _logo_features(over_time: Edges, still: np.ndarray, box: Box, inside: np.ndarray, area: int, least: float
                   ) -> dict[str, float]:  # fmt: skip
    x1, y1, x2, y2 = box
    height, width = still.shape
    w, h = x2 - x1, y2 - y1
    top, left = max(0, y1 - RING_PX), max(0, x1 - RING_PX)
    place = (slice(top, min(height, y2 + RING_PX)), slice(left, min(width, x2 + RING_PX)))
    ring = np.ones(still[place].shape, bool)
    ring[max(0, y1 - 2 - top) : y2 + 2 - top, max(0, x1 - 2 - left) : x2 + 2 - left] = False
    own = (slice(y1, y2), slice(x1, x2))
    # float64: in float32 a sum's last digits depend on where in memory its numbers lie, so on the run
    mean, length = (one[own][inside].astype(np.float64) for one in (over_time.mean, over_time.length))
    strength, around = float(np.log(mean.mean())), float(over_time.length[place][ring].mean(dtype=np.float64))
    still_share = float(inside.mean())
    ring_spread = float(np.log1p(over_time.spread[place][ring].mean(dtype=np.float64)))
    to_corner = [min(middle, 1 - middle) for middle in ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height)]
    return {
        "strength": strength, "strength_squared": strength**2,
        "coherence": float((mean / np.maximum(length, 1e-3)).mean()), "ring_spread": ring_spread,
        "spread": float(np.log1p(over_time.spread[own].mean(dtype=np.float64))),
        "ring_still": float(still[place][ring].mean()),
        "still": still_share, "still_squared": still_share**2,
        "edges": float(np.log1p(over_time.length[own].mean(dtype=np.float64))),
        "size": float(np.log(w * h / (width * height))), "corner": float(np.hypot(*to_corner)),
        "ring_edges": float(np.log1p(around)), "aspect": float(np.log(w / h)),
        "aspect_squared": float(np.log(w / h)) ** 2, "filled": area / (w * h),
        "contrast": float(np.log1p(mean.mean() / (around + 0.5))), "level": float(np.log(least)),
        "ring_strength": float(np.log1p(np.percentile(over_time.mean[place][ring], 95))),
    }  # fmt: skip


def _lettered(box: Box, letters: Sequence[Line]) -> float:
    """The best score, -4 to 4, of the possible lines of text that lie mostly inside a box and fill a third of it."""
    best = LEAST_LETTERED
    for score, (x1, y1, x2, y2) in letters:
        across, down = min(x2, box[2]) - max(x1, box[0]), min(y2, box[3]) - max(y1, box[1])
        both = max(0, across) * max(0, down)
        if 2 * both > (x2 - x1) * (y2 - y1) and 3 * both > (box[2] - box[0]) * (box[3] - box[1]):
            best = max(best, score)
    return min(4.0, best)


def find_logo(grays: Sequence[np.ndarray], pictures: Sequence[np.ndarray], letters: Sequence[Line]
              ) -> tuple[float, Box | None]:  # fmt: skip
    """(how surely a still logo lies near a corner, 0..1; its box when that is above one half)."""
    over_time = edges(grays)
    scored = [(LOGO_BIAS + sum(LOGO[name] * value for name, value in features.items()), box)
              for box, features in logo_candidates(over_time, letters)]  # fmt: skip
    from_edges, box = max(scored, default=(-MOST_EDGES, None))
    mark = logo_net.likeliest(maps(over_time, pictures), logo_net.weights())
    if mark is None:
        return 0.0, None
    score = MARK_BIAS + mark.score + EDGES_SHARE * min(MOST_EDGES, max(-MOST_EDGES, from_edges))
    if from_edges <= 0:  # edges give the closer box, where they tell the logo at all
        box = mark.box
    # four digits: the last ones of a product of matrices depend on the processor
    return round(float(1 / (1 + np.exp(-score))), 4), box if score > 0 else None


def maps(over_time: Edges, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """What the network judges by, float32 [7,H,W]: see `logo_net.likeliest`."""
    import cv2

    height, width = over_time.level.shape
    made = np.empty((7, height, width), np.float32)
    made[:3] = over_time.level
    if pictures:
        colour = np.zeros(pictures[0].shape, np.float32)
        for picture in pictures:
            cv2.accumulate(picture, colour)
        small = cv2.resize(colour / len(pictures), (width, height), interpolation=cv2.INTER_AREA)
        made[:3] = small.transpose(2, 0, 1)
    made[3:] = over_time.level, over_time.spread, over_time.mean, over_time.length
    return made


# ------------------------------------------------------------------------------------------- patches and boxes


def _patches(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the label of each pixel, x, y, width, height, area of each label) of a mask's connected parts; 0 is outside."""
    import cv2

    # 16-bit labels are three times faster; a picture with more than four pixels for each has room for all
    kind = cv2.CV_16U if mask.size // 4 < 60_000 else cv2.CV_32S
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=kind)
    return labels, stats


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0, across) * max(0, down)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one, other)]
    return both / (sum(areas) - both)


def _around(boxes: Sequence[Box]) -> Box | None:
    """The smallest box around all."""
    if not boxes:
        return None
    x1, y1, x2, y2 = zip(*boxes)
    return min(x1), min(y1), max(x2), max(y2)
