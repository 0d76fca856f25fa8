"""How long a new alpha, theta or bound takes on a million scored clips: process start included, Prefect excluded.

A workspace is filled with synthetic sources, clips, scores and done rows as a real one has them, through the project's
own fingerprints. Each figure is one fresh process that opens the recipe and brings `select` up to date.

    python benchmarks/million.py [--clips 1000000] [--rounds 3] [--json]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

HERE = Path(__file__).resolve().parent
CLIPS_A_SOURCE = 250
DOUBLES = 0.02  # share of clips that are near-duplicates of another

# what is changed -> the overrides of the process
CHANGES: dict[str, dict[str, Any]] = {
    "theta": {"select.theta": 9.0},
    "alpha": {"select.alpha": 0.6},
    "bound": {"select.max_motion_px": 50.0},
    "rule": {"select.rule": "static_share < 0.9 and text_share < 0.2 and duration_s > 1.5"},
    "target": {"select.target": "1000 h"},
    "theta, duplicates kept": {"select.theta": 9.0, "select.duplicates": "keep"},
    "nothing (a rerun)": {},
}


def hex_ids(rng: np.random.Generator, count: int, digits: int = 32) -> pa.Array:
    """Random ids of 32 hexadecimal digits."""
    text = rng.bytes(digits // 2 * count).hex().encode()
    offsets = np.arange(0, digits * (count + 1), digits, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))


def fill(workspace: Path, footage: Path, count: int) -> None:
    """Make the workspace: real (empty) files, and rows for everything up to the scores."""
    from ptta_core.ops import runs
    from ptta_core.rows import Clip, File, Score, Source

    rng = np.random.default_rng(0)
    sources = max(1, count // CLIPS_A_SOURCE)
    for index in range(sources):
        (footage / f"{index:06}.mp4").touch()
    view = runs.open_view("laptop", "laptop", {}, str(workspace), str(footage))
    items = view.items("gather")
    source_ids, clip_ids = hex_ids(rng, sources), hex_ids(rng, count)
    stats = pa.array(list(items.input_ids))
    named = {"path": pa.array(list(items.item_ids)), "source_id": source_ids}
    write(view, "gather", File, rng, stats, stats, named | {"status": pa.repeat(pa.scalar("ok"), sources)})
    write(view, "gather", Source, rng, stats, stats, named)
    del view._items["gather"]
    owner = pa.array(np.arange(count) % sources)
    starts = rng.uniform(0, 1400, count)
    spans = {"clip_id": clip_ids, "source_id": source_ids.take(owner), "start_s": starts,
             "end_s": starts + rng.uniform(1, 10, count)}  # fmt: skip
    write(view, "split", Clip, rng, spans["source_id"], source_ids, spans)
    shares = {name: rng.beta(1, 6, count) for name in ("static_share", "text_share", "black_share", "overlay", "blur")}
    hashes = hex_ids(rng, count, 80).to_numpy(zero_copy_only=False)
    again = rng.integers(0, count, int(DOUBLES * count))
    hashes[rng.integers(0, count, len(again))] = hashes[again]
    measured = {"clip_id": clip_ids, "motion_px": rng.gamma(2, 6, count), "aesthetic": rng.normal(5, 1, count),
                "phash": pa.array(hashes)}  # fmt: skip
    write(view, "score", Score, rng, clip_ids, clip_ids, measured | shares)


def write(view: Any, stage: str, noun: type, rng: np.random.Generator, input_ids: pa.Array, done: pa.Array,
          values: dict[str, Any]) -> None:  # fmt: skip
    """Rows of a noun in random order of their keys, and a done row for each input."""
    from ptta_core.memo import now
    from ptta_core.rows import TABLE_OF, Done, table_schema

    count, fingerprint = len(input_ids), view.fingerprint(stage)
    memo = {"key": hex_ids(rng, count), "fingerprint": pa.repeat(pa.scalar(fingerprint), count), "item_id": input_ids,
            "input_id": input_ids, "attempt": np.ones(count, np.int64), "content_id": hex_ids(rng, count)}  # fmt: skip
    schema = table_schema(noun)
    full = {field.name: (memo | values).get(field.name, default(field.type, count)) for field in schema}
    for start in range(0, count, 1 << 17):
        view.store.append(TABLE_OF[noun], pa.table(full, schema=schema).slice(start, 1 << 17))
    rows = {"stage": stage, "fingerprint": fingerprint, "attempt": 1, "n_outputs": 1, "at": now()}
    names = {field.name: pa.repeat(pa.scalar(rows.get(field.name), field.type), len(done))
             for field in table_schema(Done)}  # fmt: skip
    if noun.__name__ != "Source":
        order = pa.array(rng.permutation(len(done)))  # workers finish in any order
        view.store.append("done", pa.table(names | {"input_id": done.take(order)}, schema=table_schema(Done)))


def default(kind: pa.DataType, count: int) -> pa.Array:
    """A value for a column that does not matter here."""
    if pa.types.is_list(kind):
        return pa.nulls(count, kind)
    plain = "" if pa.types.is_string(kind) else False if pa.types.is_boolean(kind) else 0
    return pa.repeat(pa.scalar(plain, kind), count)


def once(workspace: str, footage: str, overrides: dict[str, Any]) -> None:
    """The fresh process: bring select up to date and say what it took."""
    from ptta_core import memo
    from ptta_core.ops import runs

    view = runs.open_view("laptop", "laptop", overrides, workspace, footage)
    outcome = memo.run(view.stage("select"), view)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"computed": outcome.computed, "inside_s": outcome.seconds, "peak_mb": peak_mb(),
                      "cpu_s": used.ru_utime + used.ru_stime}))  # fmt: skip


def peak_mb() -> float:
    """The highest resident memory of this process; ru_maxrss would count the process that started it too."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def timed(workspace: Path, footage: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a process from its start to its end, and what it said."""
    begun = time.monotonic()
    command = [sys.executable, __file__, "--once", str(workspace), str(footage), json.dumps(overrides)]
    # with the byte code of imports on the disk, as it is after any first use
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, cwd=HERE.parent, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": time.monotonic() - begun}


