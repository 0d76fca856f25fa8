"""What the routers do, layer by layer and label by label, over the steps since they were last looked at.

A label's gate is the mean over the samples that show it, each weighted by its share of the label. So branches that
divide the labels among themselves are seen long before videos show it, and so is a router that ignores them.
"""

from collections.abc import Sequence
from typing import Any

import torch

DEAD = 0.1  # of an even share: a branch used less counts as dead
DIGITS = 6  # of what is written


class Diagnostics:
    """Sums over samples, the same on every worker. K rows: "" (every sample), then the labels; L layers, N branches.

    A step's part of the sums, one vector, is added up over the workers together with the loss.
    """

    def __init__(self, layers: Sequence[str], branches: int, labels: Sequence[str]) -> None:
        self.layers, self.labels = list(layers), ["", *labels]
        self.shape = (len(self.labels), len(self.layers), branches + 1)
        self.gates = torch.zeros(self.shape, dtype=torch.float64)  # weighted sums of mean gate [N] and entropy [1]
        self.weights = torch.zeros(len(self.labels), dtype=torch.float64)

    @property
    def width(self) -> int:
        """Of a step's vector."""
        return self.weights.numel() + self.gates.numel()

    def of_sample(self, gates_LG: torch.Tensor, shares: Sequence[float]) -> torch.Tensor:
        """A sample's part of the vector. gates_LG: [L, N+1] of hydralora.layer_stats; shares: one a label."""
        weights_K = torch.tensor([1.0, *shares], dtype=torch.float64)
        return torch.cat([weights_K, (weights_K[:, None, None] * gates_LG.double().cpu()).flatten()])

    def take(self, sums: torch.Tensor) -> torch.Tensor:
        """Take in a step's vector, summed over its samples; the mean over them: [L, N+1], float64."""
        weights_K, gates_KLG = sums[: self.shape[0]], sums[self.shape[0] :].view(self.shape)
        self.weights += weights_K
        self.gates += gates_KLG
        return gates_KLG[0] / weights_K[0]

    def line(self, step: int, usual_LN: torch.Tensor, cosines_L: torch.Tensor) -> dict[str, Any]:
        """What is written after `step` steps; the sums begin anew. Labels that no sample showed are left out."""
        shown = [row for row, weight in enumerate(self.weights.tolist()) if weight > 0]
        means_KLG = self.gates[shown] / self.weights[shown, None, None]
        line = {
            "step": step, "layers": self.layers, "labels": [self.labels[row] for row in shown],
            "samples": _short(self.weights[shown]), "gate_mean": _short(means_KLG[..., :-1]),
            "gate_entropy": _short(means_KLG[..., -1]), "branch_cosine": _short(cosines_L),
            "dead_branches": dead_branches(usual_LN).tolist(),
        }  # fmt: skip
        self.gates.zero_()
        self.weights.zero_()
        return line

    def state(self) -> dict[str, torch.Tensor]:
        """For a checkpoint."""
        return {"gates": self.gates, "weights": self.weights}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Put a state back; one of other labels or layers is passed over: it is only about what people see."""
        if state["gates"].shape == self.gates.shape:
            self.gates.copy_(state["gates"])
            self.weights.copy_(state["weights"])


def dead_branches(usual_LN: torch.Tensor) -> torch.Tensor:
    """[L]: how many branches each layer uses less than a tenth of an even share."""
    return (usual_LN < DEAD / usual_LN.shape[1]).sum(1)


def _short(values: torch.Tensor) -> Any:
    return torch.round(values.double(), decimals=DIGITS).tolist()
