"""How other trainers want a dataset laid out: files and words around mp4 files that are there.

Every name is relative to the folder, so that it can be moved. musubi-tuner and diffusion-pipe look up the names in
their TOML files from where they are started: start them in the folder, or write its place before the names.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptta_core.config import EncodeConfig
from ptta_core.whole import write_whole

FORMATS = ("hf", "webdataset", "musubi", "diffusion-pipe", "finetrainers", "csv")
CLIPS = "clips"
A_SHARD = 500  # clips of a tar: at some 2 MB a clip about 1 GB
MOVED = ("# Names are looked up from where the trainer is started: start it in this folder, or write its place\n"
         "# before them.\n")  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A clip that was written: clips/KEY.mp4."""

    key: str
    caption: str
    facts: dict[str, Any]

    @property
    def file(self) -> str:
        """Relative to the folder."""
        return f"{CLIPS}/{self.key}.mp4"


def write(format: str, folder: Path, entries: list[Entry], config: EncodeConfig) -> list[str]:
    """Write what a format needs beside the clips, each file whole; their names."""
    match format:
        case "hf":
            found = {"metadata.jsonl": _jsonl([{"file_name": one.file, "text": one.caption} | one.facts
                                               for one in entries])}  # fmt: skip
        case "webdataset":
            return pack(folder, entries)
        case "musubi":
            lines = [{"video_path": one.file, "caption": one.caption} for one in entries]
            found = {"metadata.jsonl": _jsonl(lines), "dataset.toml": musubi(entries, config)}
        case "diffusion-pipe":
            found = {f"{CLIPS}/{one.key}.txt": one.caption for one in entries}
            found["dataset.toml"] = diffusion_pipe(entries, config)
        case "finetrainers":
            found = {"prompts.txt": _lines([_one_line(one.caption) for one in entries]),
                     "videos.txt": _lines([one.file for one in entries])}  # fmt: skip
        case _:
            found = {"dataset.csv": _csv(entries)}
    if format in ("musubi", "diffusion-pipe", "finetrainers"):  # finetrainers reads metadata.* as another layout
        found["about.jsonl"] = _jsonl([{"file": one.file} | one.facts for one in entries])
    for name, text in found.items():
        write_whole(folder / name, text.encode())
    return [name for name in found if not name.startswith(CLIPS)]


def musubi(entries: list[Entry], config: EncodeConfig) -> str:
    """musubi-tuner's dataset.toml: every clip from its beginning, cut to 4k+1 frames of at most encode.frames."""
    width, height = _size(entries, config)
    return (f"{MOVED}[general]\nresolution = [{width}, {height}]\nbatch_size = 1\nenable_bucket = true\n"
            "bucket_no_upscale = true\n\n[[datasets]]\nvideo_jsonl_file = \"metadata.jsonl\"\n"
            f"cache_directory = \"cache\"\nframe_extraction = \"full\"\nmax_frames = {config.frames}\n")  # fmt: skip


def diffusion_pipe(entries: list[Entry], config: EncodeConfig) -> str:
    """diffusion-pipe's dataset.toml: a frame bucket for each 4k+1 length up to encode.frames that there is."""
    frames = sorted({(min(one.facts["frames"], config.frames) - 1) // 4 * 4 + 1 for one in entries})
    return (f"{MOVED}resolutions = [{round(config.area**0.5)}]\nenable_ar_bucket = true\nmin_ar = 0.5\nmax_ar = 2.0\n"
            f"num_ar_buckets = 7\nframe_buckets = {sorted({1, *frames})}\n\n"
            f"[[directory]]\npath = \"{CLIPS}\"\nnum_repeats = 1\n")  # fmt: skip


def _size(entries: list[Entry], config: EncodeConfig) -> tuple[int, int]:
    """Width and height of about encode.area px, of the commonest aspect, in multiples of 16."""
    shapes = [(one.facts["width"], one.facts["height"]) for one in entries] or [(16, 9)]
    width, height = max(sorted(set(shapes)), key=shapes.count)
    scale = (config.area / (width * height)) ** 0.5
    return max(16, round(width * scale / 16) * 16), max(16, round(height * scale / 16) * 16)


def pack(folder: Path, entries: list[Entry]) -> list[str]:
    """Tars of KEY.mp4, KEY.txt and KEY.json, each read back before it gets its name; then the clips go."""
    names = []
    for at in range(0, len(entries), A_SHARD):
        names.append(f"{at // A_SHARD:05d}.tar")
        part = folder / f".{names[-1]}.part"
        shard = entries[at : at + A_SHARD]
        with tarfile.open(part, "w") as tar:
            for one in shard:
                _add(tar, f"{one.key}.mp4", (folder / one.file).read_bytes())
                _add(tar, f"{one.key}.txt", one.caption.encode())
                _add(tar, f"{one.key}.json", json.dumps(one.facts, ensure_ascii=False).encode())
        with tarfile.open(part) as tar:
            if len(tar.getnames()) != 3 * len(shard):
                raise OSError(f"{part}: not all files can be read back")
        part.replace(folder / names[-1])
    for old in folder.glob("[0-9]*.tar"):
        if old.name not in names:
            old.unlink()
    for one in entries:
        (folder / one.file).unlink()
    return names


def unpack(folder: Path) -> None:
    """Take the clips of older tars out again, so that they are not made anew."""
    for path in sorted(folder.glob("[0-9]*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member) if re.fullmatch(r"[0-9a-f]+\.mp4", member.name) else None
                if file is not None:
                    write_whole(folder / CLIPS / member.name, file.read())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # no time, no owner: the same clips give the same bytes
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _jsonl(rows: list[dict[str, Any]]) -> str:
    return _lines([json.dumps(row, ensure_ascii=False) for row in rows])


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _csv(entries: list[Entry]) -> str:
    rows = [{"file": one.file, "caption": one.caption} | one.facts for one in entries]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
