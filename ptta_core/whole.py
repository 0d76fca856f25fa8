"""Files that are seen whole or not at all, whatever is killed or cut off in between."""

import os
from pathlib import Path


def write_whole(path: str | Path, data: bytes) -> None:
    """Write a file in one step, durably; what was there before stays until then. Raises OSError."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
