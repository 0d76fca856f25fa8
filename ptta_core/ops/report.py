"""report: gathers what a run made into the report's plain values and writes the page."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import yaml

from ptta_core import stages
from ptta_core.config import ConfigError, Site
from ptta_core.memo import Outcome, StageError, now
from ptta_core.ops import captioned, cards, fates, runs, show, watching
from ptta_core.report import ReportData, write_report
from ptta_core.report.data import (
    ExportRow,
    FailureRow,
    FormRow,
    GenerationPair,
    LabelRow,
    LayerRow,
    PreviewShot,
    StageCount,
    VerdictRow,
)
from ptta_core.rows import Export, HeldOut, Preview, Step
from ptta_core.stages.select import rule_of
from ptta_core.variants import ADAPTER, BASE
from ptta_core.view import View

FILMS_BYTES = 8_000_000  # of previews that are read; the others are linked

NOUN = {"gather": "sources", "split": "clips", "score": "scores", "select": "selection", "caption": "captions",
        "admit": "admitted", "encode": "latents", "train": "adapter", "generate": "generations",
        "evaluate": "verdicts"}  # fmt: skip


Values = dict[tuple[str, int], float]  # (prompt, seed) -> a judge's value


def write(
    view: View, run_id: str, started: str, outcomes: list[Outcome], message: str = "", status: str = "",
    footage: dict[str, Any] | None = None,
) -> Path:
    """Write the report of a run; returns its path relative to the workspace, so that it may be moved.

    status: completed, or failed where there is a message, unless said otherwise. A run that lasts has a page of its own
    beside the last one's, which goes with its end. footage: what fates.footage gives, where it is known already.
    """
    status = status or ("failed" if message else "completed")
    path, lasting = (Path("reports") / f"{view.recipe.name}{ending}.html" for ending in ("", "-running"))
    data = gather(view, run_id, started, outcomes, message, status, footage)
    write_report(data, view.home / (lasting if status == "running" else path))
    if status == "running":
        return lasting
    (view.home / lasting).unlink(missing_ok=True)
    return path


def find(workspace: str, run: str | None = None) -> Path:
    """The report of the last (or a named) run; of one that lasts, written now. Raises ConfigError when it has none."""
    store, site = show.open_store(workspace)
    record = runs.last(store, run_id=run, going=True)
    if record and runs.lasts(record):
        return site.home / _of_lasting(record, site)
    record = runs.last(store, run_id=run)
    if record is None or not record["report"]:
        raise ConfigError(f"no report in {workspace} yet")
    return site.home / record["report"]


def _of_lasting(record: dict[str, Any], site: Site) -> Path:
    """The page of a run that lasts, or was killed, as the tables are now."""
    view = runs.lasting_view(record, site)
    begun = view.store.read("runs", ["at"], f"run_id = '{record['run_id']}'")["at"].to_pylist()
    outcomes = [Outcome(name, **counts) for name, counts in json.loads(record["stages"]).items()]
    return write(view, record["run_id"], min(begun), outcomes, status="running")


def gather(
    view: View, run_id: str, started: str, outcomes: list[Outcome], message: str, status: str,
    footage: dict[str, Any] | None = None,
) -> ReportData:
    """Everything the page shows, from the tables."""
    recipe = view.recipe
    tables = {name: _rows(view, name) for name in ("train", "generate", "evaluate")}
    clips, columns, near = cards.clips(view)
    steps = _measured(view, Step)
    labels, layers = routers(view)
    footage = fates.footage(view) if footage is None else footage
    return ReportData(
        recipe=recipe.name, run_id=run_id, started=started, ended="" if status == "running" else now(),
        site=view.site.name, workspace=view.home.name, theta=recipe.select.theta, alpha=recipe.select.alpha,
        status=status, message=message, river=river(view, outcomes), clips=clips, columns=columns, near=near,
        rejected=rejected(view), footage=footage, learnt=fates.sentences(footage) if footage else [],
        looks=cards.looks(view), **captioned.judged(view),
        training=training(tables["train"]), held_out=held_out(view),
        loss=[(row["step"], row["loss"]) for row in steps], gates=[(row["step"], row["gate_mean"]) for row in steps],
        times=[{name: row[name] for name in ("step_s", *watching.PHASES)} for row in steps],
        labels=labels, layers=layers, previews=previews(view),
        generations=generations(view, tables["generate"]), verdicts=verdicts(tables["evaluate"]),
        forms=forms(tables["evaluate"]), exports=exports(view),
        failures=failures(view),
        random_models=[f"{field} = {ref.id}" for field, ref in recipe.models().items() if ref.tiny],
        settings=yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )  # fmt: skip


def _rows(view: View, name: str, noun: type | None = None) -> list[dict[str, Any]]:
    """Rows of a stage that this run reached; [] for the others."""
    if name not in view.resolved():
        return []
    try:
        return view.rows(name, noun=noun).to_pylist()
    except StageError:
        return []


def _measured(view: View, noun: type) -> list[dict[str, Any]]:
    """What training measured, in the order of its steps; also of a training that lasts, or that stopped by itself."""
    if "train" not in view.resolved():
        return []
    return sorted(view.unfinished_rows("train", noun).to_pylist(), key=lambda row: row["step"])


def river(view: View, outcomes: list[Outcome]) -> list[StageCount]:
    """Counts along the river; what passed, for select and admit."""
    found, count_in = [], 0
    by_stage = {one.stage: one for one in outcomes}
    for name in stages.RIVER:
        column = {"gather": "source_id", "select": "kept", "admit": "kept"}.get(name, "input_id")
        rows = cards.table(view, name, [column])
        total = rows.num_rows if rows is not None else 0
        count = total
        if rows is not None and column == "kept":
            count = pc.sum(rows[column]).as_py() or 0
        elif rows is not None and name == "gather":
            count = pc.count_distinct(rows[column]).as_py()
        if one := by_stage.get(name):
            found.append(StageCount(name, NOUN[name], count_in or total, count, one.computed, one.reused, one.failed,
                                    one.seconds, one.note))  # fmt: skip
        count_in = count
    return found


def rejected(view: View) -> list[tuple[str, int]]:
    """(rule, how many clips it rejected), the most first."""
    rows = cards.table(view, "select", ["kept", "reason"])
    if rows is None:
        return []
    found: Counter[str] = Counter()
    for one in pc.value_counts(rows.filter(pc.invert(rows["kept"]))["reason"]).to_pylist():
        found[rule_of(one["values"])] += one["counts"]
    return found.most_common()


def training(adapters: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Facts about the adapter."""
    names = ("adapter_id", "latents", "steps", "final_loss", "parameters", "base")
    return [(name.replace("_", " "), f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]))
            for row in adapters for name in names]  # fmt: skip


