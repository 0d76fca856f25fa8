"""What the model learns from: what became of the selected clips, the buckets, and a few latents decoded again."""

import base64
from collections.abc import Iterable

from ptta_core.report.data import LookCard, ReportData
from ptta_core.report.sections import none, notice
from ptta_core.report.text import count, duration, esc, number, timecode

LOOKS_BYTES = 2_000_000  # of embedded pictures, as base64 text
MOST_BUCKETS = 60  # listed


def learning(data: ReportData) -> str:
    """Sentences, tables of fates, seconds and buckets, and the pictures."""
    if not data.footage:
        return none("Nothing was encoded in this run.")
    clips, seconds = data.footage["clips"], data.footage["seconds"]
    said = "".join(f"<p>{esc(one, 1000)}.</p>" for one in data.learnt)
    fates = [("learnt whole", count(clips["whole"])), *((why, count(many)) for why, many in
                                                        data.footage["causes"].items())]  # fmt: skip
    spent = [("learnt", duration(seconds["learnt"])), *((why, duration(one)) for why, one in
                                                        seconds["lost"].items())]  # fmt: skip
    tables = (_table("selected clips", "clips", [*fates, ("together", count(clips["selected"]))]),
              _table("selected footage", "time", [*spent, ("together", duration(seconds["selected"]))]),
              _buckets(data))  # fmt: skip
    return f'{said}<div class="three learning">{"".join(tables)}</div>{_looks(data)}'


def _table(name: str, unit: str, rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(f'<tr><td>{esc(what, 120)}</td><td class="n">{value}</td></tr>' for what, value in rows)
    head = f'<thead><tr><th>{name}</th><th class="n">{unit}</th></tr></thead>'
    return f'<div class="wide"><table class="rules">{head}<tbody>{body}</tbody></table></div>'


def _buckets(data: ReportData) -> str:
    """Latents by size; those that do not fill a batch are marked, since their steps learn from fewer clips."""
    buckets, batch = data.footage["buckets"], data.footage["batch"]
    rows = [(name, f"{count(many)}{' *' if many < batch else ''}") for name, many in buckets.items()]
    more = len(rows) - MOST_BUCKETS
    rows = [*rows[:MOST_BUCKETS], *([("more buckets", count(more))] if more > 0 else [])]
    small = any(many < batch for many in buckets.values())
    foot = f'<p class="fine">* fewer than a batch of {batch}: its batches are smaller.</p>' if small else ""
    return f"<div>{_table('bucket, frames x height x width', 'latents', rows)}{foot}</div>"


def _looks(data: ReportData) -> str:
    if not data.looks:
        return ""
    left, items = LOOKS_BYTES, []
    for look in data.looks:
        text = base64.b64encode(look.jpeg).decode()
        if len(text) <= left:
            left -= len(text)
            items.append(_look(look, text))
    what = "Latents decoded again: first, middle and last picture of what the model is shown, and the words with it."
    return (f'<h3>What the model sees <span class="soft">{len(items)} of {count(data.footage["latents"])}</span></h3>'
            f'<p class="soft">{what}</p>{notice(data, "latents")}<ul class="looks">{"".join(items)}</ul>')  # fmt: skip


def _look(look: LookCard, picture: str) -> str:
    span = f"{timecode(look.start_s)}–{timecode(look.end_s)}"
    speed = f", {number(look.speed)} times its speed" if look.speed > 1 else ""
    return (f'<li><a href="#{esc(look.clip_id, 64)}"><img alt="" src="data:image/jpeg;base64,{picture}"></a>'
            f"<p><b>{esc(look.bucket, 40)}</b> <i>{span}{speed}</i></p>"
            f'<p class="said" dir="auto">{esc(look.prompt, 600)}</p>'
            f'<p class="file" dir="auto">{esc(look.source_name, 120)}</p></li>')  # fmt: skip
