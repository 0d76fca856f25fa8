"""`ptta weights convert KIND FILE`: a published .pth file as safetensors, which is all that a recipe may name."""

import re
from pathlib import Path
from typing import Any

from ptta_core.config import ConfigError
from ptta_core.whole import write_whole

KINDS = ("raft", "laion-v2", "transnetv2")


def convert(kind: str, path: str | Path, sha256: str = "", out: str | Path = "") -> dict[str, Any]:
    """Write FILE as safetensors, beside it or at `out`.

    Returns {"path", "tensors", "parameters", "sha256", "known_as", "field"}; field: of the recipe, where to name it.
    sha256: of FILE, as its publisher gives it; may be left out for the known files only. The same file gives the same
    bytes. Raises ConfigError for a bad word or path, WeightsError for a file that is not what it should be.
    """
    path = Path(path).expanduser()
    if kind not in KINDS:
        raise ConfigError(f"weights convert: {kind!r} is no model here; choices: {', '.join(KINDS)}")
    if not path.is_file():
        raise ConfigError(f"weights convert: no such file: {path}")
    if sha256 and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"weights convert: --sha256 {sha256!r} is not 64 hexadecimal digits")
    target = Path(out).expanduser() if out else path.with_suffix(".safetensors")
    if target.suffix != ".safetensors" or not target.parent.is_dir():
        raise ConfigError(f"weights convert: --out {target} must be a .safetensors file in a folder that exists")
    from ptta_core.models import published

    made = published.convert(kind, path, sha256.lower())
    if target.exists() and target.read_bytes() != made.data:
        raise ConfigError(f"weights convert: {target} is there already, with other content; name another --out")
    write_whole(target, made.data)
    return {"path": str(target), "tensors": made.tensors, "parameters": made.parameters, "sha256": made.sha256,
            "known_as": made.known_as, "field": published.MODELS[kind].field}  # fmt: skip


def as_text(made: dict[str, Any]) -> str:
    """What was made, and where to name it."""
    source = made["known_as"] or "a file known only by the sha256 that you gave"
    return (f"{made['path']}: {made['tensors']} tensors, {made['parameters']:,} parameters\n"
            f"from {source} ({made['sha256']})\n"
            f"name it in the recipe as {made['field']}.id")  # fmt: skip
