"""Which latents are decoded for people to look at: a few a bucket, chosen by their ids, and bounded in number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ptta_core.ids import digest

A_BUCKET = 3
MOST = 24  # of a run, which bounds what they cost
PREFIX = "decoded "  # of an item's id
PICTURES = 3  # of a video: the first, the middle and the last
PICTURE_PX = 192  # wide at most
GAP_PX = 4


@dataclass(frozen=True)
class LookItem:
    """A latent to decode. `tensors` are filled in when it is at hand."""

    latent_id: str
    clip_id: str
    bucket: str
    tensors: bytes = b""

    @property
    def item_id(self) -> str:
        """Of the item; no clip's and no window's."""
        return f"{PREFIX}{self.latent_id}"


def choose(latents: Iterable[LookItem]) -> list[LookItem]:
    """A_BUCKET of each bucket and MOST in all, the fullest buckets first; by a draw that an id decides alone."""
    buckets: defaultdict[str, list[LookItem]] = defaultdict(list)
    for one in latents:
        buckets[one.bucket].append(one)
    ranked = []
    for name, members in buckets.items():
        drawn = sorted(members, key=lambda one: digest("look", one.latent_id))[:A_BUCKET]
        ranked += [(place, -len(members), name, one) for place, one in enumerate(drawn)]
    return [one for *_, one in sorted(ranked, key=lambda row: row[:3])[:MOST]]


def strip(video_THWC: np.ndarray) -> np.ndarray:
    """The first, middle and last picture of a video beside each other, uint8 [H,W,3]; each once in a short one."""
    frames = len(video_THWC)
    shown = [video_THWC[place] for place in dict.fromkeys((0, frames // 2, frames - 1))]
    gap = np.full((video_THWC.shape[1], GAP_PX, 3), 255, np.uint8)
    return np.concatenate([part for picture in shown for part in (gap, picture)][1:], axis=1)