def measure(workspace: Path, footage: Path, rounds: int, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """What each change takes: median seconds and the highest peak of memory over the rounds."""
    found: dict[str, dict[str, Any]] = {}
    first = timed(workspace, footage, {})  # it also looks for near-duplicates, whose groups are kept for the others
    found["the first selection"] = {"seconds": round(first["seconds"], 2), "cpu_s": round(first["cpu_s"], 2),
                                    "peak_mb": round(first["peak_mb"]), "computed": 1}  # fmt: skip
    say(f"| the first selection | {first['seconds']:.2f} | {first['cpu_s']:.2f} | {first['peak_mb']:.0f} |")
    for place, (name, overrides) in enumerate(CHANGES.items()):
        each = []
        for round_ in range(rounds):
            nudge = (place * rounds + round_) * 1e-3  # every process decides something that was never decided before
            new = {"select.theta": overrides.get("select.theta", 10.0) + nudge} if overrides else {}
            each.append(timed(workspace, footage, overrides | new))
        seconds, peak = statistics.median(one["seconds"] for one in each), max(one["peak_mb"] for one in each)
        cpu = statistics.median(one["cpu_s"] for one in each)
        found[name] = {"seconds": round(seconds, 2), "cpu_s": round(cpu, 2), "peak_mb": round(peak),
                       "computed": each[0]["computed"]}  # fmt: skip
        say(f"| {name} | {seconds:.2f} | {cpu:.2f} | {peak:.0f} |")
    return found


def main() -> None:
    """Fill a workspace, time the changes, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    parser.add_argument("--once", nargs=3, metavar=("WORKSPACE", "FOOTAGE", "OVERRIDES"), help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.once:
        return once(parsed.once[0], parsed.once[1], json.loads(parsed.once[2]))
    with tempfile.TemporaryDirectory() as place:
        workspace, footage = Path(place) / "w", Path(place) / "footage"
        footage.mkdir()
        fill(workspace, footage, parsed.clips)
        print(f"| changed, {parsed.clips:,} clips | median s | processor s | peak MB |\n|--|--|--|--|")
        found = measure(workspace, footage, parsed.rounds, lambda line: print(line, flush=True))
    if parsed.json:
        print(json.dumps({"clips": parsed.clips, "changes": found}))
    return None


if __name__ == "__main__":
    main()
