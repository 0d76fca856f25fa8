"""A fully cached rerun of a finished workspace against an empty Prefect flow, interleaved in one run.

    python benchmarks/cached_rerun.py --workspace demo [--rounds 3] [--json] [--markdown]

Both are whole processes that start Prefect's temporary server; the ratio of the medians is the figure (goal: 1.3).
"""

import sys

from measure import Result, arguments, interleave, run, show

EMPTY = """
import flows
from prefect import flow

@flow
def empty():
    return 1

empty()
"""


def rerun(workspace: str) -> float:
    """Wall seconds of a rerun that computes nothing. Raises SystemExit where there was something left to compute."""
    done = run([sys.executable, "-m", "flows.cli", "run", "demo", "--workspace", workspace, "--json"])
    if any(counts["computed"] for counts in done.told()["stages"].values()):
        raise SystemExit(f"{workspace} was not finished: run `make demo` first, then measure")
    return done.seconds


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--workspace", default="demo", help="of a finished `make demo`")
    asked = parser.parse_args()
    told = interleave(
        1 if asked.quick else asked.rounds,
        empty=lambda: run([sys.executable, "-c", EMPTY]).seconds,
        rerun=lambda: rerun(asked.workspace),
    )
    result = Result()
    cached = result.timed("flow", "cached rerun of the demo", told["rerun"])
    empty = result.timed("flow", "empty flow", told["empty"])
    result.figure("flow", "cached_over_empty", cached / empty, "at most 1.3")
    result.figures |= {"cached_s": told["rerun"], "empty_s": told["empty"]}
    show(result, asked)


if __name__ == "__main__":
    main()
