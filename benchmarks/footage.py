"""The benchmarks' input: real clips where there are any, else the drawn cartoon, at the sizes and lengths asked for."""

import os
import struct
from collections.abc import Iterator, Sequence
from itertools import chain, cycle
from pathlib import Path

import numpy as np

from ptta_core import cartoon, video

FPS = 24.0
NEGATIVE = "negative"  # names of real clips that are no animation begin so


def cartoons(folder: Path, seeds: Sequence[int]) -> list[Path]:
    """The demo's cartoon drawn with each seed: three films of about 10 s and five shots each a seed."""
    found = []
    for seed in seeds:
        place = folder / f"seed-{seed}"
        found += [place / truth["file"] for truth in cartoon.draw(place, seed)]
    return found


def real(data: Path) -> list[Path]:
    """The animation clips below `data`, sorted; none where the folder is absent."""
    return sorted(path for path in (data / "clips").glob("*.*") if not path.name.startswith(NEGATIVE))


def copies(films: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """`count` MP4 files made of these films in turn, each with bytes, and so an identity, of its own.

    A box of type `free` (ISO 14496-12) is appended, which every reader skips: decoding costs what it did. Files that
    are there already are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, film in zip(range(count), cycle(films)):
        box = f"copy {number}".encode()
        made.append(folder / f"{number:04}.mp4")
        if not made[-1].exists():
            made[-1].write_bytes(film.read_bytes() + struct.pack(">I", 8 + len(box)) + b"free" + box)
    return made


def joined(films: Sequence[Path], path: Path, width: int, height: int, seconds: float) -> Path:
    """One H.264 file of these films end to end, each frame stretched to width x height px, again from the first film
    on until it lasts `seconds`. A file that is there already is kept."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted = round(seconds * FPS)
        endless = chain.from_iterable(_frames(film, width, height) for film in cycle(films))
        part = path.with_name(f"part-{os.getpid()}-{path.name}")
        video.write_mp4(part, (image for _, image in zip(range(wanted), endless)), FPS)
        part.rename(path)
    return path


def _frames(film: Path, width: int, height: int) -> Iterator[np.ndarray]:
    """uint8 [height,width,3] RGB."""
    return (frame.image for frame in video.read_frames(film, width=width, height=height))
