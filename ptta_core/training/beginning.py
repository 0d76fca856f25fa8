"""Runs that begin alike: a run with more (or fewer) epochs goes on from what another one has already done.

Nothing in a step depends on how many will follow, so what a run of two epochs has after them is what a run of four has
halfway. The new run gets its own folder: the other one's adapter stays what its row says. Files that never change
again are linked, not copied, where the disk can.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ptta_core.config import TrainConfig
from ptta_core.training import checkpoint, records
from ptta_core.training.dataset import INDEX, SAMPLES, read_index, sync_folder
from ptta_core.training.loop import ADAPTER, CHECKPOINTS, INIT, LINES, total_steps
from ptta_core.whole import write_whole

PIN = "pin.json"


def take_over(folder: Path, beginning: str, input_id: str, config: TrainConfig) -> int:
    """Fill a new run's folder from the furthest run beside it that begins alike; how many steps are taken over.

    beginning: everything that changes the result but for the number of epochs. Interrupted, it can be called again.
    0 where no such run has a checkpoint within config.epochs; the samples are linked all the same, if there is one.
    """
    others = [path for path in alike(folder.parent, beginning, input_id) if path != folder]
    if not others:
        return 0
    most = total_steps(read_index(others[0]), config)
    made = [pair for other in others for pair in checkpoint.by_step(other / CHECKPOINTS).items() if pair[0] <= most]
    made.sort(key=lambda pair: pair[0], reverse=True)
    step, path = next(((step, path) for step, path in made if not checkpoint.damage(path)), (0, None))
    source = path.parent.parent if path else others[0]
    link_samples(source, folder)
    if path:
        (folder / CHECKPOINTS).mkdir(exist_ok=True)
        for name in LINES:
            lines = records.until(source / name, step)
            write_whole(folder / name, "".join(json.dumps(line) + "\n" for line in lines).encode())
        link_tree(path, folder / CHECKPOINTS / path.name)
    return step


def alike(runs: Path, beginning: str, input_id: str) -> Iterator[Path]:
    """The folders of runs that begin so, and that nobody has abandoned."""
    for path in sorted(runs.glob(f"*/{PIN}")):
        pin = json.loads(path.read_text())
        if pin.get("beginning") == beginning and pin["input_id"] == input_id and not pin.get("abandoned"):
            yield path.parent


def link_samples(source: Path, folder: Path) -> None:
    """The pinned samples of one run for another, the index last."""
    if (folder / INDEX).exists():
        return
    shutil.rmtree(folder / SAMPLES, ignore_errors=True)  # what a killed attempt left
    link_tree(source / SAMPLES, folder / SAMPLES)
    for name in (INIT, INDEX):
        if (source / name).exists():
            (folder / name).unlink(missing_ok=True)
            _link(source / name, folder / name)
    sync_folder(folder)


def link_tree(source: Path, target: Path) -> None:
    """A folder of files for a second owner: seen whole or not at all; nothing where it is there already."""
    if target.exists():
        return
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for path in source.iterdir():
        _link(path, part / path.name)
    sync_folder(part)
    os.rename(part, target)
    sync_folder(target.parent)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def begin_again(folder: Path) -> None:
    """Forget an unfinished run's steps and when it began; its samples stay."""
    if (folder / ADAPTER).exists():
        return
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    for name in (PIN, *LINES):
        (folder / name).unlink(missing_ok=True)
