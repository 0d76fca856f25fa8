"""The 8-bit optimizer: how near its numbers are, how it learns beside AdamW, its memory, and its resume to the bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training import adapter, base, kill_in_step, metrics, settings  # noqa: F401  (fixtures)

from ptta_core.training import adamw8bit, checkpoint, loop, passes


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("columns", [64, 256, 700])
def test_what_is_read_back_is_near(signed: bool, columns: int) -> None:
    """Gradients over four decades: an error relative to the value, except for what is tiny beside its neighbours."""
    generator = torch.Generator().manual_seed(columns)
    values = torch.randn(50, columns, generator=generator) * 10 ** (-4 * torch.rand(50, columns, generator=generator))
    values = values if signed else values.abs()
    values[7] = 0.0
    codes, scales = adamw8bit.quantize(values, signed)
    read = adamw8bit.dequantize(codes, scales, signed)
    assert codes.dtype == torch.uint8 and codes.shape == values.shape and read.dtype == torch.float32
    assert scales.shape == (50, -(-columns // 256)) and not read[7].any()
    error = (read - values).abs()
    assert float(error.norm() / values.norm()) < 0.015
    tenth = values.abs() > 0.1 * values.abs().amax(1, keepdim=True)
    piece = 0.9 / (64 if signed else 128)  # of the top decade
    assert float((error / values.abs())[tenth].max()) <= 1.01 * piece / 2 / 0.1
    nonzero = values.abs() > 1e-6 * values.abs().amax(1, keepdim=True)
    assert bool((read[nonzero] != 0).all())
    again = adamw8bit.quantize(values[3:5], signed)  # a row's codes do not depend on other rows: workers may cut
    assert torch.equal(again[0], codes[3:5]) and torch.equal(again[1], scales[3:5])


def test_the_levels_are_256_and_reach_one() -> None:
    for signed in (True, False):
        levels = adamw8bit._levels(signed)
        assert len(levels) == 256 and bool((levels.diff() > 0).all()) and levels[-1] == 1.0 and 0.0 in levels


def test_steps_are_adamws() -> None:
    """The same weights within a few percent of the way, with moments of a quarter of the size."""
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(96, 300, generator=generator), torch.randn(5, generator=generator)]
    targets = [torch.randn(one.shape, generator=generator) for one in starts]
    ways = []
    for make in (torch.optim.AdamW, adamw8bit.AdamW8bit):
        weights = [torch.nn.Parameter(one.clone()) for one in starts]
        optimizer = make(weights, lr=1e-2, weight_decay=0.1)
        noise = torch.Generator().manual_seed(1)
        for _ in range(100):
            optimizer.zero_grad()
            for one, target in zip(weights, targets):
                one.grad = one.detach() - target + torch.randn(one.shape, generator=noise)
            optimizer.step()
        ways.append([one.detach() - start for one, start in zip(weights, starts)])
    assert float((ways[1][0] - ways[0][0]).norm() / ways[0][0].norm()) < 0.02
    torch.testing.assert_close(ways[1][1], ways[0][1])  # small: kept whole
    state = optimizer.state[weights[0]]
    held = sum(value.nbytes for name, value in state.items() if name != "step")
    assert held == adamw8bit.moment_bytes(weights[0]) < 0.27 * 8 * weights[0].numel()


def test_it_learns_what_adamw_learns_and_resumes_to_the_bit(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    wide = {"rank": 32, "checkpoint_every": 3}
    plain, whole, broken = (settings(name, optimizer=kind, **wide) for name, kind in (
        ("plain", "adamw"), ("whole", "adamw8bit"), ("broken", "adamw8bit")))  # fmt: skip
    loop.train_loop(plain)
    loop.train_loop(whole)
    kill_in_step(monkeypatch, broken, 5)
    loop.train_loop(broken)
    assert adapter(broken) == adapter(whole) != adapter(plain)
    losses = [[line["loss"] for line in metrics(run)] for run in (plain, whole, broken)]
    assert losses[1] == losses[2] and losses[1] == pytest.approx(losses[0], rel=0.02)
    first, second = (load_file(Path(run.run_folder) / loop.ADAPTER) for run in (plain, whole))
    one, two = (torch.cat([each[key].flatten() for key in sorted(each)]) for each in (first, second))
    assert float((two - one).norm() / one.norm()) < 0.02
    latest = checkpoint.latest(Path(whole.run_folder) / loop.CHECKPOINTS)
    assert latest
    kinds = {str(value.dtype) for value in load_file(latest / "optimizer.safetensors").values()}
    assert kinds == {"torch.uint8", "torch.float32"}
