"""captions edit: the captions of a run as a file, and a person's corrections from one. They win for ever."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ptta_core.config import ConfigError
from ptta_core.ops.ledger import last_view, reached
from ptta_core.ops.show import open_store
from ptta_core.stages.caption import BY_HAND, EDITED, edits, field_of
from ptta_core.view import View
from ptta_core.whole import write_whole
from ptta_core.windows import clip_of
from ptta_core.words import say

COLUMNS = ("item_id", "clip_id", "start_s", "end_s", "text", "captioner", "flags")
SUFFIXES = (".csv", ".jsonl")


@dataclass
class Taken:
    """What became of a file's rows, or of ids to take back."""

    edited: list[str] = field(default_factory=list)  # item ids
    same: int = 0  # rows whose text is as it was
    refused: list[str] = field(default_factory=list)  # a line each, with why
    back: bool = False

    def line(self) -> str:
        """For people."""
        done = f"{len(self.edited)} {'taken back' if self.back else 'edited'}"
        said = ", ".join([done, *([] if self.back else [f"{self.same} unchanged"]), f"{len(self.refused)} refused"])
        return f"{said}; the next run makes exactly their captions and latents anew" if self.edited else said


class Line(NamedTuple):
    """One row of a file."""

    place: str  # "captions.csv, line 3"
    values: dict[str, Any]
    fault: str = ""  # why it cannot be read


def current(view: View) -> list[dict[str, Any]]:
    """The run's captions as COLUMNS and `field`, with what was edited since. Raises ConfigError before caption."""
    if not reached(view, "caption"):
        raise ConfigError("captions edit: the last run made no captions")
    asked = ["item_id", "clip_id", "start_s", "end_s", "text", "captioner", "caption_id"]
    flags = {row["caption_id"]: row["flags"] for row in view.rows("admit", ["caption_id", "flags"]).to_pylist()
             } if reached(view, "admit") else {}  # fmt: skip
    edited, whole = edits(view.store), view.recipe.caption.of == "clip"
    found = []
    for row in sorted(view.rows("caption", asked).to_pylist(), key=lambda row: (row["clip_id"], row["start_s"])):
        place = field_of(row["item_id"], whole)
        row["flags"] = flags.get(row["caption_id"], "")
        text, author = edited.get((row["clip_id"], place), ("", ""))
        if text:
            row["text"], row["captioner"] = text, f"{BY_HAND} ({author})"
        found.append({name: row[name] for name in COLUMNS} | {"field": place})
    return found


def export(workspace: str, out: Path) -> int:
    """Write the captions of the last run as CSV or JSON lines; returns how many. Raises ConfigError, OSError."""
    checked(out)
    rows = current(last_view(workspace))
    text = io.StringIO(newline="")
    if out.suffix == ".jsonl":
        text.writelines(json.dumps({name: row[name] for name in COLUMNS}, ensure_ascii=False) + "\n" for row in rows)
    else:
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    # spreadsheets take a CSV without the mark for an old code page
    write_whole(out, text.getvalue().encode("utf-8-sig" if out.suffix == ".csv" else "utf-8"))
    return len(rows)


