"""What a training run shows beside its losses: where its time goes, what its routers do, and its previews."""

from collections import defaultdict
from statistics import mean

from ptta_core.report.data import LabelRow, LayerRow, PreviewShot, ReportData
from ptta_core.report.film import film
from ptta_core.report.text import count, duration, esc, fixed, number, plural

PHASES = {"data_s": "waiting for samples", "forward_s": "forward", "backward_s": "backward",
          "sync_s": "summing over workers", "optimizer_s": "optimizer"}  # fmt: skip
LATEST = 100  # steps that the times are of
STYLES = 8
MOST_LAYERS, LAYERS_HIGH = 400, 90  # px
MOST_STRIPS, MOST_SHOTS = 12, 8  # prompts and seeds; previews of each, evenly over the run
FILMS_BYTES = 4_000_000  # of embedded mp4, before base64


def times(data: ReportData) -> str:
    """Where the time of a step goes: means over the latest steps, without the first, which waits for more than later
    ones do."""
    latest = [one for one in data.times[1:][-LATEST:] if one.get("step_s")]
    if not any(one.get("forward_s") for one in latest):
        return ""
    step_s = mean(one["step_s"] for one in latest)
    spent = {name: mean(one.get(phase) or 0.0 for one in latest) for phase, name in PHASES.items()}
    spent["the rest"] = max(0.0, step_s - sum(spent.values()))
    body = "".join(f'<tr><td>{name}</td><td class="n">{fixed(seconds, 3)} s</td>'
                   f'<td class="n">{100 * seconds / step_s:.0f} %</td>'
                   f'<td class="bar"><div style="width:{min(100.0, 100 * seconds / step_s):.1f}%"></div></td></tr>'
                   for name, seconds in spent.items())  # fmt: skip
    head = '<thead><tr><th>of a step</th><th class="n">mean</th><th class="n">share</th><th></th></tr></thead>'
    said = f"{number(step_s, 3)} s a step; means over the last {plural(len(latest), 'step')}, of the first worker."
    return (f'<figure><figcaption>Time</figcaption><div class="wide"><table class="thetas">{head}<tbody>{body}</tbody>'
            f'</table></div><p class="fine">{said}</p></figure>')  # fmt: skip


def routers(data: ReportData, warning: str) -> str:
    """Gates by label and by layer, as they were when they were last looked at."""
    return _labels(data.labels, warning) + _layers(data.layers, warning)


def _labels(rows: list[LabelRow], warning: str) -> str:
    if not rows:
        return ""
    branches = len(rows[0].gates)
    head = "".join(f'<th class="n">B{branch + 1}</th>' for branch in range(branches))
    head = f'<tr><th>label</th>{head}<th class="n">entropy</th><th class="n">samples</th></tr>'
    body = "".join(_label(row) for row in rows)
    said = ("Mean gate of each branch over layers and over the samples with the label, weighted by its share, since "
            "the last look. Rows that are alike: the router does not tell the labels apart.")  # fmt: skip
    return (f'<figure><figcaption>Branches by label</figcaption><div class="wide"><table><thead>{head}</thead>'
            f'<tbody>{body}</tbody></table></div><p class="fine">After step {count(rows[0].step)}. {said}</p>{warning}'
            f"</figure>")  # fmt: skip


def _label(row: LabelRow) -> str:
    cells = "".join(f'<td class="n">{fixed(gate, 3)}</td>' for gate in row.gates)
    return (f'<tr><td dir="auto">{esc(row.label, 60)}</td>{cells}<td class="n">{fixed(row.entropy, 3)}</td>'
            f'<td class="n">{number(row.samples)}</td></tr>')  # fmt: skip


def _layers(layers: list[LayerRow], warning: str) -> str:
    """A column a layer, its branches' mean gates one on the other."""
    if not layers:
        return ""
    shown = layers[:MOST_LAYERS]
    wide = 100 / len(shown)
    columns = "".join(_layer(at * wide, wide, layer) for at, layer in enumerate(shown))
    said = (f"{plural(len(layers), 'layer')} in the order of their names; each column says its name, entropy and "
            "cosine between branches. Branches used less than a tenth of an even share: "
            f"{count(sum(layer.dead for layer in layers))}.")  # fmt: skip
    words = 'role="img" aria-label="mean gate of each branch in each layer"'
    return (f'<figure><figcaption>Branches by layer</figcaption><div class="plot"><svg {words} width="100%" '
            f'height="{LAYERS_HIGH}">{columns}</svg></div><p class="fine">{said}</p>{warning}</figure>')  # fmt: skip


def _layer(left: float, wide: float, layer: LayerRow) -> str:
    boxes, top = "", 0.0
    for branch, gate in enumerate(layer.gates):
        tall = LAYERS_HIGH * gate
        boxes += (f'<rect class="b{branch % STYLES}" x="{left:.2f}%" width="{wide:.2f}%" y="{top:.1f}" '
                  f'height="{tall:.1f}"/>')  # fmt: skip
        top += tall
    gates = ", ".join(fixed(gate, 2) for gate in layer.gates)
    said = f"{layer.layer}: {gates}; entropy {fixed(layer.entropy, 2)}, cosine {fixed(layer.cosine, 2)}"
    return f"<g><title>{esc(said, 200)}</title>{boxes}</g>"


# ------------------------------------------------------------------------------------------------- previews


def previews(data: ReportData, warning: str) -> str:
    """A strip a prompt and seed: the same video after ever more steps."""
    strips: defaultdict[tuple[str, int], list[PreviewShot]] = defaultdict(list)
    for shot in data.previews:
        if shot.prompt:
            strips[shot.prompt, shot.seed].append(shot)
    left, body = FILMS_BYTES, ""
    for (prompt, seed), shots in [*strips.items()][:MOST_STRIPS]:
        films = ""
        for shot in _evenly(shots):
            one, left = film(shot.mp4, shot.href, f"step {count(shot.step)}", left)
            films += one
        body += (f'<p class="prompt" dir="auto">{esc(prompt, 1000)}</p><div class="strip">{films}</div>'
                 f'<p class="fine">seed {seed}</p>')  # fmt: skip
    notes = _left_out([shot for shot in data.previews if shot.note])
    if not body and not notes:
        return ""
    return f"<h3>Previews</h3>{body}{_cost(data)}{notes}{warning if body else ''}"


def _cost(data: ReportData) -> str:
    """What previews took of the time."""
    spent = sum({shot.due: shot.seconds for shot in data.previews}.values())
    trained = sum(one.get("step_s") or 0.0 for one in data.times)
    share = f", {100 * spent / trained:.2g} % of {duration(trained)} of training" if trained else ""
    return f'<p class="fine">They took {duration(spent)}{share}.</p>' if spent else ""


def _evenly(shots: list[PreviewShot]) -> list[PreviewShot]:
    """At most MOST_SHOTS, the first and the last among them."""
    if len(shots) <= MOST_SHOTS:
        return shots
    return [shots[round(at * (len(shots) - 1) / (MOST_SHOTS - 1))] for at in range(MOST_SHOTS)]


def _left_out(shots: list[PreviewShot]) -> str:
    told = {shot.due: shot.note for shot in shots}
    lines = "".join(f"<li>step {count(due)}: {esc(note, 300)}</li>" for due, note in [*told.items()][-MOST_SHOTS:])
    more = f"<li>and {len(told) - MOST_SHOTS} before</li>" if len(told) > MOST_SHOTS else ""
    return f'<div class="fine">Left out:<ul>{lines}{more}</ul></div>' if told else ""
