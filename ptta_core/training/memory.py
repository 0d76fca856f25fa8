"""Where a block's activations are while it waits for its backward pass, and regional compilation: neither changes a bit
of what is learned, but for the compiler's own rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
from torch.utils.checkpoint import checkpoint

VERSIONS = 32  # of one kind of block

def keep_inputs_only(model: Any, offload: bool = False) -> None:
    """Activation checkpointing: of every block only its inputs stay until it is computed again for its gradient.

    offload: they wait in the host's memory (pinned where the model is on a GPU), one block's at a time come back.
    """
    model.enable_gradient_checkpointing(_offloaded if offload else None)


def _offloaded(block: Callable[..., Any], *inputs: Any) -> Any:
    """A checkpointed call whose inputs are kept on the CPU; what is computed again stays where it is computed."""
    with torch.autograd.graph.save_on_cpu(pin_memory=inputs[0].is_cuda):
        return checkpoint(block, *inputs, use_reentrant=False)


def compile_blocks(model: Any, backend: str = "inductor") -> None:
    """Compile the transformer's repeated blocks, each kind once for all its copies and all sizes.

    Do this after adapters are injected and before the model is sharded. Every prompt has its own number of tokens, so
    sizes are variables from the start; what still differs (with and without gradients, gates kept or not) takes a few
    versions of each block, more than the compiler's usual limit.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VERSIONS)
    model.compile_repeated_blocks(backend=backend, dynamic=True)
