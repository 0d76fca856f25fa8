"""TransNetV2 (Souček and Lokoč, arXiv 2008.04838): a network that says of each frame how likely a shot ends there.

Frames of 48 x 27 px pass three stacks of dilated (2+1)D convolutions; to their features come, for every frame, its
likeness to the 50 frames on each side, once by learned features and once by colour histograms. Parameters are named
as in the authors' PyTorch port, so that its weights load as they are once they are a safetensors file.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ptta_core.config import ModelRef, SplitConfig
from ptta_core.models import tiny
from ptta_core.models.shot_features import RGB
from ptta_core.models.shots import Network
from ptta_core.models.weight_files import WeightsError, require, weights_file

FILTERS, STACKS, BLOCKS, HIDDEN = 16, 3, 2, 1024  # F, L, S and D of the paper
DILATIONS = (1, 2, 4, 8)  # frames
LOOKUP = 101  # frames that a frame is compared with, itself in the middle
LIKENESS = 128  # features of either likeness
BINS = 512  # 8 of red times 8 of green times 8 of blue
WINDOW, CONTEXT = 100, 25  # frames of one pass, and how many at either end only serve the others
WINDOWS = 4  # at once: about 0.5 GB


class FactorizedConv(nn.Module):
    """A convolution over space, then one over time with gaps of `dilation` frames: [B,C,T,H,W] -> [B,filters,T,H,W]."""

    def __init__(self, channels: int, filters: int, dilation: int) -> None:
        super().__init__()
        across = nn.Conv3d(channels, 2 * filters, (1, 3, 3), padding=(0, 1, 1), bias=False)
        along = nn.Conv3d(
            2 * filters, filters, (3, 1, 1), padding=(dilation, 0, 0), dilation=(dilation, 1, 1), bias=False
        )
        self.layers = nn.Sequential(across, along)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """Same number of frames and pixels."""
        return self.layers(video_BCTHW)


class DilatedBlock(nn.Module):
    """Four convolutions that look 1, 2, 4 and 8 frames far, side by side: [B,C,T,H,W] -> [B,4*filters,T,H,W]."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        for dilation in DILATIONS:
            self.add_module(f"Conv3D_{dilation}", FactorizedConv(channels, filters, dilation))
        self.bn = nn.BatchNorm3d(len(DILATIONS) * filters, eps=1e-3)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """Normalised, not yet rectified."""
        views = [self.get_submodule(f"Conv3D_{dilation}")(video_BCTHW) for dilation in DILATIONS]
        return self.bn(torch.cat(views, dim=1))


