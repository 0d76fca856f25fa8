"""Sudden changes within one shot that are no cuts: of the light, of what is written over it, of a camera that runs."""

import cv2
import numpy as np

from ptta_core.models.picture_space import Space
from ptta_core.models.shot_features import LIT_LEVELS, LUMA

SAME_DRAWING = 0.9  # correlation of luma of one picture in two lights
LIGHT_LEFT = 0.4  # share of the change that another light must leave unexplained at most
LEAST_CONTRAST = 3.0  # levels: below it nothing is to be seen of a drawing
KEPT = 0.15  # of the root mean square change: a pixel that changes less stays as it is
KEPT_SHARE = 0.6  # of the lit picture that stays under a title or a thing that appears
CENTRE = (slice(4, 14), slice(8, 24))  # of a thumbnail: what is looked for in the picture before, 4 and 8 px around
FOUND = 0.7  # correlation by which it is found there
GOES_ON = 1  # thumbnail px by which the steps of a running camera differ
LIKE_STEP = 0.5  # of a step: the steps of a running camera are as large as that
BESIDE = 4  # frames, a drawing on fours


def of_one_shot(space: Space, frame: int) -> bool:
    """Whether the change from the frame before is no cut."""
    return _light(space, frame) or kept(space, frame - 1, frame) > KEPT_SHARE or _runs(space, frame)


def kept(space: Space, first: int, last: int) -> float:
    """Share of the lit picture, 0..1, that is the same in two frames, measured by how much all of it changes."""
    before, after = space.planes(first), space.planes(last)
    lit = np.maximum(before, after)[..., 0] > LIT_LEVELS
    square = ((after - before) ** 2).sum(axis=2)[lit]
    return float((square < KEPT**2 * square.mean()).mean()) if len(square) else 1.0


def _light(space: Space, frame: int) -> bool:
    """Whether the two frames are one picture, brighter or darker: after = gain * before + offset."""
    before, after = space.luma([frame - 1, frame])[:, space.lit].astype(np.float64)
    one, two = before - before.mean(), after - after.mean()
    squares = float((one**2).mean()), float((two**2).mean())
    if min(squares) < LEAST_CONTRAST**2:
        return False
    both = float((one * two).mean())
    left = squares[1] - both**2 / squares[0]  # square levels that gain and offset leave
    sure = both / np.sqrt(squares[0] * squares[1]) > SAME_DRAWING
    return bool(sure and left < LIGHT_LEFT**2 * ((after - before) ** 2).mean())


def _runs(space: Space, frame: int) -> bool:
    """Whether a step is one of a camera's equal steps, each too wide for the shifts that Space looks for."""
    here = _shift(space, frame)
    if here is None:
        return False
    steps = range(max(1, frame - BESIDE), min(len(space), frame + BESIDE + 1))
    for other in steps:
        if other != frame and space.steps[other] > LIKE_STEP * space.steps[frame]:
            there = _shift(space, other)
            if there is not None and max(abs(a - b) for a, b in zip(here, there)) <= GOES_ON:
                return True
    return False


def _shift(space: Space, frame: int) -> tuple[int, int] | None:
    """How many thumbnail px (right, down) the middle of a frame lay elsewhere in the frame before; None: not found."""
    before, after = space.luma([frame - 1, frame]).reshape(2, LUMA[1], LUMA[0])
    found = cv2.matchTemplate(before, np.ascontiguousarray(after[CENTRE]), cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(found)
    x, y = x - CENTRE[1].start, y - CENTRE[0].start
    return (x, y) if best > FOUND and max(abs(x), abs(y)) > 1 else None
