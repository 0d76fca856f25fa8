"""Recipe (what: everything that changes a result) and Site (where and how fast: nothing that changes a result).

Both are pydantic models, frozen, with extra fields forbidden. `load_recipe` and `load_site` read YAML by name
(deployments/recipes/NAME.yaml, deployments/sites/NAME.yaml) or by path and apply `section.field=value` overrides.
Every bad value raises ConfigError naming the field, the value and the choices.
"""

import difflib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from ptta_core import placements, variants
from ptta_core.clips_config import AdmitConfig, CaptionConfig, EncodeConfig
from ptta_core.judged_config import EvaluateConfig, GenerateConfig
from ptta_core.section import NOT_RESULT, ConfigError, ModelRef, Section
from ptta_core.site import PreviewWorker, RaySite, Site, TrainWorkers, Workers  # noqa: F401  (most ask for them here)

HOME = Path(__file__).resolve().parent.parent
DEPLOYMENTS = HOME / "deployments"


Model = TypeVar("Model", bound="Section")


TARGET = r"\s*(\d+(?:\.\d+)?)\s*(clips|h|%)\s*"  # of select.target


# ------------------------------------------------------------------------------------------------ recipe


class Folder(Section):
    """A folder of videos: a path, or `root:relative/path` under a root that the site names."""

    folder: str
    licence: str = ""
    provenance: str = ""  # where the footage comes from, in words or as an address
    exclude: list[str] = []  # glob patterns relative to the folder


class SourcesConfig(Section):
    """Where the footage is. With no folder and a `cartoon` seed, the built-in cartoon is drawn and used."""

    folders: list[Folder] = []
    cartoon: int | None = Field(None, ge=0)
    extensions: list[str] = ["mp4", "mkv", "mov", "webm", "avi", "m4v", "ts", "mpg", "mpeg", "wmv", "flv", "ogv"]


class SplitConfig(Section):
    """How a source is cut into clips."""

    # steps: our own; adaptive and content: PySceneDetect's rules; transnetv2: a network, which needs `model`
    detector: Literal["steps", "adaptive", "content", "transnetv2"] = "steps"
    model: ModelRef | None = None
    transnet_threshold: float = Field(0.5, gt=0, lt=1)  # a likelihood above it is a transition; 0.5 is its authors'
    threshold: float | None = Field(None, gt=0)  # steps, adaptive: ratio to the neighbourhood; content: mean HSV change
    min_content: float = Field(15.0, ge=0)  # adaptive only: the least HSV change of a cut
    dissolves: bool = True  # look for them too
    fade_threshold: float = Field(12.0, ge=0, le=63)  # a picture within this mean luma of black or white is blank
    flash_s: float = Field(0.35, ge=0)  # two cuts this close around the same picture are a flash
    width: int = Field(160, ge=64)  # px; frames are downscaled to this width for detection
    crop_borders: bool = True  # record the picture inside black borders as the clip's crop
    min_border: float = Field(0.02, gt=0, lt=0.5)  # share of a side: thinner black borders stay
    cleanup: Literal["auto", "none"] = "auto"  # auto: interlaced and telecined sources are undone, combed ones fail
    min_clip_s: float = Field(1.0, gt=0)
    max_clip_s: float = Field(10.0, gt=0)

    @model_validator(mode="after")
    def _bounds(self) -> "SplitConfig":
        if self.max_clip_s < self.min_clip_s:
            raise ValueError(f"max_clip_s {self.max_clip_s} is below min_clip_s {self.min_clip_s}")
        if self.detector == "transnetv2" and self.model is None:
            raise ValueError("split.detector transnetv2 needs split.model (id and revision)")
        return self

    @property
    def cut_threshold(self) -> float:
        """`threshold`, or the detector's own; transnetv2 has none, but `transnet_threshold`."""
        return self.threshold or {"steps": 2.0, "adaptive": 3.0, "content": 27.0}[self.detector]


class ScoreConfig(Section):
    """How motion and looks are measured (see docs/decisions.md for the units)."""

    motion: Literal["dis", "raft"] = "dis"
    motion_model: ModelRef | None = None
    motion_dtype: Literal["fp32", "bf16"] = "fp32"  # of raft
    gap_s: float = Field(0.625, gt=0)
    height: int = Field(320, ge=64)
    width: int = Field(576, ge=64)
    aesthetic: Literal["classical", "laion-v2"] = "classical"
    aesthetic_model: ModelRef | None = None
    aesthetic_head: ModelRef | None = None
    aesthetic_crop: Literal["centre", "whole"] = "centre"  # laion-v2: CLIP's own crop, or a wide picture squeezed
    thumbnail_px: Annotated[int, Field(ge=32, le=512, json_schema_extra=NOT_RESULT)] = 192


