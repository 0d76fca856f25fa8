"""Checkpoints of a training run: adapter and optimizer state only, so they stay small beside a large base model.

`CHECKPOINTS/step-00000050/` holds adapter.safetensors, optimizer.safetensors, gates.safetensors, routers.safetensors,
state.json, and average.safetensors where an average of the weights is kept. The folder gets its name by one rename
after everything in it is on the disk: a checkpoint is there whole or not at all. One that was damaged later is known by
the CRC-32 of its files in state.json; it is set aside, and the run goes on from the one before it. A checkpoint is made
between optimizer steps, so no half-summed gradient belongs to it. Tensors are whole also where the model is sharded:
any number of workers can go on from it.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ptta_core.models.hydralora import whole
from ptta_core.training.dataset import sync_folder
from ptta_core.training.sharding import like
from ptta_core.whole import write_whole

KEEP = 2  # the newest, and one to fall back to
_NAME = re.compile(r"step-(\d+)")

log = logging.getLogger("ptta")


class CheckpointError(ValueError):
    """A checkpoint does not belong to this model or these settings."""

    kind = "bad_checkpoint"


class NotSaved(CheckpointError):
    """Nothing can be written: the disk is full, or gone."""

    kind = "not_saved"


Parts = dict[str, dict[str, torch.Tensor]]  # file name without ".safetensors" -> its tensors


def save(folder: Path, step: int, parts: Parts, held_out: float | None = None, keep_every: int | None = None) -> Path:
    """Write the state after `step` optimizer steps. The checkpoint's folder.

    Then drop all but the newest KEEP, the one of the least `held_out` loss, and every `keep_every` steps one.
    Raises NotSaved where it cannot be written: what was there before stays.
    """
    room = sum(value.nbytes for tensors in parts.values() for value in tensors.values()) / 1e9
    try:
        with writing(f"the checkpoint of step {step} ({room:.2g} GB)"):
            final = _save(folder, step, parts, held_out)
    finally:
        shutil.rmtree(folder / f".step-{step:08d}.part", ignore_errors=True)
    _prune(folder, keep_every)
    return final


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Turns what a full disk raises into NotSaved."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise NotSaved(f"{what} could not be written: {error}. Make room and run again: it goes on from the last "
                       "whole checkpoint, which is kept") from error  # fmt: skip


def _save(folder: Path, step: int, parts: Parts, held_out: float | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    final, part = folder / f"step-{step:08d}", folder / f".step-{step:08d}.part"
    if final.exists():
        return final
    shutil.rmtree(part, ignore_errors=True)  # what a killed attempt left
    part.mkdir()
    sums: dict[str, int] = {}
    for name, tensors in parts.items():
        path = part / f"{name}.safetensors"
        save_file({key: value.detach().contiguous().cpu() for key, value in tensors.items()}, path)
        _sync(path)
        sums[path.name] = _crc32(path)
    write_whole(part / "state.json", json.dumps({"step": step, "held_out": held_out, "crc32": sums}).encode())
    sync_folder(part)
    os.rename(part, final)
    sync_folder(folder)
    return final


def moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's state by the parameters' places, whole; of a sharded model all workers call it."""
    state = optimizer.state_dict()["state"]
    return {f"{place}.{name}": whole(value) for place, values in state.items() for name, value in values.items()}


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    found = _all(folder)
    return found[-1] if found else None


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all as they were written, or None where there is none at all.

    Newer ones that are not are set aside, with a warning. Raises CheckpointError where none is whole.
    """
    damaged: list[tuple[Path, str]] = []
    for path in reversed(_all(folder)):
        if why := damage(path):
            damaged.append((path, why))
            continue
        for bad, why in damaged:
            os.rename(bad, bad.with_name(f".{bad.name}.damaged"))
            log.warning("checkpoint %s cannot be used (%s): set aside, going on from step %d", bad, why, step_of(path))
        return path
    if damaged:
        told = "; ".join(f"{path.name}: {why}" for path, why in damaged)
        raise CheckpointError(f"no checkpoint in {folder} can be used ({told}); --fresh begins again")
    return None


def by_step(folder: Path) -> dict[int, Path]:
    """Every checkpoint by the number of steps in its name, damaged or not, from the oldest on."""
    return {int(_NAME.fullmatch(path.name)[1]): path for path in _all(folder)}  # type: ignore[index]


def damage(checkpoint: Path) -> str:
    """What is wrong with a checkpoint's files, "" where nothing is."""
    try:
        for name, known in _state(checkpoint)["crc32"].items():
            if _crc32(checkpoint / name) != known:
                return f"{name} is not as it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError) as error:
        return f"unreadable: {error}"
    return ""


def step_of(checkpoint: Path | None) -> int:
    """How many optimizer steps a checkpoint holds; 0 for None."""
    return int(_state(checkpoint)["step"]) if checkpoint else 0


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps is."""
    return folder / f"step-{step:08d}"


def load_adapter(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The adapter's tensors, on the CPU."""
    return load_file(checkpoint / "adapter.safetensors")


def load_average(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The average's tensors, on the CPU. Raises CheckpointError where it holds none."""
    path = checkpoint / "average.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{checkpoint} holds no average of the weights, which train.ema_decay asks for")
    return load_file(path)


def load_gates(checkpoint: Path) -> torch.Tensor | None:
    """The usual gates [L, N]; None where none were kept."""
    path = checkpoint / "gates.safetensors"
    return load_file(path)["usual"] if path.is_file() else None


def load_part(checkpoint: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of one of a checkpoint's files, by its name without ".safetensors"; {} where there is none."""
    path = checkpoint / f"{name}.safetensors"
    return load_file(path) if path.is_file() else {}


def load_optimizer(checkpoint: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put the moments back. Raises CheckpointError when they are of other parameters."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(checkpoint / "optimizer.safetensors").items():
        place, _, name = key.partition(".")
        state.setdefault(int(place), {})[name] = value
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    shapes = [tuple(one.shape) for one in parameters]
    if [tuple(state.get(place, {}).get("exp_avg", torch.empty(0)).shape) for place in range(len(shapes))] != shapes:
        raise CheckpointError(f"{checkpoint} holds the state of other adapter parameters than this run's")
    for number, one in enumerate(parameters):  # not by load_state_dict, which would make floats of 8-bit codes
        optimizer.state[one] = {name: like(one, value.to(one.device)) if value.dim() else value
                                for name, value in state[number].items()}  # fmt: skip


def _all(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def best(folder: Path) -> Path | None:
    """The whole checkpoint of the least held-out loss, the earliest of equals; None where none has one."""
    losses = {path: loss for path in _all(folder) if (loss := _held_out(path)) is not None}
    return min(losses, key=lambda path: losses[path], default=None)


def _state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "state.json").read_text())


def _held_out(checkpoint: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):  # damaged: another one is the best
        return _state(checkpoint).get("held_out")
    return None


def _prune(folder: Path, keep_every: int | None) -> None:
    kept = best(folder)
    for old in _all(folder)[:-KEEP]:
        if old == kept or (keep_every and step_of(old) % keep_every == 0):
            continue
        doomed = old.with_name(f".{old.name}.old")  # a half-deleted folder must not look like a checkpoint
        os.rename(old, doomed)
    for doomed in [*folder.glob(".*.old"), *folder.glob(".*.part")]:
        shutil.rmtree(doomed, ignore_errors=True)


def _crc32(path: Path) -> int:
    found = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            found = zlib.crc32(chunk, found)
    return found


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
