"""One schema a noun: what every Lance table holds, as frozen dataclasses with units in their names.

`NOUNS` maps a table's name to its row class. The memo adds its own columns (`MEMO_COLUMNS`) to every noun that a
stage writes; the bookkeeping nouns (done, failures, runs, ...) carry their own.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, NewType, get_type_hints

import pyarrow as pa

VECTOR_WIDTH = 768  # of CLIP ViT-L/14; a vector column has one width, or it cannot be indexed
Vector = NewType("Vector", list)  # float32, VECTOR_WIDTH of them


@dataclass(frozen=True)
class File:
    """A file seen in a source folder, readable or not; two identical files are two rows and one source."""

    path: str  # "root:relative/path" under a named root, else absolute
    size: int  # bytes
    mtime_ns: int
    inode: int
    source_id: str  # "" when the bytes could not be read
    status: str  # ok | unreadable | removed


@dataclass(frozen=True)
class Source:
    """A video by its bytes."""

    source_id: str
    path: str
    duration_s: float
    fps: float  # average; a variable rate is possible
    width: int  # as shown: after rotation and with square pixels
    height: int
    frames: int  # as the container claims; 0 when it does not say
    codec: str
    container: str
    licence: str  # as the recipe names it for the folder, "" when it does not say
    provenance: str  # where the footage comes from, as the recipe says


@dataclass(frozen=True)
class Clip:
    """A span of a source: nothing is transcoded. Frames with start_pts <= pts < end_pts belong to it."""

    clip_id: str
    source_id: str
    start_s: float
    end_s: float
    start_pts: int
    end_pts: int
    time_base: str  # "1/12288"
    stream: int
    crop: str  # "x,y,w,h" in shown pixels, "" for the whole picture
    cleanup: str  # "" | deinterlace | deinterlace bff | detelecine: what video.read_frames undoes
    frames: int  # decoded frames in the span
    begins_with: str  # start | cut | fade | dissolve | max_length: why the clip begins here
    ends_with: str  # end | cut | fade | dissolve | max_length


@dataclass(frozen=True)
class Score:
    """What was measured on a clip; nothing here decides."""

    clip_id: str
    motion_px: float  # mean flow length per 0.625 s (score.gap_s) at 320 x 576
    motion_p95_px: float  # 95th percentile over pixels, mean over pairs
    object_px: float  # mean flow length per gap that is left without the camera's motion
    pairs: int  # frame pairs measured
    static_share: float  # 0..1 of the pairs that hardly move
    saturated: bool  # some pair moved over 80 px: the flow reads too low
    timing: str  # ones | twos | threes | mixed | still
    pan_x_px: float  # global camera translation per gap; positive: the picture moves right
    pan_y_px: float  # positive: the picture moves down
    zoom: float  # scale factor per second; 1 = none
    rotation_deg_s: float  # of the picture; positive: clockwise
    flicker: float  # mean deviation of the frames' mean luma (0..255) from its running mean over 0.25 s
    aesthetic: float  # 1..10
    aesthetic_frames: list[float]
    brightness: float  # mean luma 0..1
    colourfulness: float  # Hasler-Suesstrunk, about 0..110
    sharpness: float  # variance of the Laplacian on 8-bit luma
    palette: str  # "blue, white, orange": most common first
    blur: float  # 0 sharp .. 1 blurred (Crete et al. 2007); the frames' mean
    black_share: float  # 0..1 of the frames that are black
    longest_hold_s: float  # the longest time without a visible change
    text_share: float  # 0..1 of the picture under subtitles, titles or credits, where most is seen
    text_box: str  # "x,y,w,h" in shown pixels around that text, "" for none
    overlay: float  # 0..1: how surely a still logo or watermark lies near a corner
    static_box: str  # "x,y,w,h" in shown pixels of that logo when likelier than not, else ""
    phash: str  # perceptual hash of five frames, 80 hexadecimal digits: near-duplicates differ in few bits
    motion_backend: str
    aesthetic_backend: str


@dataclass(frozen=True)
class Thumbnail:
    """The middle frame of a clip, small, for people."""

    clip_id: str
    jpeg: bytes


@dataclass(frozen=True)
class Embedding:
    """What CLIP sees in a clip: the mean of its frames' image embeddings, for search and near-duplicates."""

    clip_id: str
    vector: Vector  # of length 1; a model narrower than 768 is filled up with zeros, which changes no distance
    model: str  # id and revision


