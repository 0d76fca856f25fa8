"""Where an adapter sits: the named placements, the user's own patterns, and what a strict proj_out leaves out."""

import re
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from pydantic import ValidationError
from test_hydralora import SETTINGS, shake, tiny, velocity
from torch import nn

from ptta_core import placements
from ptta_core.config import TrainConfig
from ptta_core.models import hydralora, placement

WIDTH = 20  # of the tiny model
MLP = r"(single_)?transformer_blocks\.\d+\.(ff\.net\.2|proj_mlp)"


def published() -> Any:
    with torch.device("meta"):
        return HunyuanVideoTransformer3DModel()


@pytest.mark.parametrize(
    ("named", "count"), [("non_attention", 160), ("non_attention_strict", 160), ("attention", 280), ("all", 440)]
)
def test_targets_in_the_published_model(named: str, count: int) -> None:
    model = published()
    names = placement.target_names(model, named)
    assert len(names) == len(set(names)) == count
    assert not [name for name in names if re.search("norm|embed|refiner|^proj_out", name)]
    if named == "non_attention":
        assert not [name for name in names if ".attn." in name]
        injected = hydralora.inject(model, **(SETTINGS | {"rank": 16}), seed=0)
        assert injected == names and sum(p.numel() for p in model.parameters() if p.requires_grad) == 105_676_800


def test_recipes_and_models_know_the_same_placements() -> None:
    assert set(placements.NAMES) == set(placement.PLACEMENTS)


def test_a_pattern_hits_whole_names() -> None:
    model = published()
    assert len(placement.target_names(model, f"regex:{MLP}")) == 20 + 40
    only = placement.target_names(model, r"attention_regex:transformer_blocks\.[0-4]\.attn\.to_[qkv]")
    assert len(only) == 15 and all(".attn.to_" in name for name in only)
    injected = tiny()
    names = hydralora.inject(injected, **(SETTINGS | {"placement": f"regex:{MLP}"}), seed=0)
    assert names == placement.target_names(tiny(), f"regex:{MLP}") and len(names) == 4


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("regex:ff", r"hits no Linear: the whole name must fit, and it fits only parts of .*\.ff\.net"),
        (r"regex:double_blocks\..*", r"hits no Linear: they are named single_transformer_blocks\.0"),
        ("regex:.*proj_out", "hits proj_out: embedders, modulation and the final head"),
        ("regex:.*linear", "hits context_embedder.*, norm_out.linear, .* and 4 more: embedders, modulation"),
        (r"regex:.*refiner_blocks\.0\.attn\.to_q", "hits context_embedder.*embedders"),
        (r"regex:.*transformer_blocks\.\d+\..*(to_q|proj_mlp)",
         r"hits attention: single_transformer_blocks\.0\.attn\.to_q.*attention_regex"),
    ],
)  # fmt: skip
def test_a_pattern_that_hits_the_wrong_linears_is_refused(named: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        placement.target_names(tiny(), named)


@pytest.mark.parametrize("bad", ["mlp", "regex:", "regexp:.*", ""])
def test_a_placement_that_is_none_is_refused_by_the_recipe(bad: str) -> None:
    with pytest.raises(ValidationError, match=r"choices: non_attention, .*attention_regex:PATTERN"):
        TrainConfig(placement=bad)
    with pytest.raises(ValueError, match="choices: non_attention"):
        placement.target_names(tiny(), bad)


def test_a_pattern_that_is_no_pattern_is_refused() -> None:
    with pytest.raises(ValidationError, match="no regular expression"):
        TrainConfig(placement="regex:(")
    with pytest.raises(ValueError, match="hits no Linear"):
        placement.target_names(nn.Sequential(nn.Linear(2, 2)), "all")


def test_the_strict_placement_leaves_attention_out_of_proj_out() -> None:
    model = tiny()
    hydralora.inject(model, **(SETTINGS | {"placement": "non_attention_strict"}), seed=0)
    found = hydralora.layers(model)
    mixed = {name: one for name, one in found.items() if name.endswith("proj_out")}
    assert len(mixed) == 2 and len(found) == 12
    assert not [name for name, one in found.items() if one.unread and name not in mixed]
    begin = velocity(model)
    shake(model, 0)
    for one in mixed.values():
        assert one.unread == WIDTH and one.lora_A.shape[1] == one.in_features - WIDTH == one.router.shape[1]  # type: ignore[union-attr]
        x = torch.randn(3, 5, one.in_features)
        other = torch.cat([torch.randn(3, 5, WIDTH), x[..., WIDTH:]], -1)  # another output of attention
        added, added_to_other = one(x) - one.base(x), one(other) - one.base(other)
        assert added.abs().max() > 0.1
        torch.testing.assert_close(added, added_to_other, atol=1e-5, rtol=1e-5)
    velocity(model).square().mean().backward()
    assert all(one.lora_A.grad is not None for one in mixed.values())
    assert not torch.equal(velocity(model), begin)
