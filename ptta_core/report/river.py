"""The river: every stage of a run with its counts, on one band whose width follows them."""

import math

from ptta_core.report.data import RIVER, StageCount
from ptta_core.report.text import count, duration, esc

_TALLEST = 44  # px of the band at the largest count
_THINNEST = 2.5  # px at one item


def river(stages: list[StageCount]) -> str:
    """All ten stages in order; one that did not run is drawn dry. Stages that it does not know follow at the end.

    The band's width is proportional to the square root of the count, so that 1 and 12,000 can both be seen.
    """
    ran = {stage.stage: stage for stage in stages}
    most = max([max(stage.count_in, stage.count_out) for stage in stages], default=1) or 1
    flow = stages[0].count_in if stages else 0
    cells = []
    for name, noun in [*RIVER.items(), *((s.stage, s.noun) for s in stages if s.stage not in RIVER)]:
        stage = ran.get(name)
        if stage is None:
            cells.append(_dry(name, noun))
            flow = 0
            continue
        flow = flow or stage.count_in
        cells.append(_cell(stage, _width(flow, most), _width(stage.count_out, most)))
        flow = stage.count_out
    return f'<ol class="river">{"".join(cells)}</ol>'


def _width(items: int, most: int) -> float:
    return max(_THINNEST, _TALLEST * math.sqrt(items / most)) if items > 0 else 0.0


def _cell(stage: StageCount, left: float, right: float) -> str:
    work = [("computed", stage.computed), ("reused", stage.reused), ("failed", stage.failed)]
    done = "".join(f'<li class="{name}">{count(number)} {name}</li>' for name, number in work if number)
    note = f'<p class="note" dir="auto">{esc(stage.note, 160)}</p>' if stage.note else ""
    return (f'<li><p class="verb">{esc(stage.stage)}</p>{_band(left, right)}'
            f'<p class="out"><b>{count(stage.count_out)}</b> <span>{esc(stage.noun)}</span></p>'
            f'<div class="work"><p>from {count(stage.count_in)}</p>'
            f"<ul>{done or '<li>nothing to do</li>'}</ul>"
            f"<p>{duration(stage.seconds)}</p></div>{note}</li>")  # fmt: skip


def _dry(name: str, noun: str) -> str:
    out = f'<p class="out"><b>–</b> <span>{esc(noun)}</span></p>'
    work = '<div class="work"><p>not run</p></div>'
    return f'<li class="dry"><p class="verb">{esc(name)}</p>{_band(0, 0)}{out}{work}</li>'


def _band(left: float, right: float) -> str:
    middle = _TALLEST / 2
    if not left and not right:
        shape = f'<path class="bed" d="M0 {middle}H100"/>'
    else:  # one per cent too long, so that no seam shows
        a, b, c, d = (f"{middle + off:.1f}" for off in (-left / 2, -right / 2, right / 2, left / 2))
        shape = f'<path class="water" d="M0 {a}C55 {a} 45 {b} 101 {b}V{c}C45 {c} 55 {d} 0 {d}Z"/>'
    return (f'<svg class="band" aria-hidden="true" width="100%" height="{_TALLEST}" viewBox="0 0 100 {_TALLEST}" '
            f'preserveAspectRatio="none">{shape}</svg>')  # fmt: skip
