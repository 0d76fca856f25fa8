"""What a training run shows while it lasts: its latest steps, and what its routers do with each label."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ptta_core.rows import Router, Step
from ptta_core.view import View

PHASES = ("data_s", "forward_s", "backward_s", "sync_s", "optimizer_s")
STEPS = 20  # newest first


def steps(view: View, most: int = STEPS) -> list[dict[str, Any]]:
    """The newest steps, the last one first: numbers for people."""
    names = ("loss", "grad_norm", "lr", "gate_evenness", "branch_cosine", "dead_branches", "step_s", *PHASES)
    rows = sorted(view.unfinished_rows("train", Step).to_pylist(), key=lambda row: -row["step"])
    return [{"step": row["step"]} | {name: _short(row[name]) for name in names} for row in rows[:most]]


def routers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of rows of routers, what the newest step says of each label: means over layers, the label "" called "all"."""
    newest = max((row["step"] for row in rows), default=0)
    by_label: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["step"] == newest:
            by_label[row["label"]].append(row)
    found = []
    for label, layers in sorted(by_label.items()):
        gates = [sum(shares) / len(layers) for shares in zip(*(row["gate_mean"] for row in layers))]
        entropy = sum(row["gate_entropy"] for row in layers) / len(layers)
        found.append({"step": newest, "label": label or "all", "samples": _short(layers[0]["samples"])}
                     | {f"branch {branch}": _short(gate) for branch, gate in enumerate(gates, 1)}
                     | {"entropy": _short(entropy)})  # fmt: skip
    return found


def labels(view: View) -> list[dict[str, Any]]:
    """See routers."""
    return routers(view.unfinished_rows("train", Router).to_pylist())


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
