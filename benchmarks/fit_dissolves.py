"""Fit the numbers of models.dissolve_fit: logistic regression on films joined from one half of the stock.

    python benchmarks/fit_dissolves.py FOLDER [--data DIR] [--write]

Of the films in FOLDER (made there first) every window that nearly is a dissolve is an example, windows that touch no
join are counterexamples, and so are those of `negatives.py` and of the annotated real films the stock is tuned on.
Explosions are left out: their smoke is a dissolve, and is told by the picture that comes back. The other half of the
stock, which nothing was fitted on, is measured by shots.py.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import boundaries
import joins
import negatives
import numpy as np
import stock

from ptta_core import video
from ptta_core.config import SplitConfig
from ptta_core.models import dissolves, shot_features
from ptta_core.models.picture_space import Space
from ptta_core.models.trace import Trace

ROOT = Path(__file__).resolve().parent.parent
SEED, FILMS, EACH = 1, 240, 14  # of each kind of negative
SAMPLED = 0.15, 0.5  # share of the counterexamples that is kept, of films with joins and without
NEAR = 0.8  # intersection over union of a window and a dissolve from which it is an example of the search ...
REFINED = 0.6  # ... and of the second look, whose ends are fitted
SOFT = 8  # frames by which the ends of annotated gradual changes may be off
RIDGE = {"SEARCH": 1.0, "SURE": 3.0}  # on standardised features
LENIENT = 0.5  # weight of all examples of the search, to all counterexamples
STRICT = 0.4  # log odds by which the second look asks for more
Fit = tuple[dict[str, tuple[float, float]], float]


class Case(NamedTuple):
    """A film with its dissolves and all its joins, as (last clean frame before, first behind)."""

    space: Space
    trace: Trace
    dissolves: list[tuple[int, int]]
    joins: list[tuple[int, int]]


def cases(folder: Path, data: Path) -> Iterator[Case]:
    """Every film that is fitted on."""
    for film in joins.compose(folder, data, FILMS, SEED, held_out=False):
        every = [(one["type"], (one["start"] - 1, one["end"] + 1)) for one in film["gradual"]]
        mixed = [span for kind, span in every if kind in ("dissolve", "blend") and span[1] - span[0] > 2]
        yield _case(film["path"], mixed, [span for _, span in every])
    for film in negatives.compose(folder, data, EACH, SEED, held_out=False):
        if film["kind"] != "explosion":
            yield _case(film["path"], [], [])
    for film in boundaries.films(data):
        if any(name in film["file"] for name in stock.TUNED_ON):
            soft = [(one["start"] - SOFT, one["end"] + SOFT) for one in (*film["gradual"], *film["ambiguous"])]
            yield _case(film["path"], [], soft)


def _case(path: Path, mixed: list[tuple[int, int]], every: list[tuple[int, int]]) -> Case:
    frames = video.read_frames(str(path), width=SplitConfig().width, fast=True, draft=True)
    space = Space(shot_features.measure(frames).thumbs)
    return Case(space, Trace(space.thumbs, space.lit), mixed, every)


def searched(every: Sequence[Case]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features [n] of windows, and whether they are dissolves; a sample of the counterexamples."""
    random, found, said = np.random.default_rng(SEED), [], []
    for case in every:
        share = SAMPLED[0] if case.joins else SAMPLED[1]
        for length in dissolves.LENGTHS:
            firsts = np.arange(0, len(case.space) - length, max(1, length // 8))
            if len(firsts):
                good = _overlaps(firsts, length, case.dissolves) > (NEAR if length > 6 else 0.99)
                bad = (_overlaps(firsts, length, case.joins) == 0) & (random.random(len(firsts)) < share)
                features = dissolves.window_features(case.space, case.trace, firsts[good | bad], length)
                found.append(features)
                said.append(good[good | bad])
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}, np.concatenate(said)


def looked_at(every: Sequence[Case]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features [n] of the fitted dissolves that the search leads to, and whether they are."""
    found, said = [], []
    for case in every:
        taken = np.zeros(len(case.space), bool)
        for score, fitted in dissolves.tried(case.space, case.trace, taken, 0.0):
            start, length = np.array([fitted.first]), fitted.last - fitted.first
            good = _overlaps(start, length, case.dissolves)[0] > REFINED
            if good or _overlaps(start, length, case.joins)[0] == 0:
                found.append(dissolves.sure_features(case.space, case.trace, fitted, score))
                said.append(good)
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}, np.array(said)


def _overlaps(firsts: np.ndarray, length: int, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """[n]: the largest intersection over union of each window with one of the spans; 0 for none."""
    best = np.zeros(len(firsts))
    for start, end in spans:
        shared = np.clip(np.minimum(firsts + length, end) - np.maximum(firsts, start), 0, None)
        best = np.maximum(best, shared / (np.maximum(firsts + length, end) - np.minimum(firsts, start)))
    return best


def fit(features: dict[str, np.ndarray], said: np.ndarray, weight: float, ridge: float) -> Fit:
    """Weights of each feature and of its square, and the bias; `weight`: of all examples, to all counterexamples."""
    names = list(features)
    plain = np.stack([np.clip(features[name], -10, 10) for name in names], axis=1)
    inputs = np.concatenate([plain, plain**2], axis=1)
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
    inputs = np.concatenate([(inputs - mean) / spread, np.ones((len(inputs), 1))], axis=1)
    weights = np.where(said, weight * (~said).sum() / max(1, said.sum()), 1.0)
    found = np.zeros(inputs.shape[1])
    for _ in range(40):  # Newton's method
        likely = 1 / (1 + np.exp(-np.clip(inputs @ found, -30, 30)))
        slope = inputs.T @ (weights * (said - likely)) - ridge * found
        bend = (inputs * (weights * likely * (1 - likely))[:, None]).T @ inputs + ridge * np.eye(len(found))
        found += np.linalg.solve(bend, slope)
    scaled = found[:-1] / spread
    both = {name: (float(one), float(two)) for name, one, two in zip(names, scaled, scaled[len(names) :])}
    return both, float(found[-1] - (scaled * mean).sum())


def written(fits: dict[str, Fit]) -> str:
    """The text of dissolve_fit.py."""
    text = ['"""The fitted numbers of models.dissolves: log odds a unit of each feature and of its square.\n',
            "Logistic regression by benchmarks/fit_dissolves.py, which says on what.", '"""', ""]  # fmt: skip
    for name, (weights, bias) in fits.items():
        text.append(f"{name}: dict[str, tuple[float, float]] = {{")
        text += [f'    "{feature}": ({one:.4g}, {two:.4g}),' for feature, (one, two) in weights.items()]
        text += ["}", f"{name}_BIAS = {bias:.4g}"]
    return "\n".join(text) + "\n"


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--write", action="store_true", help="into dissolve_fit.py")
    asked = parser.parse_args()
    every = list(cases(asked.folder, asked.data))
    fits: dict[str, Any] = {"SEARCH": fit(*searched(every), LENIENT, RIDGE["SEARCH"])}
    dissolves.SEARCH, dissolves.SEARCH_BIAS = fits["SEARCH"]
    weights, bias = fit(*looked_at(every), 1.0, RIDGE["SURE"])
    text = written(fits | {"SURE": (weights, bias - STRICT)})
    print(text)
    if asked.write:
        (ROOT / "ptta_core" / "models" / "dissolve_fit.py").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
