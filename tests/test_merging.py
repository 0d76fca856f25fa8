"""Merging an adapter into its base: exact where one gate holds for every input, else refused; undone to the bit."""

from typing import Any

import pytest
import torch
from test_hydralora import SETTINGS, conditions, shake, tiny, velocity
from torch import nn

from ptta_core.models import hydralora, merging


def adapted(dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    model = tiny().to(dtype)
    hydralora.inject(model, **(SETTINGS | changes), seed=0)
    shake(model, 1)
    return model


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: one.base.weight.clone() for name, one in hydralora.layers(model).items()}


@pytest.mark.parametrize(
    ("gate", "branches", "placement", "how"),
    [
        ("static", 4, "all", ""), ("label", 4, "non_attention_strict", "labels"), ("label", 4, "non_attention", ""),
        ("sample", 4, "non_attention", "pooled"), ("token", 1, "all", ""), ("token", 4, "non_attention", "mix"),
    ],
)  # fmt: skip
def test_merged_it_computes_the_same_and_unmerged_the_base_is_as_before(
    gate: str, branches: int, placement: str, how: str
) -> None:
    model = adapted(gate=gate, branches=branches, placement=placement)
    labels_1N = conditions()[0][:1] if how == "labels" else None
    hydralora.set_condition(model, labels_1N, torch.randn(1, 8) if how == "pooled" else None)
    if how == "mix":
        hydralora.set_mix(model, {name: [0.1, 0.2, 0.3, 0.4] for name in hydralora.layers(model)})
    expected, before = velocity(model), weights(model)
    merging.merge(model)
    assert (velocity(tiny()) - expected).abs().max() > 0.01
    torch.testing.assert_close(velocity(model), expected, atol=2e-5, rtol=1e-4)
    for name, one in hydralora.layers(model).items():
        assert torch.equal(one(x := torch.randn(2, one.in_features)), one.base(x))
        assert torch.equal(one.base.weight[:, : one.unread], before[name][:, : one.unread])
    merging.unmerge(model)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())
    assert torch.equal(velocity(model), expected)
    merging.unmerge(model)  # again: nothing to do


def test_what_is_not_exact_is_refused_and_nothing_is_touched() -> None:
    model = adapted()
    before = weights(model)
    with pytest.raises(ValueError, match="a token gate that differs from input to input"):
        merging.merge(model)
    label = adapted(gate="label")
    hydralora.set_condition(label, conditions()[0])
    with pytest.raises(ValueError, match="a label gate that differs"):
        merging.merge(label)
    static = adapted(gate="static")
    hydralora.set_enabled(static, False)
    with pytest.raises(ValueError, match="the adapter is off"):
        merging.merge(static)
    hydralora.set_enabled(static, True)
    last = list(hydralora.layers(static).values())[-1]
    last.base.to(torch.float8_e4m3fn)
    first = next(iter(hydralora.layers(static).values())).base.weight.clone()
    with pytest.raises(ValueError, match="float8_e4m3fn"):
        merging.merge(static)
    assert torch.equal(next(iter(hydralora.layers(static).values())).base.weight, first)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(model).items())
    with pytest.raises(ValueError, match="no adapter"):
        merging.merge(nn.Linear(2, 2))


def test_a_merged_adapter_is_not_changed_behind_its_base() -> None:
    model = adapted(gate="label")
    merging.merge(model)
    for change in (lambda: hydralora.set_condition(model, conditions()[0][:1]), lambda: hydralora.remove(model),
                   lambda: hydralora.set_enabled(model, False), lambda: hydralora.set_mix(model, None),
                   lambda: hydralora.load_adapter_state(model, hydralora.adapter_state(model))):  # fmt: skip
        with pytest.raises(ValueError, match="unmerge it first"):
            change()
    with pytest.raises(ValueError, match="merged already"):
        merging.merge(model)


def test_a_bfloat16_base_takes_the_adapter_in_rounded_once() -> None:
    model = adapted(torch.bfloat16, gate="static")
    layer = next(iter(hydralora.layers(model).values()))
    exact = layer.base.weight.double() + merging.delta(layer).double()
    merging.merge(model)
    assert torch.equal(layer.base.weight, exact.float().bfloat16())
    merging.unmerge(model)
    assert layer.base.weight.dtype == torch.bfloat16
