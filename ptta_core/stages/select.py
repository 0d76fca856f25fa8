"""scores -> selection: which clips are worth learning from, and why; it decides on measurements only.

Rules in the order in which they are named as the reason: a person's word, the source's licence, the bounds, the
recipe's rule, theta, near-duplicates, the share of one source. All of it is worked out by the column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ptta_core import columns as cols
from ptta_core.config import TARGET, SelectConfig
from ptta_core.duplicates import duplicate_groups
from ptta_core.expression import Part, parse
from ptta_core.ids import digest
from ptta_core.memo import Batch, Items, Job, StageError, stage
from ptta_core.rows import SELECTABLE, SOURCE_WIDE, Score, Selected, Source, value_schema
from ptta_core.view import View

THETAS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0)
BY_HAND = "by hand"


@dataclass(frozen=True)
class SelectItem:
    """The whole set: selection is one decision over all scores."""

    selection_id: str
    clips: pa.Table  # a clip a row: clip_id, motion_px, aesthetic, and what the recipe asks for
    words: dict[str, tuple[str, str]]  # clip_id -> (keep | veto, author)
    groups: Callable[[], np.ndarray]  # near-duplicates: the number of each clip's group, -1 for none


def inputs(view: View) -> Items:
    """One item: every score row of the run, what the recipe's rules read beside it, and people's words."""
    config: SelectConfig = view.recipe.select
    scores = view.rows("score", score_columns(config), ordered=False)
    if not scores.num_rows:
        raise StageError("select: there are no scores; run split and score first, and see `ptta show failures`")
    sources = source_table(view, config)
    words = decisions(view.store)
    said = sorted((clip_id, *word) for clip_id, word in words.items()) if words else []
    if said:
        here = pc.is_in(pa.array([one[0] for one in said]), cols.whole(scores["clip_id"])).to_pylist()
        said = [one for one, known in zip(said, here) if known]
    beside = ([sources.to_pylist()] if sources is not None else []) + ([said] if said else [])
    read = cols.set_digest(scores["content_id"])
    input_id = digest(read, *beside) if beside else read
    selection_id = digest(view.fingerprint("select"), input_id)

    def make(rows: list[int]) -> list[SelectItem]:
        return [SelectItem(selection_id, joined(view, scores, sources), words, lambda: duplicate_groups(view, scores))]

    return Items([selection_id], [input_id], make)


def asked(config: SelectConfig) -> set[str]:
    """The columns that the recipe's rules name."""
    named = {name for part in parts(config) for name in part.columns}
    named |= {"licence"} if config.licences else set()
    wide = {SOURCE_WIDE[name] for name in named & SOURCE_WIDE.keys()}
    named |= wide | ({"source_id"} if config.max_per_source or wide else set())
    return named | ({"duration_s"} if config.target.strip().endswith("h") else set())


def parts(config: SelectConfig) -> list[Part]:
    """The conditions of the recipe's rule."""
    return parse(config.rule, SELECTABLE) if config.rule else []


def score_columns(config: SelectConfig) -> list[str]:
    """The columns of scores that the selection reads."""
    own = ["clip_id", "content_id", "motion_px", "aesthetic"]
    return own + sorted((asked(config) & set(value_schema(Score).names)) - set(own))


def source_table(view: View, config: SelectConfig) -> pa.Table | None:
    """source_id and the asked columns of sources, each source once; None when the rules ask for none.

    Of several files with the same bytes, one with an accepted licence speaks for the source.
    """
    wanted = [name for name in value_schema(Source).names
              if name in asked(config) and name in SELECTABLE.names and name != "source_id"
              and name not in value_schema(Score).names and name not in CLIP_ONLY]  # fmt: skip
    if not wanted:
        return None
    names = list(dict.fromkeys(["source_id", "path", "licence", *wanted]))
    rows = view.rows("gather", names, Source).to_pylist()
    first: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: ((row["licence"] or "") not in config.licences, row["path"])):
        first.setdefault(row["source_id"], {name: row[name] for name in ("source_id", *wanted)})
    schema = pa.schema([value_schema(Source).field(name) for name in ("source_id", *wanted)])
    return pa.Table.from_pylist([first[source_id] for source_id in sorted(first)], schema=schema)


CLIP_ONLY = ("frames", "duration_s")  # of clips and sources alike: a rule means the clip's


