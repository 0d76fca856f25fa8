"""The `ptta` command: `ptta VERB [NOUN]`. Flows and operations are imported only by the verb that needs them."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

STAGES = ("gather", "split", "score", "select", "caption", "admit", "encode", "train", "generate", "evaluate")


def build_parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    parser = argparse.ArgumentParser(prog="ptta", description="Raw animation footage in, a fine-tuned and judged "
                                     "text-to-video adapter out.")  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    run = _verb(verbs, "run", "bring a recipe up to date: only what is missing is computed", run_verb)
    run.add_argument("recipe", metavar="RECIPE", help="a name in deployments/recipes, or a .yaml file")
    _placed(run)
    run.add_argument("--videos", metavar="DIR", help="a folder of footage, instead of the recipe's sources")
    run.add_argument("--dry-run", action="store_true", help="say what would be computed, and why")
    run.add_argument("--only", action="append", default=[], metavar="STAGE", choices=STAGES, help="run just this stage")
    run.add_argument("--from-stage", metavar="STAGE", choices=STAGES, help="run this stage and those after it")
    run.add_argument("--force", action="append", default=[], metavar="STAGE", choices=STAGES,
                     help="compute this stage again")  # fmt: skip
    run.add_argument("--limit", type=int, metavar="N", help="the first N videos only")
    run.add_argument("--retry-failed", action="store_true", help="try items that failed before again")
    run.add_argument("--fresh", action="store_true", help="start a new training run although one is unfinished")
    run.add_argument("--json", action="store_true", help="end with one JSON object on a line")

    show = _verb(verbs, "show", "the rows of a noun", show_verb)
    show.add_argument("noun", metavar="NOUN", help="files, sources, clips, scores, selection, captions, ...")
    show.add_argument("--workspace", "-w", required=True)
    show.add_argument("--run", metavar="ID", help="a run's id, or all; the last run by default")
    show.add_argument("--json", action="store_true", help="one JSON object a line")

    status = _verb(verbs, "status", "what the last run of each recipe did", status_verb)
    status.add_argument("--workspace", "-w", required=True)
    status.add_argument("--json", action="store_true")

    check = _verb(verbs, "check", "validate everything a recipe needs, without computing", check_verb)
    check.add_argument("recipe", metavar="RECIPE")
    _placed(check)
    check.add_argument("--videos", metavar="DIR")

    report = _verb(verbs, "report", "where the report of a run is", report_verb)
    report.add_argument("--workspace", "-w", required=True)
    report.add_argument("--run", metavar="ID")
    return parser


def _verb(verbs: Any, name: str, text: str, action: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(action=action)
    return parser


def _placed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workspace", "-w", metavar="DIR", help="where tables, videos and reports go")
    parser.add_argument("--site", default="laptop", help="a name in deployments/sites, or a .yaml file")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides",
                        help="change a field, for instance select.theta=8")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; errors that a person can mend are one message and exit status 1."""
    parsed = build_parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("ptta").setLevel(logging.INFO)
    try:
        return int(parsed.action(parsed))
    except KeyboardInterrupt:
        print("stopped; what was computed is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        if not _explained(error):
            raise
        print(f"ptta: {error}", file=sys.stderr)
        return 1


def _explained(error: Exception) -> bool:
    """Whether the message alone tells a person what to do; anything else is a defect and keeps its traceback."""
    from ptta_core.config import ConfigError

    named = {
        "StageError",
        "WorkspaceError",
        "FleetError",
        "WorkerStartError",
        "LeaseHeld",
        "LeaseLost",
        "TrainingFailed",
        "NotFinite",
        "DatasetError",
        "CheckpointError",
    }
    return isinstance(error, ConfigError) or type(error).__name__ in named or _unreachable(error)


def _unreachable(error: Exception) -> bool:
    """Prefect's server could not be reached."""
    module = type(error).__module__
    return module.startswith("httpx") or "Failed to reach API" in str(error) or "ephemeral" in str(error)


def run_verb(parsed: argparse.Namespace) -> int:
    """ptta run RECIPE."""
    from ptta_core.config import parse_overrides

    overrides = parse_overrides(parsed.overrides)
    if parsed.dry_run:
        return _dry_run(parsed, overrides)
    _validate(parsed, overrides)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # our own lines say what happens
    print("starting Prefect (its temporary server takes a while; PREFECT_API_URL names another)", file=sys.stderr)
    from flows.curate_and_train import curate_and_train
    from tasks.session import RunOptions, last_result

    options = RunOptions(
        workspace=parsed.workspace,
        videos=parsed.videos,
        only=parsed.only,
        from_stage=parsed.from_stage,
        force=parsed.force,
        limit=parsed.limit,
        retry_failed=parsed.retry_failed,
        fresh=parsed.fresh,
    )
    try:
        result = curate_and_train(parsed.recipe, parsed.site, overrides, options)
    except Exception as error:
        if parsed.json and (partly := last_result()):
            print(json.dumps({**partly, "error": str(error)}))
        raise
    print(f"report: {result['report']}", file=sys.stderr)
    print(json.dumps(result) if parsed.json else _made(result))
    return 0


def _validate(parsed: argparse.Namespace, overrides: dict[str, Any]) -> None:
    """Bad input is refused before anything starts."""
    from ptta_core.config import load_recipe, load_site

    recipe_part = {field: value for field, value in overrides.items() if not field.startswith("site.")}
    load_recipe(parsed.recipe, recipe_part)
    site = load_site(parsed.site, {field.removeprefix("site."): value for field, value in overrides.items()
                                   if field.startswith("site.")})  # fmt: skip
    from ptta_core.ops.runs import require_writable

    require_writable(site.model_copy(update={"workspace": parsed.workspace or site.workspace}).home)


def _made(result: dict[str, Any]) -> str:
    lines = [f"{stage:9} computed {counts['computed']:5}  reused {counts['reused']:5}  failed {counts['failed']:4}"
             f"  {counts['seconds']:7.1f} s" for stage, counts in result["stages"].items()]  # fmt: skip
    return "\n".join([*lines, f"run {result['run_id']}", f"report {result['report']}"])


def _dry_run(parsed: argparse.Namespace, overrides: dict[str, Any]) -> int:
    from ptta_core.ops import plan, runs
    from ptta_core.view import Options

    options = Options(tuple(parsed.force), parsed.retry_failed, parsed.limit, parsed.fresh)
    view = runs.open_view(parsed.recipe, parsed.site, overrides, parsed.workspace, parsed.videos, options)
    found = plan.plan(view)
    if parsed.json:
        print(json.dumps({one.stage: {"compute": one.compute, "reused": one.reused, "failed": one.failed,
                                      "open_ended": one.open_ended, "why": one.why} for one in found}))  # fmt: skip
    else:
        print(plan.as_text(found))
    return 0


def show_verb(parsed: argparse.Namespace) -> int:
    """ptta show NOUN."""
    from ptta_core.ops import show

    found = show.rows(parsed.noun, parsed.workspace, parsed.run)
    print("\n".join(json.dumps(row, ensure_ascii=False) for row in found) if parsed.json else show.as_table(found))
    return 0


def status_verb(parsed: argparse.Namespace) -> int:
    """ptta status."""
    from ptta_core.ops import status

    found = status.status(parsed.workspace)
    print(json.dumps(found) if parsed.json else status.as_text(found))
    return 0


def check_verb(parsed: argparse.Namespace) -> int:
    """ptta check RECIPE."""
    from ptta_core.config import parse_overrides
    from ptta_core.ops import check, runs

    view = runs.open_view(
        parsed.recipe, parsed.site, parse_overrides(parsed.overrides), parsed.workspace, parsed.videos
    )
    found = check.check(view)
    print(check.as_text(found))
    return 0 if all(one.ok for one in found) else 1


def report_verb(parsed: argparse.Namespace) -> int:
    """ptta report."""
    from ptta_core.ops import show

    print(show.report_path(parsed.workspace, parsed.run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
