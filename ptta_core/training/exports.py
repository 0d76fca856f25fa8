"""The files that train makes of its adapter for other tools: what there is to write, and the worker that writes it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from ptta_core import fleet
from ptta_core.config import Recipe, Workers
from ptta_core.ids import digest
from ptta_core.memo import Batch, Job
from ptta_core.variants import Form

EXPORT_S = 3600.0  # for one file: the base goes through some training samples four times
EXPORT_VERSION = 1  # raise it whenever other files would be written


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


def items_of(train_id: str, input_id: str, recipe: Recipe) -> list[ExportItem]:
    """One item a file that the recipe asks for."""
    return [ExportItem(train_id, digest(input_id, EXPORT_VERSION, form.variant), form) for form in recipe.exports()]


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