def held_out(view: View) -> list[tuple[int, int, float]]:
    """(step, quarter of the noise scale, loss) on the clips that were held out."""
    return sorted((row["step"], row["quarter"], row["loss"]) for row in _measured(view, HeldOut))


def routers(view: View) -> tuple[list[LabelRow], list[LayerRow]]:
    """What the routers did when they were last looked at, by label and by layer."""
    rows = watching.newest(view) if "train" in view.resolved() else []
    by_label = [LabelRow(one["step"], one["label"], one["gates"], one["entropy"], one["samples"])
                for one in watching.labels(rows)]  # fmt: skip
    by_layer = [LayerRow(row["layer"], row["gate_mean"], row["gate_entropy"], row["branch_cosine"],
                         row["dead_branches"]) for row in rows if not row["label"]]  # fmt: skip
    return by_label, sorted(by_layer, key=lambda row: row.layer)


def previews(view: View) -> list[PreviewShot]:
    """The videos made while training went on, and why others were not."""
    found, left = [], FILMS_BYTES
    for row in sorted(_measured(view, Preview), key=lambda row: (row["due"], row["prompt"], row["seed"])):
        path, mp4 = view.home / row["path"], None
        if row["path"] and path.is_file() and (size := path.stat().st_size) <= left:
            mp4, left = path.read_bytes(), left - size
        found.append(PreviewShot(row["due"], row["step"], row["prompt"], row["seed"], mp4,
                                 f"../{row['path']}" if row["path"] else None, row["note"],
                                 row["seconds"]))  # fmt: skip
    return found


