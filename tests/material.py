"""Test material that lies beside the repository, where it does."""

from pathlib import Path

import pytest

NASTY = Path(__file__).resolve().parents[2] / "shared" / "data" / "nasty"


def nasty(name: str) -> str:
    """The path of a nasty file; skips the test where it is absent."""
    if not (NASTY / name).exists():
        pytest.skip(f"needs shared/data/nasty/{name} beside the repository")
    return str(NASTY / name)
