"""What the page says of a running training: its time, its routers by label and layer, its previews."""

import dataclasses
import re

import pytest

from ptta_core.report import ReportData
from ptta_core.report.data import LabelRow, LayerRow, PreviewShot
from ptta_core.report.page import render
from ptta_core.report.watching import MOST_SHOTS

PLAIN = ReportData("r", "run", "2026-01-01T00:00:00+00:00", "", "site", "w", 5.0, 0.7, loss=[(1, 2.0), (2, 1.0)])
STEP = {"step_s": 1.0, "data_s": 0.5, "forward_s": 0.2, "backward_s": 0.1, "sync_s": 0.1, "optimizer_s": 0.05}


def training(**more: object) -> str:
    """The section of the page, without what is embedded."""
    page = render(dataclasses.replace(PLAIN, **more))
    return page[page.index('<section id="training">') : page.index('<section id="generations">')]


def test_time_is_told_as_shares_of_a_step_without_the_first() -> None:
    section = training(times=[STEP | {"step_s": 100.0}, STEP, STEP])
    rows = re.findall(r'<td>([a-z ]+)</td><td class="n">([\d.]+) s</td><td class="n">(\d+) %', section)
    assert rows == [("waiting for samples", "0.500", "50"), ("forward", "0.200", "20"), ("backward", "0.100", "10"),
                    ("summing over workers", "0.100", "10"), ("optimizer", "0.050", "5"),
                    ("the rest", "0.050", "5")]  # fmt: skip
    old = [{"step_s": 1.0} | dict.fromkeys(list(STEP)[1:])] * 3  # of a table made before there were such columns
    assert "waiting for samples" not in training(times=old)


def test_routers_are_shown_by_label_and_by_layer() -> None:
    labels = [LabelRow(50, "all", [0.5, 0.5], 0.69, 8.0), LabelRow(50, "<male>", [0.9, 0.1], 0.3, 2.5)]
    layers = [LayerRow(f"blocks.{number}", [0.25, 0.75], 0.5, 0.1, number) for number in range(3)]
    section = training(labels=labels, layers=layers)
    assert '&lt;male&gt;</td><td class="n">0.900</td><td class="n">0.100</td>' in section
    assert section.count('class="b0"') == section.count('class="b1"') == 3
    assert "blocks.2: 0.25, 0.75; entropy 0.50, cosine 0.10" in section and "an even share: 3." in section
    assert "Branches by" not in training()


@pytest.mark.parametrize("previews", [3, 40])
def test_previews_are_strips_over_the_steps(previews: int) -> None:
    shots = [
        PreviewShot(10 * at, 10 * at, prompt, 7, b"mp4" if at else None, f"../training/t/{prompt}{at}.mp4", "", 0.5)
        for at in range(previews)
        for prompt in ("a & b", "c")
    ]
    shots.append(PreviewShot(999, 999, "", 0, note="previews may take 5 % of the time"))
    section = training(previews=shots, times=[STEP] * 200)
    assert f"They took {0.5 * previews:.1f} s, {100 * 0.5 * previews / 200:.2g} % of 3 min 20 s of training" in section
    assert section.count('class="strip"') == 2 and "a &amp; b" in section and "seed 7" in section
    shown = [int(step.replace(",", "")) for step in re.findall(r"<figcaption>step ([\d,]+)", section)]
    assert len(shown) == 2 * min(previews, MOST_SHOTS) and shown[: len(shown) // 2] == sorted(set(shown))
    assert (min(shown), max(shown)) == (0, 10 * previews - 10)
    assert "../training/t/c0.mp4" in section and "data:video/mp4" in section
    assert "step 999: previews may take 5 % of the time" in section
    assert "Previews" not in training()


def test_a_run_that_lasts_says_so() -> None:
    assert "This run has not ended" in render(dataclasses.replace(PLAIN, status="running"))