class SelectConfig(Section):
    """Keep a clip when S = alpha * motion_px + (1 - alpha) * aesthetic >= theta, within the bounds and the rule."""

    alpha: float = Field(0.7, ge=0, le=1)
    theta: float = 10.0
    target: str = ""  # "12000 clips", "10 h" or "20 %": solves for theta, which is then not read
    max_motion_px: float | None = Field(None, gt=0)
    min_aesthetic: float | None = None
    rule: str = ""  # conditions over columns: "static_share < 0.9 and text_share < 0.2"
    licences: list[str] = []  # of sources; empty: any
    max_per_source: int | None = Field(None, ge=1)  # the best S of each source
    duplicates: Literal["keep", "drop"] = "drop"  # drop: of near-duplicates only the best S is kept
    duplicate_distance: float = Field(0.13, ge=0, le=0.25)  # share of differing bits of two clips' phash

    @field_validator("rule")
    @classmethod
    def _rule(cls, text: str) -> str:
        if text:
            from ptta_core.expression import parse  # not at the top: it would make every start a quarter second slower
            from ptta_core.rows import SELECTABLE

            parse(text, SELECTABLE)
        return text

    @field_validator("target")
    @classmethod
    def _target(cls, text: str) -> str:
        if text and not re.fullmatch(TARGET, text):
            raise ValueError(f"target {text!r} is none of '12000 clips', '10 h', '20 %'")
        return text


class BaseConfig(Section):
    """The text-to-video model that is adapted; HunyuanVideo in diffusers' layout."""

    model: ModelRef = ModelRef(id="tiny:hunyuan", revision="0")
    dtype: Literal["bfloat16", "float32"] = "bfloat16"  # what it computes in
    storage: Literal["dtype", "fp8"] = "dtype"  # fp8: the transformer's large weights in 8-bit floats


class TrainConfig(Section):
    """HydraLoRA: one shared A, `branches` B. Rank and LoRA alpha are not published: our defaults."""

    rank: int = Field(16, ge=1)
    lora_alpha: float = Field(16.0, gt=0)
    branches: int = Field(4, ge=1)
    gate: Literal["token", "sample", "label", "static"] = "token"
    placement: str = "non_attention"  # see placements.py: a name, or "regex:..."
    learning_rate: float = Field(2e-5, gt=0)
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"  # adamw8bit: its moments in a quarter of the memory
    epochs: int = Field(2, ge=1)
    batch: int = Field(4, ge=1)  # global, independent of the number of workers
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    shift: float = Field(7.0, gt=0)
    guidance: float = 1.0
    checkpointing: Annotated[bool, Field(json_schema_extra=NOT_RESULT)] = True  # activation checkpointing
    router_label_weight: float = Field(0.0, ge=0)  # of the cross entropy between gates and the clip's labels
    balance_weight: float = Field(0.0, ge=0)  # of what keeps routers from using one branch more than another
    temporal_loss_weight: float = Field(0.0, ge=0)  # of the error in how the velocity changes between latent frames
    ema_decay: float = Field(0.0, ge=0, lt=1)  # of the exported average of the weights; 0 exports the last weights
    holdout_share: float = Field(0.0, ge=0, le=0.5)  # of the latents, by whole sources: never learned, only measured
    # an adapter to go on from: a file, our own or a plain LoRA with the names of diffusers or ComfyUI, or one of the
    # workspace: an id, a name, or last
    init_from: str | None = None
    # plain LoRA files beside the adapter, each loaded again and compared; another list trains nothing again
    export: Annotated[list[Literal["diffusers", "comfyui", "branches"]], Field(json_schema_extra=NOT_RESULT)] = [
        "diffusers", "comfyui"]  # fmt: skip
    seed: int = Field(0, ge=0)
    checkpoint_every: Annotated[int, Field(ge=1, json_schema_extra=NOT_RESULT)] = 50  # steps; held-out loss as often
    keep_every: Annotated[int | None, Field(ge=1, json_schema_extra=NOT_RESULT)] = None  # steps; for ever, also older
    router_every: Annotated[int, Field(ge=1, json_schema_extra=NOT_RESULT)] = 50  # steps; every layer's gates by label
    preview_every: Annotated[int | None, Field(ge=1, json_schema_extra=NOT_RESULT)] = None  # steps, from step 0 on
    preview_prompts: Annotated[str | list[str] | None, Field(json_schema_extra=NOT_RESULT)] = None  # generate's first 2
    preview_seeds: Annotated[list[int], Field(min_length=1, json_schema_extra=NOT_RESULT)] = [0]
    preview_steps: Annotated[int | None, Field(ge=1, json_schema_extra=NOT_RESULT)] = None  # of sampling; as generate
    preview_share: Annotated[float, Field(gt=0, json_schema_extra=NOT_RESULT)] = 0.05  # of the training time, at most
    stop_on_divergence: Annotated[float, Field(ge=0, json_schema_extra=NOT_RESULT)] = 5.0  # times the median; 0: never
    stop_on_collapse: Annotated[float, Field(ge=0, lt=1, json_schema_extra=NOT_RESULT)] = 0.02  # evenness; 0: never
    stop_after: Annotated[int, Field(ge=1, json_schema_extra=NOT_RESULT)] = 20  # steps in a row

    @field_validator("placement")
    @classmethod
    def _placement(cls, text: str) -> str:
        placements.parse(text)
        return text

    @model_validator(mode="after")
    def _supervised(self) -> "TrainConfig":
        asked = [name for name in ("router_label_weight", "balance_weight") if getattr(self, name)]
        if asked and (self.gate not in ("token", "sample") or self.branches == 1):
            raise ValueError(f"{asked[0]} needs a router that reads the clip: gate token or sample, 2 or more "
                             f"branches, not {self.gate} and {self.branches}")  # fmt: skip
        return self


