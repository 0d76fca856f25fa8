"""latents -> adapter: HydraLoRA on the frozen base, resumable at any step; the input is pinned when a run starts.

Then its plain LoRA files for other tools: items of their own, so that one more format is one more file.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ptta_core import fleet
from ptta_core.config import Recipe, Workers
from ptta_core.ids import digest, digest_file, digest_set
from ptta_core.memo import Batch, Items, Job, StageError, stage
from ptta_core.rows import Adapter, Export, HeldOut, Step
from ptta_core.variants import Form
from ptta_core.view import View
from ptta_core.whole import write_whole

PIN = "pin.json"
EXPORT_S = 3600.0  # for one file: the base goes through some training samples four times
EXPORT_VERSION = 1  # raise it whenever other files would be written
PIN_ROWS = 32  # latents read from the table at once: at most some 300 MB


@dataclass(frozen=True)
class TrainItem:
    """One training run. `keys` name the rows of its latents; empty when the run folder already holds them."""

    train_id: str
    input_id: str
    latents: int
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)  # key -> latent_id, bucket, labels, source_id
    fresh: bool = False

    @property
    def item_id(self) -> str:
        """The run."""
        return self.train_id


@dataclass(frozen=True)
class ExportItem:
    """A plain LoRA file of a run's adapter."""

    train_id: str
    input_id: str
    form: Form

    @property
    def item_id(self) -> str:
        """The file."""
        return digest(self.train_id, self.form.variant)


def with_exports(view: View) -> Items:
    """The run, and then the files of its adapter."""
    found = inputs(view)
    run: TrainItem = found.make([0])[0]
    exports = [ExportItem(run.train_id, digest(run.input_id, EXPORT_VERSION, form.variant), form)
               for form in view.recipe.exports()]  # fmt: skip
    items: list[TrainItem | ExportItem] = [run, *exports]
    return Items.of(items, "item_id", [one.input_id for one in items], found.note)


def inputs(view: View) -> Items:
    """One item: the current latents, or those that an unfinished run was pinned to."""
    columns = ["key", "latent_id", "clip_id", "bucket", "labels", "content_id"]
    table = view.rows("encode", columns)
    fingerprint = view.fingerprint("train")
    input_id = digest_set(table["latent_id"].to_pylist())
    done = view.ledger("train").done
    pinned = None if view.options.fresh or input_id in done else unfinished(view, fingerprint, done)
    if pinned and pinned["input_id"] != input_id:
        note = (f"finishing run {pinned['train_id'][:8]} on the {pinned['latents']} latents it was pinned to; the "
                f"current ones differ ({table.num_rows}). --fresh starts a new run instead")  # fmt: skip
        item = TrainItem(pinned["train_id"], pinned["input_id"], pinned["latents"])
        return Items.of([item], "train_id", [item.input_id], note)
    if not table.num_rows:
        raise StageError("train: there are no latents to learn from; see `ptta show admissions` and failures")
    source_of = {clip["clip_id"]: clip["source_id"] for clip in view.rows("split").to_pylist()}
    keys = {row["key"]: row | {"source_id": source_of[row["clip_id"]]} for row in table.to_pylist()}
    item = TrainItem(digest(fingerprint, input_id), input_id, len(keys), keys, view.options.fresh)
    return Items.of([item], "train_id", [input_id])


def unfinished(view: View, fingerprint: str, done: dict[str, int]) -> dict[str, Any] | None:
    """The pin of this recipe's newest run that has begun and is not done."""
    pins = [json.loads(path.read_text()) for path in (view.home / "training").glob(f"*/{PIN}")]
    mine = [pin for pin in pins if pin["fingerprint"] == fingerprint and pin["recipe"] == view.recipe.name
            and pin["input_id"] not in done and not pin.get("abandoned")]  # fmt: skip
    return max(mine, key=lambda pin: pin["at"], default=None)


def result_fields(recipe: Recipe) -> dict[str, Any]:
    """The section without what only shapes checkpoints and memory, and the base's precision."""
    from ptta_core.memo import result_fields as of_section

    own = {f"train.{name}": value for name, value in of_section(recipe.train).items()}
    own["train.init_from"] = init_digest(recipe)
    return own | {"base.dtype": recipe.base.dtype}


def init_digest(recipe: Recipe) -> str | None:
    """The adapter that training begins with, by its bytes. Raises StageError where there is none."""
    if recipe.train.init_from is None:
        return None
    path = Path(recipe.train.init_from).expanduser()
    if not path.is_file():
        raise StageError(f"train.init_from = {recipe.train.init_from!r}: no such file")
    return digest_file(path)


@stage(Adapter, version=2, id_field="item_id", inputs=with_exports, fields=result_fields,
       also=(Step, HeldOut, Export), hold_lease=False, models=lambda recipe: [recipe.base.model])  # fmt: skip
def train(todo: list[TrainItem | ExportItem], job: Job) -> Iterator[Batch]:
    """Pin the input, train on Ray workers until the last step, record the adapter, and export it."""
    for item in todo:
        if isinstance(item, ExportItem):
            continue
        folder = job.home / "training" / item.train_id
        pin(folder, item, job)
        fit(folder, item, job)
        yield [(item, collect(folder, item, job))]
    if exports := [item for item in todo if isinstance(item, ExportItem)]:
        yield from export(exports, job)


