"""The running average of the adapter's weights (EMA): what is exported in their place where a recipe asks for it."""

import contextlib
from collections.abc import Iterator, Sequence

import torch


class Average:
    """shadow = d * shadow + (1 - d) * weights after every step, float32, on the weights' device.

    d = min(decay, (1 + step) / (10 + step)), so that the start counts little in a short run; the same warm-up as
    TensorFlow's ExponentialMovingAverage with num_updates.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.shadow = [one.detach().clone() for one in self.parameters]

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again at the weights as they are now."""
        for shadow, one in zip(self.shadow, self.parameters):
            shadow.copy_(one)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for shadow, one in zip(self.shadow, self.parameters):
            shadow.lerp_(one, 1.0 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model computes with the average meanwhile."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for shadow, one in zip(self.shadow, self.parameters):
            kept = one.detach().clone()
            one.copy_(shadow)
            shadow.copy_(kept)

    def state(self) -> dict[str, torch.Tensor]:
        """The shadow by the parameters' places."""
        return {str(place): shadow for place, shadow in enumerate(self.shadow)}

    @torch.no_grad()
    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Put a state back. KeyError for one of other parameters."""
        for place, shadow in enumerate(self.shadow):
            shadow.copy_(state[str(place)])
