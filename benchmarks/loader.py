"""Reading training samples: safetensors as a run pins them, rows of Lance, and .pt files as other trainers keep."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from measure import Result, interleave
from safetensors.torch import load

from ptta_core.models import hunyuan
from ptta_core.rows import Latent, table_schema, to_arrow
from ptta_core.store import Store
from ptta_core.training import dataset

WORDS = {"pinned": "safetensors files, as a run pins them", "lance": "rows of Lance", "pt": ".pt files"}


def compare(result: Result, samples: Mapping[str, dict[str, torch.Tensor]], rounds: int, folder: Path) -> None:
    """Samples a second of each, in random order, one at a time, the page cache warm; figures over .pt files."""
    packed = {name: hunyuan.pack(one) for name, one in samples.items()}
    ways = ways_of(samples, packed, folder)
    for name, one in samples.items():
        assert all(torch.equal(way(name)[key], value) for way in ways.values() for key, value in one.items())
    seconds = interleave(rounds, **{name: reading(way, list(samples)) for name, way in ways.items()})
    size = sum(map(len, packed.values())) / len(packed) / 1e6
    for name, spent in seconds.items():
        rates = [len(samples) / one for one in spent]
        result.timed("loader", f"{WORDS[name]}, {size:.1f} MB a sample", rates, "samples/s")
    for name in ("pinned", "lance"):
        result.figure("loader", f"{name}_over_pt", statistics.median(seconds["pt"]) / statistics.median(seconds[name]))


def ways_of(
    samples: Mapping[str, dict[str, torch.Tensor]], packed: Mapping[str, bytes], folder: Path
) -> dict[str, Callable[[str], dict[str, torch.Tensor]]]:  # fmt: skip
    """What reads one sample by its name."""
    dataset.pin(folder / "pinned", ((name, "bucket", "", data) for name, data in packed.items()))
    pinned = {one.latent_id: one for one in dataset.read_index(folder / "pinned")}
    store = in_lance(folder / "tables", packed)
    for name, one in samples.items():
        torch.save(one, folder / f"{name}.pt")
    return {
        "pinned": lambda name: dataset.read_sample(folder / "pinned", pinned[name]),
        "lance": lambda name: load(store.take_bytes("latents", [name], "tensors")[name]),
        "pt": lambda name: torch.load(folder / f"{name}.pt", weights_only=True),
    }


def in_lance(folder: Path, packed: Mapping[str, bytes]) -> Store:
    """A workspace's table of latents with these tensors."""
    memo = {"fingerprint": "f", "input_id": "i", "attempt": 1, "content_id": "c"}
    rows: list[dict[str, Any]] = []
    for name, data in packed.items():
        latent = Latent(name, name, "c", "33x512x512", 0.0, 1.0, 64, "p", "", data)
        rows.append(vars(latent) | memo | {"key": name, "item_id": name})
    store = Store(folder)
    store.insert("latents", to_arrow(rows, table_schema(Latent)))
    return store


def reading(way: Callable[[str], dict[str, torch.Tensor]], names: list[str]) -> Callable[[], float]:
    """Seconds that reading every sample once takes, in a new order each time; every byte is touched."""
    chance = random.Random(0)

    def read() -> float:
        chance.shuffle(names)
        begun = time.perf_counter()
        for name in names:
            for tensor in way(name).values():
                tensor.view(torch.uint8).sum()
        return time.perf_counter() - begun

    return read
