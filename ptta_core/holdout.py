"""Which latents training only measures: whole sources, and nothing that training also learns.

Neighbouring shots of one source look alike, so a clip held out beside learned ones would say little: whole sources are
held out. Sources share footage, too, such as the opening of every episode. A clip of a held-out source that is a
near-duplicate of a learned one is left out of both: learned it must not be, and measured it would only flatter.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping

from ptta_core.memo import StageError


def choose(
    source_of: Mapping[str, str], share: float, seed: int, group_of: Mapping[str, int] | None = None
) -> tuple[set[str], set[str]]:
    """(latents to measure, latents to leave out), of `source_of` (latent_id -> source_id).

    share: of the latents to measure. group_of: latent_id -> its group of near-duplicates, for those in one.
    Sources are drawn by hash and taken until `share` is reached or another would go above it by more than it lies
    below now; always one, never all. One whose every clip is also in a source that is learned is passed over.
    Raises StageError where the latents are of one source only, or no source has a clip of its own.
    """
    if not share:
        return set(), set()
    sources = set(source_of.values())
    if len(sources) < 2:
        raise StageError(f"train.holdout_share = {share:g} holds out whole sources; the latents are of "
                         f"{len(sources)} source, 2 are needed")  # fmt: skip
    groups = _Groups(source_of, group_of or {})
    wanted, have, taken = share * len(source_of), 0, set[str]()
    drawn = sorted(sources, key=lambda source: hashlib.sha256(f"held out:{seed}:{source}".encode()).digest())
    for source in drawn:
        after = have + groups.gain(source, taken)
        if after == have or len(taken) == len(sources) - 1:
            continue
        if taken and abs(after - wanted) > abs(have - wanted):
            continue
        taken.add(source)
        have = after
        if have >= wanted:
            break
    if not taken:
        raise StageError(f"train.holdout_share = {share:g}: every clip of each source is in another source too, so "
                         "none can be measured that is not learned")  # fmt: skip
    apart = {latent for latent, source in source_of.items() if source in taken}
    left_out = {latent for latent in apart if not groups.inside(latent, taken)}
    return apart - left_out, left_out


class _Groups:
    """Which sources share footage."""

    def __init__(self, source_of: Mapping[str, str], group_of: Mapping[str, int]) -> None:
        self.group_of = group_of
        self.alone: Counter[str] = Counter()  # latents of a source that are in no group
        self.sources: defaultdict[int, Counter[str]] = defaultdict(Counter)  # group -> latents of each source
        self.of: defaultdict[str, set[int]] = defaultdict(set)  # source -> its groups
        for latent, source in source_of.items():
            group = group_of.get(latent)
            if group is None:
                self.alone[source] += 1
            else:
                self.sources[group][source] += 1
                self.of[source].add(group)

    def gain(self, source: str, taken: set[str]) -> int:
        """How many latents more could be measured with this source taken too."""
        whole = taken | {source}
        return self.alone[source] + sum(self.sources[group].total() for group in self.of[source]
                                        if self.sources[group].keys() <= whole)  # fmt: skip

    def inside(self, latent: str, taken: set[str]) -> bool:
        """Whether no near-duplicate of a latent is in a source that is learned."""
        group = self.group_of.get(latent)
        return group is None or self.sources[group].keys() <= taken
