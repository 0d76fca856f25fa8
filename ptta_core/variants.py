"""The forms in which a trained adapter is generated with and exported, by name: one grammar for recipes, rows, reports.

    base                        the model without an adapter
    adapter                     the adapter itself, with its router
    adapter:diffusers           one plain LoRA, with diffusers' names: of the gate, or of its mean where it varies
    adapter:comfyui             the same with ComfyUI's names
    branch:male                 one branch alone, with diffusers' names
    mix:male=0.7,object=0.3     the branches in these shares, in place of the gate, with diffusers' names
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

BASE, ADAPTER = "base", "adapter"
FORMATS = ("diffusers", "comfyui", "branches")  # of train.export: files beside the native one
GRAMMAR = "base, adapter, adapter:diffusers, adapter:comfyui, branch:NAME, mix:NAME=SHARE,NAME=SHARE"


@dataclass(frozen=True)
class Form:
    """A plain LoRA made of an adapter."""

    variant: str
    comfyui: bool = False  # names as ComfyUI has them
    shares: tuple[tuple[str, float], ...] = ()  # of the named branches, sum 1; empty: as the gate says

    def weights(self, names: Sequence[str]) -> list[float] | None:
        """A weight a branch, in the order of `names`; None where the gate decides. Raises ValueError."""
        told = dict(self.shares)
        if unknown := sorted(told.keys() - set(names)):
            raise ValueError(f"{self.variant}: no branch {', '.join(unknown)}; choices: {', '.join(names)}")
        return [told.get(name, 0.0) for name in names] if told else None

    @property
    def file_name(self) -> str:
        """Its name as a file, without the suffix: diffusers, branch-male, mix-male-0.7-object-0.3."""
        name = re.sub(r"[^\w.]+", "-", self.variant.removeprefix("adapter:"))
        return f"{name}-comfyui" if self.comfyui and self.shares else name


def parse(variant: str) -> Form | None:
    """The plain LoRA that a variant is; None for base and adapter. Raises ValueError with the grammar."""
    if variant in (BASE, ADAPTER):
        return None
    kind, _, rest = variant.partition(":")
    if kind == "adapter" and rest in ("diffusers", "comfyui"):
        return Form(variant, rest == "comfyui")
    if kind == "branch" and rest:
        return Form(variant, shares=((rest, 1.0),))
    if kind == "mix" and rest:
        return Form(variant, shares=parse_mix(rest))
    raise ValueError(f"variant {variant!r}; choices: {GRAMMAR}")


def parse_mix(text: str) -> tuple[tuple[str, float], ...]:
    """ "male=0.7,background=0.3" as shares by name, their sum made 1. Raises ValueError."""
    try:
        told = {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise ValueError(f"mix {text!r}: NAME=SHARE,NAME=SHARE is wanted, such as male=0.7,object=0.3") from None
    total = sum(told.values())
    if not 0 < total < float("inf") or min(told.values()) < 0:
        raise ValueError(f"mix {text!r}: shares of 0 or more are wanted, not all 0")
    return tuple((name, share / total) for name, share in told.items())


def branch_names(gate: str, branches: int, labels: Sequence[str]) -> list[str]:
    """The labels of a label gate, else branch0, branch1, ..."""
    if gate == "label" and len(labels) == branches:
        return list(labels)
    return [f"branch{number}" for number in range(branches)]


def forms(formats: Sequence[str], asked: Sequence[str], names: Sequence[str]) -> list[Form]:
    """The files of formats and of the variants asked for, each once. Raises ValueError for other branches."""
    found = [form for text in dict.fromkeys([*of_formats(formats, names), *asked]) if (form := parse(text))]
    for form in found:
        form.weights(names)
    return found


def of_formats(formats: Sequence[str], names: Sequence[str]) -> list[str]:
    """The variants that formats of FORMATS stand for, with the branches `names`."""
    found: list[str] = []
    for name in formats:
        found += [f"branch:{one}" for one in names] if name == "branches" else [f"adapter:{name}"]
    return list(dict.fromkeys(found))
