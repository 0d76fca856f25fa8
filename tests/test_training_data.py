"""The samples of a run: order and batches at any number of workers, pinning, reading, and progress told."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_training import Killed, samples

from ptta_core.config import TrainConfig
from ptta_core.training import dataset, launch, loop


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_sample_once_an_epoch_in_batches_of_one_bucket_at_any_world_size(size: int) -> None:
    index = [dataset.Sample(f"s{number}", f"bucket{number % 3}") for number in range(23)]
    orders = []
    for epoch in (0, 1):
        batches = dataset.epoch_batches(index, 4, 7, epoch)
        assert len(batches) == dataset.steps_an_epoch(index, 4) == 6
        seen = [one for batch in batches for rank in range(size) for one in batch.share(rank, size)]
        assert sorted(place for place, _ in seen) == list(range(23))
        assert sorted(sample_index for _, sample_index in seen) == list(range(23 * epoch, 23 * (epoch + 1)))
        assert all(len({index[place].bucket for place in batch.places}) == 1 for batch in batches)
        orders.append([index[place].latent_id for batch in batches for place in batch.places])
    assert orders[0] != orders[1]
    assert loop.total_steps(index, TrainConfig(epochs=2, batch=4)) == 12


def test_pinning_happens_once_and_never_half(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, str, str, bytes]]:
        yield next(samples())
        raise Killed

    with pytest.raises(Killed):
        dataset.pin(tmp_path, broken())
    with pytest.raises(dataset.DatasetError, match="no readable index"):
        dataset.read_index(tmp_path)
    dataset.pin(tmp_path, samples())
    dataset.pin(tmp_path, (pytest.fail("read again") for _ in "x"))
    index = dataset.read_index(tmp_path)
    assert [one.latent_id for one in index] == [f"sample{number}" for number in range(5)]
    assert dataset.read_sample(tmp_path, index[4])["latents"].shape == (16, 3, 4, 6)
    assert index[0].shares(["object", "male"]) == [0.75, 0.25]
    assert index[0].shares(["object", "female"]) == [1.0, 0.0]
    assert index[0].shares(["female"]) == dataset.Sample("new", "b").shares(["male"]) == [0.0]
    with pytest.raises(dataset.DatasetError, match="no sample"):
        dataset.pin(tmp_path / "none", [])


def test_the_stage_pins_every_latent_reading_the_table_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptta_core.rows import Latent, table_schema, to_arrow
    from ptta_core.stages import train
    from ptta_core.store import Store

    store, names = Store(tmp_path / "tables"), [f"latent{number:02}" for number in range(70)]
    memo = {"fingerprint": "f", "item_id": "i", "input_id": "i", "attempt": 1, "content_id": "c"}
    rows = [memo | dataclasses.asdict(Latent(name, "c", "c", "5x32x32", 0, 1, 3, "p", "", name.encode()))
            | {"key": f"key{hash(name)}"} for name in names]  # fmt: skip
    store.insert("latents", to_arrow(rows, table_schema(Latent)))
    keys = {row["key"]: {name: row[name] for name in ("latent_id", "bucket", "labels")} for row in rows}
    reads: list[int] = []
    real = Store.take_bytes

    def counted(self: Store, noun: str, some: list[str], column: str) -> dict[str, bytes]:
        reads.append(len(some))
        return real(self, noun, some, column)

    monkeypatch.setattr(Store, "take_bytes", counted)
    pinned = list(train.samples(train.TrainItem("t", "i", 70, keys), store))
    assert [one[0] for one in pinned] == names and all(one[3] == one[0].encode() for one in pinned)
    assert reads == [32, 32, 6]


def test_an_unreadable_sample_is_named(tmp_path: Path) -> None:
    dataset.pin(tmp_path, samples())
    (tmp_path / "data" / "sample1.safetensors").write_bytes(b"torn")
    with pytest.raises(dataset.DatasetError, match="sample1 cannot be read"):
        dataset.read_sample(tmp_path, dataset.read_index(tmp_path)[1])


def test_progress_tells_each_new_step_and_skips_a_torn_line(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    with launch.watch(tmp_path, 9, lambda done, total, text: told.append((done, total, text))):
        (tmp_path / loop.METRICS).write_text('{"step": 4, "loss": 0.5, "step_s": 2.0}\n{"step": 5, "lo')
    assert told == [(4, 9, "loss 0.5000, 2.00 s a step")]
