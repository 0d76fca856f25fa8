"""The sections under the river, one function each; every one says so plainly when it has nothing to show."""

import base64
from collections import defaultdict

import numpy as np

from ptta_core.report import forms, watching
from ptta_core.report.charts import Series, curves, histogram, smoothed
from ptta_core.report.data import (
    Columns,
    FailureRow,
    GenerationPair,
    ReportData,
    ThetaRow,
    VerdictRow,
    finite,
    theta_line,
    theta_table,
)
from ptta_core.report.film import film
from ptta_core.report.text import count, duration, esc, fixed, number, plural

VIDEOS_BYTES = 8_000_000  # of embedded mp4, before base64
MOST_PAIRS = 60
MOST_FAILURES = 100  # a kind
MOST_KINDS = 20
MOST_ROWS = 200  # of verdicts and of training facts
BRANCH_STYLES = 8


def notice(data: ReportData, figure: str) -> str:
    """The plain notice beside a figure that depends on a random model; "" when none does."""
    names = data.random_in(figure)
    if not names:
        return ""
    listed = ", ".join(esc(name, 120) for name in names[:12])
    return f'<p class="notice"><strong>random tiny model: no quality figure</strong> <span>{listed}</span></p>'


def none(text: str) -> str:
    """What a section says when it has nothing to show; `text` is safe HTML."""
    return f'<p class="none">{text}</p>'


# ------------------------------------------------------------------------------------------- scores


def scores(data: ReportData) -> str:
    """Histograms of motion, aesthetic and S with theta drawn, and what other thetas would keep."""
    clips = data.every_clip
    if not np.isfinite(clips.score).any():
        return none("No clip has a score yet.")
    drawn = [
        ("Motion", clips.motion_px, "mean flow, px per gap", None),
        ("Aesthetic", clips.aesthetic, "1 to 10", None),
        ("S", clips.score, _formula(data), (data.theta, f"theta {number(data.theta)}")),
    ]
    plots = []
    for title, values, label, mark in drawn:
        known = np.isfinite(values)
        if known.any():
            chart = histogram(values[known].tolist(), (clips.kept[known] == 1).tolist(), label, "clips", mark)
            plots.append(f"<figure><figcaption>{title}</figcaption>{chart}{notice(data, 'scores')}</figure>")
    key = '<p class="key"><span class="kept">kept</span> <span class="not">not kept</span></p>'
    return f'{key}<div class="three">{"".join(plots)}</div>{_thetas(data, clips)}{_near(data)}{_rejected(data)}'


def _near(data: ReportData) -> str:
    """The clips just above and just below theta: whether the line lies well is seen here first."""
    cards = {clip.clip_id: clip for clip in data.clips}
    shown = [cards[clip_id] for clip_id in data.near if clip_id in cards]
    if not shown:
        return ""
    items = []
    for clip in shown:
        text = base64.b64encode(clip.thumbnail_jpeg or b"").decode()
        picture = f'<img alt="" src="data:image/jpeg;base64,{text}">' if text else ""
        said = esc(f"{clip.source_name}: {clip.reason}", 200)
        items.append(f'<li title="{said}"><a href="#{esc(clip.clip_id, 64)}">{picture}<b>{fixed(clip.score, 2)}</b>'
                     f"{'' if clip.kept else ' not kept'}</a></li>")  # fmt: skip
    return f'<h3>Nearest to theta {number(data.theta)}</h3><ul class="near">{"".join(items)}</ul>'


def _rejected(data: ReportData) -> str:
    """How many clips each rule rejected; a clip counts for the first rule that it breaks."""
    if not data.rejected:
        return ""
    body = "".join(f'<tr><td>{esc(rule, 80)}</td><td class="n">{count(many)}</td></tr>'
                   for rule, many in data.rejected)  # fmt: skip
    head = '<thead><tr><th>rule</th><th class="n">rejected</th></tr></thead>'
    return f'<h3>Rejected by</h3><div class="wide"><table class="rules">{head}<tbody>{body}</tbody></table></div>'


def _formula(data: ReportData) -> str:
    return f"S = {number(data.alpha)} motion + {number(1 - data.alpha)} aesthetic"


def _thetas(data: ReportData, clips: Columns) -> str:
    rows = theta_table(clips, data.theta)
    kept = int((clips.kept == 1).sum())
    body = "".join(_theta_row(row, row.theta == data.theta) for row in rows)
    head = "".join(f'<th class="n">{name}</th>' for name in ("theta", "keeps", "share", "footage")) + "<th></th>"
    table = f'<div class="wide"><table class="thetas"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    said = f"<p>{theta_line(rows)}.</p>{_apart(data, clips, kept)}{_empty(clips, kept, rows)}"
    return f'<div class="side"><div><h3>What each theta would keep</h3>{said}</div>{table}</div>'


