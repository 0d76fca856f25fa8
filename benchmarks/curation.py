"""Curation against its floor and its peers: what split and score cost, on one core, on two, and for one video more.

    python benchmarks/curation.py [--part a ...] [--data DIR] [--peers] [--rounds 3] [--json] [--markdown]

a  split + score on one core and one thread against plain decoding, shrinking and the flows alone (floor.py)
b  split against the `scenedetect` command line, and both against known boundaries
c  score against data-juicer's motion filter and NeMo Curator's CPU stages (only with --peers: see peers/setup.py)
d  two workers against one, each pinned to a core
e  a worker's peak memory on 720p, and on a video 10 times as long
f  one video added to 100

Real footage is taken from DIR/clips and the truth from DIR/shots.json; where they are absent, the drawn cartoon stands
in, and the table says so. --footage DIR keeps the prepared files for the next time.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import footage
from against import part_b, part_c
from bench import HERE_ONLY, Bench, child, curated, seconds_of
from measure import ROOT, Died, Result, Watch, arguments, interleave, say, scratch, show
from peers import setup

from ptta_core import fleet, memo
from ptta_core.ops import runs

CURATE = ("gather", "split", "score", "select", "caption", "admit")


# ------------------------------------------------------------------------------------------------ the parts


def part_a(bench: Bench) -> None:
    """One pinned core: ours over the floor, and over bare decoding at three sizes."""
    film = bench.film("a", 640, 360, 180)
    spans = bench.folder / "spans.json"
    workspace = bench.workspace()
    child("ours.py", "run", workspace, film.parent, json.dumps(HERE_ONLY), "gather", "split")
    spans.write_text(json.dumps(child("ours.py", "flows", workspace, film.parent, json.dumps(HERE_ONLY)).told()))
    told = interleave(
        bench.rounds,
        floor=lambda: child("floor.py", "curate", spans).told(),
        ours=lambda: curated(bench, film.parent),
    )
    flows, frames = told["floor"][0]["flows"], told["floor"][0]["frames"]
    floor = bench.result.timed("a", f"floor: {frames} frames, {flows} flows", [one["seconds"] for one in told["floor"]])
    both = bench.result.timed("a", "split + score", [seconds_of(one, "split", "score") for one in told["ours"]])
    bench.result.timed("a", "of it split", [seconds_of(one, "split") for one in told["ours"]])
    bench.result.figure("a", "curate_over_floor", both / floor, "at most 1.25")
    used = statistics.median(one["split"]["cpu_s"] + one["score"]["cpu_s"] for one in told["ours"])
    needed = statistics.median(one["cpu_s"] for one in told["floor"])
    bench.result.figure("a", "curate_over_floor_cpu", used / needed)  # what other processes do matters less to this one
    for number, (width, height) in enumerate(((854, 480), (1280, 720), (1920, 1080))):
        decode_ratio(bench, width, height, skip=bench.quick and number > 0)


def decode_ratio(bench: Bench, width: int, height: int, skip: bool) -> None:
    """Ours over decoding alone, at one size."""
    if skip:
        bench.result.figure("a", f"curate_over_decode_{height}p", None)
        return
    film = bench.film("decode", width, height, 10)
    told = interleave(
        bench.rounds,
        decode=lambda: child("floor.py", "decode", film).told()["seconds"],
        ours=lambda: seconds_of(curated(bench, film.parent), "split", "score"),
    )
    decode, ours = (statistics.median(told[name]) for name in ("decode", "ours"))
    bench.result.figure("a", f"curate_over_decode_{height}p", ours / decode)


def part_d(bench: Bench) -> None:
    """The pool's score stage with one worker and with two, start-up left out, each worker on a core of its own."""
    if len(os.sched_getaffinity(0)) < 2:
        bench.result.note("d", "two workers", "this machine has one core")
        bench.result.figures["two_workers_speedup"] = None
        return
    split = split_copies(bench, 3 if bench.quick else 10)
    told = interleave(
        bench.rounds,
        one=lambda: scored(bench, split, 1, pin=True)[0],
        two=lambda: scored(bench, split, 2, pin=True)[0],
    )
    one = bench.result.timed("d", f"one worker, {told['one'][0].computed} clips", [working(o) for o in told["one"]])
    two = bench.result.timed("d", "two workers", [working(o) for o in told["two"]])
    bench.result.figure("d", "two_workers_speedup", one / two, "at least 1.6")


def working(outcome: memo.Outcome) -> float:
    """Wall seconds without start-up."""
    return outcome.seconds - outcome.start_up_s


