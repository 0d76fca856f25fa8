"""Near-duplicate clips by a perceptual hash of five frames: no weights, and nearly linear in the number of clips.

A frame's hash is the sign of the lowest frequencies of its luma (after Zauner, Implementation and benchmarking of
perceptual image hash functions, 2010): coding, scaling, brightness and contrast hardly change it. Five frames at fixed
shares of a clip tell apart two shots from the same camera position, where one frame would not.
"""

import binascii
from collections.abc import Sequence

import numpy as np

PLACES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the clip's length
SIDE_PX = 32  # a frame is shrunk to this square before the transform
KEPT = 8  # lowest frequencies kept in each direction; the very lowest, the mean, is brightness and left out
FLAT = 2.0  # coefficients below it (32 = one gray level over the whole frame) are noise and count as 0
BITS = len(PLACES) * (KEPT * KEPT - 1)  # 315 that can differ
THRESHOLD = 0.13  # share of differing bits; see docs/benchmarks.md
HEX = len(PLACES) * 16
BAND_BITS = 21  # two clips are compared when one such run of bits is equal in both
WINDOW = 32  # with at most so many neighbours in a run's sorted bucket: a heap of black clips stays linear


def _order() -> np.ndarray:
    """Indices of the kept coefficients from low to high frequency, without the mean."""
    down, across = np.divmod(np.arange(KEPT * KEPT), KEPT)
    return np.lexsort((across, down + across))[1:]


ORDER = _order()


