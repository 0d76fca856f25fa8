"""What the network for logos learns from: corners of real, drawn and cartoon shots, some with a mark over them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import overlays
import styles
from marks import mark

from ptta_core import cartoon
from ptta_core.models import logo_net
from ptta_core.models import overlay as measures

TALL, WIDE = logo_net.WINDOW
HIGH, LONG = 320, 576  # px of a shot as seen
REAL = {"sintel": 0.3, "big_buck": 0.22, "popeye": 0.22, "penny": 0.14, "tears": 0.12}  # and how often each is drawn
VEO = (538, 297, 571, 314)  # px: the mark that the penny shots have
SOURCES = {"real": 0.6, "drawn": 0.28, "cartoon": 0.12}
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
YES, EITHER = 1, 2  # of a cell: in a mark, at its border

Random = np.random.Generator


class Scene(NamedTuple):
    """A shot without a mark of ours, as it is seen at 320 x 576."""

    source: str
    family: str
    grays: np.ndarray  # uint8 [12,H,W]
    colours: np.ndarray  # uint8 [3,H,W,3]


class Bug(NamedTuple):
    """A mark at 320 x 576: colour times opacity, and opacity; how far it is from the nearest edges, px."""

    premultiplied_HW4: np.ndarray
    right_px: float
    down_px: float


class Sample(NamedTuple):
    """One corner: maps uint8 [7,112,192], cells uint8 [28,48], whether it is low and whether it is to the right."""

    maps: np.ndarray
    cells: np.ndarray
    low: bool
    right: bool
    family: str


def scenes(folder: Path, known: Path | None, held_out: set[str]) -> Iterator[Scene]:
    """Plain shots in landscape; 12 a real video, 8 a drawn style, and those of three drawn cartoons."""
    with tempfile.TemporaryDirectory() as place:
        for number, (source, family, images) in enumerate(_shots(folder, known, Path(place))):
            if family in held_out or images[0].shape[1] < images[0].shape[0]:
                continue
            coding = np.random.default_rng(number)
            seen = overlays.seen(images, None, Path(place) / "a.mp4", crf=int(coding.integers(9, 16)) * 2)
            fitted = [cv2.resize(one, (LONG, HIGH), interpolation=cv2.INTER_AREA) for one in seen.colours]
            yield Scene(source, family, np.stack(seen.grays), np.stack(fitted))


def _shots(folder: Path, known: Path | None, place: Path) -> Iterator[tuple[str, str, list[np.ndarray]]]:
    for shot in overlays.shots(folder, known, 12):
        family = next((name for name in REAL if name in shot.name), "")
        if family:
            yield "real", family, shot.images
    for seed in range(8):
        for style in styles.STYLES:
            yield "drawn", style, styles.shot(style, seed, measures.LOOKS)
    for seed in range(3):
        for truth in cartoon.draw(place / str(seed), seed):
            spans = [(one["first"] + 2, one["last"] - 2) for one in truth["shots"]]
            for shot in overlays._read_shots(place / str(seed) / truth["file"], spans):
                yield "cartoon", "cartoon", shot.images


def bugs(count: int) -> list[Bug]:
    """Marks of many forms, cut out and brought to the size that pictures are seen at."""
    made = []
    for seed in range(count):
        height, width = ((720, 1280), (540, 960), (480, 848))[seed % 3]
        stamp = mark(height, width, 1_000_000 + seed)
        rows, columns = (np.flatnonzero((stamp.opacity > 0.02).any(axis)) for axis in (1, 0))
        if not len(rows):
            continue
        y1, y2, x1, x2 = max(0, rows[0] - 2), rows[-1] + 3, max(0, columns[0] - 2), columns[-1] + 3
        whole = np.dstack([stamp.colour * stamp.opacity[..., None], stamp.opacity])[y1:y2, x1:x2].astype(np.float32)
        size = max(4, round(whole.shape[1] * LONG / width)), max(4, round(whole.shape[0] * HIGH / height))
        across, down = min(columns[0], width - columns[-1] - 1), min(rows[0], height - rows[-1] - 1)
        small = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
        made.append(Bug(small, float(across) * LONG / width, float(down) * HIGH / height))
    return made


def samples(given: list[Scene], marks: list[Bug], count: int, seed: int = 1) -> Iterator[Sample]:
    """`count` corners, somewhat more than half of them with a mark."""
    random, made = np.random.default_rng(seed), 0
    while made < count:
        sample = _sample(_chosen(given, random), marks, random)
        if sample is not None:
            made += 1
            yield sample


def _chosen(given: list[Scene], random: Random) -> Scene:
    sources = [name for name in SOURCES if any(one.source == name for one in given)]
    source = _drawn_from({name: SOURCES[name] for name in sources}, random)
    pool = [one for one in given if one.source == source]
    if source == "real":
        families = {one.family for one in pool}
        family = _drawn_from({name: share for name, share in REAL.items() if name in families}, random)
        pool = [one for one in pool if one.family == family]
    return pool[int(random.integers(len(pool)))]


def _drawn_from(shares: dict[str, float], random: Random) -> str:
    weights = np.array(list(shares.values()))
    return str(random.choice(list(shares), p=weights / weights.sum()))


def _sample(scene: Scene, marks: list[Bug], random: Random) -> Sample | None:
    (y, x, high, wide), low, right = _window(random)
    grays, colours = (_fitted(some[:, y : y + high, x : x + wide]) for some in (scene.grays, scene.colours))
    boxes = []
    if scene.family == "penny":
        x1, y1, x2, y2 = (VEO[0] - x) * WIDE / wide, (VEO[1] - y) * TALL / high, \
            (VEO[2] - x) * WIDE / wide, (VEO[3] - y) * TALL / high  # fmt: skip
        if x1 > 2 and y1 > 2 and x2 < WIDE - 1 and y2 < TALL - 1:
            boxes.append((x1, y1, x2, y2))
        elif x1 < WIDE and y1 < TALL:
            return None  # a part of a mark
    if random.random() < 0.5 and not boxes:
        grays, colours, right = grays[:, :, ::-1], colours[:, :, ::-1], not right
    grays, colours = grays.astype(np.float32), colours.astype(np.float32)
    if random.random() < 0.4:  # as over a still camera
        still = int(random.integers(3))
        colours[:], grays[:] = colours[still], grays[overlays.COLOURED[still]]
    gains, more = random.uniform(0.8, 1.2) * random.uniform(0.93, 1.07, 3), random.uniform(-15, 15)
    colours = np.clip(colours * gains + more, 0, 255).astype(np.float32)
    grays = np.clip(grays * float(gains @ LUMA) + more, 0, 255).astype(np.float32)
    if random.random() < 0.55:
        boxes += _marked(grays, colours, marks[int(random.integers(len(marks)))], boxes, low, right, random)
    return Sample(_maps(*_coded(grays, colours, random)), _cells(boxes), low, right, scene.family)


def _window(random: Random) -> tuple[tuple[int, int, int, int], bool, bool]:
    """(y, x, height, width) of a corner, or of any place at another scale that shall stand for one."""
    if random.random() < 0.45:
        low, right = bool(random.random() < 0.5), bool(random.random() < 0.5)
        return (low * (HIGH - TALL), right * (LONG - WIDE), TALL, WIDE), low, right
    scale = random.uniform(0.75, 1.5)
    high, wide = int(TALL * scale), int(WIDE * scale)
    y, x = int(random.integers(0, HIGH - high + 1)), int(random.integers(0, LONG - wide + 1))
    return (y, x, high, wide), bool(random.random() < 0.5), bool(random.random() < 0.5)


def _fitted(images: np.ndarray) -> np.ndarray:
    if images.shape[1:3] == (TALL, WIDE):
        return images
    way = cv2.INTER_AREA if images.shape[1] > TALL else cv2.INTER_LINEAR
    return np.stack([cv2.resize(one, (WIDE, TALL), interpolation=way) for one in images])


def _marked(grays: np.ndarray, colours: np.ndarray, bug: Bug, taken: list, low: bool, right: bool, random: Random
            ) -> list[tuple[float, float, float, float]]:  # fmt: skip
    """Burns a mark into the corner, in place; its box, or nothing where it has no room or would not be seen."""
    tall, wide = bug.premultiplied_HW4.shape[:2]
    across = int(np.clip(bug.right_px + random.normal(0, 3), 2, 60))
    down = int(np.clip(bug.down_px + random.normal(0, 3), 2, 40))
    if tall + down >= TALL - 2 or wide + across >= WIDE - 2:
        return []
    top, left = (TALL - down - tall if low else down), (WIDE - across - wide if right else across)
    if any(x1 < left + wide and x2 > left and y1 < top + tall and y2 > top for x1, y1, x2, y2 in taken):
        return []
    place = (slice(None), slice(top, top + tall), slice(left, left + wide))
    colour, opacity = bug.premultiplied_HW4[..., :3], bug.premultiplied_HW4[..., 3]
    new = colours[place] * (1 - opacity[..., None]) + colour
    change = np.abs(new - colours[place]).max(-1).mean(0)[opacity > 0.15]
    if not len(change) or change.mean() <= 9:
        return []
    colours[place] = new
    grays[place] = grays[place] * (1 - opacity) + colour @ LUMA
    return [(left, top, left + wide, top + tall)]


def _coded(grays: np.ndarray, colours: np.ndarray, random: Random) -> tuple[np.ndarray, np.ndarray]:
    """With grain, and as lossy coding leaves them."""
    noisy = np.clip(grays + random.normal(0, random.choice([0, 0.5, 1.5]), grays.shape), 0, 255).astype(np.uint8)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(35, 96))]
    strips = noisy.reshape(-1, WIDE), np.clip(colours, 0, 255).astype(np.uint8).reshape(-1, WIDE, 3)
    gray, colour = (cv2.imdecode(cv2.imencode(".jpg", np.ascontiguousarray(one), quality)[1], flag)
                    for one, flag in zip(strips, (cv2.IMREAD_GRAYSCALE, cv2.IMREAD_COLOR)))  # fmt: skip
    assert gray is not None and colour is not None
    return gray.reshape(grays.shape), colour.reshape(colours.shape)


def _maps(grays: np.ndarray, colours: np.ndarray) -> np.ndarray:
    return logo_net.as_seen(measures.maps(measures.edges(list(grays)), list(colours)))


def _cells(boxes: list[tuple[float, float, float, float]]) -> np.ndarray:
    cells, cell = np.zeros((TALL // logo_net.CELL, WIDE // logo_net.CELL), np.uint8), logo_net.CELL
    for x1, y1, x2, y2 in boxes:
        rows, columns = ((max(0, int(low // cell)), int(-(-high // cell))) for low, high in ((y1, y2), (x1, x2)))
        cells[slice(*rows), slice(*columns)] = EITHER
        cells[_inner(y1, y2, cell), _inner(x1, x2, cell)] = YES
    return cells


def _inner(low: float, high: float, cell: int) -> slice:
    """The cells that lie wholly between two places; at least the one in the middle."""
    first, last = int(-(-low // cell)), int(high // cell)
    return slice(first, last) if last > first else slice(int((low + high) / 2 / cell), int((low + high) / 2 / cell) + 1)
