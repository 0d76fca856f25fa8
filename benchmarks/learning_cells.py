"""One run of the learning benchmark as the product does it: pin samples, train_loop, load the adapter file.

A finished cell is a line of JSON in results.jsonl and is never computed again: the same command goes on after a stop.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import learning_base as bases
from learning_plan import STEP
from measure import say

from ptta_core import ids
from ptta_core.config import ModelRef, TrainConfig
from ptta_core.models import hunyuan, hydralora, identity
from ptta_core.training import dataset, records
from ptta_core.training.loop import ADAPTER, HELD_OUT, METRICS, train_loop
from ptta_core.training.passes import Settings
from ptta_core.training.stops import Stopped
from ptta_core.whole import write_whole


@dataclass
class Bench:
    """Where everything is."""

    folder: Path
    base: Path
    plan: Any

    def __post_init__(self) -> None:
        self.path = self.folder / "results.jsonl"
        whole = _lines(self.path)
        if whole:  # a line cut short by a kill must not take the next one with it
            write_whole(self.path, "".join(json.dumps(line) + "\n" for line in whole).encode())
        self.known = {line["key"]: line for line in whole}

    def cell(self, what: dict[str, Any], compute: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """The record of a cell; `compute`, given a folder for its run, is called where there is none yet.

        `what` says all that the result depends on, beside the base.
        """
        key = ids.digest(what, identity(ModelRef(id=str(self.base))))
        if key not in self.known:
            begun, cpu = time.monotonic(), time.process_time()
            told = compute(self.folder / "runs" / key[:12])
            spent = {"wall_s": round(time.monotonic() - begun, 2), "cpu_s": round(time.process_time() - cpu, 2)}
            self.known[key] = {"key": key, **what, **told, **spent}
            records.append(self.path, self.known[key], sync=True)
            short = {name: value for name, value in what.items() if not isinstance(value, dict)}
            say(f"{short}: {told.get('validation', '')} in {spent['wall_s']} s")
        return self.known[key]

    def clean(self) -> Any:
        """The base's transformer."""
        return hunyuan.load_transformer(str(self.base), None, "float32", "cpu")

    def adapted(self, run: Path) -> Any:
        """The base with the adapter that a run left, read from its file."""
        model = self.clean()
        hydralora.load_adapter(run / ADAPTER, model)
        return model


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines that were written whole."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def learn(
    bench: Bench, run: Path, learned: Sequence[Path], config: TrainConfig, labels: Sequence[str],
    held_out: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train an adapter in `run` on these pinned sets: {stopped: why, or ""; validation; train: the last epoch's loss}.

    validation: the loop's own mean held-out loss at the end, None without `held_out`, infinite for a stopped run.
    """
    shutil.rmtree(run, ignore_errors=True)
    apart = {one.latent_id for one in dataset.read_index(held_out)} if held_out else set()
    dataset.pin(run, _samples([*learned, *([held_out] if held_out else [])]), apart)
    settings = Settings(str(run), str(bench.base), None, "float32", "cpu", 1, config.model_dump(),
                        {"labels": list(labels)})  # fmt: skip
    stopped = ""
    try:
        train_loop(settings)
    except Stopped as error:
        stopped = str(error)
    losses = [line["loss"] for line in _lines(run / METRICS)]
    measured = _lines(run / HELD_OUT)
    shutil.rmtree(run / "data")
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    mean = sum(measured[-1]["loss"]) / len(measured[-1]["loss"]) if measured and not stopped else None
    tail = losses[-max(1, len(losses) // config.epochs) :]
    return {"stopped": stopped, "steps": len(losses), "validation": mean, "train": sum(tail) / max(1, len(tail))}


def _samples(places: Iterable[Path]) -> Iterable[tuple[str, str, str, bytes]]:
    for place in places:
        for one in dataset.read_index(place):
            yield one.latent_id, one.bucket, one.labels, (place / "data" / f"{one.latent_id}.safetensors").read_bytes()


def parameters(model: Any) -> int:
    """Trained numbers of the adapter in the model."""
    return sum(one.numel() for one in hydralora.adapter_parameters(model))


# --------------------------------------------------------------------------------------------- rate sweeps


def swept(
    arms: dict[str, Sequence[float]], more: int, score: Callable[[str, float], float]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """(the rates tried, rising; the best one) of each arm: the rate with the lowest score, a mean over all seeds.

    Where an arm's best lies at an end of its rates, one more is added at that end for every arm, so that all keep the
    same number; at most `more` times an end.
    """
    tried = {arm: sorted(rates) for arm, rates in arms.items()}
    added = {0: 0, -1: 0}
    while True:
        best = {arm: min(rates, key=lambda rate: score(arm, rate)) for arm, rates in tried.items()}
        ends = [end for end in added if added[end] < more and any(best[arm] == tried[arm][end] for arm in arms)]
        if not ends:
            return tried, best
        for end in ends:
            added[end] += 1
            for rates in tried.values():
                rates.append(float(f"{rates[end] * (STEP if end else 1 / STEP):.1e}"))
                rates.sort()


def mean_score(cells: Sequence[dict[str, Any]]) -> float:
    """What a rate is judged by: the mean over seeds of the cells' `validation`; infinite where any was stopped."""
    return math.inf if any(one["stopped"] for one in cells) else sum(one["validation"] for one in cells) / len(cells)


def base_losses(bench: Bench, part: str, samples: Sequence[tuple[dataset.Sample, bases.Tensors]]) -> dict[str, Any]:
    """The base's own losses on these samples, as a cell."""
    what = {"part": part, "arm": "base", "clips": ids.digest([one.latent_id for one, _ in samples])}
    return bench.cell(what, lambda _: {"test": bases.losses(bench.clean(), samples).tolist()})