def joined(view: View, scores: pa.Table, sources: pa.Table | None) -> pa.Table:
    """Scores with what the rules ask for from clips and sources beside them."""
    config: SelectConfig = view.recipe.select
    known = {"S", *SOURCE_WIDE, *value_schema(Score).names, *(sources.column_names if sources is not None else [])}
    span = [name for name in SELECTABLE.names if name in asked(config) and name not in known]
    if not span and sources is None:
        return scores
    real = {"start_s", "end_s"} if "duration_s" in span else set()
    real |= ({"source_id"} if sources is not None else set()) | set(span) - {"duration_s"}
    clips = view.rows("split", ["clip_id", *sorted(real - {"clip_id"})], ordered=False)
    at = pc.index_in(scores["clip_id"], cols.whole(clips["clip_id"]))
    for name in dict.fromkeys([*span, *(["source_id"] if sources is not None else [])]):
        column = pc.subtract(clips["end_s"], clips["start_s"]) if name == "duration_s" else clips[name]
        scores = scores.append_column(name, column.take(at))
    if sources is not None:
        at = pc.index_in(scores["source_id"], cols.whole(sources["source_id"]))
        for name in sources.column_names[1:]:
            scores = scores.append_column(name, sources[name].take(at))
    return over_sources(scores, asked(config))


def over_sources(table: pa.Table, wanted: set[str]) -> pa.Table:
    """A table of clips with the wanted columns of `SOURCE_WIDE` beside them."""
    from ptta_core.models.recurring import source_shares

    for name in (name for name in SOURCE_WIDE if name in wanted):
        numbers = np.asarray(cols.whole(table["source_id"]).dictionary_encode().indices)
        shares = source_shares(numbers, table[SOURCE_WIDE[name]].to_pylist(), band=name == "source_text")
        table = table.append_column(name, pa.array(shares))
    return table


def decisions(store: Any) -> dict[str, tuple[str, str]]:
    """clip_id -> (keep | veto, author): the newest word of a person about each clip."""
    rows = store.read("edits", where="field = 'selection'").to_pylist()
    newest = {row["clip_id"]: (row["value"], row["author"]) for row in sorted(rows, key=lambda row: row["at"])}
    return {clip_id: word for clip_id, word in newest.items() if word[0]}


@stage(Selected, version=2, id_field="selection_id", inputs=inputs)
def select(todo: list[SelectItem], job: Job) -> Iterator[Batch]:
    """S = alpha * motion_px + (1 - alpha) * aesthetic, kept at theta and above, within the rules."""
    for item in todo:
        yield [(item, decide(item, job.config))]


def combined(motion_px: Any, aesthetic: Any, alpha: float) -> Any:
    """The paper's clip score S (arXiv 2512.18614), in the units of docs/decisions.md; numbers or arrays."""
    return alpha * motion_px + (1 - alpha) * aesthetic


class Verdict:
    """What is decided so far: which clips are still in, and the first reason against each of the others."""

    def __init__(self, count: int) -> None:
        self.open = np.ones(count, bool)
        self.reasons: list[tuple[np.ndarray, pa.Array]] = []  # indices and their reasons

    def reject(self, bad: np.ndarray, reasons: Any) -> None:
        """Take out what is bad and still in. reasons: indices -> an Arrow array of texts."""
        indices = np.flatnonzero(bad & self.open)
        if len(indices):
            self.reasons.append((indices, reasons(indices)))
            self.open[indices] = False


def decide(item: SelectItem, config: SelectConfig) -> pa.Table:
    """The noun's columns, a clip a row; the reason names the rule and the value that decided."""
    clips = item.clips
    motion, aesthetic = (clips[name].to_numpy() for name in ("motion_px", "aesthetic"))
    score = combined(motion, aesthetic, config.alpha)
    verdict = Verdict(len(score))
    pinned, hand = by_hand(item, verdict)
    verdict.open &= ~pinned
    bounds(clips, config, verdict, motion, aesthetic)
    table = clips.append_column("S", pa.array(score)) if config.rule else clips
    for part in parts(config):
        verdict.reject(~np.asarray(part.holds(table)), lambda at, part=part: _failing(part, table, at))
    best = score if not pinned.any() else np.where(pinned, np.inf, score)
    doubles, original = near_duplicates(item, best, verdict.open | pinned, config)
    crowded = over_share(clips, best, (verdict.open | pinned) & ~doubles, config)
    theta, note = solve(clips, score, verdict.open & ~doubles & ~crowded, pinned, config)
    verdict.reject(~(score >= theta), lambda at: _valued("S ", score[at], f" < theta {theta:g}{note}"))
    verdict.reject(doubles, lambda at: pc.binary_join_element_wise(
        "near-duplicate of", clips["clip_id"].take(pa.array(original[at])), " "))  # fmt: skip
    verdict.reject(crowded, lambda at: pa.repeat(pa.scalar(
        f"not among the best max_per_source {config.max_per_source} of its source"), len(at)))  # fmt: skip
    kept = np.flatnonzero(verdict.open)
    verdict.reasons.append((kept, _valued("S ", score[kept], f" >= theta {theta:g}{note}")))
    return pa.table({
        "selection_id": cols.constant(item.selection_id, len(score), pa.string()),
        "clip_id": clips["clip_id"], "score": score, "kept": verdict.open | pinned,
        "reason": _together(verdict.reasons + hand, len(score)),
    })  # fmt: skip


