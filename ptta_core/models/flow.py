"""Optical flow between two gray pictures: DIS on the CPU, RAFT on a GPU."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptta_core.config import ModelRef, ScoreConfig
from ptta_core.models.weight_files import require, weights_file

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]  # gray uint8 [H,W] twice -> float32 [H,W,2]: x right, y down

SEEDED_PX = 8.0  # global shifts above this give DIS a second start
SEEDED_BETTER = 0.75  # and is kept when its warp error is below this share: more freedom always fits grain better
SAMPLED_PX = 4  # warp errors are compared on every fourth pixel in both directions


def dis() -> Flow:
    """OpenCV's DIS optical flow (Kroeger et al., ECCV 2016), PRESET_MEDIUM, on the CPU: 20 to 40 ms a pair.

    DIS loses large displacements of fine texture. Where phase correlation at half size finds a global shift over 8 px
    that the flow does not follow over most of the picture, and that shift alone explains the second picture better
    than the flow does, a second flow starts from it; it is kept where it explains the picture clearly better.
    """
    import cv2

    def engine() -> Any:
        return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    plain = engine()

    def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        found = plain.calc(first, second, None)
        shift = global_shift(first, second)
        if np.hypot(*shift) <= SEEDED_PX or np.abs(np.median(found[::8, ::8], (0, 1)) - shift).max() < 1:
            return found
        start = np.full((*first.shape, 2), shift, np.float32)
        error = warp_error(first, second, found, SAMPLED_PX)
        if warp_error(first, second, start, SAMPLED_PX) >= error:
            return found
        # an engine of its own, since one that has been given a start keeps state that spoils its later flows without
        # one (OpenCV 5.0); let go at once, since each holds some 15 MB
        seeded = engine().calc(first, second, start)
        better = warp_error(first, second, seeded, SAMPLED_PX) < SEEDED_BETTER * error
        return seeded if better else found

    return flow


def global_shift(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """(x, y) in px by which most of `first` has moved in `second`, by phase correlation at half size."""
    import cv2

    height, width = first.shape
    size = (max(2, width // 2), max(2, height // 2))
    one, two = (cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) for image in (first, second))
    (x, y), _ = cv2.phaseCorrelate(one, two, cv2.createHanningWindow(size, cv2.CV_32F))
    return x * width / size[0], y * height / size[1]


def warp_error(first: np.ndarray, second: np.ndarray, flow_HW2: np.ndarray, step: int = 1) -> float:
    """Mean absolute difference, gray levels, between `first` and `second` brought back by the flow.

    Pixels that leave the picture are compared with the nearest edge; only every `step`-th one counts, both ways.
    """
    import cv2

    some = slice(step // 2, None, step)
    height, width = first.shape
    x, y = np.arange(width, dtype=np.float32)[some], np.arange(height, dtype=np.float32)[some, None]
    flow_hw2, here = flow_HW2[some, some], np.ascontiguousarray(first[some, some])
    back = cv2.remap(second, x + flow_hw2[..., 0], y + flow_hw2[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    return float(cv2.absdiff(here, back).mean())


class Raft:
    """RAFT (Teed and Deng, ECCV 2020) as torchvision's raft_large; sides of at least 128 px.

    `dtype` is fp32, or bf16 for half the memory on a GPU: the correlation and the updates then run in bfloat16 where
    torch's autocast says so, the result stays float32.
    """

    def __init__(self, model: Any, device: str = "cpu", batch: int = 8, dtype: str = "fp32") -> None:
        if dtype not in ("fp32", "bf16"):
            raise ValueError(f"score.motion_dtype = {dtype!r}; choices: fp32, bf16")
        self.model = model.to(device).eval()
        self.device, self.dtype = device, dtype
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
        half = torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.dtype == "bf16")
        with torch.inference_mode(), half:
            flow_N2HW = self.model(self._tensor(firsts_NHW), self._tensor(seconds_NHW))[-1]
        return flow_N2HW[:, :, :height, :width].permute(0, 2, 3, 1).float().cpu().numpy()

    def _tensor(self, images_NHW: np.ndarray) -> Any:
        """uint8 [N,H,W] -> float32 [N,3,H',W'] in [-1, 1], padded at the right and bottom to multiples of 8."""
        import torch

        images = torch.from_numpy(images_NHW).to(self.device)[:, None].float() / 127.5 - 1
        height, width = images_NHW.shape[1:]
        images = torch.nn.functional.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")
        return images.expand(-1, 3, -1, -1).contiguous()


def raft(weights: ModelRef, device: str = "cpu", models_folder: str | Path = "", dtype: str = "fp32") -> Raft:
    """RAFT with weights from a safetensors file, a folder that holds one, or the hub. Raises WeightsError."""
    from safetensors.torch import load_file
    from torchvision.models.optical_flow import raft_large

    model, path = raft_large(weights=None, progress=False), weights_file(weights, models_folder)
    tensors = load_file(path)
    require("torchvision's raft_large", model.state_dict(), tensors, path)
    model.load_state_dict(tensors, strict=False)
    return Raft(model, device, dtype=dtype)


def make_flow(config: ScoreConfig, device: str = "cpu", models_folder: str | Path = "") -> Flow:
    """The flow that the recipe names. Raises ValueError when raft has no weights."""
    match config.motion:
        case "dis":
            return dis()
        case "raft":
            if config.motion_model is None:
                raise ValueError("score.motion raft needs score.motion_model (id and revision)")
            return raft(config.motion_model, device, models_folder, config.motion_dtype)
    raise ValueError(f"score.motion = {config.motion!r}; choices: dis, raft")
