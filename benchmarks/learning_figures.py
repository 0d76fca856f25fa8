"""Intervals, and the tables of the learning benchmark."""

from collections.abc import Sequence
from typing import Any

import learning_styles as styles
import numpy as np
from learning_plan import BRANCHES
from measure import Result

DRAWS = 4000
NAMES = [style.name for style in styles.UNSEEN]
Interval = tuple[float, float, float]  # mean, 2.5 %, 97.5 %


def crossed(values_SC: np.ndarray, groups: Sequence[int]) -> Interval:
    """The mean over seeds and clips, and its 95 % interval by resampling both, clips within their group.

    Seeds and clips are crossed: every seed is measured on the same clips, so both are drawn with replacement and the
    mean of the drawn rows and columns is taken (Owen and Eckles, arXiv 1106.2125).
    """
    seeds_DS, clips_DC = drawn(len(values_SC), [0] * len(values_SC)), drawn(values_SC.shape[1], groups)
    low, high = np.quantile(np.einsum("ds,sc,dc->d", seeds_DS, values_SC, clips_DC), (0.025, 0.975))
    return float(values_SC.mean()), float(low), float(high)


def drawn(count: int, groups: Sequence[int]) -> np.ndarray:
    """[draws, count]: the weight of each of `count` things in each resampling, within its group; rows sum to 1.

    Every call draws alike, so things of the same number are resampled together.
    """
    random, groups_C = np.random.default_rng(count), np.asarray(groups)
    weights = np.zeros((DRAWS, count))
    for one in np.unique(groups_C):
        places = np.flatnonzero(groups_C == one)
        weights[:, places] = random.multinomial(len(places), [1 / len(places)] * len(places), size=DRAWS)
    return weights / count


def by_clip(cells: Sequence[dict[str, Any]]) -> np.ndarray:
    """[seeds, clips]: each clip's loss, the mean over noise levels."""
    return np.array([cell["test"] for cell in cells]).mean(2)


def text(interval: Interval, digits: int = 4) -> str:
    """For a table."""
    mean, low, high = (f"{one:.{digits}f}" for one in interval)
    return f"{mean} ({low} to {high})"


def verdict(interval: Interval) -> str:
    """What an interval of HydraLoRA's loss less LoRA's says."""
    return "better" if interval[2] < 0 else "worse" if interval[1] > 0 else "no difference shown"


def rates_of(curve: dict[float, float]) -> str:
    """A sweep in words."""
    return ", ".join(f"{rate:g}: {score:.4f}" for rate, score in curve.items())


def edges(told: dict[str, Any]) -> list[str]:
    """Arms whose best rate is the least or the greatest that was tried."""
    return [arm for arm, rate in told["best"].items() if rate in (min(told["curves"][arm]), max(told["curves"][arm]))]


# ------------------------------------------------------------------------------------------------ part a


def part_a(result: Result, told: dict[str, Any]) -> None:
    """The rows and figures of part a."""
    styles_C, base_C = told["style"], np.array(told["base"]["test"]).mean(1)
    result.note("a", "base, unseen styles", f"{base_C.mean():.4f}")
    losses = {arm: by_clip(cells) for arm, cells in told["cells"].items() if not any(one["stopped"] for one in cells)}
    for arm, losses_SC in losses.items():
        cell = told["cells"][arm][0]
        result.note("a", f"{arm}, rank {cell['config']['rank']}, {cell['parameters']} parameters, rate "
                    f"{told['best'][arm]:g}", text(crossed(losses_SC, styles_C)))  # fmt: skip
        result.figures[f"loss {arm}"] = float(losses_SC.mean())
    for arm, curve in told["curves"].items():
        result.note("a", f"{arm}: validation by rate", rates_of(curve))
    for hydra in ("hydra token", "hydra label"):
        for lora in ("lora, equal rank", "lora, equal size"):
            if hydra in losses and lora in losses:
                _versus(result, hydra, lora, losses, base_C, styles_C)
    if "hydra token" in losses and "hydra label" in losses:
        gap = crossed(losses["hydra label"] - losses["hydra token"], styles_C)
        result.note("a", "hydra label less hydra token", text(gap))
    result.figures |= {"base": float(base_C.mean()), "best_rates": told["best"], "best_at_an_end": edges(told)}
    _gates(result, told, losses)


def _versus(
    result: Result, hydra: str, lora: str, losses: dict[str, np.ndarray], base_C: np.ndarray, groups: Sequence[int]
) -> None:  # fmt: skip
    gap_SC = losses[hydra] - losses[lora]
    gap = crossed(gap_SC, groups)
    fall = (base_C.mean() - losses[hydra].mean()) / (base_C.mean() - losses[lora].mean())
    lower = int((gap_SC.mean(1) < 0).sum())
    result.note("a", f"**{hydra} less {lora}**", f"{text(gap)}: {verdict(gap)}; lower in {lower} of {len(gap_SC)} "
                f"seeds; {fall:.3f} of its fall")  # fmt: skip
    each = [f"{name} {gap_SC[:, np.asarray(groups) == number].mean():+.4f}" for number, name in enumerate(NAMES)]
    result.note("a", f"{hydra} less {lora}, by style", ", ".join(each))
    result.figures[f"{hydra} less {lora}"] = {"mean": gap[0], "low": gap[1], "high": gap[2], "verdict": verdict(gap),
                                              "lower_in_seeds": lower, "of_its_fall": fall}  # fmt: skip


