"""latents -> adapter: HydraLoRA on the frozen base, resumable at any step; the input is pinned when a run starts.

Then its plain LoRA files for other tools: items of their own, so that one more format is one more file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ptta_core import columns as cols
from ptta_core.adapters import file_of
from ptta_core.config import Recipe
from ptta_core.duplicates import duplicate_groups
from ptta_core.holdout import choose
from ptta_core.ids import digest, digest_file, digest_set
from ptta_core.lease import Lease
from ptta_core.memo import Batch, Items, Job, StageError, stage
from ptta_core.prompts import labels_for, previewed
from ptta_core.rows import Adapter, Export, HeldOut, Preview, Router, Step
from ptta_core.training.exports import ExportItem, export, items_of
from ptta_core.view import View
from ptta_core.whole import write_whole

if TYPE_CHECKING:
    from ptta_core.training.previews import Plan

log = logging.getLogger("ptta")

PIN = "pin.json"
PIN_ROWS = 32  # latents read from the table at once: at most some 300 MB


@dataclass(frozen=True)
class TrainItem:
    """One training run. `keys` name the rows of its latents; empty when the run folder already holds them."""

    train_id: str
    input_id: str
    latents: int
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)  # key -> latent_id, bucket, labels
    held_out: frozenset[str] = frozenset()  # latent_ids that are only measured
    fresh: bool = False
    beginning: str = ""  # what all runs share whose steps are the same, however many

    @property
    def item_id(self) -> str:
        """The run."""
        return self.train_id


def with_exports(view: View) -> Items:
    """The run, and then the files of its adapter."""
    found = inputs(view)
    run: TrainItem = found.make([0])[0]
    items: list[TrainItem | ExportItem] = [run, *items_of(run.train_id, run.input_id, view.recipe)]
    return Items.of(items, "item_id", [one.input_id for one in items], found.note)


def inputs(view: View) -> Items:
    """One item: the current latents, or those that an unfinished run was pinned to."""
    columns = ["key", "latent_id", "clip_id", "bucket", "labels", "content_id"]
    table = view.rows("encode", columns)
    fingerprint, begins = view.fingerprint("train"), beginning_of(view)
    held_out, left_out = apart(view, table.to_pylist())
    input_id = digest_set(table["latent_id"].to_pylist())
    if held_out:
        input_id = digest(input_id, sorted(held_out), sorted(left_out))
    done = view.ledger("train").done
    pinned = None if view.options.fresh or input_id in done else unfinished(view, fingerprint, begins, done)
    if pinned and pinned["input_id"] != input_id:
        train_id = digest(fingerprint, pinned["input_id"])
        note = (f"finishing run {pinned['train_id'][:8]} on the {pinned['latents']} latents it was pinned to; the "
                f"current ones differ ({table.num_rows}). --fresh starts a new run instead")  # fmt: skip
        item = TrainItem(train_id, pinned["input_id"], pinned["latents"], beginning=begins)
        return Items.of([item], "train_id", [item.input_id], note)
    if not table.num_rows:
        raise StageError("train: there are no latents to learn from; see `ptta show admissions` and failures")
    keys = {row["key"]: row for row in table.to_pylist() if row["latent_id"] not in left_out}
    item = TrainItem(digest(fingerprint, input_id), input_id, len(keys), keys, frozenset(held_out), view.options.fresh,
                     begins)  # fmt: skip
    note = f"{len(held_out)} of {len(keys)} latents held out" if held_out else ""
    if left_out:
        note += f"; {len(left_out)} more left out: near-duplicates of learned ones"
    return Items.of([item], "train_id", [input_id], note)


def apart(view: View, latents: list[dict[str, Any]]) -> tuple[set[str], set[str]]:
    """(latents that are only measured, latents that are left out); see holdout.choose."""
    config = view.recipe.train
    if not config.holdout_share or not latents:
        return set(), set()
    clips = pa.array([row["clip_id"] for row in latents])
    spans = view.rows("split", ["clip_id", "source_id"], ordered=False)
    scores = view.rows("score", ["clip_id", "content_id"], ordered=False)
    sources = spans["source_id"].take(cols.where(clips, spans["clip_id"])).to_pylist()
    groups = duplicate_groups(view, scores)[np.asarray(cols.where(clips, scores["clip_id"]))].tolist()
    ids = [row["latent_id"] for row in latents]
    grouped = {latent_id: group for latent_id, group in zip(ids, groups) if group >= 0}
    return choose(dict(zip(ids, sources)), config.holdout_share, config.seed, grouped)


def beginning_of(view: View) -> str:
    """What would change any step of a run: its fingerprint but for the number of epochs."""
    return digest({name: value for name, value in view.parts("train").items() if name != "train.epochs"})


def unfinished(view: View, fingerprint: str, begins: str, done: dict[str, int]) -> dict[str, Any] | None:
    """The pin of this recipe's newest run that has begun and is not done, also one of other epochs."""

    def open_(path: Path, pin: dict[str, Any]) -> bool:
        if pin["fingerprint"] != fingerprint:
            return pin.get("beginning") == begins and not (path.parent / "adapter.safetensors").exists()
        return True

    pins = [(path, json.loads(path.read_text())) for path in (view.home / "training").glob(f"*/{PIN}")]
    mine = [pin for path, pin in pins if pin["recipe"] == view.recipe.name and pin["input_id"] not in done
            and not pin.get("abandoned") and open_(path, pin)]  # fmt: skip
    return max(mine, key=lambda pin: pin["at"], default=None)


