"""A fully cached rerun of a finished workspace against an empty Prefect flow, interleaved in one run.

    python benchmarks/cached_rerun.py --workspace demo [--rounds 3] [--json]

Both are whole processes that start Prefect's temporary server; the ratio of the medians is the figure (goal: 1.3).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

EMPTY = """
import flows
from prefect import flow

@flow
def empty():
    return 1

empty()
"""
ROOT = Path(__file__).resolve().parent.parent


def seconds(command: list[str]) -> tuple[float, str]:
    """Wall seconds of a process, and what it printed. Raises CalledProcessError."""
    begun = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return time.monotonic() - begun, done.stdout


def main() -> None:
    """Measure, print a table, and with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workspace", default="demo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rerun = [sys.executable, "-m", "flows.cli", "run", "demo", "--workspace", asked.workspace, "--json"]
    ours, empty = [], []
    for _ in range(asked.rounds):
        empty.append(seconds([sys.executable, "-c", EMPTY])[0])
        taken, printed = seconds(rerun)
        stages = json.loads(printed.splitlines()[-1])["stages"]
        if any(counts["computed"] for counts in stages.values()):
            raise SystemExit(f"{asked.workspace} was not finished: run `make demo` first, then measure")
        ours.append(taken)
    ratio = statistics.median(ours) / statistics.median(empty)
    print(f"{'':24} median s   min s   max s")
    for name, values in (("cached rerun", ours), ("empty flow", empty)):
        print(f"{name:24} {statistics.median(values):8.1f} {min(values):7.1f} {max(values):7.1f}")
    print(f"ratio {ratio:.2f} (goal: at most 1.3)")
    if asked.json:
        print(json.dumps({"cached_over_empty": ratio, "cached_s": ours, "empty_s": empty}))


if __name__ == "__main__":
    main()