def split_copies(bench: Bench, count: int) -> tuple[Path, Path]:
    """(a workspace whose videos are split, its videos): short 640 x 360 films, each a source of its own."""
    film = bench.film("short", 640, 360, 20)
    videos = bench.folder / f"copies-{count}"
    footage.copies([film], videos, count)
    workspace = bench.workspace()
    child("ours.py", "run", workspace, videos, json.dumps(HERE_ONLY), "gather", "split", cores=None)
    return workspace, videos


def scored(bench: Bench, split: tuple[Path, Path], workers: int, pin: bool) -> tuple[memo.Outcome, Watch]:
    """The score stage over a pool, on a copy of a split workspace; Ray is begun and ended."""
    workspace = Path(shutil.copytree(split[0], bench.workspace()))
    view = runs.open_view("laptop", "laptop", {"site.score.count": workers}, str(workspace), str(split[1]))
    with Watch(pin) as watch:
        outcome = memo.run(view.stage("score"), view)
    fleet.stop()
    return outcome, watch


def part_e(bench: Bench) -> None:
    """A worker's peak resident memory in split and in score."""
    peaks = []
    for seconds in (6, 60):
        film = bench.film("e", 1280, 720, seconds)
        settings = {"site.split.count": 1, "site.score.count": 1}
        view = runs.open_view("laptop", "laptop", settings, str(bench.workspace()), str(film.parent))
        memo.run(view.stage("gather"), view)
        found = []
        for stage in ("split", "score"):
            with Watch() as watch:
                memo.run(view.stage(stage), view)
            found.append(max(watch.peak_mb.values()))
        fleet.stop()
        bench.result.note("e", f"720p, {seconds} s", f"split {found[0]:.0f} MB, score {found[1]:.0f} MB a worker")
        peaks.append(max(found))
    bench.result.figure("e", "peak_mb_720p", peaks[0], "at most 300", "MB")
    bench.result.figure("e", "peak_mb_10x", peaks[1], "flat", "MB")


def part_f(bench: Bench) -> None:
    """Everything that curation does, in one process: for 100 videos, then for one more."""
    count = 10 if bench.quick else 100
    film = bench.film("f", 640, 360, 8)
    full, more, processes = [], [], []
    for number in range(1 if bench.quick else min(bench.rounds, 2)):
        videos, workspace = bench.folder / f"f-{number}", bench.workspace()
        for target, seconds in ((count, full), (count + 1, more)):
            footage.copies([film], videos, target)
            words = ("ours.py", "run", workspace, videos, json.dumps(HERE_ONLY), *CURATE)
            done = child(*words, cores=None)
            told = done.told()
            seconds.append(sum(one["seconds"] for one in told.values()))
            processes.append(done.seconds)
            fresh = told["gather"]["computed"]
        if fresh != 1:
            raise SystemExit(f"one video was added but {fresh} were gathered")
        say(f"round {number + 1}: one more video of {count}")
    whole = bench.result.timed("f", f"curating {count} videos", full)
    added = bench.result.timed("f", "then one more", more)
    bench.result.timed("f", "the same, whole process", processes[1::2])
    bench.result.figure("f", "one_more_share", added / whole, "at most 0.02")


PARTS: dict[str, Callable[[Bench], None]] = {
    "a": part_a, "b": part_b, "c": part_c, "d": part_d, "e": part_e, "f": part_f,
}  # fmt: skip


def measure(asked: argparse.Namespace, folder: Path) -> Result:
    """Run the parts asked for."""
    result = Result()
    kept = Path(asked.footage).resolve() if asked.footage else folder / "footage"
    bench = Bench(result, folder, kept, Path(asked.data), 1 if asked.quick else asked.rounds, asked.quick, asked.peers)
    if asked.quick or not footage.real(bench.data):
        result.note("", "footage", "the drawn cartoon" + ("" if asked.quick else f": {asked.data}/clips is absent"))
    if asked.peers:
        for name in setup.PEERS:
            say(f"peer {name}")
            setup.set_up(name)
    for part in asked.part or PARTS:
        say(f"part {part}")
        try:
            PARTS[part](bench)
        except (Died, memo.StageError) as error:  # the other parts took minutes: their figures are kept
            result.note(part, "**failed**", str(error))
            result.figures.setdefault("failed_parts", []).append(part)
    return result


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--part", action="append", choices=sorted(PARTS), help="only this part; may be repeated")
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "data"), help="real footage")
    parser.add_argument("--peers", action="store_true", help="install the peers and measure them too (6 GB)")
    asked = parser.parse_args()
    with scratch() as folder:
        result = measure(asked, folder)
        show(result, asked)
    sys.exit(1 if "failed_parts" in result.figures else 0)


if __name__ == "__main__":
    main()
