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
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boundaries
import footage
from measure import HERE, ROOT, Died, Ran, Result, Watch, arguments, interleave, run, say, scratch, show
from peers import setup

from ptta_core import fleet, memo
from ptta_core.ops import runs

GIB = 2**30
PEER_MEMORY, PEER_S = 10 * GIB, 900.0
HERE_ONLY = {"site.split.count": 0, "site.score.count": 0}  # both stages in the one process
CURATE = ("gather", "split", "score", "select", "caption", "admit")


@dataclass
class Bench:
    """What every part needs."""

    result: Result
    folder: Path  # scratch, gone afterwards
    kept: Path  # prepared footage
    data: Path
    rounds: int
    quick: bool
    peers: bool

    def films(self) -> list[Path]:
        """The real clips, else the drawn cartoon."""
        found = [] if self.quick else footage.real(self.data)
        return found or footage.cartoons(self.kept / "cartoon", range(1 if self.quick else 4))

    def film(self, name: str, width: int, height: int, seconds: float, films: Sequence[Path] | None = None) -> Path:
        """All films joined to one file in a folder of its own; a fiftieth of the length in a smoke run."""
        seconds = max(2.0, seconds / 50) if self.quick else seconds
        path = self.kept / f"{name}-{width}x{height}-{seconds:g}s" / "film.mp4"
        return footage.joined(films or self.films(), path, width, height, seconds)

    def workspace(self) -> Path:
        """A folder that no run has used."""
        return self.folder / f"workspace-{time.monotonic_ns()}"


def child(script: str, *words: Any, cores: int | None = 1) -> Ran:
    """One of the scripts beside this one, on one core with one thread a library."""
    return run([sys.executable, HERE / script, *words], cores, threads=1)


def curated(bench: Bench, videos: Path, cores: int | None = 1, **settings: Any) -> dict[str, Any]:
    """What gather, split and score took in one fresh process and workspace."""
    wanted = json.dumps(HERE_ONLY | settings)
    return child("ours.py", "run", bench.workspace(), videos, wanted, "gather", "split", "score", cores=cores).told()


def seconds_of(told: dict[str, Any], *stages: str) -> float:
    """Wall seconds of stages, without building their workers."""
    return sum(told[name]["seconds"] - told[name]["start_up_s"] for name in stages)


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


def part_b(bench: Bench) -> None:
    """Whole processes on one long film, with every core and with one; then the truth."""
    film = bench.film("a", 640, 360, 180)
    for cores, name in ((None, "scenedetect_over_split"), (1, "scenedetect_over_split_one_core")):
        where = "one core" if cores else "every core"
        told = interleave(
            bench.rounds,
            ours=lambda cores=cores: boundaries.ours(film, cores)[1],
            scenedetect=lambda cores=cores: boundaries.scenedetect(film, bench.folder, cores)[1],
        )
        seconds = [bench.result.timed("b", f"{what}, {where}", [one.seconds for one in told[key]])
                   for key, what in (("ours", "ptta cuts"), ("scenedetect", "scenedetect"))]  # fmt: skip
        cpu = [statistics.median(one.cpu_s for one in told[key]) for key in ("ours", "scenedetect")]
        bench.result.figure("b", name, seconds[1] / seconds[0], "at least 3" if cores is None else "")
        bench.result.figure("b", name.replace("_over_split", "_cpu_over_split"), cpu[1] / cpu[0])
    truth = [] if bench.quick else boundaries.films(bench.data)
    if not truth:
        bench.films()
        truth = boundaries.drawn(bench.kept / "cartoon" / "seed-0")
        bench.result.note("b", "truth", "the drawn cartoon's: its cuts are easy")
    mine, theirs = [], []
    for one in truth:
        mine.append(boundaries.score(one, boundaries.ours(one["path"])[0]))
        theirs.append(boundaries.score(one, boundaries.scenedetect(one["path"], bench.folder)[0]))
    for name, tallies, goal in (("split", mine, "at least scenedetect's"), ("scenedetect", theirs, "")):
        hard, every = (sum(column, boundaries.Tally()) for column in zip(*tallies))
        bench.result.figure("b", f"{name}_f1_hard", hard.f1, goal)
        bench.result.figure("b", f"{name}_f1", every.f1, goal)


def part_c(bench: Bench) -> None:
    """Seconds of work for a second of video on one core; a peer that fails is a row."""
    names = {"datajuicer": "datajuicer_over_motion", "nemo": "nemo_over_curate"}
    if not bench.peers:
        bench.result.note("c", "peers", "not asked for (--peers)")
        bench.result.figures |= dict.fromkeys(names.values())
        return
    count, length = (2, 5.0) if bench.quick else (6, 10.0)
    all_films = bench.films()
    films = [bench.film(f"c{number}", 640, 360, length, all_films[number:] + all_films[:number])
             for number in range(count)]  # fmt: skip
    videos = bench.folder / "c"
    videos.mkdir()
    copies = [Path(shutil.copy(film, videos / f"{number}.mp4")) for number, film in enumerate(films)]
    peers = {name: lambda name=name: peer(name, copies) for name in names}
    told = interleave(bench.rounds, ours=lambda: curated(bench, videos), **peers)
    score = bench.result.timed("c", "score, a file", [seconds_of(one, "score") / count for one in told["ours"]])
    both = bench.result.timed("c", "split + score, a file",
                              [seconds_of(one, "split", "score") / count for one in told["ours"]])  # fmt: skip
    for name, figure in names.items():
        good = [one for one in told[name] if "seconds" in one]
        if not good:
            bench.result.note("c", name, f"failed: {told[name][0]['failed']}")
            bench.result.figure("c", figure, None, "at least 3")
            continue
        theirs = bench.result.timed("c", f"{name}, a file", [sum(one["seconds"]) / count for one in good])
        extra = {key: value for key, value in good[0].items() if key in ("peak_mb", "clips", "lost", "motion_s")}
        bench.result.note("c", f"{name} said", ", ".join(f"{key} {value:.4g}" for key, value in extra.items()))
        bench.result.figure("c", figure, theirs / (score if name == "datajuicer" else both), "at least 3")


def peer(name: str, films: list[Path]) -> dict[str, Any]:
    """What a peer's script told, or {"failed": why}."""
    words = {"datajuicer": ["datajuicer_motion.py"], "nemo": ["nemo_curate.py", "1"]}[name]
    script, *more = words
    command = [setup.python_of(name), HERE / "peers" / script, *more, *films]
    try:
        return run(command, cores=1, threads=1, limit_s=PEER_S, memory=PEER_MEMORY).told()
    except (Died, OSError, ValueError) as error:
        return {"failed": str(error)}


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
