"""The samples of one training run, pinned in its folder, and the order in which they are seen.

`RUN/data/LATENT_ID.safetensors` holds one sample, `RUN/index.json` lists them all and is written last. Training reads
nothing else, so whatever happens to the tables meanwhile, a resumed run sees what the first attempt saw.
"""

import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ptta_core.whole import write_whole

SAMPLES, INDEX = "data", "index.json"


class DatasetError(ValueError):
    """The pinned samples cannot be trained on; the message says which and why."""

    kind = "bad_training_data"


def label_shares(labels: str, names: Sequence[str]) -> list[float]:
    """The share of each named label among those named, so the sum is 1; all 0 when there are none of them.

    labels: a JSON object label -> share, "" when unknown.
    """
    known = json.loads(labels) if labels else {}
    found = [float(known.get(name, 0.0)) for name in names]
    return [share / (sum(found) or 1.0) for share in found]


def gate_labels(labels: str, adapter: Mapping[str, Any]) -> dict[str, float]:
    """What an adapter's label gate reads for a prompt, in the order of its branches; {} for every other gate.

    labels: the prompt's own, a JSON object, or "": then the mean over the samples that the adapter learned from.
    adapter: as hydralora.read_config gives it.
    """
    if adapter["gate"] != "label" or adapter["branches"] == 1:
        return {}
    names = adapter["metadata"].get("labels") or []
    shares = label_shares(labels, names)
    if not any(shares):
        shares = adapter["metadata"].get("label_mean") or []
    return dict(zip(names, shares))


@dataclass(frozen=True)
class Sample:
    """One line of the index. `labels`: a JSON object label -> share, "" when unknown."""

    latent_id: str
    bucket: str
    labels: str = ""
    held_out: bool = False  # measured, never learned from

    def shares(self, names: Sequence[str]) -> list[float]:
        """See label_shares."""
        return label_shares(self.labels, names)


@dataclass(frozen=True)
class Batch:
    """Samples of one bucket that make one optimizer step, by their place in the index."""

    places: tuple[int, ...]
    first: int  # global sample index of the first: how many samples the whole run saw before

    def share(self, rank: int, size: int) -> list[tuple[int, int]]:
        """(place, global sample index) of the samples of one of `size` workers; empty where there are too few."""
        return [(self.places[at], self.first + at) for at in range(rank, len(self.places), size)]


def pin(run_folder: str | Path, samples: Iterable[tuple[str, str, str, bytes]], held_out: Container[str] = ()) -> None:
    """Write (latent_id, bucket, labels, safetensors bytes) below `run_folder`, once: pinned already is a no-op.

    held_out: the latent_ids that are only measured.
    `samples` is read one by one, and not at all where the index exists. Raises DatasetError for no sample at all, or
    for the same latent_id twice.
    """
    folder = Path(run_folder)
    if (folder / INDEX).exists():
        return
    (folder / SAMPLES).mkdir(parents=True, exist_ok=True)
    pinned: dict[str, Sample] = {}
    for latent_id, bucket, labels, tensors in samples:
        if latent_id in pinned:
            raise DatasetError(f"sample {latent_id} came twice")
        write_whole(_file(folder, latent_id), tensors)
        pinned[latent_id] = Sample(latent_id, bucket, labels, latent_id in held_out)
    if not pinned:
        raise DatasetError("there is no sample to train on")
    sync_folder(folder / SAMPLES)
    index = [asdict(pinned[latent_id]) for latent_id in sorted(pinned)]
    write_whole(folder / INDEX, json.dumps(index, indent=0).encode())
    sync_folder(folder)


def read_index(run_folder: str | Path) -> list[Sample]:
    """The pinned samples, by latent_id, those held out too (see split). Raises DatasetError where nothing is pinned."""
    path = Path(run_folder) / INDEX
    try:
        return [Sample(**line) for line in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"no readable index of samples at {path}: {error}") from error


def split(index: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """(learned from, held out), each in the order of the index."""
    return [one for one in index if not one.held_out], [one for one in index if one.held_out]


def read_sample(run_folder: str | Path, sample: Sample) -> dict[str, torch.Tensor]:
    """latents [C,T,h,w], text [L,D] and pooled [P] on the CPU. Raises DatasetError naming the sample."""
    try:
        tensors = load_file(_file(Path(run_folder), sample.latent_id))
    except (OSError, SafetensorError) as error:
        raise DatasetError(f"sample {sample.latent_id} cannot be read: {error}") from error
    if missing := {"latents", "text", "pooled"} - tensors.keys():
        raise DatasetError(f"sample {sample.latent_id} lacks {', '.join(sorted(missing))}")
    return tensors


def label_mean(index: Sequence[Sample], names: Sequence[str]) -> list[float]:
    """The mean shares over the samples that have any of the labels; [] where none has."""
    known = [shares for one in index if any(shares := one.shares(names))]
    return [sum(column) / len(known) for column in zip(*known)]


def steps_an_epoch(index: Sequence[Sample], batch: int) -> int:
    """Batches an epoch: each bucket's last one may be smaller."""
    return sum(math.ceil(len(places) / batch) for places in _by_bucket(index).values())


def epoch_batches(index: Sequence[Sample], batch: int, seed: int, epoch: int) -> list[Batch]:
    """The global batches of one epoch (counted from 0), every sample once, each batch of one bucket.

    The order depends on ids, `seed` and `epoch` alone, not on the number of workers.
    """

    def rank_of(place: int, what: str) -> bytes:
        return hashlib.sha256(f"{what}:{seed}:{epoch}:{index[place].latent_id}".encode()).digest()

    groups: list[tuple[int, ...]] = []
    for places in _by_bucket(index).values():
        shuffled = sorted(places, key=lambda place: rank_of(place, "sample"))
        groups += [tuple(shuffled[at : at + batch]) for at in range(0, len(shuffled), batch)]
    groups.sort(key=lambda places: rank_of(places[0], "batch"))
    batches, first = [], epoch * len(index)
    for group in groups:
        batches.append(Batch(group, first))
        first += len(group)
    return batches


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _by_bucket(index: Sequence[Sample]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, sample in enumerate(index):
        places[sample.bucket].append(place)
    return places


def _file(folder: Path, latent_id: str) -> Path:
    return folder / SAMPLES / f"{latent_id}.safetensors"
