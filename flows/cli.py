"""The `ptta` command: `ptta VERB [NOUN]`. Here is the grammar, one function a verb; what a verb does is in verbs.py."""

import argparse
import errno
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from flows import deciding, verbs

# Errors whose message tells a person what to do, by name: importing them here would make `--help` slow.
TOLD = {"StageError", "WorkspaceError", "FleetError", "WorkerStartError", "LeaseHeld", "LeaseLost", "TrainingFailed",
        "NotFinite", "Diverged", "RouterCollapsed", "DatasetError", "CheckpointError", "NotSaved", "ExportDiffers",
        "ServerError", "VideoError", "Combed", "WeightsError"}  # fmt: skip
STAGES = ("gather", "split", "score", "select", "caption", "admit", "encode", "train", "generate", "evaluate")


def build_parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    parser = argparse.ArgumentParser(prog="ptta", description="Raw animation footage in, a fine-tuned and judged "
                                     "text-to-video adapter out.")  # fmt: skip
    group = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (_run, _show, _status, _check, _report, _export, _cuts, _calibrate, _select, _captions, _ledger,
                _remove, _tag, _weights):  # fmt: skip
        add(group)
    return parser


def _run(group: Any) -> None:
    run = _verb(group, "run", "bring a recipe up to date: only what is missing is computed", verbs.run)
    run.add_argument("recipe", metavar="RECIPE", help="a name in deployments/recipes, or a .yaml file")
    _placed(run)
    run.add_argument("--videos", metavar="DIR", help="a folder of footage, instead of the recipe's sources")
    run.add_argument("--dry-run", action="store_true", help="say what would be computed, and why")
    run.add_argument("--only", action="append", default=[], metavar="STAGE", choices=STAGES, help="run just this stage")
    run.add_argument("--from-stage", metavar="STAGE", choices=STAGES, help="run this stage and those after it")
    run.add_argument("--force", action="append", default=[], metavar="STAGE", choices=STAGES,
                     help="compute this stage again")  # fmt: skip
    run.add_argument("--limit", type=_positive, metavar="N", help="the first N videos only")
    run.add_argument("--retry-failed", action="store_true", help="try items that failed before again")
    run.add_argument("--fresh", action="store_true", help="start a new training run although one is unfinished")
    run.add_argument("--json", action="store_true", help="end with one JSON object on a line")


def _show(group: Any) -> None:
    show = _verb(group, "show", "the rows of a noun", verbs.show)
    show.add_argument("noun", metavar="NOUN", help="files, sources, clips, scores, selection, captions, ...")
    _workspace(show)
    show.add_argument("--run", metavar="ID", help="a run's id, or all; the last run by default")
    show.add_argument("--json", action="store_true", help="one JSON object a line")


def _status(group: Any) -> None:
    status = _verb(group, "status", "what the last run of each recipe did", verbs.status)
    _workspace(status)
    status.add_argument("--json", action="store_true")


def _check(group: Any) -> None:
    check = _verb(group, "check", "validate everything a recipe needs, without computing", verbs.check)
    check.add_argument("recipe", metavar="RECIPE")
    _placed(check)
    check.add_argument("--videos", metavar="DIR")


def _report(group: Any) -> None:
    report = _verb(group, "report", "where the report of a run is", verbs.report)
    _workspace(report)
    report.add_argument("--run", metavar="ID")


def _export(group: Any) -> None:
    export = _verb(group, "export", "an adapter, or the dataset, as files that other tools load",
                   verbs.export)  # fmt: skip
    export.add_argument("noun", metavar="NOUN", choices=("adapter", "dataset"), help="adapter or dataset")
    export.add_argument("id", metavar="ID", nargs="?", default="",
                        help="an adapter's id, its beginning, its name, or last; none of a dataset")  # fmt: skip
    _workspace(export)
    export.add_argument("--format", action="append", default=[], metavar="FORMAT",
                        help="adapter: native, diffusers, branches or comfyui; dataset: hf, webdataset, musubi, "
                        "diffusion-pipe, finetrainers or csv; may be repeated")  # fmt: skip
    export.add_argument("--mix", metavar="SHARES", help="male=0.7,background=0.3 in place of the gate")
    export.add_argument("--out", metavar="DIR", help="where to; the workspace's exports by default")
    export.add_argument("--json", action="store_true", help="dataset: one JSON object a format")


def _cuts(group: Any) -> None:
    cuts = _verb(group, "cuts", "every shot boundary of one video, before any length filter", verbs.cuts)
    cuts.add_argument("video", metavar="VIDEO")
    cuts.add_argument("--json", action="store_true", help="one JSON array: time_s, frame, kind, confidence")


def _calibrate(group: Any) -> None:
    calibrate = _verb(group, "calibrate", "what each theta would keep, without computing anything again",
                      deciding.calibrate)  # fmt: skip
    calibrate.add_argument("recipe", metavar="RECIPE")
    _placed(calibrate)
    calibrate.add_argument("--videos", metavar="DIR", help="the folder of footage of the run")
    calibrate.add_argument("--near", type=_positive, default=6, metavar="N", help="clips to show on each side")
    calibrate.add_argument("--sheet", metavar="HTML", help="write a contact sheet of those clips")
    calibrate.add_argument("--json", action="store_true")


