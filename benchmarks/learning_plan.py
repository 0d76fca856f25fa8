"""The numbers of the learning benchmark, fixed before it was run: docs/learning-plan.md says why these."""

from dataclasses import dataclass
from typing import Any

from ptta_core.config import TrainConfig


@dataclass(frozen=True)
class BasePlan:
    """The base: trained whole, from scratch, on drawn clips in the seen styles."""

    clips: int = 2048
    steps: int = 6000
    batch: int = 16
    rate: float = 1e-3  # peak: 100 steps up, then a cosine down to 0
    heads: int = 4
    head_dim: int = 24  # 4 heads of 24: a width of 96
    blocks: int = 2  # of each kind, dual and single


@dataclass(frozen=True)
class StylesPlan:
    """Part a: four unseen styles."""

    a_style: int = 16  # clips to learn from, of each style, drawn anew for every seed
    validation_a_style: int = 6  # choose the rate
    test_a_style: int = 16  # decide
    seeds: int = 5
    rank: int = 4
    epochs: int = 16  # of 16 steps
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)


@dataclass(frozen=True)
class RealPlan:
    """Part b: real clips by heart."""

    clips: int = 12
    seeds: int = 3
    rank: int = 16
    epochs: int = 100
    rates: tuple[tuple[str, tuple[float, ...]], ...] = (
        ("full", (1e-4, 3e-4, 1e-3, 3e-3)),
        ("hydra", (1e-3, 3e-3, 1e-2, 3e-2)),
        ("hydra everywhere", (1e-3, 3e-3, 1e-2, 3e-2)),
    )


@dataclass(frozen=True)
class Plan:
    """All of it."""

    base: BasePlan = BasePlan()
    styles: StylesPlan = StylesPlan()
    real: RealPlan = RealPlan()
    more_rates: int = 2  # at most so many are added at an end of a sweep whose best lies there
    real_footage: bool = True


BRANCHES = 4
TIMES = 8  # noise levels of every measure: the middles of the eighths of the training distribution of t
SHIFT = 1.0  # of t: latents of 8 x 8 need none
STEP = 10**0.5  # from a rate to the next one that is added

QUICK = Plan(
    BasePlan(clips=6, steps=3, batch=4, heads=2, head_dim=16),
    StylesPlan(a_style=1, validation_a_style=1, test_a_style=2, seeds=1, epochs=1, rates=(1e-2,)),
    RealPlan(clips=2, seeds=1, rank=2, epochs=2, rates=(("full", (1e-3,)), ("hydra", (1e-2,)))),
    more_rates=0, real_footage=False,
)  # fmt: skip


def common(**changes: Any) -> TrainConfig:
    """What every adaptation has in common, as the recipe's train section."""
    plain: dict[str, Any] = {"batch": 4, "warmup_steps": 20, "shift": SHIFT, "checkpointing": False,
                             "checkpoint_every": 10**6}  # fmt: skip
    return TrainConfig(**(plain | changes))
