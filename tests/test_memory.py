"""Offloaded inputs and compiled blocks: the same losses and gradients, and what is kept where."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import adapter, base, metrics, settings  # noqa: F401  (fixtures)

from ptta_core.training import loop, memory, passes


def test_offloaded_inputs_change_no_bit(settings: Callable[..., passes.Settings]) -> None:  # noqa: F811
    kept, moved = (settings(name, apart=("sample0",), router_label_weight=0.1) for name in ("kept", "moved"))
    loop.train_loop(kept)
    loop.train_loop(dataclasses.replace(moved, offload=True))
    assert adapter(kept) == adapter(moved)
    for key in ("loss", "grad_norm", "gate_mean"):
        assert [line[key] for line in metrics(kept)] == [line[key] for line in metrics(moved)]


class Elsewhere(torch.autograd.graph.saved_tensors_hooks):
    """In save_on_cpu's place: everything saved leaves torch altogether, and is counted."""

    bytes = 0

    def __init__(self, pin_memory: bool = False) -> None:
        def pack(tensor: torch.Tensor) -> tuple[Any, torch.dtype]:
            Elsewhere.bytes += tensor.nbytes
            return tensor.detach().float().numpy().copy(), tensor.dtype

        super().__init__(pack, lambda packed: torch.from_numpy(packed[0]).to(packed[1]))


def test_what_is_offloaded_are_the_inputs_of_blocks_alone(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    """Video and text of four blocks, 8 + 3 tokens of 32 numbers, their mask, and what modulates them."""
    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", Elsewhere)
    run = dataclasses.replace(settings(n_first=1, n_second=0, batch=1, epochs=1), offload=True)
    training = loop._Training(run, passes.World())
    Elsewhere.bytes = 0
    training.one_backward(training.index[0], 0, 1.0)
    moved = [one.grad.clone() for one in training.parameters if one.grad is not None]
    assert Elsewhere.bytes == 4 * ((8 + 3) * 32 * 4 + (8 + 3) * 1 + 32 * 4)
    plain = loop._Training(dataclasses.replace(run, offload=False), passes.World())
    plain.one_backward(plain.index[0], 0, 1.0)
    assert all(torch.equal(one.grad, two) for one, two in zip(
        (one for one in plain.parameters if one.grad is not None), moved))  # fmt: skip


def test_the_blocks_are_what_is_compiled(settings: Callable[..., passes.Settings]) -> None:  # noqa: F811
    run = dataclasses.replace(settings(), compile=True)
    model = passes.Passes(run, passes.World()).model
    compiled = {type(one).__name__ for one in model.modules() if one._compiled_call_impl is not None}
    assert compiled == set(model._repeated_blocks) and "HunyuanVideoSingleTransformerBlock" in compiled


@pytest.mark.campaign
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_compiled_blocks_train_the_same(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch, backend: str, checkpointing: bool  # noqa: F811
) -> None:
    """Two buckets, held-out loss, live gates; no graph breaks. Only inductor's own kernels round otherwise."""
    from torch._dynamo.utils import counters

    real = memory.compile_blocks
    monkeypatch.setattr(passes, "compile_blocks", lambda model: real(model, backend))
    torch.compiler.reset()
    counters.clear()
    plain, compiled = (settings(name, apart=("sample0",), router_label_weight=0.1, checkpointing=checkpointing,
                                learning_rate=1e-3) for name in ("plain", "compiled"))  # fmt: skip
    loop.train_loop(plain)
    loop.train_loop(dataclasses.replace(compiled, compile=True))
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] > 4
    near = {"rel": 1e-9} if backend == "aot_eager" else {"rel": 2e-3}
    for key in ("loss", "grad_norm", "gate_entropy", "gate_mean"):
        for one, two in zip(metrics(plain), metrics(compiled), strict=True):
            assert two[key] == pytest.approx(one[key], **near)
    assert (Path(compiled.run_folder) / loop.HELD_OUT).exists()
