"""The workers of a training run among themselves: who is who, and how all of them go on or stop together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ptta_core.training.dataset import DatasetError

T = TypeVar("T")


class OtherWorker(DatasetError):
    """Another worker cannot go on; its own error says why."""


@dataclass(frozen=True)
class World:
    """This worker's place among all. With size > 1 torch's default process group is up."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"


def agree(error: Exception | None, world: World) -> None:
    """Every worker calls this; when one brings an error, it raises it and all others raise OtherWorker."""
    failed = torch.tensor([0.0 if error is None else 1.0], device=world.device)
    if world.size > 1:
        dist.all_reduce(failed)
    if error is not None:
        raise error
    if failed.item():
        raise OtherWorker("another training worker stopped; its error says why")


def together(world: World, errors: tuple[type[Exception], ...], compute: Callable[..., T], *given: Any) -> T:
    """`compute(*given)` on all workers, or one of `errors` on all: one stopped alone would leave others waiting."""
    error: Exception | None = None
    found: list[T] = []
    try:
        found.append(compute(*given))
    except errors as bad:
        error = bad
    agree(error, world)
    return found[0]


def as_rank_0(value: int, world: World) -> int:
    """Rank 0's value, on every worker."""
    if world.size == 1:
        return value
    told = torch.tensor([value], dtype=torch.int64, device=world.device)
    dist.broadcast(told, src=0)
    return int(told.item())


def summed(values: torch.Tensor, world: World) -> torch.Tensor:
    """All workers' values added up, on the CPU."""
    if world.size > 1:
        values = values.to(world.device)
        dist.all_reduce(values)
    return values.cpu()