class Recipe(Section):
    """Everything that changes a result: sources and one section a stage."""

    name: str = ""
    description: str = ""
    max_failed_share: float = Field(0.5, ge=0, le=1)
    until: Literal["admit", "train", "evaluate"] = "evaluate"  # the last stage that the recipe asks for
    accept_licences: list[str] = []  # licences of models that the user has read and accepted, by name
    sources: SourcesConfig = SourcesConfig()
    split: SplitConfig = SplitConfig()
    score: ScoreConfig = ScoreConfig()
    select: SelectConfig = SelectConfig()
    caption: CaptionConfig = CaptionConfig()
    admit: AdmitConfig = AdmitConfig()
    base: BaseConfig = BaseConfig()
    encode: EncodeConfig = EncodeConfig()
    train: TrainConfig = TrainConfig()
    generate: GenerateConfig = GenerateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _one_label_a_branch(self) -> "Recipe":
        train, labels = self.train, self.caption.labels
        reads = [f"train.{name} = {value!r}" for name, value in (("gate", train.gate), ("router_label_weight",
                 train.router_label_weight)) if value == "label" or (name != "gate" and value)]  # fmt: skip
        if reads and train.branches not in (1, len(labels)):
            raise ValueError(f"{reads[0]} takes one label a branch: train.branches is {train.branches}, caption.labels "
                             f"{len(labels)} ({', '.join(labels)}); set train.branches={len(labels)} or name "
                             f"{train.branches} labels")  # fmt: skip
        return self

    def exports(self) -> list[variants.Form]:
        """The plain LoRA files that are made of the adapter: train.export's, and what generate.variants needs.

        Raises ValueError for a branch that the adapter will not have.
        """
        names = variants.branch_names(self.train.gate, self.train.branches, self.caption.labels)
        return variants.forms(self.train.export, self.generate.variants, names)

    @model_validator(mode="after")
    def _branches(self) -> "Recipe":
        self.exports()
        return self

    def models(self) -> dict[str, ModelRef]:
        """Every model the recipe uses, by the field that names it; the base only where there is something to encode."""
        found = {} if self.until == "admit" else {"base.model": self.base.model}
        if self.split.detector == "transnetv2" and self.split.model:
            found["split.model"] = self.split.model
        if self.score.motion == "raft" and self.score.motion_model:
            found["score.motion_model"] = self.score.motion_model
        if self.score.aesthetic == "laion-v2":
            for field in ("aesthetic_model", "aesthetic_head"):
                if ref := getattr(self.score, field):
                    found[f"score.{field}"] = ref
        if self.caption.model and self.caption.captioner == "transformers":
            found["caption.model"] = self.caption.model
        if "videoscore" in self.evaluate.judges and self.evaluate.videoscore:
            found["evaluate.videoscore"] = self.evaluate.videoscore
        return found


