"""The adapter's plain LoRA files: how far each is from the adapter in what it computes, and in what the judges say."""

from ptta_core.report.data import ExportRow, FormRow, ReportData
from ptta_core.report.text import esc, fixed


def exports(data: ReportData) -> str:
    """A line a file; "" without any."""
    if not data.exports:
        return ""
    names = ("file", "gates", "loaded by", "off the adapter", "off its gates")
    head = "".join(f"<th{' class=n' if name.startswith('off') else ''}>{name}</th>" for name in names)
    said = ("Differences of velocities on training samples. Off the adapter: from the adapter as trained, in shares of "
            "its own effect. Off its gates: from the adapter under the file's gates, which is rounding.")  # fmt: skip
    body = "".join(_export(row) for row in data.exports)
    return (f'<h3>For other tools</h3><div class="wide"><table class="exports"><thead><tr>{head}</tr></thead>'
            f'<tbody>{body}</tbody></table></div><p class="fine">{said}</p>')  # fmt: skip


def _export(row: ExportRow) -> str:
    name = f'{esc(row.variant, 80)}<br><span class="soft path">{esc(row.path, 200)}</span>'
    words = "".join(f"<td>{esc(text, 120)}</td>" for text in (row.note, row.loader))
    return (f'<tr><th scope="row" dir="auto">{name}</th>{words}<td class="n">{100 * row.error:.2f} %</td>'
            f'<td class="n">{row.output_error:.1e}</td></tr>')  # fmt: skip


def verdicts(data: ReportData) -> str:
    """Each form beside the adapter, a row a form and a column a dimension, grouped by judge; "" without any."""
    judges = dict.fromkeys(row.judge for row in data.forms)
    return "".join(_judge(judge, [row for row in data.forms if row.judge == judge]) for judge in judges)


def _judge(judge: str, rows: list[FormRow]) -> str:
    dimensions = list(dict.fromkeys(row.dimension for row in rows))
    cells = {(row.variant, row.dimension): row for row in rows}
    names = list(dict.fromkeys(row.variant for row in rows))
    head = "".join(f'<th class="n">{esc(name, 60)}</th>' for name in dimensions)
    body = "".join(
        f'<tr><th scope="row" dir="auto">{esc(name, 80)}</th>'
        f"{''.join(_cell(cells.get((name, dimension))) for dimension in dimensions)}</tr>" for name in names
    )  # fmt: skip
    return (f'<h3>{esc(judge, 80)}: other forms of the adapter</h3><div class="wide"><table class="forms"><thead><tr>'
            f"<th>form</th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
            '<p class="fine">Means over the same prompts and seeds; bold: minus the adapter.</p>')  # fmt: skip


def _cell(row: FormRow | None) -> str:
    if row is None:
        return '<td class="n">–</td>'
    return f'<td class="n">{fixed(row.mean, 3)} <b>{fixed(row.difference, 3, True)}</b></td>'
