"""scores -> selection: which clips are worth learning from, and why; it decides on measurements only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ptta_core.config import SelectConfig
from ptta_core.ids import digest, digest_set
from ptta_core.memo import Batch, Items, Job, StageError, stage
from ptta_core.rows import Selected
from ptta_core.view import View

THETAS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0)


@dataclass(frozen=True)
class SelectItem:
    """The whole set: selection is one decision over all scores."""

    selection_id: str
    scores: list[dict[str, Any]]  # clip_id, motion_px, aesthetic


def inputs(view: View) -> Items:
    """One item: every score row of the run."""
    table = view.rows("score", ["clip_id", "motion_px", "aesthetic", "content_id"])
    if not table.num_rows:
        raise StageError("select: there are no scores; run split and score first, and see `ptta show failures`")
    read = digest_set(table["content_id"].to_pylist())
    selection_id = digest(view.fingerprint("select"), read)
    return Items([selection_id], [read], lambda rows: [SelectItem(selection_id, table.to_pylist())])


@stage(Selected, version=1, id_field="selection_id", inputs=inputs)
def select(todo: list[SelectItem], job: Job) -> Iterator[Batch]:
    """S = alpha * motion_px + (1 - alpha) * aesthetic, kept at theta and above."""
    for item in todo:
        yield [(item, [decide(item.selection_id, row, job.config) for row in item.scores])]


def combined(motion_px: float, aesthetic: float, alpha: float) -> float:
    """The paper's clip score S (arXiv 2512.18614), in the units of docs/decisions.md."""
    return alpha * motion_px + (1 - alpha) * aesthetic


def decide(selection_id: str, row: dict[str, Any], config: SelectConfig) -> Selected:
    """Keep or reject one clip; the reason names the rule and the value that decided."""
    score = combined(row["motion_px"], row["aesthetic"], config.alpha)
    kept, reason = True, f"S {score:.2f} >= theta {config.theta:g}"
    if config.max_motion_px is not None and row["motion_px"] > config.max_motion_px:
        kept, reason = False, f"motion {row['motion_px']:.2f} px > max_motion_px {config.max_motion_px:g}"
    elif config.min_aesthetic is not None and row["aesthetic"] < config.min_aesthetic:
        kept, reason = False, f"aesthetic {row['aesthetic']:.2f} < min_aesthetic {config.min_aesthetic:g}"
    elif score < config.theta:
        kept, reason = False, f"S {score:.2f} < theta {config.theta:g}"
    return Selected(selection_id, row["clip_id"], score, kept, reason)


def require_some(view: View) -> None:
    """Raise StageError when nothing was kept, saying how many clips each theta would have kept."""
    table = view.rows("select", ["score", "kept"])
    if any(table["kept"].to_pylist()):
        return
    scores = table["score"].to_pylist()
    would = ", ".join(f"{theta:g} keeps {sum(score >= theta for score in scores)}" for theta in THETAS)
    raise StageError(f"empty selection: none of {len(scores)} clips passes select.theta = {view.recipe.select.theta:g} "
                     f"and the bounds. By S alone theta {would}. Set another with --set select.theta=...")  # fmt: skip