class DilatedStack(nn.Module):
    """Two blocks with a shortcut around the second, then half the height and width."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        wide = len(DILATIONS) * filters
        self.DDCNN = nn.ModuleList(DilatedBlock(wide if block else channels, filters) for block in range(BLOCKS))

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """[B,C,T,H,W] -> [B,4*filters,T,H//2,W//2]."""
        first = found = functional.relu(self.DDCNN[0](video_BCTHW))
        for block in list(self.DDCNN)[1:]:
            found = functional.relu(block(found))
        return functional.avg_pool3d(found + first, (1, 2, 2))


class FrameSimilarity(nn.Module):
    """How like its neighbours a frame is, by a learned projection of the stacks' mean features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, LIKENESS)
        self.fc = nn.Linear(LOOKUP, LIKENESS)

    def forward(self, stacks_BCTHW: list[Tensor]) -> Tensor:
        """The features of every stack, each [B,C,T,H,W] of its own C, H, W -> [B,T,128]."""
        means_BTC = torch.cat([one.mean((3, 4)) for one in stacks_BCTHW], dim=1).transpose(1, 2)
        vectors = functional.normalize(self.projection(means_BTC), dim=2)
        return functional.relu(self.fc(likeness(vectors)))


class ColorHistograms(nn.Module):
    """How like its neighbours a frame is, by its colours alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(LOOKUP, LIKENESS)

    def forward(self, frames_BTHW3: Tensor) -> Tensor:
        """uint8 [B,T,H,W,3] -> [B,T,128]."""
        return functional.relu(self.fc(likeness(histograms(frames_BTHW3))))


def likeness(vectors_BTC: Tensor) -> Tensor:
    """Dot products of each frame's vector with those of the frames around it: [B,T,C] -> [B,T,101].

    The middle column is the frame itself; frames before the first and after the last count as 0.
    """
    batch, frames, _ = vectors_BTC.shape
    products = vectors_BTC @ vectors_BTC.transpose(1, 2)
    padded = functional.pad(products, (LOOKUP // 2, LOOKUP // 2))
    places = torch.arange(frames, device=padded.device)[:, None] + torch.arange(LOOKUP, device=padded.device)
    return padded.gather(2, places.expand(batch, -1, -1))


def histograms(frames_BTHW3: Tensor) -> Tensor:
    """How often each of 512 colours (3 bits a channel) occurs: uint8 [B,T,H,W,3] -> [B,T,512], of length 1."""
    red, green, blue = (frames_BTHW3.long() >> 5).flatten(2, 3).unbind(-1)
    bins_BTP = (red << 6) + (green << 3) + blue
    counts = torch.zeros(*bins_BTP.shape[:2], BINS, device=bins_BTP.device)
    counts.scatter_add_(2, bins_BTP, torch.ones(bins_BTP.shape, device=bins_BTP.device))  # whole numbers: exact
    return functional.normalize(counts, dim=2)


class TransNetV2(nn.Module):
    """The whole network; frames see each other within `WINDOW` frames of one pass only."""

    def __init__(self) -> None:
        super().__init__()
        widths = [len(DILATIONS) * FILTERS << stack for stack in range(STACKS)]
        self.SDDCNN = nn.ModuleList(
            DilatedStack(channels, FILTERS << stack) for stack, channels in enumerate([3, *widths[:-1]])
        )
        self.frame_sim_layer = FrameSimilarity(sum(widths))
        self.color_hist_layer = ColorHistograms()
        places = (RGB[0] >> STACKS) * (RGB[1] >> STACKS)  # 6 x 3
        self.fc1 = nn.Linear(widths[-1] * places + 2 * LIKENESS, HIDDEN)
        self.cls_layer1 = nn.Linear(HIDDEN, 1)
        self.cls_layer2 = nn.Linear(HIDDEN, 1)

    def forward(self, frames_BTHW3: Tensor) -> Tensor:
        """Logits of the single-frame and of the all-frames head: uint8 [B,T,27,48,3] -> float32 [B,T,2]."""
        found = frames_BTHW3.permute(0, 4, 1, 2, 3).float() / 255
        stacks = []
        for stack in self.SDDCNN:
            found = stack(found)
            stacks.append(found)
        seen = found.permute(0, 2, 3, 4, 1).flatten(2)  # rows, columns, channels, as the weights expect
        likes = self.color_hist_layer(frames_BTHW3), self.frame_sim_layer(stacks)
        hidden = functional.relu(self.fc1(torch.cat([*likes, seen], dim=2)))  # dropout is for training
        return torch.cat([self.cls_layer1(hidden), self.cls_layer2(hidden)], dim=2)


class Predictor:
    """Runs the network over a source in overlapping windows, as its authors do."""

    def __init__(self, model: TransNetV2, device: str = "cpu") -> None:
        self.model, self.device = model.to(device).eval(), device

    def __call__(self, frames_NHW3: np.ndarray) -> np.ndarray:
        """uint8 [N,27,48,3] -> float32 [N,2] in 0..1, as shots.Network. Raises ValueError for another shape or type."""
        wanted = (RGB[1], RGB[0], 3)
        if frames_NHW3.dtype != np.uint8 or frames_NHW3.shape[1:] != wanted:
            raise ValueError(f"frames are {frames_NHW3.dtype} {frames_NHW3.shape}, not uint8 [N,{RGB[1]},{RGB[0]},3]")
        count = len(frames_NHW3)
        starts = range(0, count, WINDOW - 2 * CONTEXT)
        found = [self._batch(frames_NHW3, starts[n : n + WINDOWS]) for n in range(0, len(starts), WINDOWS)]
        return np.concatenate([np.zeros((0, 2), np.float32), *found])[:count]

    def _batch(self, frames_NHW3: np.ndarray, starts: range) -> np.ndarray:
        """The answers for the middles of the windows whose middles begin at `starts`."""
        inside = np.arange(-CONTEXT, WINDOW - CONTEXT)
        # before the first and after the last frame stand copies of it
        frames = [frames_NHW3[np.clip(start + inside, 0, len(frames_NHW3) - 1)] for start in starts]
        with torch.inference_mode():
            logits_BT2 = self.model(torch.from_numpy(np.stack(frames)).to(self.device))
        middle = logits_BT2[:, CONTEXT : WINDOW - CONTEXT]
        return torch.sigmoid(middle).flatten(0, 1).float().cpu().numpy()


def load(weights: ModelRef, device: str = "cpu", models_folder: str | Path = "") -> Predictor:
    """TransNetV2 with weights from a safetensors file, a folder that holds one, or the hub. Raises WeightsError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = weights_file(weights, models_folder)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors file: {error}") from error
    model = TransNetV2()
    require("TransNetV2", model.state_dict(), tensors, path)
    model.load_state_dict(tensors, strict=False)
    return Predictor(model, device)


def make_network(config: SplitConfig, device: str = "cpu", models_folder: str | Path = "") -> Network | None:
    """The network that the recipe names, None for detectors without one. Raises ValueError without split.model."""
    if config.detector != "transnetv2":
        return None
    if config.model is None:
        raise ValueError("split.detector transnetv2 needs split.model (id and revision)")
    return load(config.model, device, models_folder)


def write_tiny(folder: Path, seed: int) -> Path:
    """TransNetV2 with random weights (30 MB: its sizes are fixed), as model.safetensors; nothing where it exists."""
    return tiny._once(folder, lambda new: _write(new, seed))


def _write(folder: Path, seed: int) -> None:
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_file(TransNetV2().state_dict(), folder / "model.safetensors")