@dataclass(frozen=True)
class Selected:
    """What select decided about one clip, and why."""

    selection_id: str
    clip_id: str
    score: float  # S = alpha * motion_px + (1 - alpha) * aesthetic
    kept: bool
    reason: str


@dataclass(frozen=True)
class Caption:
    """What a window of a clip shows, in words."""

    caption_id: str
    clip_id: str
    text: str
    labels: str  # JSON object label -> share, from the captioner or the words (labels.py); "" when unknown
    captioner: str
    start_s: float = 0.0  # the part of the source that it speaks of
    end_s: float = 0.0
    subject: str = ""  # this and the next four: of a structured caption (caption.structured), "" where not known
    action: str = ""
    setting: str = ""
    style: str = ""
    camera: str = ""
    cut: bool = False  # the model had not ended when caption.max_new_tokens were spent


@dataclass(frozen=True)
class Admission:
    """What admit decided about one caption, and why."""

    admission_id: str
    clip_id: str
    caption_id: str
    kept: bool
    reason: str
    flags: str = ""  # "repetition, cut": what may be wrong with it (flags.py), whatever was decided


@dataclass(frozen=True)
class Latent:
    """What the model learns from: one window of a clip and its prompt, encoded."""

    latent_id: str
    clip_id: str
    caption_id: str
    bucket: str  # "frames x height x width" in pixels, for instance 33x512x512
    start_s: float  # the window, in source time
    end_s: float
    text_tokens: int  # real tokens kept
    prompt: str  # trigger + caption + suffix
    labels: str  # copied from the caption for the label gate
    tensors: bytes  # safetensors: latents [C,T,H/8,W/8], text [L,D], pooled [P]
    frames: int = 0  # in the window
    shown_s: float = 0.0  # how long the model sees them: frames / encode.fps
    speed: float = 1.0  # (end_s - start_s) / shown_s: above 1 in a time-lapse (encode.window uniform)
    held: int = 0  # frames at encode.fps that the whole clip holds
    text_cut: int = 0  # tokens of the prompt that did not fit


@dataclass(frozen=True)
class Decoded:
    """What the model sees of a clip: the first, middle and last picture of a decoded latent, for people."""

    latent_id: str
    clip_id: str
    bucket: str
    jpeg: bytes


@dataclass(frozen=True)
class Adapter:
    """A trained adapter: a file in the workspace, named by its bytes."""

    adapter_id: str
    train_id: str  # hash of the pinned latents and the train section
    path: str  # relative to the workspace
    latents: int
    latents_digest: str
    steps: int
    final_loss: float  # mean over the last tenth of the steps
    parameters: int
    base: str
    base_revision: str


@dataclass(frozen=True)
class Export:
    """An adapter as a plain LoRA file for other tools, loaded again and compared with the adapter."""

    export_id: str  # hash of the file's bytes
    adapter_id: str
    variant: str  # adapter:diffusers | adapter:comfyui | branch:NAME | mix:NAME=SHARE,NAME=SHARE
    path: str  # relative to the workspace
    mix: str  # JSON object branch -> share, mean over layers
    loader: str  # what read the file: diffusers and its version, or ptta
    error: float  # of the velocity beside the adapter's, over the adapter's effect: 0 the same .. 1 like no adapter
    output_error: float  # of the velocity beside the adapter's under the file's gates, relative: rounding only
    note: str


@dataclass(frozen=True)
class Step:
    """One optimiser step of a training run."""

    train_id: str
    step: int
    loss: float
    grad_norm: float
    lr: float
    gate_mean: list[float]  # per branch, mean over layers
    gate_entropy: float  # nats, mean over layers
    step_s: float
    gate_evenness: float = 1.0  # entropy of the mean gate of late steps over ln N, mean over layers: 0 one branch .. 1
    branch_cosine: float = 0.0  # between the B of two branches, mean over pairs and layers; 0 while they are zero
    dead_branches: float = 0.0  # a layer: branches used less than a tenth of an even share
    data_s: float = 0.0  # of step_s, on the first worker: waiting for samples
    forward_s: float = 0.0
    backward_s: float = 0.0  # with activations that are computed again; where the model is sharded, with its gathering
    sync_s: float = 0.0  # summing over the workers, and waiting for the slowest
    optimizer_s: float = 0.0


