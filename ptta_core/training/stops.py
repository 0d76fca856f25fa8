"""Why a training run stops by itself: numbers that are not finite, a loss that runs away, routers that collapse."""

import math
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Any

from ptta_core.config import TrainConfig

WINDOW, WARM_UP = 200, 20  # losses that the median is of; the fewest to judge by


class Stopped(ArithmeticError):
    """Going on would spoil the adapter, and starting again would end alike."""

    kind = "training_stopped"


class NotFinite(Stopped):
    """The loss or the gradient became NaN or infinity."""

    kind = "training_not_finite"


class Diverged(Stopped):
    """The loss stayed far above what it was."""

    kind = "training_diverged"


class RouterCollapsed(Stopped):
    """One branch takes everything in all layers."""

    kind = "router_collapsed"


def finite(step: int, loss: float, norm: float, samples: Sequence[str]) -> None:
    """Raises NotFinite."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise NotFinite(f"step {step}: loss {loss}, gradient norm {norm}; samples: {', '.join(samples)}. "
                        "Lower train.learning_rate, or check these samples.")  # fmt: skip


class Stops:
    """Watches the steps of a run. `lines`: those done before, so that a resumed run stops where another would."""

    def __init__(self, config: TrainConfig, lines: Sequence[dict[str, Any]] = ()) -> None:
        self.config = config
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.above = self.uneven = 0
        self.routed = config.gate in ("token", "sample") and config.branches > 1
        for line in lines:
            self._count(line)

    def see(self, line: dict[str, Any]) -> None:
        """A step's line of metrics. Raises Diverged, RouterCollapsed."""
        usual = self._count(line)
        config = self.config
        if self.above >= config.stop_after:
            raise Diverged(f"step {line['step']}: the loss was above {config.stop_on_divergence:g} times its running "
                           f"median, {usual:.4g}, for {self.above} steps, now {line['loss']:.4g}. Lower "
                           "train.learning_rate; train.stop_on_divergence = 0 goes on regardless.")  # fmt: skip
        if self.uneven >= config.stop_after:
            raise RouterCollapsed(f"step {line['step']}: one branch takes nearly everything (evenness of the gates "
                                  f"{line['gate_evenness']:.3g} of 1) since {self.uneven} steps. Set "
                                  "train.balance_weight, or a lower train.learning_rate; train.stop_on_collapse = 0 "
                                  "goes on regardless.")  # fmt: skip

    def _count(self, line: dict[str, Any]) -> float:
        """Take a step in; the median of the steps before it that were not above the bound."""
        config = self.config
        usual = median(self.losses) if len(self.losses) >= WARM_UP else math.inf
        far = config.stop_on_divergence > 0 and line["loss"] > config.stop_on_divergence * usual
        self.above = self.above + 1 if far else 0
        if not far:
            self.losses.append(line["loss"])
        uneven = self.routed and line.get("gate_evenness", 1.0) < config.stop_on_collapse
        self.uneven = self.uneven + 1 if uneven else 0
        return usual
