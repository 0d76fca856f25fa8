"""Who judges a video: weight-free measures, and VideoScore, the paper's judge.

A judge is called with frames uint8 [T, H, W, 3] (RGB), the prompt and the frame rate, and returns its dimensions.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ptta_core.config import ConfigError, EvaluateConfig, ModelRef
from ptta_core.models import resolve
from ptta_core.models.aesthetic import classical, luma, sharpness
from ptta_core.models.motion import CELL_PX, quiet_level

DIMENSIONS = ("visual_quality", "temporal_consistency", "dynamic_degree", "text_alignment", "factual_consistency")
FLOW_SIDE_PX = 256  # motion is measured at this shorter side, where VBench's threshold is 6 px
MOTION_THRESHOLD_PX = 6.0
NEAR_STATIC = 0.25  # of the threshold
TOP_SHARE = 0.05
PAIRS_PER_S = 8.0
AESTHETIC_AT = (0.1, 0.5, 0.9)  # of the video


class Judge(Protocol):
    """What `make_judge` returns. `name` goes into the verdicts and tells versions of a judge apart."""

    name: str

    def __call__(self, frames: np.ndarray, prompt: str, fps: float) -> dict[str, float]: ...


def make_judge(name: str, config: EvaluateConfig, models_folder: str, device: str = "cpu", threads: int = 1) -> Judge:
    """The judge of that name, loaded. Raises ConfigError for an unknown name or a judge without its model."""
    match name:
        case "measures":
            return Measures(threads)
        case "videoscore":
            if config.videoscore is None:
                raise ConfigError("evaluate.judges names videoscore, but evaluate.videoscore names no model")
            return _make_videoscore(config, config.videoscore, models_folder, device, threads)
        case _:
            raise ConfigError(f"evaluate.judges = {name!r}; choices: measures, videoscore")


def _make_videoscore(
    config: EvaluateConfig, ref: ModelRef, models_folder: str, device: str, threads: int
) -> "VideoScore":
    folder, sha256 = judge_folder(ref, models_folder), config.videoscore_prompt_sha256
    if ref.tiny:  # our own stand-in, with its own prompt: never named as the published judge
        from ptta_core.models.tiny_judge import STAND_IN_SHA256

        sha256, label = STAND_IN_SHA256, ref.id
    else:
        label = f"videoscore:{Path(ref.id).name}"
    return VideoScore(folder, sha256, config.videoscore_max_frames, device, name=label, threads=threads)


def judge_folder(ref: ModelRef, models_folder: str) -> Path:
    """The folder with the judge's files: a tiny one made on demand, a local folder, or a hub snapshot.

    Raises ConfigError for a folder that does not exist, OSError when the hub is out of reach and nothing is cached.
    """
    if ref.tiny:
        from ptta_core.models.tiny import TINY_VERSION
        from ptta_core.models.tiny_judge import write_tiny_judge

        seed = int(ref.revision or 0)
        return write_tiny_judge(Path(models_folder) / f"tiny-videoscore-{seed}-v{TINY_VERSION}", seed)
    source, revision = resolve(ref, models_folder)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "tokenizer.model", "README.md", "regression_query_prompt.txt"]
    return Path(snapshot_download(source, revision=revision, allow_patterns=wanted))


# ---------------------------------------------------------------------------------------------- VideoScore


class VideoScore:
    """VideoScore (arXiv 2406.15252): five scores of nominally 1 (bad) to 4 (perfect), neither clamped nor averaged.

    folder: config, tokenizer, safetensors and the published query prompt, whose SHA-256 must be `prompt_sha256`.
    Published figures are bfloat16, which puts scores from 2 to 4 on a grid of 1/64. Videos under about 240 px score
    low. Raises JudgeUnusable when weights or prompt are not the published ones.
    """

    def __init__(
        self, folder: Path, prompt_sha256: str, max_frames: int = 16, device: str = "cpu",
        dtype: str = "bfloat16", name: str = "videoscore", threads: int = 1,
    ) -> None:  # fmt: skip
        import torch

        from ptta_core.models import videoscore

        torch.set_num_threads(threads)
        self.name = name
        self._max_frames = max_frames
        self._template = videoscore.load_query_prompt(folder, prompt_sha256)  # before 16 GB of weights are read
        self._model, self._processor = videoscore.load_judge(folder, device, dtype)

    def __call__(self, frames: np.ndarray, prompt: str, fps: float = 0.0) -> dict[str, float]:
        """The five dimensions, rounded to 3 digits as published. frames uint8 [T, H, W, 3]; fps is not used."""
        import torch

        inputs = self.inputs(frames, prompt).to(self._model.device)
        with torch.inference_mode():
            scores = self._model(**inputs)[0].float().tolist()
        return {dimension: round(score, 3) for dimension, score in zip(DIMENSIONS, scores)}

    def inputs(self, frames: np.ndarray, prompt: str) -> Any:
        """What the model reads: input_ids [1, L], pixel_values [1, n, 3, h, w] and their masks, n frames sampled."""
        from PIL import Image

        from ptta_core.models.videoscore import fill_query, sample_frames

        _check(frames)
        shown = [Image.fromarray(frames[index]) for index in sample_frames(len(frames), self._max_frames)]
        # not all_special_tokens: the processor's own constructor drops the image tokens from that list
        special = [token.content for token in self._processor.tokenizer.added_tokens_decoder.values()]
        text = fill_query(self._template, prompt, len(shown), special)
        return self._processor(text=text, images=shown, return_tensors="pt")


# ------------------------------------------------------------------------------------- weight-free measures


class Measures:
    """`measures` as a judge; the prompt is not read."""

    name = "measures"

    def __init__(self, threads: int = 1) -> None:
        import cv2

        cv2.setNumThreads(threads)

    def __call__(self, frames: np.ndarray, prompt: str, fps: float) -> dict[str, float]:
        """See `measures`."""
        return measures(frames, fps)


def measures(frames: np.ndarray, fps: float) -> dict[str, float]:
    """What can be said about a video without any weights. frames uint8 [T, H, W, 3] RGB, fps in 1/s, above 0.

    | name | unit and range | what |
    |--|--|--|
    | dynamic_degree | ratio, >= 0 | mean over pairs of the mean of the top 5 % flow lengths, over VBench's threshold |
    | near_static | 0 or 1 | alarm: dynamic_degree below 0.25 |
    | flicker | grey levels, 0..255 | mean abs luma difference of consecutive frames; motion counts too |
    | warp_error | grey levels, 0..255 | the same after motion compensation: what motion does not explain |
    | sharpness | squared grey levels, >= 0 | mean variance of the Laplacian; compare equal sizes only |
    | aesthetic | 1..10 | mean weight-free score of the frames at 10, 50 and 90 % (models/aesthetic.py) |

    The threshold is VBench's, 6 * shorter side / 256 px between frames about 1/8 s apart (arXiv 2311.17982); there a
    video is dynamic when enough pairs pass it, here the ratio itself is kept. Flow is OpenCV's DIS, not VBench's
    RAFT, on luma with a shorter side of at most 256 px, and counts only where the picture changes by more than its
    grain: flow on grain alone reads about 3 px. A video of one frame has no pairs: the first four are absent.
    """
    _check(frames)
    if fps <= 0:
        raise ValueError(f"fps is {fps}; it must be above 0")
    shown = [frames[round(share * (len(frames) - 1))] for share in AESTHETIC_AT]
    found = {
        "sharpness": float(np.mean([sharpness(frame) for frame in frames])),
        "aesthetic": float(np.mean([classical(frame) for frame in shown])),
    }
    if len(frames) == 1:
        return found
    small = [_shrink(luma(frame)) for frame in frames]
    degree = _dynamic_degree(small, fps)
    pairs = list(pairwise(small))
    return {
        "dynamic_degree": degree,
        "near_static": float(degree < NEAR_STATIC),
        "flicker": float(np.mean([_difference(before, after).mean() for before, after in pairs])),
        "warp_error": float(np.mean([_warp_error(before, after) for before, after in pairs])),
        **found,
    }


def _check(frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"frames must be uint8 [T >= 1, H, W, 3], not {frames.dtype} {list(frames.shape)}")


def _shrink(gray: np.ndarray) -> np.ndarray:
    import cv2

    scale = FLOW_SIDE_PX / min(gray.shape)
    return gray if scale >= 1 else cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Displacement [H, W, 2] in px from `before` to `after`, both uint8 [H, W]."""
    import cv2

    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return dis.calc(before, after, None)


