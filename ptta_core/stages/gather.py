"""folders -> files, sources: which videos there are, each named by its bytes; an unchanged file is not read again."""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ptta_core.config import Folder
from ptta_core.fleet import Failed
from ptta_core.ids import digest, digest_file
from ptta_core.memo import Batch, Items, Job, StageError, stage
from ptta_core.rows import File, Source
from ptta_core.view import View


@dataclass(frozen=True)
class FileItem:
    """A file as the folder lists it; `name` is what tables store, `path` where it is now."""

    name: str
    path: str
    size: int
    mtime_ns: int
    inode: int
    licence: str = ""
    provenance: str = ""

    @property
    def stat_id(self) -> str:
        """While this stays the same the bytes are taken to be the same, and what the recipe says of them is."""
        said = [self.licence, self.provenance] if self.licence or self.provenance else []
        return digest(self.name, self.size, self.mtime_ns, self.inode, *said)


def inputs(view: View) -> Items:
    """Files in the recipe's folders, and files seen there before that are absent now (a NAS that is not mounted)."""
    files = list_files(view)
    if not files:
        places = ", ".join(folder.folder for folder in view.recipe.sources.folders) or "no folder"
        raise StageError(f"no videos found in {places}; looked for .{', .'.join(view.recipe.sources.extensions)}. "
                         "Name a folder with --videos or in sources.folders")  # fmt: skip
    if view.options.limit:
        files = files[: view.options.limit]
    absent = sum(1 for file in files if not os.path.exists(file.path))
    note = f"{absent} files are absent now and taken as last seen" if absent else ""
    return Items.of(files, "name", [file.stat_id for file in files], note)


def list_files(view: View) -> list[FileItem]:
    """Every video of the recipe's folders, sorted by name. Raises StageError for a folder never seen."""
    found: dict[str, FileItem] = {}
    for folder in folders(view):
        place = view.absolute(folder.folder).expanduser().resolve()
        known = _remembered(view, place, folder)
        if not place.is_dir():
            if not known:
                raise StageError(f"sources.folders: no such folder: {folder.folder} ({place})")
            found |= known
            continue
        found |= known | _listed(view, place, folder)
    return [found[name] for name in sorted(found)]


def folders(view: View) -> list[Folder]:
    """The recipe's folders; with none and a cartoon seed, the drawn cartoon's."""
    sources = view.recipe.sources
    if sources.folders or sources.cartoon is None:
        return list(sources.folders)
    from ptta_core import cartoon

    place = view.home / f"cartoon-{sources.cartoon}"
    cartoon.draw(place, sources.cartoon)
    return [Folder(folder=str(place))]


def _listed(view: View, place: Path, folder: Folder) -> dict[str, FileItem]:
    endings = {f".{ending.lower().lstrip('.')}" for ending in view.recipe.sources.extensions}
    found = {}
    for base, below, names in os.walk(place):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in names:
            path = Path(base) / name
            inside = path.relative_to(place).as_posix()
            if path.suffix.lower() not in endings or name.startswith("."):
                continue
            if any(fnmatch.fnmatch(inside, pattern) for pattern in folder.exclude):
                continue
            if item := _item(view, path, folder):
                found[item.name] = item
    return found


def _item(view: View, path: Path, folder: Folder) -> FileItem | None:
    try:
        stat = path.stat()
    except OSError:  # a broken link, or gone since it was listed
        return None
    return FileItem(view.named_path(str(path)), str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino,
                    folder.licence, folder.provenance)  # fmt: skip


def _remembered(view: View, place: Path, folder: Folder) -> dict[str, FileItem]:
    """The newest row of every file seen below `place`, unless a pattern excludes it now."""
    found: dict[str, FileItem] = {}
    patterns = [(view.absolute(folder.folder), folder.exclude) for folder in view.recipe.sources.folders]
    below = os.path.join(place, "")
    for row in view.store.read("files", ["path", "size", "mtime_ns", "inode"]).to_pylist():
        path = view.absolute(row["path"])
        if not str(path).startswith(below) or os.path.exists(path):
            continue
        if any(
            path.is_relative_to(base) and any(fnmatch.fnmatch(path.relative_to(base).as_posix(), one) for one in globs)
            for base, globs in patterns
        ):
            continue
        found[row["path"]] = FileItem(row["path"], str(path), row["size"], row["mtime_ns"], row["inode"],
                                      folder.licence, folder.provenance)  # fmt: skip
    return found


@stage(File, version=1, id_field="name", inputs=inputs, also=(Source,), section="sources", fields=lambda recipe: {})
def gather(todo: list[FileItem], job: Job) -> Iterator[Batch]:
    """Hash and probe each new or changed file once."""
    total = sum(item.size for item in todo)
    read = 0
    begun = time.monotonic()
    known, removed = Known(job.store), removed_sources(job.store)
    for item in todo:
        yield [(item, known.relabelled(item) or examine(item, removed))]
        read += item.size
        rate = read / max(time.monotonic() - begun, 1e-9)
        job.say(f"{rate / 1e9:.2f} GB/s, {(total - read) / rate if rate else 0:.0f} s left by size")


def removed_sources(store: Any) -> set[str]:
    """Sources that a person has taken out: their bytes are known, and never come back."""
    edits = store.read("edits", ["clip_id", "value", "at"], "field = 'removed'").sort_by("at").to_pylist()
    return {source_id for source_id, value in {row["clip_id"]: row["value"] for row in edits}.items() if value}


class Known:
    """Files whose bytes have been read before under the same stat, so that a new licence costs no reading."""

    def __init__(self, store: Any) -> None:
        rows = store.read("files", ["path", "size", "mtime_ns", "inode", "source_id"], "status = 'ok'").to_pylist()
        self._files = {(row["path"], row["size"], row["mtime_ns"], row["inode"]): row["source_id"] for row in rows}
        names = [field.name for field in fields(Source)]
        self._sources = {(row["source_id"], row["path"]): row for row in store.read("sources", names).to_pylist()}

    def relabelled(self, item: FileItem) -> list[File | Source] | None:
        """The rows of a file of which only the licence or the provenance has changed; None for any other file."""
        source_id = self._files.get((item.name, item.size, item.mtime_ns, item.inode))
        row = self._sources.get((source_id, item.name))
        said = {"licence": item.licence, "provenance": item.provenance}
        if source_id is None or row is None or all((row[name] or "") == value for name, value in said.items()):
            return None
        file = File(item.name, item.size, item.mtime_ns, item.inode, source_id, "ok")
        return [file, Source(**(row | said))]


def examine(item: FileItem, removed: Collection[str] = ()) -> list[File | Source] | Failed:
    """A File and its Source, or why the file is no video; a File alone when its bytes have been taken out."""
    from ptta_core import video

    try:
        source_id = digest_file(item.path)
        if source_id in removed:
            return [File(item.name, item.size, item.mtime_ns, item.inode, source_id, "removed")]
        info = video.probe(item.path)
    except FileNotFoundError:
        return Failed("missing", f"{item.name} is not there", retryable=True)
    except OSError as error:
        return Failed("unreadable", f"{item.name}: {error.strerror or error}", retryable=True)
    except video.VideoError as error:
        return Failed(error.kind, str(error))
    file = File(item.name, item.size, item.mtime_ns, item.inode, source_id, "ok")
    source = Source(source_id, item.name, info.duration_s, info.fps, info.width, info.height, info.frames, info.codec,
                    info.container, item.licence, item.provenance)  # fmt: skip
    return [file, source]
