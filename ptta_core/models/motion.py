"""How much a clip moves: optical flow between drawings, in px per gap, and what the camera does.

Units: frames of 320 x 576 px (H x W; portrait transposed), pairs about `gap_s` (0.625 s) apart in time. A drawing of
limited animation is held for two or three frames, so a fixed distance in frames would span a varying number of
drawings; pairs are therefore taken between drawing onsets (the first frame of each drawing) and the displacement is
scaled to `gap_s` by the time between the two onsets. Flow lengths are averaged, never signed flow: opposite motions
would cancel.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptta_core.config import ModelRef, ScoreConfig
from ptta_core.models.weight_files import weights_file

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]  # gray uint8 [H,W] twice -> float32 [H,W,2]: x right, y down
Pair = tuple[int, int]  # frame indices

SATURATED_PX = 80.0  # DIS reads 108 px as 92 at a width of 576; up to 80 it is accurate
STATIC_PX = 0.5  # per gap; Open-Sora's "very low"
CELL_PX = 16  # changes are looked for in cells, so that a small moving part is not averaged away
QUIET = 0.6  # gray levels (0..255), mean over a cell: compression alone changes a held drawing by less
SEEDED_PX = 8.0  # global shifts above this give DIS a second start
SEEDED_BETTER = 0.75  # and is kept when its warp error is below this share: more freedom always fits grain better
PAUSE_24 = 4.5  # a drawing held longer (in 1/24 s) is a pause and says nothing about ones, twos or threes


class Motion(NamedTuple):
    """Motion of one clip; lengths in px per gap. Fields as in rows.Score."""

    motion_px: float  # mean over pixels and pairs of the flow's length
    motion_p95_px: float  # 95th percentile over pixels, mean over pairs
    pairs: int
    static_share: float  # 0..1 of the pairs whose mean flow is below 0.5 px
    saturated: bool  # some pair's mean or 99th percentile is above 80 px before scaling
    timing: str  # ones | twos | threes | mixed | still
    pan_x_px: float  # net global translation, mean over pairs; positive: the picture moves right
    pan_y_px: float  # positive: the picture moves down
    zoom: float  # scale factor per second, geometric mean over pairs; 1 = none


STILL = Motion(0.0, 0.0, 0, 1.0, False, "still", 0.0, 0.0, 1.0)


def measure(images: Sequence[np.ndarray], times_s: Sequence[float], flow: Flow, gap_s: float = 0.625) -> Motion:
    """The motion of one clip from all its frames (gray uint8 [H,W]) and their times in seconds, in order.

    A clip with fewer than two drawings is still. A clip shorter than the gap gives one pair, from its first drawing
    to its last. Raises ValueError when frames and times differ in number, or times do not increase.
    """
    times = np.asarray(times_s, dtype=np.float64)
    if len(images) != len(times):
        raise ValueError(f"{len(images)} frames but {len(times)} times")
    if len(times) > 1 and not (np.diff(times) > 0).all():
        raise ValueError("frame times must increase")
    quiet = quiet_level(images)
    onsets = drawing_onsets(images, quiet)
    if len(onsets) < 2:
        return STILL
    pairs = onset_pairs(times, onsets, gap_s)
    moving = [pair for pair in pairs if change(images[pair[0]], images[pair[1]]) > quiet]
    flows = dict(zip(moving, _flows(flow, [(images[a], images[b]) for a, b in moving])))
    parts = [_measure_pair(flows.get(pair), times[pair[1]] - times[pair[0]], gap_s) for pair in pairs]
    mean, p95, peak, pan_x, pan_y, log_zoom = np.array(parts).T
    return Motion(
        motion_px=float(mean.mean()),
        motion_p95_px=float(p95.mean()),
        pairs=len(pairs),
        static_share=float((mean < STATIC_PX).mean()),
        saturated=bool((peak > SATURATED_PX).any()),
        timing=timing_of(times, onsets),
        pan_x_px=float(pan_x.mean()),
        pan_y_px=float(pan_y.mean()),
        zoom=float(np.exp(log_zoom.mean())),
    )


def _measure_pair(flow_HW2: np.ndarray | None, span_s: float, gap_s: float) -> tuple[float, ...]:
    """(mean px, p95 px, peak px unscaled, pan x px, pan y px, log zoom per second) of one pair; None is no motion."""
    if flow_HW2 is None:
        return (0.0,) * 6
    length = np.linalg.norm(flow_HW2, axis=2)
    mean = float(length.mean())
    p95, p99 = (float(value) for value in np.percentile(length, (95, 99)))
    scale, pan_x, pan_y = similarity(flow_HW2)
    to_gap = gap_s / span_s
    return mean * to_gap, p95 * to_gap, max(mean, p99), pan_x * to_gap, pan_y * to_gap, np.log(scale) / span_s


def _flows(flow: Flow, pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    if isinstance(flow, Raft):
        return flow.many(pairs)
    return [flow(first, second) for first, second in pairs]


# ------------------------------------------------------------------------------------------ drawings and pairs


def _cells(image: np.ndarray) -> np.ndarray:
    """Means over cells of 16 px: [H,W] -> [H/16,W/16]."""
    import cv2

    height, width = image.shape[:2]
    size = (max(1, round(width / CELL_PX)), max(1, round(height / CELL_PX)))
    return cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def _smooth(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(image, (0, 0), 1.0)


def _differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean absolute difference of two smoothed images in each cell, gray levels."""
    import cv2

    return _cells(cv2.absdiff(first, second))