def by_hand(item: SelectItem, verdict: Verdict) -> tuple[np.ndarray, list[tuple[np.ndarray, pa.Array]]]:
    """Which clips a person keeps, and their reasons; vetoed ones are out."""
    pinned = np.zeros(len(verdict.open), bool)
    hand = []
    if item.words:
        at = np.asarray(pc.fill_null(pc.index_in(pa.array(list(item.words)), cols.whole(item.clips["clip_id"])), -1))
        for index, (word, author) in zip(at.tolist(), item.words.values()):
            if index < 0:  # a clip that this run does not have
                continue
            reason = pa.array([f"{'kept' if word == 'keep' else 'vetoed'} {BY_HAND} ({author})"])
            hand.append((np.array([index]), reason))
            pinned[index] = word == "keep"
            verdict.open[index] = word == "keep"
    return pinned, hand


def bounds(clips: pa.Table, config: SelectConfig, verdict: Verdict, motion: np.ndarray, aesthetic: np.ndarray) -> None:
    """Licence, most motion and least aesthetic."""
    if config.licences:
        known = pc.fill_null(clips["licence"], "")
        bad = ~np.asarray(pc.is_in(known, pa.array(config.licences)))
        text = f" is not in licences {', '.join(config.licences)}"
        verdict.reject(bad, lambda at: pc.binary_join_element_wise("licence '", cols.whole(known.take(pa.array(at))),
                                                                   f"'{text}", ""))  # fmt: skip
    if (most := config.max_motion_px) is not None:
        verdict.reject(motion > most, lambda at: _valued("motion ", motion[at], f" px > max_motion_px {most:g}"))
    if (least := config.min_aesthetic) is not None:
        verdict.reject(~(aesthetic >= least),
                       lambda at: _valued("aesthetic ", aesthetic[at], f" < min_aesthetic {least:g}"))  # fmt: skip


def near_duplicates(item: SelectItem, score: np.ndarray, candidates: np.ndarray,
                    config: SelectConfig) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Which candidates have a better near-duplicate among the candidates, and the index of that better one.

    Theta does not enter: the best of a group passes theta whenever any of it does. Of equals the first clip_id wins.
    """
    doubles, original = np.zeros(len(score), bool), np.zeros(len(score), np.int64)
    if config.duplicates == "keep":
        return doubles, original
    groups = item.groups()
    at, first = ranked(item.clips, score, candidates & (groups >= 0), groups)
    best = np.repeat(at[first], np.diff(first, append=len(at)))
    original[at], doubles[at] = best, at != best
    return doubles, original


def ranked(clips: pa.Table, score: np.ndarray, candidates: np.ndarray,
           groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Indices of candidates by group and falling score (equal ones by clip_id), and where each group begins."""
    at = np.flatnonzero(candidates)
    rank = np.empty(len(score), np.int64)
    rank[cols.order(clips["clip_id"])] = np.arange(len(score))
    at = at[np.lexsort((rank[at], -score[at], groups[at]))]
    return at, np.flatnonzero(np.diff(groups[at], prepend=-1))


def over_share(clips: pa.Table, score: np.ndarray, candidates: np.ndarray, config: SelectConfig) -> np.ndarray:
    """Which candidates are not among the best `max_per_source` of their source; equal scores fall to the clip_id."""
    crowded = np.zeros(len(score), bool)
    if config.max_per_source is None:
        return crowded
    source = np.asarray(cols.whole(clips["source_id"]).dictionary_encode().indices)
    at, first = ranked(clips, score, candidates, source)
    place = np.arange(len(at)) - np.repeat(first, np.diff(first, append=len(at)))
    crowded[at[place >= config.max_per_source]] = True
    return crowded