def _dynamic_degree(small: list[np.ndarray], fps: float) -> float:
    step = min(max(1, round(fps / PAIRS_PER_S)), len(small) - 1)
    threshold = MOTION_THRESHOLD_PX * min(small[0].shape) / FLOW_SIDE_PX
    kept = small[::step]
    quiet = quiet_level(kept)
    return float(np.mean([_top_motion(before, after, quiet) / threshold for before, after in pairwise(kept)]))


def _top_motion(before: np.ndarray, after: np.ndarray, quiet: float) -> float:
    """Mean of the largest 5 % of the flow's lengths, px; lengths count 0 where the picture changes by grain only."""
    lengths = (np.linalg.norm(_flow(before, after), axis=-1) * _changed(before, after, quiet)).ravel()
    top = max(1, int(lengths.size * TOP_SHARE))
    return float(np.partition(lengths, -top)[-top:].mean())


def _changed(before: np.ndarray, after: np.ndarray, quiet: float) -> np.ndarray:
    """Bool [H, W]: in cells of 16 px whose mean change, lightly blurred, is above `quiet` grey levels."""
    import cv2

    height, width = before.shape
    change = cv2.absdiff(cv2.GaussianBlur(before, (0, 0), 1.0), cv2.GaussianBlur(after, (0, 0), 1.0))
    cells = (max(1, round(width / CELL_PX)), max(1, round(height / CELL_PX)))
    means = cv2.resize(change.astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    return cv2.resize(means, (width, height), interpolation=cv2.INTER_NEAREST) > quiet


def _warp_error(before: np.ndarray, after: np.ndarray) -> float:
    """Mean abs luma difference between `before` and `after` pulled back along the flow, over what stays in view."""
    import cv2

    height, width = before.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    flow = _flow(before, after)
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    pulled = cv2.remap(after, x, y, cv2.INTER_LINEAR)
    return float(_difference(before, pulled)[inside].mean()) if inside.any() else 255.0


def _difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Absolute difference of two uint8 pictures, grey levels."""
    import cv2

    return cv2.absdiff(before, after)
