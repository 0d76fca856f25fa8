"""What the camera does between two pictures, and what moves apart from it."""

from typing import NamedTuple

import numpy as np

GRID_PX = 16
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
        x = (np.arange(width, dtype=np.float32) + 0.5) * step - (width * step) / 2
        y = ((np.arange(height, dtype=np.float32) + 0.5) * step - (height * step) / 2)[:, None]
        return np.stack([self.p * x - self.q * y + self.x_px, self.q * x + self.p * y + self.y_px], axis=2).astype(
            np.float32
        )


def similarity(flow_HW2: np.ndarray, rounds: int = 12) -> Camera:
    """The camera's motion that most of the flow follows.

    Least squares on a 16 px grid, reweighted with Cauchy weights (scale 1.4826 MAD, at least 0.1 px), from the median
    translation: a figure on less than about 40 % of the picture hardly matters.
    """
    height, width = flow_HW2.shape[:2]
    y, x = (grid.ravel() for grid in np.mgrid[GRID_PX // 2 : height : GRID_PX, GRID_PX // 2 : width : GRID_PX])
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
        weighted = design * np.tile(1 / (1 + (residual / spread) ** 2), 2)[:, None]
        fit = np.linalg.lstsq(weighted.T @ design, weighted.T @ target, rcond=None)[0]
    return Camera(*(float(value) for value in fit))


def settle(first: np.ndarray, second: np.ndarray, flow_HW2: np.ndarray, camera: Camera, quiet: float) -> np.ndarray:
    """The flow with the camera's own motion wherever that explains the pictures as well as grain allows.

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
    shift = camera.flow(size[1], size[0], step=2.0) / 2
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    moved = cv2.remap(there, x + shift[..., 0], y + shift[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    slope = cv2.blur(np.hypot(cv2.Sobel(here, cv2.CV_32F, 1, 0), cv2.Sobel(here, cv2.CV_32F, 0, 1)) / 8, (BOX, BOX))
    apart = here - moved
    differ = cv2.blur(np.abs(apart - np.median(apart[::4, ::4])), (BOX, BOX))
    same = (differ <= quiet + EXPLAINED_PX / 2 * slope).astype(np.uint8)
    textured = slope > 4 * quiet
    keep = (same == 1) & (textured | _outer(same))
    keep = cv2.resize(keep.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.where(keep[..., None] == 1, camera.flow(height, width), flow_HW2)


def _outer(same_HW: np.ndarray) -> np.ndarray:
    """The parts of a mask [H,W] that hang together with at least two sides of the picture."""
    import cv2

    count, labels = cv2.connectedComponents(same_HW, connectivity=4)
    sides = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    touched = np.sum([np.isin(np.arange(count), side) for side in sides], axis=0)
    outer = touched >= 2
    outer[0] = False
    return outer[labels]
