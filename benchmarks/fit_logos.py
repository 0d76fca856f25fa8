"""Fits the network that knows logos by their look: the weights of ptta_core/models/logo.safetensors.

    python benchmarks/fit_logos.py DIR --shots shots.json --to logo.safetensors [--held-out sintel,flat]

DIR holds animation videos, those of `logo_samples.REAL`. Marks of many forms (marks.py; none of the logos that
overlays.py measures with) are burnt into corners of their shots, of drawn styles and of drawn cartoons. It takes about
an hour on one core. A second run gives weights that are alike, not the same bytes: products in bfloat16.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import logo_samples
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import nn

from ptta_core.models import logo_net

CHANNELS = (16, 32)
BATCH = 32
PEAK_RATE = 6e-3
LARGEST_SHARE = 0.15  # of the loss that asks whether there is a mark at all


class Net(nn.Module):
    """The network of logo_net.answer, in torch: [B,9,H,W] -> log odds [B,H/4,W/4]."""

    def __init__(self) -> None:
        super().__init__()
        first, wide = CHANNELS
        self.c1 = nn.Conv2d(9 * 4, first, 1)
        self.c2 = nn.Conv2d(first, wide, 3, 2, 1)
        self.cs = nn.ModuleList(nn.Conv2d(wide, wide, 3, 1, gap, gap) for gap in logo_net.WIDENINGS)
        self.o = nn.Conv2d(wide, 1, 1)
        nn.init.constant_(self.o.bias, -3)  # marks are few

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """See the class."""
        hidden = F.relu(self.c1(F.pixel_unshuffle(given, 2)))
        hidden = F.relu(self.c2(hidden))
        for layer in self.cs:
            hidden = F.relu(layer(hidden))
        return self.o(hidden)[:, 0]


def given(chosen: list[logo_samples.Sample], random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch [B,9,H,W] and its cells [B,H/4,W/4], the colours swapped, mirrored or inverted at times."""
    maps, cells = np.stack([one.maps for one in chosen]), np.stack([one.cells for one in chosen])
    rights = np.array([one.right for one in chosen])
    if random.random() < 0.5:
        maps = maps[:, np.r_[random.permutation(3), 3:7]]
    if random.random() < 0.4:
        maps, cells, rights = maps[..., ::-1], cells[..., ::-1], ~rights
    batch = np.stack([logo_net.corner(one, sample.low, bool(right))
                      for one, sample, right in zip(maps, chosen, rights)])  # fmt: skip
    if random.random() < 0.3:
        batch[:, :4] = 1 - 2 * logo_net.SHIFT - batch[:, :4]
    return torch.from_numpy(batch), torch.from_numpy(cells.astype(np.int64))


def loss(heat: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the cells, borders left out, and of the best cells of each corner."""
    marked = (cells == logo_samples.YES).float()
    weight = (cells != logo_samples.EITHER).float() * (1 + 2 * marked)
    by_cell = F.binary_cross_entropy_with_logits(heat, marked, reduction="none")
    best = F.avg_pool2d(heat[:, None], 3, 1, 1).flatten(1).max(1).values
    whole = F.binary_cross_entropy_with_logits(best, marked.flatten(1).amax(1))
    return (by_cell * weight).sum() / weight.sum() + LARGEST_SHARE * whole


def fit(corners: list[logo_samples.Sample], epochs: int) -> Net:
    """AdamW with one cycle of the learning rate; bfloat16 in the layers."""
    torch.manual_seed(0)
    random, net = np.random.default_rng(0), Net().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    steps = len(corners) // BATCH
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=epochs * steps + 1, pct_start=0.15)
    for epoch in range(epochs):
        order, total = random.permutation(len(corners)), 0.0
        for first in range(0, steps * BATCH, BATCH):
            batch, cells = given([corners[at] for at in order[first : first + BATCH]], random)
            with torch.autocast("cpu", torch.bfloat16):
                heat = net(batch.contiguous(memory_format=torch.channels_last))
            step = loss(heat.float(), cells)
            optimiser.zero_grad()
            step.backward()
            optimiser.step()
            rate.step()
            total += step.item()
        print(f"epoch {epoch + 1} of {epochs}: loss {total / max(1, steps):.4f}", flush=True)
    return net


def main() -> None:
    """Read the shots, burn marks into their corners, fit, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=Path, help="JSON of the known shots of the videos")
    parser.add_argument("--to", type=Path, required=True, help="the file to write")
    parser.add_argument("--samples", type=int, default=18_000)
    parser.add_argument("--marks", type=int, default=3500)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--held-out", default="", help="kinds of footage to leave out, with commas between")
    asked = parser.parse_args()
    plain = list(logo_samples.scenes(asked.folder, asked.shots, set(asked.held_out.split(","))))
    print(f"{len(plain)} shots", flush=True)
    corners = list(logo_samples.samples(plain, logo_samples.bugs(asked.marks), asked.samples))
    print(f"{len(corners)} corners", flush=True)
    net = fit(corners, asked.epochs)
    save_file({name: one.contiguous().numpy().astype(np.float16) for name, one in net.state_dict().items()}, asked.to)


if __name__ == "__main__":
    main()