def change(first: np.ndarray, second: np.ndarray) -> float:
    """The largest mean absolute difference over 16 px cells of two lightly blurred gray images, gray levels 0..255."""
    return float(_differences(_smooth(first), _smooth(second)).max())


def quiet_level(images: Sequence[np.ndarray]) -> float:
    """The change, in gray levels, below which two frames show the same drawing: twice the grain plus a constant.

    Grain is what differs between neighbouring frames in most cells, but no more than the spatial noise can explain
    (else a textured pan would count as grain).
    """
    if len(images) < 2:
        return QUIET
    smooth = [_smooth(image) for image in images]
    medians = [np.median(_differences(a, b)) for a, b in itertools.pairwise(smooth)]
    temporal = float(np.percentile(medians, 10))
    sample = images[:: max(1, len(images) // 5)]
    spatial = max(spatial_noise(image) for image in sample)
    # white noise of deviation s, blurred with sigma 1: difference of two frames has a mean of 0.32 s; film grain
    # is coarser than white noise, so twice that is allowed
    return 2.0 * min(temporal, 2 * 0.32 * spatial) + QUIET


def spatial_noise(image: np.ndarray) -> float:
    """Standard deviation of the noise in the flatter parts of a gray image, gray levels.

    Immerkaer's Laplacian-difference mask (Fast Noise Variance Estimation, CVIU 1996), taken a cell at a time; the
    lower quartile of the cells, so that drawn texture counts as little as possible.
    """
    import cv2

    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(image.astype(np.float32), -1, mask))
    return float(np.sqrt(np.pi / 2) / 6 * np.percentile(_cells(response), 25))


def drawing_onsets(images: Sequence[np.ndarray], quiet: float) -> list[int]:
    """Indices of the frames that show a new drawing; the first frame always counts.

    Each frame is compared with the onset of the drawing before, so that a drift too slow to see from frame to frame
    is found once it has added up.
    """
    onsets: list[int] = []
    reference = np.empty(0)
    for index, image in enumerate(images):
        smooth = _smooth(image)
        if not onsets or float(_differences(reference, smooth).max()) > quiet:
            onsets.append(index)
            reference = smooth
    return onsets


def onset_pairs(times: np.ndarray, onsets: Sequence[int], gap_s: float) -> list[Pair]:
    """Pairs of frames about `gap_s` apart, end to end, both at drawing onsets; at least one pair.

    - A first drawing that is held shorter than usual began before the clip: its onset is not known, so it is skipped.
    - Within a hold much longer than the gap, frames a gap apart stand in: the pause counts as no motion.
    - What is left at the end counts when it is at least half a gap long.
    """
    onsets = list(onsets)
    if len(onsets) > 2:
        holds = np.diff(times[onsets])
        if holds[0] < 0.75 * np.median(holds):
            onsets = onsets[1:]
    anchors = _with_pauses(times, onsets, gap_s)
    pairs: list[Pair] = []
    here = 0
    while here < len(anchors) - 1:
        ahead = times[anchors[here + 1 :]] - times[anchors[here]]
        there = here + 1 + int(np.argmin(np.abs(ahead - gap_s) - 1e-9 * ahead))
        if pairs and times[anchors[there]] - times[anchors[here]] < gap_s / 2:
            break
        pairs.append((anchors[here], anchors[there]))
        here = there
    return pairs


def _with_pauses(times: np.ndarray, onsets: list[int], gap_s: float) -> list[int]:
    """The onsets, and within each long hold the frames nearest to every further gap after its onset."""
    anchors = []
    for onset, following in zip(onsets, [*onsets[1:], len(times) - 1]):
        anchors.append(onset)
        at_s = times[onset] + gap_s
        while times[following] - at_s >= gap_s / 2:
            frame = int(np.argmin(np.abs(times - at_s)))
            if anchors[-1] < frame < following:
                anchors.append(frame)
            at_s += gap_s
    return anchors


def timing_of(times: np.ndarray, onsets: Sequence[int]) -> str:
    """ones | twos | threes when 7 of 10 drawings are held that many 24ths of a second, else mixed; still for one.

    Judged by time, not by frames: 12 drawings a second are twos at any frame rate. Faster than 24 is ones.
    """
    if len(onsets) < 2:
        return "still"
    holds = np.diff(times[list(onsets)]) * 24
    if len(holds) > 2:
        holds = holds[1:]  # the first drawing may have begun before the clip
    holds = np.maximum(1, np.round(holds[holds < PAUSE_24]))
    for count, name in ((1, "ones"), (2, "twos"), (3, "threes")):
        if len(holds) and (holds == count).mean() >= 0.7:
            return name
    return "mixed"


# ------------------------------------------------------------------------------------------------------ camera


def similarity(flow_HW2: np.ndarray, rounds: int = 20) -> tuple[float, float, float]:
    """(scale, shift x px, shift y px) of the similarity about the picture's centre that most of the flow follows.

    Least squares on a 16 px grid, reweighted with Cauchy weights (scale 1.4826 MAD, at least 0.1 px), from the median
    translation: a figure on less than about 40 % of the picture hardly matters. Rotation is fitted and dropped.
    """
    height, width = flow_HW2.shape[:2]
    y, x = (grid.ravel() for grid in np.mgrid[CELL_PX // 2 : height : CELL_PX, CELL_PX // 2 : width : CELL_PX])
    u, v = flow_HW2[y, x].astype(np.float64).T
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    one, none = np.ones_like(u), np.zeros_like(u)
    # x + u = (1 + p) x - q y + r;  y + v = q x + (1 + p) y + s
    design = np.concatenate([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)])
    target = np.concatenate([u, v])
    fit = np.array([0.0, 0.0, np.median(u), np.median(v)])
    for _ in range(rounds):
        residual = np.hypot(*(target - design @ fit).reshape(2, -1))
        spread = max(0.1, 1.4826 * float(np.median(residual)))
        root = np.tile(1 / np.sqrt(1 + (residual / spread) ** 2), 2)
        fit = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0]
    scale = float(np.hypot(1 + fit[0], fit[1]))
    return max(scale, 1e-3), float(fit[2]), float(fit[3])


# ---------------------------------------------------------------------------------------------------- backends


def dis() -> Flow:
    """OpenCV's DIS optical flow (Kroeger et al., ECCV 2016), PRESET_MEDIUM, on the CPU: 20 to 40 ms a pair.

    DIS loses large displacements of fine texture. Where phase correlation finds a global shift over 8 px, a second
    flow starts from that shift; it is kept where it explains the second picture clearly better.
    """
    import cv2

    # two engines: one that has been given a start keeps state that spoils its later flows without one (OpenCV 5.0)
    plain: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    started: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        found = plain.calc(first, second, None)
        window = cv2.createHanningWindow(first.shape[::-1], cv2.CV_32F)
        shift, _ = cv2.phaseCorrelate(first.astype(np.float32), second.astype(np.float32), window)
        if np.hypot(shift[0], shift[1]) <= SEEDED_PX:
            return found
        seed = np.full((*first.shape, 2), shift, np.float32)
        seeded = started.calc(first, second, seed)
        better = warp_error(first, second, seeded) < SEEDED_BETTER * warp_error(first, second, found)
        return seeded if better else found

    return flow


def warp_error(first: np.ndarray, second: np.ndarray, flow_HW2: np.ndarray) -> float:
    """Mean absolute difference, gray levels, between `first` and `second` brought back by the flow.

    Pixels that leave the picture are compared with the nearest edge.
    """
    import cv2

    y, x = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)
    back = cv2.remap(second, x + flow_HW2[..., 0], y + flow_HW2[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    return float(cv2.absdiff(first, back).mean())


class Raft:
    """RAFT (Teed and Deng, ECCV 2020) as torchvision's raft_large; sides of at least 128 px."""

    def __init__(self, model: Any, device: str = "cpu", batch: int = 8) -> None:
        self.model = model.to(device).eval()
        self.device = device
        self.batch = batch  # pairs at once: 8 at 320 x 576 need about 4 GiB

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Flow from `first` to `second`: gray uint8 [H,W] twice -> float32 [H,W,2] in px."""
        return self.many([(first, second)])[0]

    def many(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """Flow of several pairs of one size, in batches."""
        found: list[np.ndarray] = []
        for start in range(0, len(pairs), self.batch):
            firsts, seconds = zip(*pairs[start : start + self.batch])
            found += list(self._batch(np.stack(firsts), np.stack(seconds)))
        return found

    def _batch(self, firsts_NHW: np.ndarray, seconds_NHW: np.ndarray) -> np.ndarray:
        import torch

        height, width = firsts_NHW.shape[1:]
        with torch.inference_mode():
            flow_N2HW = self.model(self._tensor(firsts_NHW), self._tensor(seconds_NHW))[-1]
        return flow_N2HW[:, :, :height, :width].permute(0, 2, 3, 1).float().cpu().numpy()

    def _tensor(self, images_NHW: np.ndarray) -> Any:
        """uint8 [N,H,W] -> float32 [N,3,H',W'] in [-1, 1], padded at the right and bottom to multiples of 8."""
        import torch

        images = torch.from_numpy(images_NHW).to(self.device)[:, None].float() / 127.5 - 1
        height, width = images_NHW.shape[1:]
        images = torch.nn.functional.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")
        return images.expand(-1, 3, -1, -1).contiguous()


def raft(weights: ModelRef, device: str = "cpu", models_folder: str | Path = "") -> Raft:
    """RAFT with weights from a safetensors file, a folder that holds one, or the hub. Raises WeightsError."""
    from safetensors.torch import load_file
    from torchvision.models.optical_flow import raft_large

    model = raft_large(weights=None, progress=False)
    model.load_state_dict(load_file(weights_file(weights, models_folder)))
    return Raft(model, device)


def make_flow(config: ScoreConfig, device: str = "cpu", models_folder: str | Path = "") -> Flow:
    """The flow that the recipe names. Raises ValueError when raft has no weights."""
    match config.motion:
        case "dis":
            return dis()
        case "raft":
            if config.motion_model is None:
                raise ValueError("score.motion raft needs score.motion_model (id and revision)")
            return raft(config.motion_model, device, models_folder)
    raise ValueError(f"score.motion = {config.motion!r}; choices: dis, raft")
