"""report: gathers what a run made into the report's plain values and writes the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from ptta_core import stages
from ptta_core.memo import Outcome, StageError, now
from ptta_core.report import ReportData, write_report
from ptta_core.report.data import ClipCard, FailureRow, GenerationPair, StageCount, VerdictRow
from ptta_core.rows import Step, Thumbnail
from ptta_core.view import View

EMBEDDED = 200  # clips whose picture goes into the page
NOUN = {"gather": "sources", "split": "clips", "score": "scores", "select": "selection", "caption": "captions",
        "admit": "admitted", "encode": "latents", "train": "adapter", "generate": "generations",
        "evaluate": "verdicts"}  # fmt: skip


def write(view: View, run_id: str, started: str, outcomes: list[Outcome], message: str = "") -> Path:
    """Write the report of a run; returns its path relative to the workspace, so that it may be moved."""
    path = Path("reports") / f"{view.recipe.name}.html"
    data = gather(view, run_id, started, outcomes, message)
    write_report(data, view.home / path)
    return path


def gather(view: View, run_id: str, started: str, outcomes: list[Outcome], message: str) -> ReportData:
    """Everything the page shows, from the tables."""
    recipe = view.recipe
    tables = {name: _rows(view, name) for name in stages.RIVER}
    steps = sorted(_rows(view, "train", Step), key=lambda row: row["step"])
    return ReportData(
        recipe=recipe.name, run_id=run_id, started=started, ended=now(), site=view.site.name, workspace=view.home.name,
        theta=recipe.select.theta, alpha=recipe.select.alpha, status="failed" if message else "completed",
        message=message, river=river(tables, outcomes), clips=clips(view, tables), training=training(tables["train"]),
        loss=[(row["step"], row["loss"]) for row in steps], gates=[(row["step"], row["gate_mean"]) for row in steps],
        generations=generations(view, tables["generate"]), verdicts=verdicts(tables["evaluate"]),
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


def river(tables: dict[str, list[dict[str, Any]]], outcomes: list[Outcome]) -> list[StageCount]:
    """Counts along the river; what passed, for select and admit."""
    found, count_in = [], 0
    by_stage = {one.stage: one for one in outcomes}
    for name in stages.RIVER:
        rows = tables[name]
        passed = [row for row in rows if row.get("kept", True)]
        count = len({row["source_id"] for row in rows}) if name == "gather" else len(passed)
        if one := by_stage.get(name):
            found.append(
                StageCount(
                    name,
                    NOUN[name],
                    count_in or len(rows),
                    count,
                    one.computed,
                    one.reused,
                    one.failed,
                    one.seconds,
                    one.note,
                )
            )
        count_in = count
    return found


def clips(view: View, tables: dict[str, list[dict[str, Any]]]) -> list[ClipCard]:
    """A card a clip, with the pictures of those that are shown first."""
    scores = {row["clip_id"]: row for row in tables["score"]}
    chosen = {row["clip_id"]: row for row in tables["select"]}
    words = {row["clip_id"]: row["text"] for row in tables["caption"]}
    refused = {row["clip_id"]: row["reason"] for row in tables["admit"] if not row["kept"]}
    names = view.source_names() if "gather" in view.resolved() else {}
    spans = {row["clip_id"]: row for row in tables["split"]}
    best = sorted(
        spans, key=lambda one: (not chosen.get(one, {}).get("kept", False), -chosen.get(one, {}).get("score", 0))
    )
    pictures = thumbnails(view, set(best[:EMBEDDED]))
    cards = []
    for clip_id in best:
        score, pick, span = scores.get(clip_id, {}), chosen.get(clip_id, {}), spans[clip_id]
        reason = f"not admitted: {refused[clip_id]}" if clip_id in refused else pick.get("reason", "")
        cards.append(
            ClipCard(
                clip_id,
                Path(names.get(span["source_id"], "?")).name,
                span["start_s"],
                span["end_s"],
                score.get("motion_px"),
                score.get("aesthetic"),
                pick.get("score"),
                pick.get("kept"),
                reason,
                words.get(clip_id, ""),
                pictures.get(clip_id),
            )
        )
    return cards


def thumbnails(view: View, wanted: set[str]) -> dict[str, bytes]:
    """clip_id -> JPEG for these clips only."""
    if "score" not in view.resolved():
        return {}
    keys = {row["key"]: row["clip_id"] for row in view.rows("score", ["key", "clip_id"], Thumbnail).to_pylist()
            if row["clip_id"] in wanted}  # fmt: skip
    return {keys[key]: jpeg for key, jpeg in view.store.take_bytes("thumbnails", sorted(keys), "jpeg").items()}


def training(adapters: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Facts about the adapter."""
    names = ("adapter_id", "latents", "steps", "final_loss", "parameters", "base")
    return [(name.replace("_", " "), f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]))
            for row in adapters for name in names]  # fmt: skip


def generations(view: View, rows: list[dict[str, Any]]) -> list[GenerationPair]:
    """Base and adapter side by side for each prompt and seed."""
    pairs: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        path = view.home / row["path"]
        video = path.read_bytes() if path.is_file() else None
        pairs.setdefault((row["prompt"], row["seed"]), {}).update(
            {f"{row['variant']}_mp4": video, f"{row['variant']}_href": f"../{row['path']}"})  # fmt: skip
    return [GenerationPair(prompt, seed, **pairs[prompt, seed]) for prompt, seed in sorted(pairs)]


def verdicts(rows: list[dict[str, Any]]) -> list[VerdictRow]:
    """Means a dimension over the pairs that both variants have."""
    values: dict[tuple[str, str], dict[str, dict[tuple[str, int], float]]] = {}
    for row in rows:
        by_variant = values.setdefault((row["judge"], row["dimension"]), {"base": {}, "adapter": {}})
        by_variant[row["variant"]][row["prompt"], row["seed"]] = row["value"]
    found = []
    for (judge, dimension), by_variant in sorted(values.items()):
        base, adapter = _mean(by_variant["base"]), _mean(by_variant["adapter"])
        shared = by_variant["base"].keys() & by_variant["adapter"].keys()
        gap = _mean({pair: by_variant["adapter"][pair] - by_variant["base"][pair] for pair in shared})
        found.append(VerdictRow(dimension, base, adapter, gap, len(shared), judge))
    return found


def _mean(values: dict[Any, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None


def failures(view: View) -> list[FailureRow]:
    """What failed and was left out, newest attempt of each."""
    rows = [row for name in stages.RIVER if name in view.resolved() for row in view.open_failures(name)]
    return [FailureRow(row["stage"], row["kind"], row["path"] or row["item_id"], row["message"], row["attempt"],
                       row["retryable"]) for row in rows]  # fmt: skip


def as_json(outcomes: list[Outcome], run_id: str, report: str) -> str:
    """The one line that --json ends with."""
    return json.dumps({"run_id": run_id, "stages": {one.stage: one.counts() for one in outcomes}, "report": report})