def pin(folder: Path, item: TrainItem, job: Job) -> None:
    """Write the run's samples into its folder once: from here on the run reads nothing else."""
    from ptta_core.memo import now
    from ptta_core.training import dataset, held_out

    folder.mkdir(parents=True, exist_ok=True)
    if (folder / PIN).exists():
        return
    if job.config.init_from:
        shutil.copyfile(Path(job.config.init_from).expanduser(), folder / "init.safetensors")
    sources = {row["latent_id"]: row["source_id"] for row in item.keys.values()}
    kept_apart = held_out.choose(sources, job.config.holdout_share, job.config.seed) if sources else set()
    dataset.pin(folder, samples(item, job.store), kept_apart)
    if item.fresh:
        abandon_others(folder.parent, item, job)
    record = {"train_id": item.train_id, "input_id": item.input_id, "fingerprint": job.fingerprint, "at": now(),
              "recipe": job.recipe.name, "latents": item.latents}  # fmt: skip
    write_whole(folder / PIN, json.dumps(record).encode())


def samples(item: TrainItem, store: Any) -> Iterator[tuple[str, str, str, bytes]]:
    """(latent_id, bucket, labels, tensors) of every latent, by latent_id; PIN_ROWS of them in memory at a time."""
    keys = sorted(item.keys, key=lambda key: item.keys[key]["latent_id"])
    for at in range(0, len(keys), PIN_ROWS):
        some = keys[at : at + PIN_ROWS]
        tensors = store.take_bytes("latents", some, "tensors")
        for key in some:
            row = item.keys[key]
            yield row["latent_id"], row["bucket"], row["labels"], tensors[key]


def abandon_others(folder: Path, item: TrainItem, job: Job) -> None:
    """--fresh: earlier unfinished runs of this recipe and settings are not taken up again."""
    for path in folder.glob(f"*/{PIN}"):
        record = json.loads(path.read_text())
        if record["fingerprint"] == job.fingerprint and record["recipe"] == job.recipe.name:
            write_whole(path, json.dumps(record | {"abandoned": True}).encode())


def fit(folder: Path, item: TrainItem, job: Job) -> None:
    """Run the training workers; returns at once when the run's last step is done."""
    from ptta_core import models
    from ptta_core.training import launch
    from ptta_core.training.passes import Settings

    base, revision = models.resolve(job.recipe.base.model, job.models)
    known = models.describe(job.recipe.base.model, job.models)
    settings = Settings(run_folder=str(folder), base=base, revision=revision, dtype=job.recipe.base.dtype,
                        device=job.device(), threads=job.site.train.threads, config=job.config.model_dump(mode="json"),
                        metadata={"base": known, "recipe": job.recipe.name, "train_id": item.train_id,
                                  "labels": list(job.recipe.caption.labels)} | origin(item, job) |
                        ({"init_from": digest_file(folder / "init.safetensors")} if job.config.init_from else {}),
                        shard=job.site.train.shard)  # fmt: skip
    launch.fit(settings, job.site.train, job.site.ray, job.report)


def origin(item: TrainItem, job: Job) -> dict[str, Any]:
    """What the adapter's file says of where it comes from, beside the base's name; no paths."""
    from ptta_core.memo import result_fields as of_section

    settings = {name: value for name, value in of_section(job.config).items() if name != "init_from"}
    return {"base_revision": job.recipe.base.model.revision or "", "base_dtype": job.recipe.base.dtype,
            "latents": item.latents, "latents_digest": item.input_id, "train": settings}  # fmt: skip


def collect(folder: Path, item: TrainItem, job: Job) -> list[Adapter | Step | HeldOut]:
    """The adapter by its bytes, every step of its run, and what it scored on the clips held out."""
    from ptta_core import models

    path = folder / "adapter.safetensors"
    lines = read_lines(folder / "metrics.jsonl")
    steps = [Step(train_id=item.train_id, **line) for line in lines]
    measured = [HeldOut(item.train_id, line["step"], quarter, t, loss, line["samples"])
                for line in read_lines(folder / "held_out.jsonl")
                for quarter, (t, loss) in enumerate(zip(line["t"], line["loss"]))]  # fmt: skip
    tail = [line["loss"] for line in lines[-max(1, len(lines) // 10) :]]
    adapter = Adapter(
        adapter_id=digest_file(path), train_id=item.train_id, path=path.relative_to(job.home).as_posix(),
        latents=item.latents, latents_digest=item.input_id, steps=len(lines), final_loss=sum(tail) / len(tail),
        parameters=count_parameters(path), base=models.describe(job.recipe.base.model, job.models),
        base_revision=job.recipe.base.model.revision or "",
    )  # fmt: skip
    return [adapter, *steps, *measured]


def export(items: list[ExportItem], job: Job) -> Iterator[Batch]:
    """The files of one run's adapter, on one training worker's share of the machine."""
    from ptta_core import models
    from ptta_core.models.hunyuan import pick_device
    from ptta_core.training.exporting import Exports

    base, revision = models.resolve(job.recipe.base.model, job.models)
    site = job.site.train
    workers = Workers(count=1 if site.gpus else 0, cpus=site.cpus, gpus=site.gpus, threads=site.threads, batch=1,
                      timeout_s=EXPORT_S)  # fmt: skip
    make = partial(Exports, str(job.home), str(job.home / "training" / items[0].train_id), base, revision,
                   job.recipe.base.dtype, pick_device(job.device()), job.config.model_dump(mode="json"))  # fmt: skip
    yield from fleet.fan_out(make, items, workers, job.site.ray, job.spent)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines; nothing where there is none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def count_parameters(path: Path) -> int:
    """Numbers in a safetensors file, from its header alone."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