@dataclass(frozen=True)
class Router:
    """What one layer's gates were over the steps since the last such row, over all samples or those with a label."""

    train_id: str
    step: int
    layer: str
    label: str  # "": every sample
    samples: float  # the samples' shares of the label, added up
    gate_mean: list[float]  # per branch
    gate_entropy: float  # nats, 0 (one branch decides) .. ln N
    branch_cosine: float  # of the layer, as in steps
    dead_branches: int  # of the layer


@dataclass(frozen=True)
class HeldOut:
    """The loss on clips that were held out, after some steps of a training run, at one point of the noise scale."""

    train_id: str
    step: int
    quarter: int  # of the distribution of t in training: 0 (least noise) .. 3
    t: float  # 0 (clean) .. 1 (noise), the middle of the quarter
    loss: float  # mean squared error of the velocity, mean over samples
    samples: int


@dataclass(frozen=True)
class Preview:
    """A video of a training run's adapter as it was after some steps; or why there is none."""

    train_id: str
    due: int  # after how many steps it was to be made
    step: int  # after how many steps it was made: later where previews had taken their share of the time
    prompt: str  # "" where there is no video
    seed: int
    path: str  # relative to the workspace, "" where there is none
    video_sha: str
    frames: int
    height: int
    width: int
    fps: float
    labels: str  # JSON object label -> share that a label gate read, "" for every other gate
    seconds: float  # that all videos of this step took
    note: str  # "" or why there is no video


@dataclass(frozen=True)
class Generation:
    """A generated video: a file in the workspace."""

    generation_id: str
    variant: str  # base | adapter | one of exports
    adapter_id: str  # "" for the base
    prompt: str
    seed: int
    path: str  # relative to the workspace
    video_sha: str
    frames: int
    height: int
    width: int
    fps: float
    base: str
    labels: str = ""  # JSON object label -> share that a label gate read, "" for every other gate and the base


@dataclass(frozen=True)
class Verdict:
    """One judge's value for one dimension of one video."""

    verdict_id: str
    generation_id: str
    variant: str
    prompt: str
    seed: int
    judge: str
    dimension: str
    value: float


@dataclass(frozen=True)
class Failure:
    """A bad item: a row, never a crash and never a sentinel. Cleared by a later success."""

    item_id: str
    path: str
    stage: str
    kind: str  # missing | unreadable | no_clips | timeout | crashed | exited | out_of_memory | error
    message: str
    attempt: int
    retryable: bool
    fingerprint: str
    input_id: str
    at: str  # ISO 8601, UTC


@dataclass(frozen=True)
class Done:
    """Written after an item's outputs; alone means done. n_outputs may be 0."""

    stage: str
    fingerprint: str
    input_id: str
    attempt: int
    n_outputs: int
    at: str


@dataclass(frozen=True)
class Fingerprint:
    """What a fingerprint was made of, so that a dry run can say why something is recomputed."""

    stage: str
    fingerprint: str
    parts: str  # canonical JSON


@dataclass(frozen=True)
class Edit:
    """A person's word about a clip, a source or an adapter; the newest wins over every rule and every model."""

    clip_id: str  # or a source_id, for the field removed; or an adapter_id, for name, unname and trained_on_removed
    field: str  # selection | caption | caption@SECONDS (of a window) | removed | trained_on_removed | name | unname
    value: str  # selection: keep | veto | "" (neither any more); caption: text | "" (the model's again); removed: why;
    #             name and unname: what it is called
    author: str
    at: str


@dataclass(frozen=True)
class Run:
    """One run of some stages of a recipe; a run is a row when it starts and another when it ends."""

    run_id: str
    recipe: str
    status: str  # running | completed | failed
    at: str
    recipe_json: str
    fingerprints: str  # JSON stage -> fingerprint
    inputs: str  # JSON stage -> the input ids it resolved to, or how many and their digest where they are very many
    stages: str  # JSON stage -> computed, reused, failed, seconds
    versions: str  # JSON table -> Lance version at that time
    rows_digest: str  # hash of the content ids that the run read and wrote
    message: str
    report: str  # relative to the workspace, "" before it is written


