"""The models: where one is found, and which one it is. Light: torch is imported by the module of each model only.

Each kind of model has its module, with its protocol and its factory: `motion.make_flow`, `aesthetic`, `captioner`,
`judge.make_judge`, and `hunyuan` with `hydralora`, the model that is adapted and its adapter.
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptta_core.config import ConfigError, ModelRef
from ptta_core.models.tiny import MAKERS, TINY_VERSION

EDGE_BYTES = 1 << 20  # how much of a weight file's beginning and end goes into a local model's identity
READ_WHOLE = {".json", ".txt", ".model", ".jinja"}


def resolve(ref: ModelRef, models_folder: str | Path) -> tuple[str, str | None]:
    """What `from_pretrained` takes: (absolute path, None) or (hub id, revision).

    A `tiny:KIND` is written below `models_folder` unless it is there. Raises ConfigError for a folder that does not
    exist and for an unknown kind.
    """
    if ref.tiny:
        return str(_tiny(ref, Path(models_folder).expanduser().resolve())), None
    if (path := _local(ref)) is not None:
        return str(path), None
    return ref.id, ref.revision


def identity(ref: ModelRef, models_folder: str | Path = "") -> dict[str, Any]:
    """What enters a fingerprint: id and revision, or for a local model a digest of its content, wherever it lies.

    Cheap also at 25 GB: of a weight file only the size, the header and its first and last MiB of data are read.
    """
    if ref.tiny:
        return {"id": ref.id, "revision": str(_seed(ref)), "tiny_version": TINY_VERSION}
    if (path := _local(ref)) is not None:
        return {"id": "local", "digest": _digest_local(path)}
    return {"id": ref.id, "revision": ref.revision}


def describe(ref: ModelRef, models_folder: str | Path = "") -> str:
    """One line for rows, video files and people, without paths: "org/name@revision" or "local:<digest>"."""
    known = identity(ref, models_folder)
    if known["id"] == "local":
        return f"local:{known['digest']}"
    if ref.tiny:
        return f"{ref.id}@{known['revision']} (random weights)"
    return f"{ref.id}@{ref.revision or 'main'}"


def _tiny(ref: ModelRef, models_folder: Path) -> Path:
    kind = ref.id.removeprefix("tiny:")
    if kind not in MAKERS:
        choices = ", ".join(f"tiny:{name}" for name in MAKERS)
        raise ConfigError(f"model {ref.id!r}: no such tiny model here; choices: {choices}")
    return MAKERS[kind](models_folder / f"tiny-{kind}-{_seed(ref)}-v{TINY_VERSION}", _seed(ref))


def _seed(ref: ModelRef) -> int:
    """A tiny model's seed: its revision, 0 where none is given."""
    text = ref.revision or "0"
    if not text.isdecimal():
        raise ConfigError(f"model {ref.id!r}: revision {text!r} must be a whole number, the seed of its random weights")
    return int(text)


def _local(ref: ModelRef) -> Path | None:
    """The folder or file that the id names, or None for a hub id ("org/name"). As on the hub, what exists here wins."""
    path = Path(ref.id).expanduser()
    if path.exists():
        return path.resolve()
    if ref.id.startswith(("/", "./", "../", "~")) or ref.id.count("/") > 1:
        raise ConfigError(f"model folder {ref.id!r} does not exist")
    return None


def _digest_local(path: Path) -> str:
    """32 hex characters over a model's files: names, small text files whole, weight files by size and ends.

    Raises ConfigError where there is no safetensors file.
    """
    hasher, weights = hashlib.sha256(), 0
    for name, file in _model_files(path):
        hasher.update(json.dumps([name, file.stat().st_size]).encode())
        if file.suffix == ".safetensors":
            weights += 1
            _hash_ends(hasher, file)
        else:
            hasher.update(file.read_bytes())
    if not weights:
        raise ConfigError(f"no .safetensors file in {path.name!r}: weights are read from safetensors only")
    return hasher.hexdigest()[:32]


def _model_files(path: Path) -> Iterator[tuple[str, Path]]:
    """(name relative to the model, file) of everything that is read, in order of names; hidden files are left out."""
    if path.is_file():
        yield path.suffix, path
        return
    names = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    for name in sorted(names):
        hidden = any(part.startswith(".") for part in name.split("/"))
        if not hidden and names[name].suffix in READ_WHOLE | {".safetensors"}:
            yield name, names[name]


def _hash_ends(hasher: Any, file: Path) -> None:
    """Add a safetensors file's header (8 bytes of length, then JSON) and the ends of its data."""
    with open(file, "rb") as stream:
        length = stream.read(8)
        header_bytes = min(struct.unpack("<Q", length)[0], 100 << 20) if len(length) == 8 else 0
        hasher.update(length + stream.read(header_bytes + EDGE_BYTES))
        stream.seek(max(0, file.stat().st_size - EDGE_BYTES))
        hasher.update(stream.read(EDGE_BYTES))
