"""What is said of the clips, where it may be wrong: how many captions have which flag, and the worst of them."""

from ptta_core.report.data import CaptionCard, ReportData
from ptta_core.report.sections import none, notice
from ptta_core.report.text import count, esc, plural, timecode


def captions(data: ReportData) -> str:
    """A sentence, the flags with their counts, and the worst captions with links to their clips."""
    if not data.captions:
        return none("No caption was judged in this run.")
    refused = f"{count(data.refused)} refused" if data.refused else "none refused"
    said = f"<p>{plural(data.captions, 'caption')}, {refused}.</p>"
    if not data.flags:
        return f"{said}{none('No caption has a flag.')}"
    body = "".join(f'<tr><td>{esc(flag, 40)}</td><td class="n">{count(many)}</td></tr>' for flag, many in data.flags)
    head = '<thead><tr><th>flag</th><th class="n">captions</th></tr></thead>'
    table = f'<div class="wide"><table class="rules">{head}<tbody>{body}</tbody></table></div>'
    cards = "".join(_card(one) for one in data.worst)
    shown = f'<h3>To look at first</h3>{notice(data, "clips")}<ol class="worst">{cards}</ol>' if cards else ""
    return f"{said}{table}{shown}"


def _card(one: CaptionCard) -> str:
    """One caption with what was seen in it, and whether it is learnt."""
    fate = "kept" if one.kept else "not kept"
    return (f'<li><p class="said" dir="auto">{esc(one.text, 400) or "(no text)"}</p>'
            f'<p class="soft"><b>{esc(one.flags or one.reason, 200)}</b> · {fate}'
            f'{f": {esc(one.reason, 200)}" if not one.kept and one.flags else ""} · '
            f'<a href="#{esc(one.clip_id, 64)}">{esc(one.clip_id[:12], 12)}</a> {timecode(one.start_s)}–'
            f"{timecode(one.end_s)}</p></li>")  # fmt: skip