def _select(group: Any) -> None:
    select = _verb(group, "select", "keep or veto clips by hand, over every rule", deciding.select)
    _workspace(select)
    for word, text in (("pin", "keep"), ("veto", "veto"), ("unpin", "forget the word about")):
        select.add_argument(f"--{word}", nargs="+", default=[], metavar="ID",
                            help=f"{text} these clips: ids, beginnings of ids, or CSV files")  # fmt: skip
    select.add_argument("--csv", nargs="+", default=[], metavar="FILE", help="clip_id,decision as the report saves it")
    select.add_argument("--by", metavar="NAME", help="who says so; your login name by default")


def _captions(group: Any) -> None:
    captions = _verb(group, "captions", "captions to a file, and a person's corrections back from it",
                     deciding.captions)  # fmt: skip
    captions.add_argument("noun", metavar="NOUN", choices=("edit",), help="edit")
    _workspace(captions)
    way = captions.add_mutually_exclusive_group(required=True)
    way.add_argument("--out", metavar="FILE", help="write the last run's captions to this .csv or .jsonl")
    way.add_argument("--in", dest="source", metavar="FILE", help="take corrections from this .csv or .jsonl")
    way.add_argument("--remove", nargs="+", default=[], metavar="ID",
                     help="take corrections back: clips, item ids, or beginnings of clip ids")  # fmt: skip
    captions.add_argument("--by", metavar="NAME", help="who says so; your login name by default")


def _ledger(group: Any) -> None:
    ledger = _verb(group, "ledger", "where every file and clip ended, and why", deciding.ledger)
    ledger.add_argument("what", nargs="?", metavar="ID|PATH", help="a file, a source or a clip: why is it (not) in?")
    _workspace(ledger)
    ledger.add_argument("--run", metavar="ID")
    ledger.add_argument("--json", action="store_true")


def _remove(group: Any) -> None:
    remove = _verb(group, "remove", "take a source and all that came from it out of every table", deciding.remove)
    remove.add_argument("source", metavar="SOURCE", help="an id, the beginning of one, or a file")
    _workspace(remove)
    remove.add_argument("--yes", action="store_true", help="do it; without it only what would go is said")
    remove.add_argument("--why", metavar="TEXT", help="kept with the tombstone")
    remove.add_argument("--by", metavar="NAME", help="who says so; your login name by default")
    remove.add_argument("--json", action="store_true")


def _tag(group: Any) -> None:
    tag = _verb(group, "tag", "give an adapter a name, which then stands for it wherever one is asked for",
                deciding.tag)  # fmt: skip
    tag.add_argument("noun", metavar="NOUN", choices=("adapter",), help="adapter")
    tag.add_argument("id", metavar="ID", help="an adapter's id, its beginning, another name of it, or last")
    tag.add_argument("name", metavar="NAME", help="a name that another adapter has moves to this one")
    _workspace(tag)
    tag.add_argument("--remove", action="store_true", help="take the name away instead")
    tag.add_argument("--by", metavar="NAME", help="who says so; your login name by default")


def _weights(group: Any) -> None:
    weights = _verb(group, "weights", "a published .pth file of weights as safetensors", verbs.weights)
    weights.add_argument("noun", metavar="NOUN", choices=("convert",), help="convert")
    weights.add_argument("kind", metavar="KIND", help="raft, laion-v2 or transnetv2")
    weights.add_argument("file", metavar="FILE", help="the .pth file as it was published")
    weights.add_argument("--sha256", default="", metavar="HEX", help="of FILE, as its publisher gives it; must be "
                         "given unless the file is a known one")  # fmt: skip
    weights.add_argument("--out", default="", metavar="FILE", help="where to; beside FILE by default")
    weights.add_argument("--json", action="store_true")


def _verb(group: Any, name: str, text: str, action: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(name, help=text, description=text)
    parser.set_defaults(action=action)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _workspace(parser: argparse.ArgumentParser) -> None:
    """For a verb that reads an existing workspace."""
    parser.add_argument("--workspace", "-w", required=True, metavar="DIR", help="a workspace that a run has made")


def _placed(parser: argparse.ArgumentParser) -> None:
    """For a verb that reads a recipe and a site."""
    parser.add_argument("--workspace", "-w", metavar="DIR", help="where tables, videos and reports go")
    parser.add_argument("--site", default="laptop", help="a name in deployments/sites, or a .yaml file")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides",
                        help="change a field, for instance select.theta=8")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; errors that a person can mend are one message and exit status 1."""
    parsed = build_parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("ptta").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(parsed.action(parsed))
    except KeyboardInterrupt as stop:
        print("ptta: stopped; what was computed is kept, and the same command goes on from there", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        message = _explained(error)
        if message is None:
            raise
        print(f"ptta: {message}", file=sys.stderr)
        return 1


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated like Ctrl-C: Ray is ended, the run recorded."""


def _terminate(number: int, frame: Any) -> None:
    raise Terminated


def _explained(error: Exception) -> str | None:
    """What to tell a person, where the message alone says what to do; None for a defect, which keeps its traceback."""
    from ptta_core.config import ConfigError

    if isinstance(error, ConfigError) or type(error).__name__ in TOLD:
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return f"the disk is full{where}; what was committed is kept. Free some space and run again: it goes on."
    module = type(error).__module__
    if module.startswith("httpx") or "Failed to reach API" in str(error):
        return (f"Prefect's server stopped answering ({error or type(error).__name__}); what was computed is kept. "
                "Start it again and run the same command: it goes on from there.")  # fmt: skip
    return None


if __name__ == "__main__":
    sys.exit(main())
