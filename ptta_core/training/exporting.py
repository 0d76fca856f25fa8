"""An adapter as plain LoRA files for other tools, each loaded again and compared before it gets its name."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ptta_core import ids, variants
from ptta_core.config import TrainConfig
from ptta_core.models import hydralora, lora_files
from ptta_core.rows import Export
from ptta_core.training.calibrate import Compared, Probe
from ptta_core.variants import Form

WEIGHT_TOLERANCE = 1e-4  # float32 on both sides: only sums in another order
OUTPUT_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}  # of the velocity: rounding, through every block


class ExportDiffers(ValueError):
    """A file, loaded again, does not compute what it was made of."""

    kind = "export_differs"


class NoSamples(ValueError):
    """A gate that depends on its input has no mean without the samples of its training run."""

    kind = "no_samples"


@dataclass(frozen=True)
class Made:
    """A file that was written. compared: None where there was nothing to compare it on."""

    path: Path
    mix: dict[str, float]  # share of each branch, mean over layers
    note: str
    compared: Compared | None


class Exporter:
    """One adapter, and the base that its files are compared on, loaded when the first one is.

    adapter: the native file. run_folder: its training run's, with the pinned samples, or None: then files are written
    without a comparison, and only those whose gates are known without samples. config: TrainConfig.model_dump().
    """

    def __init__(
        self, adapter: str | Path, run_folder: str | Path | None, base: str, revision: str | None, dtype: str,
        device: str, config: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.adapter, self.dtype = Path(adapter), dtype
        self.config = hydralora.read_config(adapter)
        self.names = branch_names(self.config)
        self.adapter_id = ids.digest_file(self.adapter)
        self._probe = None if run_folder is None else functools.partial(
            Probe, adapter, run_folder, base, revision, dtype, device, TrainConfig(**config))  # fmt: skip

    @functools.cached_property
    def probe(self) -> Probe | None:
        """The base with the adapter; None without samples."""
        return self._probe() if self._probe else None

    @functools.cached_property
    def mean_gates(self) -> dict[str, list[float]]:
        """See Probe.mean_gates. Raises NoSamples."""
        if self.probe is None:
            raise NoSamples("the training samples of this adapter are gone: its mean gate cannot be measured")
        return self.probe.mean_gates()

    def write(self, form: Form, path: Path) -> Made:
        """Write one file, whole or not at all. Raises ExportDiffers, NoSamples, ValueError for unknown branches."""
        weights = form.weights(self.names)
        mixes = lora_files.gates(self.adapter, weights) or self.mean_gates
        pairs = lora_files.merged(self.adapter, mixes)
        tensors = lora_files.comfyui_keys(pairs) if form.comfyui else lora_files.diffusers_keys(pairs)
        about = self.about(form, mixes)
        compared = None
        if self.probe is not None:
            trial = path.with_name(f".{path.name}.trial")
            try:
                lora_files.write(trial, tensors, about)
                compared = self.probe.compare(trial, pairs, mixes)
            finally:
                trial.unlink(missing_ok=True)
            self.must_agree(form, compared)
            about |= compared._asdict()
        lora_files.write(path, tensors, about)
        mean = [sum(column) / len(mixes) for column in zip(*mixes.values())]
        return Made(path, dict(zip(self.names, mean)), note(form, self.config), compared)

    def must_agree(self, form: Form, compared: Compared) -> None:
        """Raises ExportDiffers where more than rounding lies between a file and what it was made of."""
        if compared.weight_error <= WEIGHT_TOLERANCE and compared.output_error <= OUTPUT_TOLERANCE[self.dtype]:
            return
        raise ExportDiffers(f"{form.variant}, loaded by {compared.loader}: single Linears differ by "
                            f"{compared.weight_error:.2g} (at most {WEIGHT_TOLERANCE:g}), velocities by "
                            f"{compared.output_error:.2g} (at most {OUTPUT_TOLERANCE[self.dtype]:g})")  # fmt: skip

    def about(self, form: Form, mixes: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """The file's header: what the adapter's own says (base, data, recipe, metrics), and which form this is."""
        own = {name: self.config[name] for name in hydralora.CONFIG_KEYS}
        return {"adapter_id": self.adapter_id, "variant": form.variant, "adapter": own, "branch_names": self.names,
                "names": "comfyui" if form.comfyui else "diffusers", "mix": note(form, self.config),
                "mixes": dict(mixes), **self.config["metadata"]}  # fmt: skip


class HasForm(Protocol):
    """An item of a stage."""

    @property
    def form(self) -> Form: ...


class Exports:
    """One worker of a stage: the adapter of a run, the base, and files beside the adapter. See Exporter."""

    def __init__(self, home: str, run_folder: str, *about: Any) -> None:
        self.home, self.folder = Path(home), Path(run_folder)
        self.exporter = Exporter(self.folder / "adapter.safetensors", self.folder, *about)

    def __call__(self, items: Sequence[HasForm]) -> list[Export]:
        """One row an item, its file written whole. Raises errors of kind export_differs, and OSError."""
        return [self.one(item.form) for item in items]

    def one(self, form: Form) -> Export:
        """Write one file."""
        path = self.folder / f"adapter-{form.file_name}.safetensors"
        made = self.exporter.write(form, path)
        assert made.compared is not None  # the samples are there as long as the run's folder is
        return Export(
            ids.digest_file(path), self.exporter.adapter_id, form.variant, path.relative_to(self.home).as_posix(),
            ids.canonical(made.mix), made.compared.loader, made.compared.error, made.compared.output_error, made.note,
        )  # fmt: skip


def branch_names(config: Mapping[str, Any]) -> list[str]:
    """Of a native file's header: the labels of a label gate, else branch0, branch1, ..."""
    return variants.branch_names(config["gate"], config["branches"], config["metadata"].get("labels") or [])


def note(form: Form, config: Mapping[str, Any]) -> str:
    """What a file's gates are, in words."""
    if form.shares:
        alone = len(form.shares) == 1
        return f"branch {form.shares[0][0]} alone, for set_adapters with weights that sum to 1" if alone else (
            "the mix asked for")  # fmt: skip
    if config["branches"] == 1 or config["gate"] == "static":
        return "exact"
    return "exact for the mean labels of training" if config["gate"] == "label" else (
        "the mean gate over training samples")  # fmt: skip


def header(path: str | Path) -> dict[str, Any]:
    """What a file of ours says of itself. Raises ValueError for others."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        told = (file.metadata() or {}).get(lora_files.HEADER_KEY)
    if told is None:
        raise ValueError(f"{path} was not exported by ptta: its header has no {lora_files.HEADER_KEY}")
    return json.loads(told)