def checked(path: Path) -> None:
    """Raise ConfigError for a file that is neither kind."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"captions edit: {path.name}: name a file that ends with {' or '.join(SUFFIXES)}")


def take(workspace: str, source: Path, author: str | None = None) -> Taken:
    """Store each caption of a file that differs from the present one as an edit; what is wrong is refused by itself.

    A row is named by item_id, or by clip_id where the clip has one caption. Raises ConfigError for a file without
    the columns or without rows, and where there are no captions.
    """
    checked(source)
    if not source.is_file():
        raise ConfigError(f"captions edit: no such file: {source}")
    view = last_view(workspace)
    rows = current(view)
    known = {row["item_id"]: row for row in rows}
    of_clip: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        of_clip[row["clip_id"]].append(row["item_id"])
    found, named = Taken(), defaultdict[str, list[Line]](list)
    for line in read_file(source):
        item, fault = ("", line.fault) if line.fault else name_of(line.values, known, of_clip)
        if fault:
            found.refused.append(f"{line.place}: {fault}")
        else:
            named[item].append(line)
    new = []
    for item, lines in named.items():
        if len(lines) > 1:
            found.refused += [f"{line.place}: {item} is named {len(lines)} times; none of them is taken"
                              for line in lines]  # fmt: skip
        elif plain(lines[0].values["text"]) == plain(known[item]["text"]):
            found.same += 1
        else:
            found.edited.append(item)
            new.append((known[item]["clip_id"], known[item]["field"], plain(lines[0].values["text"])))
    say(view.store, new, author)
    return found


def plain(text: str) -> str:
    """A text without blanks around it, lines ended as everywhere here: spreadsheets change both."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def name_of(values: dict[str, Any], known: dict[str, Any], of_clip: dict[str, list[str]]) -> tuple[str, str]:
    """(item id, "") of a row, or ("", why it cannot be taken)."""
    item, clip, text = (values.get(name) for name in ("item_id", "clip_id", "text"))
    if any(not isinstance(value, str) for value in (item or "", clip or "", text)):
        return "", "no text" if text is None else "ids and text must be strings"
    if any("\udc80" <= sign <= "\udfff" or "\ud800" <= sign <= "\udbff" for sign in f"{item}{clip}{text}"):
        return "", "not UTF-8"
    if "\0" in f"{item}{clip}{text}":
        return "", "a zero byte in it"
    item, clip = (item or "").strip(), (clip or "").strip()
    windows = of_clip.get(clip, [])
    if not item and len(windows) > 1:
        return "", f"clip {clip} has {len(windows)} captions; name one by item_id"
    asked, item = item or clip, item or next(iter(windows), "")
    if item not in known:
        return "", f"no caption of {asked!r} in the last run"
    if clip and clip != known[item]["clip_id"]:
        return "", f"item_id {item} is not of clip_id {clip}"
    if not plain(str(text)):
        return "", f"the text of {item} is empty; --remove takes an edit back"
    return item, ""


def read_file(source: Path) -> Iterator[Line]:
    """Every row; bytes that are not UTF-8 come as lone surrogates. Raises ConfigError where there is none."""
    text = source.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    if not text.strip():
        raise ConfigError(f"captions edit: {source.name} is empty")
    yield from (from_json if source.suffix == ".jsonl" else from_csv)(text, source.name)


def from_json(text: str, name: str) -> Iterator[Line]:
    """Rows of JSON lines."""
    for number, piece in enumerate(text.split("\n"), 1):
        place = f"{name}, line {number}"
        if not piece.strip():
            continue
        try:
            values = json.loads(piece)
        except (ValueError, RecursionError) as error:
            yield Line(place, {}, f"no JSON: {error}")
            continue
        yield Line(place, values) if isinstance(values, dict) else Line(place, {}, "no JSON object")


def from_csv(text: str, name: str) -> Iterator[Line]:
    """Rows of a CSV, its cells divided by commas, semicolons or tabs as its first line is."""
    head = text.lstrip("\r\n").splitlines()[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    columns: list[str] = []
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Line(f"{name}, line {reader.line_num}", {}, f"no CSV: {error}; nothing was read beyond it")
            return
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = [cell.strip().lower() for cell in cells]
            if "text" not in columns or not {"item_id", "clip_id"} & set(columns):
                raise ConfigError(f"{name}: columns text and item_id (or clip_id) are needed, not {', '.join(columns)}")
            continue
        many = f"{len(cells)} cells under {len(columns)} columns" if len(cells) != len(columns) else ""
        yield Line(f"{name}, line {reader.line_num}", dict(zip(columns, cells)), many)


def take_back(workspace: str, names: Sequence[str], author: str | None = None) -> Taken:
    """Forget edits: of one window by its item id, or all of a clip by its id or a unique beginning of it."""
    store, _ = open_store(workspace)
    found, gone = Taken(back=True), dict[tuple[str, str], None]()
    places = list(edits(store))
    for name in names:
        if "@" in name:
            mine = [place for place in places if place == (clip_of(name), field_of(name, whole=False))]
        else:
            mine = [place for place in places if name and place[0].startswith(name)]
        if len({clip for clip, _ in mine}) == 1:
            gone |= dict.fromkeys(mine)
        else:
            found.refused.append(f"{name!r} begins {len({clip for clip, _ in mine})} edited clips" if mine else
                                 f"no edited caption of {name!r}")  # fmt: skip
    found.edited = [clip + place.removeprefix(EDITED) for clip, place in gone]
    say(store, [(clip, place, "") for clip, place in gone], author)
    return found