def _theta_row(row: ThetaRow, chosen: bool) -> str:
    return (f'<tr{" class=chosen" if chosen else ""}><td class="n">{number(row.theta)}</td>'
            f'<td class="n">{count(row.kept)}</td><td class="n">{100 * row.share:.0f} %</td>'
            f'<td class="n">{duration(row.seconds)}</td>'
            f'<td class="bar"><div style="width:{100 * row.share:.1f}%"></div></td></tr>')  # fmt: skip


def _apart(data: ReportData, clips: Columns, kept: int) -> str:
    """Why the table's count at theta is not the number kept, where it is not."""
    over = int(((clips.kept == 0) & (clips.score >= data.theta)).sum())
    under = int(((clips.kept == 1) & (clips.score < data.theta)).sum())
    said = "By S alone, before other rules and edits."
    if over:
        said += f" {plural(over, 'clip')} at or above theta not kept for other reasons, named on the cards."
    if under:
        said += f" {plural(under, 'clip')} below theta kept by hand."
    return f'<p class="soft">{said} {count(kept)} kept in all.</p>' if over or under else f'<p class="soft">{said}</p>'


def _empty(clips: Columns, kept: int, rows: list[ThetaRow]) -> str:
    """What to do when the selection is empty."""
    if kept or (clips.kept < 0).any():
        return ""
    highest = float(clips.score[np.isfinite(clips.score)].max())
    best = next((row for row in reversed(rows) if row.kept), None)
    hint = f" With --set select.theta={best.theta:g} it would be {count(best.kept)}." if best else ""
    return f'<p class="alert">No clip was kept: the highest S is {number(highest)}.{hint}</p>'


# ----------------------------------------------------------------------------------------- training


def training(data: ReportData) -> str:
    """Facts, loss and gate means."""
    losses = [(float(step), loss) for step, loss in data.loss]
    if not losses and not data.training:
        return none("No adapter was trained in this run.")
    listed = data.training[:MOST_ROWS]
    facts = "".join(f"<div><dt>{esc(name, 80)}</dt><dd>{esc(value, 300)}</dd></div>" for name, value in listed)
    warning = notice(data, "training")
    plots = _loss(losses, warning) + _held_out(data, warning) + _gates(data, warning)
    plots += watching.routers(data, warning) + watching.times(data)
    return (f'<div class="two">{plots}</div>' if plots else none("No training step was recorded.")) + (
        f'<dl class="facts">{facts}</dl>' if facts else ""
    ) + forms.exports(data) + watching.previews(data, warning)