def frame_hash(gray_HW: np.ndarray) -> int:
    """63 bits of a uint8 picture [H,W], lowest frequency in the highest bit."""
    import cv2

    small = cv2.resize(gray_HW, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    signs = cv2.dct(small)[:KEPT, :KEPT].ravel()[ORDER] > FLAT
    return int.from_bytes(np.packbits(np.append(False, signs)).tobytes(), "big")


def clip_hash(grays: Sequence[np.ndarray]) -> str:
    """The hash of a clip, 80 hexadecimal digits, from its frames [H,W] at `PLACES`. Raises ValueError."""
    if len(grays) != len(PLACES):
        raise ValueError(f"{len(grays)} frames; a clip's hash takes {len(PLACES)}")
    return "".join(f"{frame_hash(gray):016x}" for gray in grays)


def distance(first: str, second: str) -> float:
    """Share of differing bits, 0 (the same) to 1; two unrelated clips are about 0.5 apart. Raises ValueError."""
    words = _words([first, second])
    return int(np.bitwise_count(words[0] ^ words[1]).sum()) / BITS


def groups(hashes: Sequence[str], threshold: float = THRESHOLD) -> list[list[int]]:
    """Indices of near-duplicates, each group sorted, at least two in a group; groups by their first member.

    As `group_words`; an empty hash is in no group. Raises ValueError for a text that is no hash.
    """
    known = np.array([index for index, one in enumerate(hashes) if one], np.int64)
    firsts = group_words(_words([hashes[index] for index in known]), threshold)
    rows = np.flatnonzero(firsts >= 0)
    rows = rows[np.argsort(firsts[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(firsts[rows], prepend=-1))
    return [known[group].tolist() for group in np.split(rows, starts[1:])] if len(rows) else []


def group_words(words_N5: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """int64 [N]: the row of the first member of each clip's group of near-duplicates, -1 for a clip alone.

    words_N5: uint64, from `words_of`. Members differ from some other member of their group by at most `threshold` of
    the bits, and from its first member by at most twice that, so that a chain of small changes does not join what is
    far apart. Candidates share an equal run of 21 bits: above a distance of about 0.12 some pairs are missed. A million
    clips take some seconds.
    Raises ValueError for a threshold outside 0..0.25.
    """
    if not 0 <= threshold <= 0.25:
        raise ValueError(f"threshold {threshold} is not in 0..0.25")
    if len(words_N5) < 2:
        return np.full(len(words_N5), -1, np.int64)
    most = int(threshold * BITS)
    unique, members = _unique(words_N5)
    first, second = _close_pairs(unique, most)
    labels = _components(len(unique), first, second)[members]
    return _split_far(words_N5, labels, 2 * most)


def words_of(text: bytes | bytearray | memoryview) -> np.ndarray:
    """uint64 [N,5] from N hashes of 80 hexadecimal digits in a row without anything between. Raises ValueError.

    The data of an Arrow column of strings is such a text, whose missing and empty values take no room.
    """
    found = binascii.unhexlify(text)
    if len(found) % (8 * len(PLACES)):
        raise ValueError(f"{2 * len(found)} hexadecimal digits are no whole number of hashes of {HEX}")
    return np.frombuffer(found, ">u8").astype(np.uint64).reshape(-1, len(PLACES))


def _unique(words_N5: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the different rows, which of them each row is)."""
    order = np.lexsort(words_N5.T)
    ordered = words_N5[order]
    new = np.append(True, (ordered[1:] != ordered[:-1]).any(1))
    members = np.empty(len(order), np.int64)
    members[order] = np.cumsum(new) - 1
    return ordered[new], members


def _words(hashes: Sequence[str]) -> np.ndarray:
    """Hashes as uint64 [N,5]. Raises ValueError naming the first that is not one."""
    bad = next((one for one in hashes if len(one) != HEX), None)
    if bad is not None:
        raise ValueError(f"{bad!r} is not a hash of {HEX} hexadecimal digits")
    return words_of("".join(hashes).encode())


def _close_pairs(words_N5: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows at most `most` bits apart that share an equal run of bits."""
    found: list[np.ndarray] = []
    low = np.uint64((1 << BAND_BITS) - 1)
    for frame in range(words_N5.shape[1]):
        for run in range(3):
            own = words_N5[:, frame]
            key = (own >> np.uint64(BAND_BITS * run)) & low
            # neighbours in a bucket are near in the rest of the frame and in the next frame too
            order = _order_by(_run_first(own, run), words_N5[:, (frame + 1) % words_N5.shape[1]])
            found.append(_near_neighbours(words_N5, order, key[order], most))
    pairs = np.concatenate(found)
    return pairs[:, 0], pairs[:, 1]


def _run_first(word_N: np.ndarray, run: int) -> np.ndarray:
    """Words of 63 bits turned so that one of their three runs comes first and the other two follow, high before low."""
    low = np.uint64((1 << BAND_BITS) - 1)
    parts = [(word_N >> np.uint64(BAND_BITS * at)) & low for at in (run, *(at for at in (2, 1, 0) if at != run))]
    return parts[0] << np.uint64(2 * BAND_BITS) | parts[1] << np.uint64(BAND_BITS) | parts[2]


def _order_by(first_N: np.ndarray, second_N: np.ndarray) -> np.ndarray:
    """The order by `first_N`, and by `second_N` where that ties: few do, and one sort is several times faster."""
    order = np.argsort(first_N)
    ordered = first_N[order]
    same = ordered[1:] == ordered[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    order[tied] = order[tied][np.lexsort((order[tied], second_N[order[tied]], ordered[tied]))]
    return order


def _near_neighbours(words_N5: np.ndarray, order: np.ndarray, keys: np.ndarray, most: int) -> np.ndarray:
    """Pairs [M,2] of rows at most WINDOW places apart in `order`, with equal keys, and near in all bits."""
    found = [np.empty((0, 2), np.int64)]
    here = np.arange(len(order))
    for step in range(1, WINDOW + 1):
        here = here[here < len(order) - step]
        here = here[keys[here] == keys[here + step]]
        if not len(here):
            break
        first, second = order[here], order[here + step]
        apart = np.bitwise_count(words_N5[first] ^ words_N5[second]).sum(1)
        near = apart <= most
        found.append(np.stack([first[near], second[near]], 1))
    return np.concatenate(found)


def _components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The smallest index reachable from each of `count` nodes over the edges."""
    labels = np.arange(count)
    while True:
        lower = np.minimum(labels[first], labels[second])
        following = labels.copy()
        np.minimum.at(following, labels[first], lower)
        np.minimum.at(following, labels[second], lower)
        while True:  # follow every label to its end
            further = following[following]
            if (further == following).all():
                break
            following = further
        if (following == labels).all():
            return labels
        labels = following


def _split_far(words_N5: np.ndarray, labels: np.ndarray, most: int) -> np.ndarray:
    """The first row of each row's group, -1 for none, from components.

    What is further than `most` bits from a group's first member starts another.
    """
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    found = np.full(len(labels), -1, np.int64)
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist()):
        rest = order[start : start + size]
        while len(rest) > 1:
            near = np.bitwise_count(words_N5[rest] ^ words_N5[rest[0]]).sum(1) <= most
            if near.sum() > 1:
                found[rest[near]] = rest[0]
            rest = rest[~near]
    return found
