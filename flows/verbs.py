"""What each verb of the `ptta` command does. Flows and operations are imported only by the verb that needs them."""

import argparse
import json
import os
import sys
from typing import Any


def run(parsed: argparse.Namespace) -> int:
    """ptta run RECIPE."""
    from ptta_core.config import parse_overrides

    overrides = parse_overrides(parsed.overrides)
    if parsed.dry_run:
        return _dry_run(parsed, overrides)
    _validate(parsed, overrides)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # our own lines say what happens
    print("starting Prefect (its temporary server takes a while; PREFECT_API_URL names another)", file=sys.stderr)
    from flows.curate_and_train import curate_and_train
    from tasks.server import server
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
        with server():
            result = curate_and_train(parsed.recipe, parsed.site, overrides, options)
    except Exception as error:
        if parsed.json and (partly := last_result()):
            print(json.dumps({**partly, "error": str(error)}))
        raise
    print(f"report: {result['report']}", file=sys.stderr)
    print(json.dumps(result) if parsed.json else _made(result))
    return 0


def _validate(parsed: argparse.Namespace, overrides: dict[str, Any]) -> None:
    """Refuse what can be refused before anything starts: names, fields, the workspace, the folders of footage."""
    from ptta_core import stages
    from ptta_core.ops import runs
    from ptta_core.view import Options

    view = runs.open_view(parsed.recipe, parsed.site, overrides, parsed.workspace, parsed.videos,
                          Options(limit=parsed.limit))  # fmt: skip
    runs.require_writable(view.home)
    folders = [view.absolute(folder.folder).expanduser() for folder in view.recipe.sources.folders]
    known = (view.home / "tables").is_dir()  # an absent folder may be one that an earlier run has read
    if not known or not all(folder.is_dir() for folder in folders):
        stages.load("gather").inputs(view)


def _made(result: dict[str, Any]) -> str:
    from ptta_core.ops import fates

    lines = [f"{stage:9} computed {counts['computed']:5}  reused {counts['reused']:5}  failed {counts['failed']:4}"
             f"  {counts['seconds']:7.1f} s" for stage, counts in result["stages"].items()]  # fmt: skip
    learnt = fates.sentences(result["footage"]) if result["footage"] else []
    return "\n".join([*lines, *learnt, f"run {result['run_id']}", f"report {result['report']}"])


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


def show(parsed: argparse.Namespace) -> int:
    """ptta show NOUN."""
    from ptta_core.ops import show

    found = show.rows(parsed.noun, parsed.workspace, parsed.run)
    print("\n".join(json.dumps(row, ensure_ascii=False) for row in found) if parsed.json else show.as_table(found))
    return 0


def status(parsed: argparse.Namespace) -> int:
    """ptta status."""
    from ptta_core.ops import status

    found = status.status(parsed.workspace)
    print(json.dumps(found) if parsed.json else status.as_text(found))
    return 0


def check(parsed: argparse.Namespace) -> int:
    """ptta check RECIPE."""
    from ptta_core.config import parse_overrides
    from ptta_core.ops import check, runs

    view = runs.open_view(
        parsed.recipe, parsed.site, parse_overrides(parsed.overrides), parsed.workspace, parsed.videos
    )
    found = check.check(view)
    print(check.as_text(found))
    return 0 if all(one.ok for one in found) else 1


def report(parsed: argparse.Namespace) -> int:
    """ptta report."""
    from ptta_core.ops import report

    print(report.find(parsed.workspace, parsed.run))
    return 0


def export(parsed: argparse.Namespace) -> int:
    """ptta export adapter ID, ptta export dataset."""
    from ptta_core.config import ConfigError
    from ptta_core.ops import export as ops

    if parsed.noun == "dataset":
        return _export_dataset(parsed)
    if not parsed.id:
        raise ConfigError("export adapter: no ID; an adapter's id, its beginning, its name, or last")
    formats = tuple(parsed.format) or ("native", "diffusers")
    made = ops.adapter(parsed.workspace, parsed.id, formats, parsed.mix, parsed.out)
    print(ops.as_text(made))
    return 0


def _export_dataset(parsed: argparse.Namespace) -> int:
    """1 where a clip could not be written; the others are."""
    from pathlib import Path

    from ptta_core.config import ConfigError
    from ptta_core.ops import dataset

    if parsed.id or parsed.mix:
        raise ConfigError("export dataset takes no ID and no --mix: it is the dataset of the workspace's last run")
    formats, failed = tuple(dict.fromkeys(parsed.format)), False
    if not formats:
        raise ConfigError("export dataset: --format is missing; choices: " + ", ".join(dataset.layouts.FORMATS))
    for name in formats:
        out = parsed.out if not parsed.out or len(formats) == 1 else str(Path(parsed.out) / name)
        done = dataset.dataset(parsed.workspace, name, out)
        print(json.dumps(dataset.as_dict(done)) if parsed.json else dataset.as_text(done))
        failed = failed or bool(done.failed)
    return 1 if failed else 0


def cuts(parsed: argparse.Namespace) -> int:
    """ptta cuts VIDEO."""
    from ptta_core.ops import cuts

    found = cuts.cuts(parsed.video)
    print(cuts.as_json(found) if parsed.json else cuts.as_text(found))
    return 0


def weights(parsed: argparse.Namespace) -> int:
    """ptta weights convert KIND FILE."""
    from ptta_core.ops import convert

    made = convert.convert(parsed.kind, parsed.file, parsed.sha256, parsed.out)
    print(json.dumps(made) if parsed.json else convert.as_text(made))
    return 0