def result_fields(recipe: Recipe) -> dict[str, Any]:
    """The section without what only shapes checkpoints and memory, and the base's precision."""
    from ptta_core.memo import result_fields as of_section

    own = {f"train.{name}": value for name, value in of_section(recipe.train).items()}
    return own | {"base.dtype": recipe.base.dtype, "base.storage": recipe.base.storage}


def first_adapter(recipe: Recipe, home: Path) -> dict[str, Any]:
    """The adapter that training begins with, by its bytes. Raises StageError where there is none."""
    asked = recipe.train.init_from
    return {"train.init_from": file_of(home, asked, "train.init_from").adapter_id if asked else None}


@stage(Adapter, version=2, id_field="item_id", inputs=with_exports, fields=result_fields, named=first_adapter,
       also=(Step, HeldOut, Router, Preview, Export), hold_lease=False,
       models=lambda recipe: [recipe.base.model])  # fmt: skip
def train(todo: list[TrainItem | ExportItem], job: Job) -> Iterator[Batch]:
    """Pin the input, train on Ray workers until the last step, record the adapter, and export it."""
    for item in todo:
        if isinstance(item, ExportItem):
            continue
        folder = job.home / "training" / item.train_id
        with Lease(job.home / "leases", f"training-{item.train_id[:16]}", None, job.say):  # one driver a run
            pin(folder, item, job)
            with in_the_tables(folder, item, job):
                fit(folder, item, job)
        yield [(item, adapter(folder, item, job))]
    if exports := [item for item in todo if isinstance(item, ExportItem)]:
        yield from export(exports, job)


@contextlib.contextmanager
def in_the_tables(folder: Path, item: TrainItem, job: Job) -> Iterator[None]:
    """What the run's workers measure is in the tables and in TensorBoard's files while the body runs, and after it."""
    from ptta_core.training.board import Board
    from ptta_core.training.importing import Importer, meanwhile

    def publish(rows: Sequence[tuple[str, Any]]) -> None:
        job.unfinished.publish(item, rows)

    def retract(noun: type, last: int) -> None:
        job.unfinished.retract(item, noun, f"step > {last}")

    with contextlib.closing(Board(folder)) as board, meanwhile(
        Importer(folder, item.train_id, publish, retract, board), job.site.commit_s
    ):
        yield


def pin(folder: Path, item: TrainItem, job: Job) -> None:
    """Write the run's samples into its folder once: from here on the run reads nothing else.

    What a run with other epochs has done already is taken over, unless a fresh one was asked for.
    """
    from ptta_core.memo import now
    from ptta_core.training import beginning

    folder.mkdir(parents=True, exist_ok=True)
    if item.fresh:
        beginning.begin_again(folder)
        abandon_others(folder, item, job)
    if (folder / PIN).exists():
        return
    if not item.fresh and (steps := beginning.take_over(folder, item.beginning, item.input_id, job.config)):
        job.say(f"going on from step {steps} of a run with other epochs")
    if not (folder / "index.json").exists():
        pin_samples(folder, item, job)
    record = {"train_id": item.train_id, "input_id": item.input_id, "fingerprint": job.fingerprint, "at": now(),
              "recipe": job.recipe.name, "latents": item.latents, "beginning": item.beginning}  # fmt: skip
    write_whole(folder / PIN, json.dumps(record).encode())


