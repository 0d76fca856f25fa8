"""Ids come from content, never from paths: one canonical JSON, one hash, used by every table."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ID_HEX = 32  # 128 bits: no collision to fear below 10**15 rows


def canonical(value: Any) -> str:
    """JSON with sorted keys and no blanks; floats keep their shortest exact form. NaN raises ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(*parts: Any) -> str:
    """32 hex characters (128 bits of SHA-256) of the parts' canonical JSON."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:ID_HEX]


def digest_set(ids: Iterable[str]) -> str:
    """One id for a set of ids, whatever their order."""
    hasher = hashlib.sha256()
    for one in sorted(ids):
        hasher.update(one.encode() + b"\n")
    return hasher.hexdigest()[:ID_HEX]


def digest_bytes(data: bytes) -> str:
    """32 hex characters of SHA-256 over raw bytes."""
    return hashlib.sha256(data).hexdigest()[:ID_HEX]


def digest_file(path: Path | str, chunk_bytes: int = 1 << 22) -> str:
    """32 hex characters of SHA-256 over a file's bytes, read in 4 MiB pieces. Raises OSError."""
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(chunk_bytes):
            hasher.update(chunk)
    return hasher.hexdigest()[:ID_HEX]
