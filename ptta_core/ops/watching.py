"""What a training run shows while it lasts: its latest steps, and what its routers do with each label."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow.compute as pc

from ptta_core.rows import Router, Step
from ptta_core.view import View

PHASES = ("data_s", "forward_s", "backward_s", "sync_s", "optimizer_s")
STEPS = 20  # newest first


def steps(view: View, most: int = STEPS) -> list[dict[str, Any]]:
    """The newest steps, the last one first: numbers for people."""
    names = ("loss", "grad_norm", "lr", "gate_evenness", "branch_cosine", "dead_branches", "step_s", *PHASES)
    rows = sorted(view.unfinished_rows("train", Step).to_pylist(), key=lambda row: -row["step"])
    return [{"step": row["step"]} | {name: _short(row[name]) for name in names} for row in rows[:most]]


def newest(view: View) -> list[dict[str, Any]]:
    """The rows of routers of the step at which they were last looked at."""
    table = view.unfinished_rows("train", Router)
    return table.filter(pc.equal(table["step"], pc.max(table["step"]))).to_pylist()


def labels(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the rows of one step say of each label: means over layers, the label "" called "all"."""
    by_label: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_label[row["label"]].append(row)
    found = []
    for label, layers in sorted(by_label.items()):
        gates = [sum(shares) / len(layers) for shares in zip(*(row["gate_mean"] for row in layers))]
        entropy = sum(row["gate_entropy"] for row in layers) / len(layers)
        found.append({"step": layers[0]["step"], "label": label or "all", "samples": layers[0]["samples"],
                      "gates": gates, "entropy": entropy})  # fmt: skip
    return found


def label_table(view: View) -> list[dict[str, Any]]:
    """See labels; numbers for people, a column a branch."""
    return [{"step": one["step"], "label": one["label"], "samples": _short(one["samples"])}
            | {f"branch {branch}": _short(gate) for branch, gate in enumerate(one["gates"], 1)}
            | {"entropy": _short(one["entropy"])} for one in labels(newest(view))]  # fmt: skip


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