def generations(view: View, rows: list[dict[str, Any]]) -> list[GenerationPair]:
    """Base, adapter and its other forms side by side for each prompt and seed."""
    pairs: dict[tuple[str, int], dict[str, tuple[bytes | None, str | None]]] = {}
    for row in rows:
        path = view.home / row["path"]
        video = path.read_bytes() if path.is_file() else None
        pairs.setdefault((row["prompt"], row["seed"]), {})[row["variant"]] = video, f"../{row['path']}"
    order = [one for one in view.recipe.generate.variants if one not in (BASE, ADAPTER)]
    found = []
    for prompt, seed in sorted(pairs):
        films = pairs[prompt, seed]
        base, adapter = films.get(BASE, (None, None)), films.get(ADAPTER, (None, None))
        more = tuple((one, *films[one]) for one in order if one in films)
        found.append(GenerationPair(prompt, seed, *base, *adapter, more))
    return found


def verdicts(rows: list[dict[str, Any]]) -> list[VerdictRow]:
    """Means a dimension over the pairs that both variants have."""
    found = []
    for (judge, dimension), by_variant in _by_variant(rows):
        base, adapter = by_variant.get(BASE, {}), by_variant.get(ADAPTER, {})
        gap, n = _gap(adapter, base)
        found.append(VerdictRow(dimension, _mean(base), _mean(adapter), gap, n, judge))
    return found


def forms(rows: list[dict[str, Any]]) -> list[FormRow]:
    """The same for every other form of the adapter, beside the adapter itself."""
    found = []
    for (judge, dimension), by_variant in _by_variant(rows):
        for variant in sorted(by_variant.keys() - {BASE, ADAPTER}):
            gap, n = _gap(by_variant[variant], by_variant.get(ADAPTER, {}))
            found.append(FormRow(variant, judge, dimension, _mean(by_variant[variant]), gap, n))
    return found


def exports(view: View) -> list[ExportRow]:
    """The plain LoRA files of the run's adapter, in the recipe's order."""
    order = [form.variant for form in view.recipe.exports()]
    rows = sorted(_rows(view, "train", Export), key=lambda row: order.index(row["variant"]))
    return [ExportRow(row["variant"], row["path"], row["error"], row["output_error"], row["loader"], row["note"])
            for row in rows]  # fmt: skip


def _by_variant(rows: list[dict[str, Any]]) -> list[tuple[tuple[str, str], dict[str, Values]]]:
    """((judge, dimension), variant -> values), sorted."""
    values: dict[tuple[str, str], dict[str, Values]] = {}
    for row in rows:
        by_variant = values.setdefault((row["judge"], row["dimension"]), {})
        by_variant.setdefault(row["variant"], {})[row["prompt"], row["seed"]] = row["value"]
    return sorted(values.items())


def _gap(one: Values, other: Values) -> tuple[float | None, int]:
    """(mean difference over the pairs that both have, how many there are)."""
    shared = one.keys() & other.keys()
    return _mean({pair: one[pair] - other[pair] for pair in shared}), len(shared)


def _mean(values: Values) -> float | None:
    return sum(values.values()) / len(values) if values else None


def failures(view: View) -> list[FailureRow]:
    """What failed and was left out, newest attempt of each."""
    rows = [row for name in stages.RIVER if name in view.resolved() for row in view.open_failures(name)]
    return [FailureRow(row["stage"], row["kind"], row["path"] or row["item_id"], row["message"], row["attempt"],
                       row["retryable"]) for row in rows]  # fmt: skip


def as_json(outcomes: list[Outcome], run_id: str, report: str) -> str:
    """The one line that --json ends with."""
    return json.dumps({"run_id": run_id, "stages": {one.stage: one.counts() for one in outcomes}, "report": report})