NOUNS: dict[str, type] = {
    "files": File, "sources": Source, "clips": Clip, "scores": Score, "thumbnails": Thumbnail,
    "embeddings": Embedding, "selection": Selected, "captions": Caption, "admissions": Admission, "latents": Latent,
    "decoded": Decoded, "adapters": Adapter, "exports": Export,
    "steps": Step, "routers": Router, "held_out": HeldOut, "previews": Preview,
    "generations": Generation, "verdicts": Verdict,
    "failures": Failure, "done": Done, "fingerprints": Fingerprint, "edits": Edit, "runs": Run,
}  # fmt: skip
TABLE_OF: dict[type, str] = {row: name for name, row in NOUNS.items()}
BOOKKEEPING = ("failures", "done", "fingerprints", "edits", "runs")

# key: hash(fingerprint, item, attempt), the one key column; item_id: what the row is about;
# input_id: hash of everything the item read; content_id: hash of the row's own values
MEMO_COLUMNS = ("key", "fingerprint", "item_id", "input_id", "attempt", "content_id")

_ARROW: dict[Any, pa.DataType] = {
    str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.large_binary(),
    Vector: pa.list_(pa.float32(), VECTOR_WIDTH), list[float]: pa.list_(pa.float64()), list[str]: pa.list_(pa.string()),
}  # fmt: skip


@functools.cache
def value_schema(noun: type) -> pa.Schema:
    """The Arrow schema of a noun's own columns. KeyError names a field type without an Arrow type."""
    return pa.schema([pa.field(name, _ARROW[hint]) for name, hint in get_type_hints(noun).items()])


@functools.cache
def table_schema(noun: type) -> pa.Schema:
    """The Arrow schema of a noun's table: its own columns, and the memo's for what a stage writes.

    `key` is declared as Lance's unenforced primary key, without which two merge-inserts at once can double rows.
    """
    own = value_schema(noun)
    if TABLE_OF[noun] in BOOKKEEPING:
        return own
    primary = {"lance-schema:unenforced-primary-key": "true"}
    memo = [pa.field("key", pa.string(), nullable=False, metadata=primary)]
    memo += [pa.field(name, pa.string()) for name in ("fingerprint", "item_id", "input_id")]
    memo += [pa.field("attempt", pa.int64()), pa.field("content_id", pa.string())]
    names = set(own.names)
    return pa.schema([*memo, *own]) if not names & set(MEMO_COLUMNS) else _refuse(noun, names)


def _refuse(noun: type, names: set[str]) -> pa.Schema:
    raise TypeError(f"{noun.__name__} uses a column name of the memo: {sorted(names & set(MEMO_COLUMNS))}")


# what select works out over all clips of a source -> the column of scores that it comes from
SOURCE_WIDE = {"source_overlay": "static_box", "source_text": "text_box"}


def _selectable() -> pa.Schema:
    """What a rule of `select` may name: a clip's scores and S, its span, and its source."""
    scores = [field for field in value_schema(Score) if not pa.types.is_list(field.type)]
    span = [field for field in value_schema(Clip) if field.name not in ("clip_id", "time_base")]
    known = {field.name for field in [*scores, *span]}
    source = [field for field in value_schema(Source) if field.name not in known | {"duration_s", "frames"}]
    own = [pa.field(name, pa.float64()) for name in ("S", "duration_s", *SOURCE_WIDE)]
    return pa.schema([*own, *scores, *span, *source])


SELECTABLE = _selectable()


def to_arrow(rows: list[Any], schema: pa.Schema) -> pa.Table:
    """Rows (dataclasses or dicts) as an Arrow table of `schema`."""
    dicts = [row if isinstance(row, dict) else dataclasses.asdict(row) for row in rows]
    return pa.Table.from_pylist(dicts, schema=schema)


def from_arrow(table: pa.Table, noun: type) -> list[Any]:
    """Arrow rows back as `noun` instances; other columns are ignored. Needs every field of the noun."""
    names = [field.name for field in dataclasses.fields(noun)]
    return [noun(**row) for row in table.select(names).to_pylist()]