def _loss(losses: list[tuple[float, float]], warning: str) -> str:
    drawable = [point for point in losses if finite(point[1])]
    broken = len(losses) - len(drawable)
    said = f'<p class="alert">{plural(broken, "step")} without a finite loss.</p>' if broken else ""
    if not drawable:
        return f"<figure><figcaption>Loss</figcaption>{said}</figure>" if losses else ""
    span = max(2, len(drawable) // 15)
    lines = [Series("each step", drawable, "raw")]
    if len(drawable) > 3:
        lines.append(Series("smoothed", smoothed(drawable, span), "smooth"))
        said += f'<p class="fine">Thin: each step. Bold: exponential mean over about {span} steps.</p>'
    chart = curves(lines, "optimiser step", "loss (mean squared error of the velocity)")
    return f"<figure><figcaption>Loss</figcaption>{chart}{said}{warning}</figure>"


def _held_out(data: ReportData, warning: str) -> str:
    """The loss on clips that were never learned, a curve a quarter of the noise scale."""
    quarters = sorted({quarter for _, quarter, _ in data.held_out})
    lines = [Series(f"Q{quarter + 1}", [(float(step), loss) for step, of, loss in data.held_out if of == quarter],
                    f"b{quarter % BRANCH_STYLES}", named=True) for quarter in quarters]  # fmt: skip
    if not any(finite(value) for line in lines for _, value in line.points):
        return ""
    chart = curves(lines, "optimiser step", "loss (mean squared error of the velocity)")
    said = "On clips held out by whole sources. Q1: least noise, Q4: most. A curve that turns up is overfitting."
    return f'<figure><figcaption>Held-out loss</figcaption>{chart}<p class="fine">{said}</p>{warning}</figure>'


def _gates(data: ReportData, warning: str) -> str:
    branches = min((len(means) for _, means in data.gates), default=0)
    lines = [_branch(data, branch) for branch in range(branches)]
    if not any(finite(value) for line in lines for _, value in line.points):
        return ""
    chart = curves(lines, "optimiser step", "mean gate weight", 1 / branches)
    said = f"Mean over layers; dashed: equal shares, 1/{branches}. One branch near 1 alone would be a collapsed router."
    return f'<figure><figcaption>Gates</figcaption>{chart}<p class="fine">{said}</p>{warning}</figure>'


def _branch(data: ReportData, branch: int) -> Series:
    points = [(float(step), means[branch]) for step, means in data.gates]
    return Series(f"B{branch + 1}", points, f"b{branch % BRANCH_STYLES}", named=True)


# ------------------------------------------------------------------------------------ generations


def generations(data: ReportData) -> str:
    """Base, adapter and its other forms side by side, the same prompt and seed."""
    if not data.generations:
        return none("Nothing was generated in this run.")
    left = VIDEOS_BYTES
    pairs = []
    for pair in data.generations[:MOST_PAIRS]:
        base, left = film(pair.base_mp4, pair.base_href, "base", left)
        adapter, left = film(pair.adapter_mp4, pair.adapter_href, "adapter", left)
        films = base + adapter
        for variant, mp4, link in pair.more:
            another, left = film(mp4, link, esc(variant, 80), left)
            films += another
        pairs.append(_pair(pair, films, notice(data, "generations")))
    more = len(data.generations) - len(pairs)
    tail = none(f"{plural(more, 'more pair')} in the workspace.") if more else ""
    return f'<div class="pairs">{"".join(pairs)}</div>{tail}'


def _pair(pair: GenerationPair, videos: str, warning: str) -> str:
    button = '<button type="button" hidden>Play all</button>'
    prompt = f'<p class="prompt" dir="auto">{esc(pair.prompt, 1000)}</p>'
    seed = f'<p class="fine">seed {pair.seed} {button}</p>'
    return f'<div class="pair">{prompt}<div class="videos">{videos}</div>{seed}{warning}</div>'


# --------------------------------------------------------------------------------------- verdicts


def verdicts(data: ReportData) -> str:
    """Base against adapter, a row a dimension, grouped by judge."""
    if not data.verdicts:
        return none("Nothing was judged in this run.")
    judges: dict[str, list[VerdictRow]] = defaultdict(list)
    for row in data.verdicts[:MOST_ROWS]:
        judges[row.judge].append(row)
    bounded = any(row.low is not None for row in data.verdicts)
    head = "".join(f'<th class="n">{name}</th>' for name in ("base", "adapter", "difference"))
    head += f'{"<th class=n>95 % interval</th>" if bounded else ""}<th class="n">pairs</th>'
    tables = []
    for judge, rows in judges.items():
        top = f'<tr><th>{esc(judge, 80) or "dimension"}</th>{head}</tr>'
        body = "".join(_verdict(row, bounded) for row in rows)
        table = f'<table class="verdicts"><thead>{top}</thead><tbody>{body}</tbody></table>'
        tables.append(f'<div class="wide">{table}</div>{notice(data, "verdicts")}')
    said = "Means over the same prompts and seeds; difference is adapter minus base."
    return f'{"".join(tables)}<p class="fine">{said}</p>{forms.verdicts(data)}'


def _verdict(row: VerdictRow, bounded: bool) -> str:
    interval = ""
    if bounded:
        known = row.low is not None and row.high is not None
        interval = f'<td class="n">{f"{fixed(row.low, 3, True)} to {fixed(row.high, 3, True)}" if known else "–"}</td>'
    return (f'<tr><th scope="row" dir="auto">{esc(row.dimension, 80)}</th><td class="n">{fixed(row.base_mean, 3)}</td>'
            f'<td class="n">{fixed(row.adapter_mean, 3)}</td><td class="n"><b>{fixed(row.difference, 3, True)}</b></td>'
            f'{interval}<td class="n">{count(row.n)}</td></tr>')  # fmt: skip


# --------------------------------------------------------------------------- failures and settings


def failures(data: ReportData) -> str:
    """What was left out, grouped by kind, the most frequent first."""
    if not data.failures:
        return none("Nothing failed.")
    kinds: dict[str, list[FailureRow]] = defaultdict(list)
    for failure in data.failures:
        kinds[failure.kind].append(failure)
    ordered = sorted(kinds.items(), key=lambda pair: -len(pair[1]))
    more = sum(len(rows) for _, rows in ordered[MOST_KINDS:])
    tail = none(f"{plural(more, 'failure')} of other kinds.") if more else ""
    return "".join(_kind(kind, rows) for kind, rows in ordered[:MOST_KINDS]) + tail


def _kind(kind: str, rows: list[FailureRow]) -> str:
    body = "".join(
        f'<tr><td>{esc(row.stage, 40)}</td><td dir="auto" class="path">{esc(row.path, 300)}</td>'
        f'<td dir="auto" class="path">{esc(row.message, 400)}</td><td class="n">{row.attempt}</td>'
        f"<td>{'yes' if row.retryable else 'no'}</td></tr>"
        for row in rows[:MOST_FAILURES]
    )
    head = '<tr><th>stage</th><th>item</th><th>what happened</th><th class="n">attempt</th><th>worth a retry</th></tr>'
    more = len(rows) - MOST_FAILURES
    tail = none(f"{count(more)} more of this kind.") if more > 0 else ""
    return (f'<h3>{esc(kind, 80)} <span class="soft">{count(len(rows))}</span></h3><div class="wide">'
            f'<table class="failures"><thead>{head}</thead><tbody>{body}</tbody></table></div>{tail}')  # fmt: skip


def settings(data: ReportData) -> str:
    """The recipe as it was run."""
    return f"<pre>{esc(data.settings, 100_000)}</pre>" if data.settings.strip() else none("No settings were recorded.")
