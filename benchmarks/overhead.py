"""What the pool, the tables and the bookkeeping cost beside the work itself: about 200 generated clips through score.

    python benchmarks/overhead.py [--workers 2] [--clips 200] [--rounds 3] [--json] [--markdown]

overhead_share = (stage wall - start-up - item compute / workers) / stage wall (goal: at most 0.20). Item compute is
the sum of the seconds inside the workers' calls; start-up (Ray, imports, models) is shown apart. Each round scores
the same clips in a fresh workspace; the workers are the laptop site's.
"""

import statistics
from pathlib import Path

from footage import cartoons, copies
from measure import Result, arguments, say, scratch, show

from ptta_core import fleet, memo
from ptta_core.memo import Outcome
from ptta_core.ops import runs

CLIPS_A_FILM = 5  # of the drawn cartoon


def score_all(workspace: Path, videos: Path, workers: int) -> Outcome:
    """The score stage's outcome on every clip of the videos, in a fresh workspace."""
    settings = {"split.min_clip_s": 0.5, "site.split.count": 0, "site.score.count": workers}
    view = runs.open_view("laptop", "laptop", settings, str(workspace), str(videos))
    outcomes = [memo.run(view.stage(name), view) for name in ("gather", "split", "score")]
    return outcomes[-1]


def share(outcome: Outcome, workers: int) -> float:
    """The part of the stage's wall time that is neither start-up nor work."""
    return (outcome.seconds - outcome.start_up_s - outcome.compute_s / max(1, workers)) / outcome.seconds


def measure(folder: Path, drawn: Path, workers: int, clips: int, rounds: int) -> Result:
    """Score the same clips `rounds` times."""
    copies(cartoons(drawn / "cartoon", range(1)), folder / "videos", max(1, round(clips / CLIPS_A_FILM)))
    found = []
    for number in range(rounds):
        found.append(score_all(folder / f"workspace-{number}", folder / "videos", workers))
        fleet.stop()  # every round starts Ray anew, as a run does
        say(f"round {number + 1} of {rounds}: {found[-1].computed} clips in {found[-1].seconds:.1f} s")
    result = Result()
    result.timed("score", f"stage wall, {found[0].computed} clips, {workers} workers", [one.seconds for one in found])
    result.timed("score", "start-up", [one.start_up_s for one in found])
    result.timed("score", "item compute / workers", [one.compute_s / max(1, workers) for one in found])
    shares = [share(one, workers) for one in found]
    result.figure("score", "overhead_share", statistics.median(shares), "at most 0.20")
    result.figures |= {
        "clips": found[0].computed,
        "workers": workers,
        "wall_s": [one.seconds for one in found],
        "start_up_s": [one.start_up_s for one in found],
        "compute_s": [one.compute_s for one in found],
        "overhead_shares": shares,
    }
    return result


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clips", type=int, default=200)
    asked = parser.parse_args()
    with scratch() as folder:
        drawn = Path(asked.footage).resolve() if asked.footage else folder
        wanted = (0, 15, 1) if asked.quick else (asked.workers, asked.clips, asked.rounds)
        show(measure(folder, drawn, *wanted), asked)


if __name__ == "__main__":
    main()