def information(gates_SLN: np.ndarray) -> float:
    """How much a token's branch tells of its style, 0 (nothing) .. 1 (everything): mutual information over ln of the
    number of styles, styles equally frequent, mean over layers."""
    mean_LN = gates_SLN.mean(0)
    bits_SL = (gates_SLN * np.log(np.maximum(gates_SLN, 1e-12) / mean_LN)).sum(2)
    return float(bits_SL.mean() / np.log(len(gates_SLN)))


def _gates(result: Result, told: dict[str, Any], losses: dict[str, np.ndarray]) -> None:
    """Whether the branches specialise."""
    token = [one for one in told["gates"] if one["arm"] == "hydra token"]
    label = [one for one in told["gates"] if one["arm"] == "hydra label"]
    if token:
        gates_SLN = np.mean([one["gates"] for one in token], 0)
        known = [information(np.array(one["gates"])) for one in token]
        before = [information(np.array(one["untrained"])) for one in token]
        result.note("a", "token gate: style told by the branch, trained / untrained",
                    f"{np.mean(known):.4f} / {np.mean(before):.4f} of 1")  # fmt: skip
        spread = np.abs(gates_SLN - gates_SLN.mean(0)).sum(2).mean(0) / 2
        strongest = int(spread.argmax())
        entropy = float(np.mean([one["entropy"] for one in token]))
        result.note("a", "token gate: entropy of a token's gate", f"{entropy:.3f} nats of {np.log(BRANCHES):.3f}")
        for number, name in enumerate(NAMES):
            first = np.array(token[0]["gates"])[number]
            result.note("a", f"token gate, seed 0, {name}: all layers; {token[0]['layers'][strongest]}",
                        f"{_row(first.mean(0))}; {_row(first[strongest])}")  # fmt: skip
        flat = by_clip([{"test": one["flattened"]} for one in token])
        result.note("a", "token gate held at its mean, less as trained",
                    text(crossed(flat - losses["hydra token"], told["style"])))  # fmt: skip
        result.figures |= {"router_information": float(np.mean(known)), "untrained_information": float(np.mean(before)),
                           "gate_entropy_nats": entropy,
                           "flattened_less_trained": float((flat - losses["hydra token"]).mean())}  # fmt: skip
    for what in ("swapped", "unlabelled") if label else ():
        other = by_clip([{"test": one[what]} for one in label])
        gap = crossed(other - losses["hydra label"], told["style"])
        result.note("a", f"label gate: {'another style' if what == 'swapped' else 'no'} label, less its own", text(gap))
        result.figures[f"{what}_less_labelled"] = gap[0]


def _row(gates_N: np.ndarray) -> str:
    return " ".join(f"{one:.2f}" for one in gates_N)


# ------------------------------------------------------------------------------------------------ part b


def part_b(result: Result, told: dict[str, Any]) -> None:
    """The rows and figures of part b."""
    if not told["real"]:
        result.note("b", "footage", "the drawn cartoon")
    base_C = np.array(told["base"]["test"]).mean(1)
    result.note("b", f"base, {len(base_C)} clips: {', '.join(sorted(set(told['buckets'])))}", f"{base_C.mean():.4f}")
    falls = {}
    for arm, cells in told["cells"].items():
        result.note("b", f"{arm}: loss by rate", rates_of(told["curves"][arm]))
        if any(one["stopped"] for one in cells):
            continue
        losses_SC = by_clip(cells)
        falls[arm] = base_C - losses_SC
        result.note("b", f"{arm}, {cells[0]['parameters']} parameters, rate {told['best'][arm]:g}",
                    text(crossed(losses_SC, [0] * len(base_C))))  # fmt: skip
    for arm in [one for one in falls if one != "full"]:
        share = ratio(falls[arm], falls["full"])
        result.note("b", f"**{arm}: share of full fine-tuning's fall**", text(share, 3))
        name = arm.replace(" ", "_")
        result.figures[f"{name}_share_of_full"] = {"mean": share[0], "low": share[1], "high": share[2]}
    result.figures |= {"b_best_rates": told["best"], "b_best_at_an_end": edges(told), "b_real": told["real"],
                       "b_base": float(base_C.mean())}  # fmt: skip


def ratio(one_SC: np.ndarray, other_SC: np.ndarray) -> Interval:
    """The ratio of two means over seeds and clips, and its 95 % interval, as `crossed`."""
    seeds, clips = one_SC.shape
    seeds_DS, clips_DC = drawn(seeds, [0] * seeds), drawn(clips, [0] * clips)
    one_D, other_D = (np.einsum("ds,sc,dc->d", seeds_DS, each, clips_DC) for each in (one_SC, other_SC))
    low, high = np.quantile(one_D / other_D, (0.025, 0.975))
    return float(one_SC.mean() / other_SC.mean()), float(low), float(high)
