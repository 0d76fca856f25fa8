"""ReportData -> one HTML file that needs nothing else: no network, no fonts, no libraries."""

import base64
import hashlib
import os
import tempfile
from pathlib import Path

from ptta_core.report import sections
from ptta_core.report.captions import captions
from ptta_core.report.data import ReportData
from ptta_core.report.learning import learning
from ptta_core.report.river import river
from ptta_core.report.script import SCRIPT
from ptta_core.report.sheet import sheet
from ptta_core.report.style import STYLE
from ptta_core.report.text import count, esc, number, plural, when

MOST_BYTES = 30_000_000


def write_report(data: ReportData, path: Path) -> int:
    """Writes the page whole or not at all and returns its size in bytes, at most MOST_BYTES.

    Missing folders are made. OSError when the place cannot be written; what was there before then stays.
    """
    page = render(data).encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return len(page)


def render(data: ReportData) -> str:
    """The page as text. The contact sheet comes last into being: it takes the room that the others leave."""
    parts = [
        ("river", "The river", river(data.river)),
        ("scores", "Scores", sections.scores(data)),
        ("clips", "Clips", ""),
        ("captions", "Captions", captions(data)),
        ("latents", "Latents", learning(data)),
        ("training", "Training", sections.training(data)),
        ("generations", "Generations", sections.generations(data)),
        ("verdicts", "Verdicts", sections.verdicts(data)),
        ("failures", "Failures", sections.failures(data)),
        ("settings", "Settings", sections.settings(data)),
    ]
    head, foot = _head(data, parts), f"<script>{SCRIPT}</script></body></html>\n"
    used = len((head + foot + "".join(body for _, _, body in parts)).encode()) + 10_000
    left_out = len(data.every_clip) - len(data.clips)
    cards = sections.notice(data, "clips") + sheet(data.clips, MOST_BYTES - used, left_out)
    filled = [(name, title, cards if name == "clips" else body) for name, title, body in parts]
    main = "".join(f'<section id="{name}"><h2>{title}</h2>{body}</section>' for name, title, body in filled)
    return f"{head}<main>{main}</main>{foot}"


def _head(data: ReportData, parts: list[tuple[str, str, str]]) -> str:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
              "img-src 'self' file: data:; media-src 'self' file: data:")  # fmt: skip
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in parts)
    facts = {"run": data.run_id, "when": when(data.started, data.ended), "site": data.site, "workspace": data.workspace}
    known = ((name, esc(value, 300)) for name, value in facts.items() if value)
    listed = "".join(f'<div><dt>{name}</dt><dd dir="auto">{value}</dd></div>' for name, value in known)
    return (f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            f'<meta name="color-scheme" content="light dark">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            f"<title>{esc(data.recipe, 80)} – PTTA report</title><style>{STYLE}</style></head><body>"
            f'<header><p class="eyebrow">PTTA report</p><h1 dir="auto">{esc(data.recipe, 80)}</h1>{_state(data)}'
            f'<p class="lead">{_lead(data)}</p>{_random(data)}<dl class="facts">{listed}</dl>'
            f"<nav>{links}</nav></header>")  # fmt: skip


def _state(data: ReportData) -> str:
    if data.status == "completed":
        return ""
    why = f": {esc(data.message, 1000)}" if data.message else ""
    said = {"running": "This run has not ended", "failed": "This run failed"}.get(data.status, esc(data.status, 40))
    return f'<p class="alert">{said}{why}</p>'


def _random(data: ReportData) -> str:
    if not data.random_models:
        return ""
    listed = ", ".join(esc(name, 120) for name in data.random_models[:12])
    return (f'<p class="notice"><strong>Random tiny models: nothing that depends on them is a quality figure.</strong> '
            f"<span>{listed}</span></p>")  # fmt: skip


def _lead(data: ReportData) -> str:
    """The run in a sentence or two, in numbers that the sections repeat."""
    clips = data.every_clip
    kept = int((clips.kept == 1).sum())
    said = []
    if data.clips:
        cut = f"{plural(len(clips), 'clip')} from {plural(clips.videos, 'video')}"
        decided = bool((clips.kept >= 0).any())
        said.append(f"{cut}; <b>{count(kept)} kept</b> at theta {number(data.theta)}." if decided else f"{cut}.")
    else:
        said.append("No clips yet.")
    if data.loss:
        pairs = f", {plural(len(data.generations), 'prompt pair')} generated" if data.generations else ""
        said.append(f"An adapter trained for {plural(len(data.loss), 'step')}{pairs}.")
    if data.failures:
        said.append(f"{plural(len(data.failures), 'item')} failed.")
    return " ".join(said)
