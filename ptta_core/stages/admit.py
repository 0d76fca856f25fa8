"""captions -> admissions: which captions are good enough to learn from, and why; it decides on captions only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ptta_core.config import AdmitConfig
from ptta_core.flags import Alike, Said, flags_of
from ptta_core.ids import digest, digest_set
from ptta_core.memo import Batch, Items, Job, stage
from ptta_core.rows import Admission
from ptta_core.view import View


@dataclass(frozen=True)
class AdmitItem:
    """All captions of the run: repeats can only be seen together."""

    admission_id: str
    captions: list[dict[str, Any]]  # caption_id, clip_id, text, start_s, cut; a caption a window


def inputs(view: View) -> Items:
    """One item: every caption of the run."""
    table = view.rows("caption", ["caption_id", "clip_id", "text", "start_s", "cut", "content_id"])
    read = digest_set(table["content_id"].to_pylist())
    admission_id = digest(view.fingerprint("admit"), read)
    captions = sorted(table.to_pylist(), key=lambda row: (row["clip_id"], row["start_s"]))
    return Items([admission_id], [read], lambda rows: [AdmitItem(admission_id, captions)])


@stage(Admission, version=2, id_field="admission_id", inputs=inputs)
def admit(todo: list[AdmitItem], job: Job) -> Iterator[Batch]:
    """Judge each caption by its words, and what is said again by how often."""
    for item in todo:
        clips: defaultdict[str, list[str]] = defaultdict(list)  # text -> the clips that it was said of
        alike, rows = Alike(), []
        for row in item.captions:
            clip_id, text = row["clip_id"], row["text"]
            if clip_id not in clips[text][-1:]:
                clips[text].append(clip_id)
            found = flags_of(text, job.config.language, bool(row["cut"]))
            other, share = alike.find(clip_id, text)
            if other and other != clip_id:
                found.append(Said("near_identical", f"{share:.0%} as of clip {other[:12]}"))
            reason = fault(text, len(clips[text]), found, job.config)
            decided = Admission(item.admission_id, clip_id, row["caption_id"], not reason, reason or "admitted",
                                ", ".join(one.flag for one in found))  # fmt: skip
            rows.append(decided)
        yield [(item, rows)]


def fault(text: str, occurrence: int, found: list[Said], config: AdmitConfig) -> str:
    """Why a caption is refused, or "". occurrence counts clips with an equal caption, this one included."""
    words = len(text.split())
    for one in found:
        if one.flag in config.refuse:
            return f"refuse {one.flag}: {one.why}"
    if words < config.min_words:
        return f"{words} words < min_words {config.min_words}"
    if words > config.max_words:
        return f"{words} words > max_words {config.max_words}"
    if config.max_repeats is not None and occurrence > config.max_repeats:
        return f"the same caption for the {occurrence}th time, max_repeats {config.max_repeats}"
    return ""