def pin_samples(folder: Path, item: TrainItem, job: Job) -> None:
    """Copy the samples from the table, and the adapter to begin with."""
    from ptta_core.training import dataset

    if job.config.init_from:
        first = file_of(job.home, job.config.init_from, "train.init_from")
        shutil.copyfile(first.path, folder / "init.safetensors")
    dataset.pin(folder, samples(item, job.store), item.held_out)


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
    for path in folder.parent.glob(f"*/{PIN}"):
        record = json.loads(path.read_text())
        mine = record.get("beginning") == item.beginning and record["recipe"] == job.recipe.name
        if mine and path.parent != folder:
            write_whole(path, json.dumps(record | {"abandoned": True}).encode())


def fit(folder: Path, item: TrainItem, job: Job) -> None:
    """Run the training workers; returns at once when the run's last step is done."""
    from ptta_core import models
    from ptta_core.training import launch, preview_apart
    from ptta_core.training.passes import Settings

    base, revision = models.resolve(job.recipe.base.model, job.models)
    known, workers = models.describe(job.recipe.base.model, job.models), job.site.train
    if workers.offload and not job.config.checkpointing:
        raise StageError("site.train.offload = true moves what train.checkpointing keeps: set both, or neither")
    settings = Settings(run_folder=str(folder), base=base, revision=revision, dtype=job.recipe.base.dtype,
                        device=job.device(), threads=workers.threads, config=job.config.model_dump(mode="json"),
                        metadata={"base": known, "recipe": job.recipe.name, "train_id": item.train_id,
                                  "base_storage": job.recipe.base.storage, "labels": list(job.recipe.caption.labels)} |
                                 origin(item, job) |
                        ({"init_from": digest_file(folder / "init.safetensors")} if job.config.init_from else {}),
                        shard=workers.shard, storage=job.recipe.base.storage, offload=workers.offload,
                        compile=workers.compile)  # fmt: skip
    if not (folder / "adapter.safetensors").exists():
        settings = replace(settings, previews=previews(folder, job, base, revision, known))
    with preview_apart.beside(settings, job.site.preview, workers, job.site.ray):
        launch.fit(settings, workers, job.site.ray, job.report)


def origin(item: TrainItem, job: Job) -> dict[str, Any]:
    """What the adapter's file says of where it comes from, beside the base's name; no paths."""
    from ptta_core.memo import result_fields as of_section

    settings = {name: value for name, value in of_section(job.config).items() if name != "init_from"}
    return {"base_revision": job.recipe.base.model.revision or "", "base_dtype": job.recipe.base.dtype,
            "latents": item.latents, "latents_digest": item.input_id, "train": settings}  # fmt: skip


def previews(folder: Path, job: Job, base: str, revision: str | None, known: str) -> Plan | None:
    """What is previewed while the run lasts; the prompts are embedded where they are not yet. None for nothing."""
    from ptta_core.training.previews import Plan, PromptEmbedder, PromptError, embed

    config, generate = job.config, job.recipe.generate
    if config.preview_every is None:
        return None
    sampling = {name: getattr(generate, name) for name in ("guidance", "shift", "frames", "height", "width")}
    prompts = tuple((one.text, labels_for(one, job.recipe)) for one in previewed(job.recipe))
    plan = Plan(config.preview_every, config.preview_share, prompts, tuple(config.preview_seeds),
                sampling | {"steps": config.preview_steps or generate.steps}, generate.fps, known,
                apart=job.site.preview is not None)  # fmt: skip
    workers = job.site.encode
    device = job.site.device if job.site.device != "auto" else "cuda" if workers.gpus > 0 else "cpu"
    make = partial(PromptEmbedder, str(folder), base, revision, job.recipe.base.dtype, device)
    try:
        embed(plan, make, folder, workers, job.site.ray)
    except PromptError as error:  # no reason not to train
        log.warning("train: there will be no previews: %s", error)
        return None
    return plan


def adapter(folder: Path, item: TrainItem, job: Job) -> Adapter:
    """The adapter, named by its bytes."""
    from ptta_core import models

    path = folder / "adapter.safetensors"
    lines = read_lines(folder / "metrics.jsonl")
    tail = [line["loss"] for line in lines[-max(1, len(lines) // 10) :]]
    return Adapter(
        adapter_id=digest_file(path), train_id=item.train_id, path=path.relative_to(job.home).as_posix(),
        latents=item.latents, latents_digest=item.input_id, steps=len(lines), final_loss=sum(tail) / len(tail),
        parameters=count_parameters(path), base=models.describe(job.recipe.base.model, job.models),
        base_revision=job.recipe.base.model.revision or "",
    )  # fmt: skip


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines; nothing where there is none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def count_parameters(path: Path) -> int:
    """Numbers in a safetensors file, from its header alone."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
