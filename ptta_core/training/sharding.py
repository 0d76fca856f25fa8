"""The model spread over the workers (FSDP2): each holds a part of every weight and gathers a block's while it is used.

Workers must then go through the model equally often. The adapter's gradients are summed as they are scattered.
"""

from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ptta_core.training.workers import World

BLOCKS = ("transformer_blocks", "single_transformer_blocks")


def shard(model: Any, world: World) -> None:
    """Spread a transformer with its adapter, in place, onto the workers' devices; its parameters become others."""
    mesh = init_device_mesh(torch.device(world.device).type, (world.size,))
    for name in BLOCKS:
        for block in getattr(model, name):
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This worker's part of a sharded tensor, sharing its memory; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(own: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """`whole`, which every worker holds, cut as `own` is."""
    if not isinstance(own, DTensor):
        return whole
    return distribute_tensor(whole.to(own.device), own.device_mesh, own.placements, src_data_rank=None)
