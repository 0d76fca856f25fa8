"""What the camera does between two pictures, and what moves apart from it."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

GRID_PX = 16
SETTLED_PX = 0.002
EXPLAINED_PX = 0.3  # a picture element that the camera's motion brings this near to its place moves with the camera
BOX = 5  # half-size px: differences are averaged over that many, so that grain counts with its mean


class Camera(NamedTuple):
    """A similarity about the picture's centre, over one pair: (1 + p, -q; q, 1 + p) and a shift in px."""

    p: float
    q: float
    x_px: float
    y_px: float

    @property
    def scale(self) -> float:
        """The zoom factor; 1 = none."""
        return max(1e-3, float(np.hypot(1 + self.p, self.q)))

    @property
    def degrees(self) -> float:
        """The rotation of the picture; positive is clockwise as seen."""
        return float(np.degrees(np.arctan2(self.q, 1 + self.p)))

    def flow(self, height: int, width: int, step: float = 1.0) -> np.ndarray:
        """The flow [H,W,2] in px that the camera alone gives; `step` px between samples of a smaller grid."""
        x, y = ((np.arange(length, dtype=np.float32) + 0.5 - length / 2) * step for length in (width, height))
        found = np.empty((height, width, 2), np.float32)
        np.add(self.p * x + self.x_px, (-self.q * y)[:, None], out=found[..., 0])
        np.add(self.q * x + self.y_px, (self.p * y)[:, None], out=found[..., 1])
        return found


def similarity(flow_HW2: np.ndarray, rounds: int = 12) -> Camera:
    """The camera's motion that most of the flow follows.

    Least squares on a 16 px grid, reweighted with Cauchy weights (scale 1.4826 MAD, at least 0.1 px), from the median
    translation: a figure on less than about 40 % of the picture hardly matters. Ends before `rounds` when a round
    changes nothing by 0.002 px.
    """
    height, width = flow_HW2.shape[:2]
    design = _design(height, width)
    u, v = (flow_HW2[GRID_PX // 2 :: GRID_PX, GRID_PX // 2 :: GRID_PX, at].astype(np.float64).ravel() for at in (0, 1))
    target = np.concatenate([u, v])
    reach = np.array([width / 2, width / 2, 1.0, 1.0])  # px that a change of 1 moves the picture's side by
    fit = np.array([0.0, 0.0, np.median(u), np.median(v)])
    for _ in range(rounds):
        residual = np.hypot(*(target - design @ fit).reshape(2, -1))
        spread = max(0.1, 1.4826 * float(np.median(residual)))
        weighted = design * np.tile(1 / (1 + (residual / spread) ** 2), 2)[:, None]
        last, fit = fit, np.linalg.solve(weighted.T @ design, weighted.T @ target)
        if (np.abs(fit - last) * reach).max() < SETTLED_PX:
            break
    return Camera(*(float(value) for value in fit))


@lru_cache(maxsize=8)
def _design(height: int, width: int) -> np.ndarray:
    """x + u = (1 + p) x - q y + r;  y + v = q x + (1 + p) y + s: float64 [2 points, 4] for all u, then all v."""
    y, x = (grid.ravel() for grid in np.mgrid[GRID_PX // 2 : height : GRID_PX, GRID_PX // 2 : width : GRID_PX])
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    one, none = np.ones_like(x), np.zeros_like(x)
    return np.concatenate([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)])


def settle(
    first: np.ndarray, second: np.ndarray, flow_HW2: np.ndarray, camera: Camera, quiet: float
) -> tuple[np.ndarray, np.ndarray]:
    """(the flow, the flow without the camera's motion) at half size, float32 [H/2,W/2,2] in px of the whole.

    The flow has the camera's own motion wherever that explains the pictures as well as grain allows. Half size loses
    nothing of DIS, which itself ends at half size.

    A flow reads about a pixel from grain alone and spreads a figure's motion into plain ground around it. So a part of
    the picture that looks the same after the camera's motion is undone, to within `quiet` gray levels or 0.3 px, moves
    with the camera: where it has texture, or hangs together with two sides of the picture. A plain part that moving
    lines enclose keeps its flow, for it may be a figure's inside.
    """
    import cv2

    height, width = first.shape
    size = (max(2, width // 2), max(2, height // 2))
    here, there = (
        cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) for image in (first, second)
    )
    ours = camera.flow(size[1], size[0], step=2.0)
    x, y = np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32)[:, None]
    moved = cv2.remap(there, ours[..., 0] / 2 + x, ours[..., 1] / 2 + y, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    across, down = (cv2.Sobel(here, cv2.CV_32F, *way, scale=1 / 8) for way in ((1, 0), (0, 1)))
    slope = cv2.blur(cv2.magnitude(across, down), (BOX, BOX))
    apart = here - moved
    differ = cv2.blur(np.abs(apart - np.median(apart[::4, ::4])), (BOX, BOX))
    same = (differ <= quiet + EXPLAINED_PX / 2 * slope).view(np.uint8)
    textured = slope > 4 * quiet
    keep = (same == 1) & (textured | _outer(same))
    apart_hw2 = cv2.resize(flow_HW2, size, interpolation=cv2.INTER_AREA) - ours
    apart_hw2[keep] = 0
    return ours + apart_hw2, apart_hw2


def _outer(same_HW: np.ndarray) -> np.ndarray:
    """The parts of a mask [H,W] that hang together with at least two sides of the picture."""
    import cv2

    count, labels = cv2.connectedComponents(same_HW, connectivity=4)
    sides = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    touched = np.sum([np.isin(np.arange(count), side) for side in sides], axis=0)
    outer = touched >= 2
    outer[0] = False
    return outer[labels]
