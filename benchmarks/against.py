"""The parts of the curation benchmark that measure peers: PySceneDetect's command line, data-juicer, NeMo Curator."""

import shutil
import statistics
from pathlib import Path
from typing import Any

import boundaries
from bench import Bench, child, curated, seconds_of
from measure import HERE, Died, interleave, run
from peers import setup

PEER_MEMORY, PEER_S = 10 * 2**30, 900.0


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
    decode = child("floor.py", "decode", film).told()["cpu_s"]  # nobody who looks at every picture can be faster
    bench.result.figure("b", "scenedetect_cpu_over_decode", cpu[1] / decode)
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
