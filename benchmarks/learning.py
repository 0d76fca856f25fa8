"""Whether HydraLoRA learns: unseen styles against plain LoRA, and real clips by heart against full fine-tuning.

    python benchmarks/learning.py [--part a] [--part b] [--keep DIR] [--quick] [--json]

What is claimed, measured and decided was written down before: docs/learning-plan.md. Every finished run is a line in
DIR/results.jsonl; the same command goes on where it was stopped. One core, one thread; about two hours.
"""

import tempfile
from pathlib import Path

import learning_adapt
import learning_base
import learning_figures
import learning_real
import torch
from learning_cells import Bench
from learning_plan import QUICK, Plan
from measure import ROOT, Result, arguments, scratch, show


def measure(folder: Path, data: Path, plan: Plan, parts: list[str]) -> Result:
    """Run the parts asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, learning_base.make(folder, plan.base), plan)
    result = Result()
    if "a" in parts:
        learning_figures.part_a(result, learning_adapt.compared(bench))
    if "b" in parts:
        learning_figures.part_b(result, learning_real.compared(bench, data))
    spent = sum(line["cpu_s"] for line in bench.known.values())
    result.note("", "processor time of all runs, without the base", f"{spent / 60:.0f} min")
    return result


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--part", action="append", choices=["a", "b"], help="only this part; may be repeated")
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "data"), help="real footage, for part b")
    parser.add_argument("--keep", default=str(Path(tempfile.gettempdir()) / "ptta-learning"),
                        help="a folder for the base, the drawn sets and the results of all runs")  # fmt: skip
    asked = parser.parse_args()
    torch.set_num_threads(1)
    parts, data = asked.part or ["a", "b"], Path(asked.data)
    if asked.quick:
        with scratch() as folder:
            show(measure(folder, data, QUICK, parts), asked)
    else:
        show(measure(Path(asked.keep).resolve(), data, Plan(), parts), asked)


if __name__ == "__main__":
    main()