def solve(clips: pa.Table, score: np.ndarray, candidates: np.ndarray, pinned: np.ndarray,
          config: SelectConfig) -> tuple[float, str]:  # fmt: skip
    """(theta, a note for the reason): the recipe's theta, or the one at which select.target is met.

    Equal scores at the line are all kept. Clips kept by hand count towards the target.
    """
    found = re.fullmatch(TARGET, config.target)
    if not found:
        return config.theta, ""
    amount, unit = float(found[1]), found[2]
    worth = np.ones(len(score))
    if unit == "h":
        worth = clips["duration_s"].to_numpy()
        amount *= 3600
    elif unit == "%":
        amount = round(amount / 100 * len(score))
    amount -= worth[pinned].sum()
    at = np.flatnonzero(candidates & ~pinned)
    at = at[np.argsort(-score[at], kind="stable")]
    places = np.searchsorted(np.cumsum(worth[at]), amount - 1e-9)
    note = f" (select.target {config.target.strip()})"
    if amount <= 0 or not len(at):
        return float("inf"), note
    return float(score[at[min(int(places), len(at) - 1)]]), note


def _valued(before: str, values: np.ndarray, after: str) -> pa.Array:
    """Texts with a value of two decimals: only distinct values are written out."""
    if not len(values):
        return pa.array([], pa.string())
    finite = np.isfinite(values)
    distinct, at = np.unique(np.where(finite, np.round(values * 100), np.nan), return_inverse=True)
    texts = pa.array([f"{before}{value / 100:.2f}{after}" for value in distinct.tolist()])
    return texts.take(pa.array(at.ravel()))


def _failing(part: Part, table: pa.Table, at: np.ndarray) -> pa.Array:
    """"text_share 0.45: not text_share < 0.2 (select.rule)", for rows `at`."""
    pieces: list[Any] = []
    for place, name in enumerate(part.columns):
        column = table[name].take(pa.array(at))
        if pa.types.is_floating(column.type):
            shown = _valued("", column.to_numpy(), "")
        else:
            shown = pc.fill_null(cols.whole(column).cast(pa.string()), "unknown")
        pieces += [f"{', ' if place else ''}{name} ", shown]
    tail = f"{': ' if part.columns else ''}not {part.text} (select.rule)"
    joined_ = pc.binary_join_element_wise(*pieces, tail, "") if pieces else pa.repeat(pa.scalar(tail), len(at))
    return cols.whole(joined_)


def _together(reasons: list[tuple[np.ndarray, pa.Array]], count: int) -> pa.Array:
    """One text a row; of several reasons for a row the last one."""
    texts = pa.concat_arrays([cols.whole(texts) for _, texts in reasons])
    at = np.empty(count, np.int64)
    at[np.concatenate([indices for indices, _ in reasons])] = np.arange(len(texts))
    return texts.take(pa.array(at))


RULES = (("by hand (", "by hand"), ("licence '", "select.licences"), ("motion ", "select.max_motion_px"),
         ("aesthetic ", "select.min_aesthetic"), ("near-duplicate of", "select.duplicates"),
         ("not among the best", "select.max_per_source"))  # fmt: skip


def rule_of(reason: str) -> str:
    """The rule that a reason names: "select.theta", "select.max_motion_px", "by hand", ..."""
    if reason.endswith("(select.rule)"):
        return "select.rule"
    if reason.startswith("S "):
        return "select.target" if reason.endswith(")") else "select.theta"
    return next((rule for text, rule in RULES if reason.startswith(text) or f" {text}" in reason), "unknown")


def require_some(view: View) -> None:
    """Raise StageError when nothing was kept, saying how many clips each theta would have kept."""
    table = view.rows("select", ["score", "kept"])
    if pc.any(table["kept"]).as_py():
        return
    scores = np.sort(table["score"].to_numpy())
    would = ", ".join(f"{theta:g} keeps {len(scores) - np.searchsorted(scores, theta)}" for theta in THETAS)
    raise StageError(f"empty selection: none of {len(scores)} clips passes select.theta = {view.recipe.select.theta:g} "
                     f"and the bounds. By S alone theta {would}. Set another with --set select.theta=...")  # fmt: skip
