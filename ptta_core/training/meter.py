"""What a pass of a model takes, counted from the tensors it makes: live bytes, and floating-point operations.

The model may be on the meta device, where tensors have shapes and no numbers: then nothing is computed, and a model of
any size is counted on any machine. Attention is counted as a fused kernel does it, which never holds the scores.
"""

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry


class Meter(TorchDispatchMode):
    """Counts while it is entered. `known`: tensors that are there already and are not counted.

    peaks: the most bytes of new tensors at one time, one entry a phase; flops: of matrix products, without attention.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.live = {one.untyped_storage()._cdata: 0 for one in known}
        self.bytes, self.flops, self.peaks = 0, 0, [0]
        self.entered_backward = False

    def next_phase(self) -> None:
        """From here on peaks go into another entry."""
        self.peaks.append(self.bytes)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if (count := flop_registry.get(function._overloadpacket)) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        tree_map_only(torch.Tensor, self._see, out)
        return out

    def _see(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.live:
            self.live[key] = storage.nbytes()
            self.bytes += self.live[key]
            self.peaks[-1] = max(self.peaks[-1], self.bytes)
            weakref.finalize(storage, self._drop, key)
        return tensor

    def _drop(self, key: int) -> None:
        self.bytes -= self.live.pop(key, 0)


class _Attention(torch.autograd.Function):
    """The shapes of fused attention: what it gives, what it keeps (FlashAttention, arXiv 2205.14135, algorithm 2)."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(query)
        sums = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        return tuple(torch.empty_like(one) for one in ctx.saved_tensors[:3])


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """Attention by its shapes alone, for models on the meta device, which has no fused kernel."""

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        return _Attention.apply(query, key, value)

    with mock.patch.object(F, "scaled_dot_product_attention", attend):
        yield


@contextlib.contextmanager
def elsewhere(pin_memory: bool = False) -> Iterator[None]:
    """In save_on_cpu's place: what is saved takes no memory here."""

    def pack(tensor: torch.Tensor) -> tuple[torch.Size, torch.dtype]:
        return tensor.shape, tensor.dtype

    def unpack(packed: tuple[torch.Size, torch.dtype]) -> torch.Tensor:
        return torch.empty(packed[0], dtype=packed[1], device="meta")

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
