"""What the verbs that decide do: calibrate, select, captions, ledger, remove, tag.

Operations are imported only by their verb.
"""

import argparse
import json
import sys
from pathlib import Path


def calibrate(parsed: argparse.Namespace) -> int:
    """ptta calibrate RECIPE."""
    from ptta_core.config import parse_overrides
    from ptta_core.ops import calibrate, runs, show

    if parsed.workspace:
        show.open_store(parsed.workspace)
    view = runs.open_view(
        parsed.recipe, parsed.site, parse_overrides(parsed.overrides), parsed.workspace, parsed.videos
    )
    view = calibrate.with_sources(view)
    found = calibrate.calibrate(view, parsed.near)
    print(json.dumps(found) if parsed.json else calibrate.as_text(found))
    if parsed.sheet:
        calibrate.sheet(view, found, Path(parsed.sheet))
        print(f"contact sheet: {parsed.sheet}", file=sys.stderr)
    return 0


def select(parsed: argparse.Namespace) -> int:
    """ptta select."""
    from ptta_core.ops import edits

    found = edits.decide(parsed.workspace, parsed.pin, parsed.veto, parsed.unpin, parsed.csv, parsed.by)
    print(edits.as_text(found))
    return 0


def captions(parsed: argparse.Namespace) -> int:
    """ptta captions edit; exit status 1 where a row was refused."""
    from ptta_core.ops import caption_edits as edits

    if parsed.out:
        print(f"{edits.export(parsed.workspace, Path(parsed.out))} captions: {parsed.out}")
        return 0
    found = (edits.take(parsed.workspace, Path(parsed.source), parsed.by) if parsed.source else
             edits.take_back(parsed.workspace, parsed.remove, parsed.by))  # fmt: skip
    for line in found.refused:
        print(f"refused: {line}", file=sys.stderr)
    print(found.line())
    return 1 if found.refused else 0


def ledger(parsed: argparse.Namespace) -> int:
    """ptta ledger."""
    from ptta_core.ops import ledger

    found = ledger.ledger(parsed.workspace, parsed.what, parsed.run)
    print(json.dumps(found) if parsed.json else ledger.as_text(found))
    return 0


def remove(parsed: argparse.Namespace) -> int:
    """ptta remove SOURCE."""
    from ptta_core.ops import remove

    found = remove.remove(parsed.workspace, parsed.source, parsed.yes, parsed.why or "", parsed.by)
    print(json.dumps(remove.as_dict(found)) if parsed.json else remove.as_text(found))
    return 0


def tag(parsed: argparse.Namespace) -> int:
    """ptta tag adapter ID NAME."""
    from ptta_core import adapters
    from ptta_core.ops import show

    store, _ = show.open_store(parsed.workspace)
    say = adapters.unname if parsed.remove else adapters.name
    adapter_id = say(store, parsed.id, parsed.name, parsed.by)
    print(f"adapter {adapter_id} is {'no longer' if parsed.remove else 'now'} called {parsed.name}")
    return 0
