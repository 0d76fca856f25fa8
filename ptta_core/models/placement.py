"""Which Linears of a HunyuanVideo transformer an adapter sits on, and which of their inputs it reads.

What a placement may say is in placements.py. A pattern must fit a Linear's whole name: "proj_out" alone is the final
head too, "linear" alone is modulation.
"""

import re
from collections.abc import Sequence

from torch import nn

from ptta_core import placements

_BLOCKS = {
    "non_attention": r"transformer_blocks\.\d+\.ff(_context)?\.net\.(0\.proj|2)"
    r"|single_transformer_blocks\.\d+\.(proj_mlp|proj_out)",
    "attention": r"transformer_blocks\.\d+\.attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
    r"|single_transformer_blocks\.\d+\.attn\.to_[qkv]",
}
PLACEMENTS = {
    "non_attention": _BLOCKS["non_attention"],
    "non_attention_strict": _BLOCKS["non_attention"],
    "attention": _BLOCKS["attention"],
    "all": "|".join(_BLOCKS.values()),
}
# A single block's proj_out reads [attention | MLP] side by side. It counts as MLP, as in the paper's "linear layers,
# not attention"; the strict placement adapts only what it reads of the MLP.
_MIXED = re.compile(r"single_transformer_blocks\.\d+\.proj_out")
TEXT_ONLY = re.compile(r"\.ff_context\.|\.add_[qkv]_proj$|\.to_add_out$")
SHOWN = 4  # names in an error


def target_names(transformer: nn.Module, placement: str) -> list[str]:
    """The Linears of a HunyuanVideo transformer that `placement` means, sorted.

    Named: "non_attention" and "non_attention_strict" (160 in the published model), "attention" (280), "all". Of a
    pattern, embedders, modulation and the final head are refused, and attention unless attention_regex says that it is
    meant. Raises ValueError for these, for a pattern that is none, and when nothing is hit.
    """
    kind, pattern = placements.parse(placement)
    linears = sorted(name for name, module in transformer.named_modules() if isinstance(module, nn.Linear))
    if kind in PLACEMENTS:
        if not (names := _fitting(PLACEMENTS[kind], linears)):
            raise ValueError(f"placement {placement!r} hits no Linear of {type(transformer).__name__}")
        return names
    names = _fitting(pattern, linears)
    if not names:
        raise ValueError(f"placement {placement!r} hits no Linear: {_why_none(pattern, linears)}")
    if wrong := [name for name in names if not re.fullmatch(PLACEMENTS["all"], name)]:
        raise ValueError(f"placement {placement!r} hits {_some(wrong)}: embedders, modulation and the final head are "
                         "left alone")  # fmt: skip
    if kind == "regex" and (wrong := _fitting(_BLOCKS["attention"], names)):
        raise ValueError(f"placement {placement!r} hits attention: {_some(wrong)}. Write attention_regex:... where "
                         "that is meant")  # fmt: skip
    return names


def unread_inputs(placement: str, name: str, out_features: int) -> int:
    """How many of a Linear's first inputs the adapter leaves out: those of attention in a strict proj_out.

    Its output is as wide as the model, and so is the part of its input that comes from attention.
    """
    return out_features if placement == "non_attention_strict" and _MIXED.fullmatch(name) else 0


def _fitting(pattern: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if re.fullmatch(pattern, name)]


def _why_none(pattern: str, linears: Sequence[str]) -> str:
    inside = [name for name in linears if re.search(pattern, name)]
    if inside:
        return f"the whole name must fit, and it fits only parts of {_some(inside)}"
    return f"they are named {_some([name for name in linears if re.fullmatch(PLACEMENTS['all'], name)] or linears)}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