# --------------------------------------------------------------------------------------------- loading


def load_recipe(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe by name or path, with overrides such as {"select.theta": 8}. Raises ConfigError."""
    path = _find(name, "recipes")
    return _build(Recipe, {"name": path.stem, **_read_yaml(path)}, overrides or {}, f"recipe {path.stem}")


def load_site(name: str, overrides: dict[str, Any] | None = None) -> Site:
    """A site by name or path. Environment variables in roots and workspace are expanded. Raises ConfigError."""
    path = _find(name, "sites")
    data = {"name": path.stem, **_read_yaml(path)}
    data |= {key: value for key, value in (overrides or {}).items() if key == "workspace"}
    if isinstance(data.get("workspace"), str):
        data["workspace"] = _expand(data["workspace"])
    if isinstance(data.get("roots"), dict):
        data["roots"] = {key: _expand(str(value)) for key, value in data["roots"].items()}
    return _build(Site, data, overrides or {}, f"site {path.stem}")


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """["select.theta=8"] as {"select.theta": 8}; values are JSON or, failing that, text. Raises ConfigError."""
    found: dict[str, Any] = {}
    for pair in pairs:
        field, sign, value = pair.partition("=")
        if not sign or not field:
            raise ConfigError(f"override {pair!r} is not of the form section.field=value")
        try:
            found[field] = json.loads(value)
        except json.JSONDecodeError:
            found[field] = value
    return found


def names(kind: Literal["recipes", "sites", "prompts"]) -> list[str]:
    """The names shipped in deployments/KIND."""
    return sorted(path.stem for path in (DEPLOYMENTS / kind).glob("*") if path.suffix in {".yaml", ".jsonl"})


def _find(name: str, kind: Literal["recipes", "sites"]) -> Path:
    path = Path(name).expanduser()
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise ConfigError(f"no such {kind[:-1]} file: {name}")
        return path
    path = DEPLOYMENTS / kind / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"no {kind[:-1]} named {name!r}; choices: {', '.join(names(kind))}, or a path to a .yaml file"
        )
    return path


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not valid YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path.name} must hold fields, not a {type(data).__name__}")
    return data


def _expand(text: str) -> str:
    """Environment variables in a path. Raises ConfigError for one that is not set."""
    expanded = os.path.expandvars(text)
    if "$" in expanded:
        raise ConfigError(f"{text!r} names an environment variable that is not set")
    return expanded


def _build(model: type[Model], data: dict[str, Any], overrides: dict[str, Any], what: str) -> Model:
    defaults = model().model_dump(mode="json")
    for dotted, value in overrides.items():
        target = data
        default: Any = defaults
        *parents, last = dotted.split(".")
        for depth, parent in enumerate(parents):
            default = default.get(parent) if isinstance(default, dict) else None
            below = target.setdefault(parent, dict(default) if isinstance(default, dict) else {})
            if not isinstance(below, dict):
                raise ConfigError(f"{what}: override {dotted!r}: {'.'.join(parents[: depth + 1])} has no fields")
            target = below
        target[last] = value
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(model, what, one) for one in error.errors())) from error


def _explain(model: type[Section], what: str, error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = fields_at(model, [str(part) for part in error["loc"][:-1]])
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"{what}: unknown field {where} = {error['input']!r}{hint} Choices: {', '.join(known)}"
    if error["type"] == "secret":
        return f"{what}: {where}: {error['msg']}"
    return f"{what}: {where or 'recipe'} = {error['input']!r}: {error['msg']}"


def fields_at(model: type[Section], path: list[str]) -> list[str]:
    """The field names below a dotted place of a model; [] where it has none."""
    for part in path:
        if part.isdigit():
            continue
        field = model.model_fields.get(part)
        below = _section_of(field.annotation) if field else None
        if below is None:
            return []
        model = below
    return list(model.model_fields)


def _section_of(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if found := _section_of(inner):
            return found
    return None
