"""The running average of the adapter's weights (EMA): what is exported in their place where a recipe asks for it."""

import contextlib
from collections.abc import Iterator, Sequence

import torch

from ptta_core.models.hydralora import whole
from ptta_core.training.sharding import like, local


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
            local(shadow).copy_(local(one))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for shadow, one in zip(self.shadow, self.parameters):
            local(shadow).lerp_(local(one), 1.0 - decay)

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
            kept = local(one).detach().clone()
            local(one).copy_(local(shadow))
            local(shadow).copy_(kept)

    def state(self) -> dict[str, torch.Tensor]:
        """The shadow by the parameters' places, whole; of a sharded model all workers call it."""
        return {str(place): whole(shadow) for place, shadow in enumerate(self.shadow)}

    @torch.no_grad()
    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Put a state back. KeyError for one of other parameters."""
        for place, shadow in enumerate(self.shadow):
            local(shadow).copy_(local(like(shadow, state[str(place)])))
