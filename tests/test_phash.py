"""Near-duplicates: copies are found, other shots are not joined, and a million clips stay quick."""

import itertools
import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ptta_core import video
from ptta_core.config import HOME
from ptta_core.models import phash
from ptta_core.models.frames import Nearest

DATA = HOME.parent / "shared/data"


def random_hashes(count: int, seed: int) -> np.ndarray:
    """Unrelated hashes as uint64 [N,5], 63 bits each."""
    return np.random.default_rng(seed).integers(0, 2**63, (count, 5), np.uint64)


def flipped(words: np.ndarray, bits: int, seed: int) -> np.ndarray:
    """The same with `bits` of the 315 bits of each hash turned over."""
    random, found = np.random.default_rng(seed), words.copy()
    for row in found:
        for place in random.choice(phash.BITS, bits, replace=False):
            row[place // 63] ^= np.uint64(1) << np.uint64(place % 63)
    return found


def texts(words: np.ndarray) -> list[str]:
    return [row.astype(">u8").tobytes().hex() for row in words]


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    """Smooth random pictures, 320 x 576."""
    random = np.random.default_rng(seed)
    return [cv2.resize(random.integers(0, 256, (6, 8), np.uint8), (576, 320), interpolation=cv2.INTER_CUBIC)
            for _ in range(count)]  # fmt: skip


def test_distance_counts_differing_bits():
    words = random_hashes(1, 0)
    one, other = texts(np.concatenate([words, flipped(words, 9, 1)]))
    assert phash.distance(one, one) == 0
    assert phash.distance(one, other) == pytest.approx(9 / 315)
    assert 0.35 < phash.distance(one, texts(random_hashes(1, 5))[0]) < 0.65


def test_brightness_contrast_and_size_hardly_change_a_hash():
    frames = pictures(5)
    plain = phash.clip_hash(frames)
    assert len(plain) == phash.HEX
    darker = phash.clip_hash([(frame * 0.6 + 10).astype(np.uint8) for frame in frames])
    small = phash.clip_hash([cv2.resize(frame, (160, 90), interpolation=cv2.INTER_AREA) for frame in frames])
    assert max(phash.distance(plain, darker), phash.distance(plain, small)) < 0.05
    assert phash.distance(plain, phash.clip_hash(pictures(5, 1))) > 0.3


def test_flat_pictures_with_noise_have_one_hash():
    random = np.random.default_rng(0)
    black = [[random.integers(0, 3, (320, 576), dtype=np.uint8) for _ in range(5)] for _ in range(3)]
    assert {phash.clip_hash(frames) for frames in black} == {"0" * 80}


def test_groups_are_found_whatever_the_order():
    base = random_hashes(200, 2)
    near = flipped(base[:50], 12, 3)
    nearer = flipped(base[:10], 5, 4)
    everything = texts(np.concatenate([base, near, nearer]))
    expected = [[row, 200 + row, 250 + row] if row < 10 else [row, 200 + row] for row in range(50)]
    assert phash.groups(everything) == expected
    order = np.random.default_rng(5).permutation(len(everything))
    shuffled = phash.groups([everything[at] for at in order])
    assert sorted(sorted(int(order[at]) for at in group) for group in shuffled) == expected


def test_groups_leave_out_what_is_unknown_or_far_and_refuse_nonsense():
    words = random_hashes(3, 6)
    far = flipped(words[:1], 60, 7)
    assert phash.groups(texts(np.concatenate([words, far]))) == []
    assert phash.groups(["", *texts(words[:1]), "", *texts(words[:1])]) == [[1, 3]]
    assert phash.groups([]) == []
    with pytest.raises(ValueError, match="'abc'"):
        phash.groups(["abc", *texts(words)])
    with pytest.raises(ValueError, match=r"threshold 0\.4"):
        phash.groups(texts(words), 0.4)


def test_words_and_texts_are_grouped_alike():
    words = random_hashes(300, 2)
    words[200:] = flipped(words[:100], 12, 3)
    firsts = phash.group_words(phash.words_of("".join(texts(words)).encode()))
    assert (firsts[:100] == np.arange(100)).all() and (firsts[200:] == np.arange(100)).all()
    assert (firsts[100:200] == -1).all()
    with pytest.raises(ValueError, match="no whole number of hashes"):
        phash.words_of(b"00ff")


def test_a_chain_of_small_steps_does_not_join_its_ends():
    words = [random_hashes(1, 8)]
    for step in range(12):
        words.append(flipped(words[-1], 25, 9 + step))
    chain = texts(np.concatenate(words))
    assert phash.distance(chain[0], chain[-1]) > 2.5 * phash.THRESHOLD
    for group in phash.groups(chain):
        assert all(phash.distance(chain[group[0]], chain[at]) <= 2 * phash.THRESHOLD for at in group)


def test_many_clips_and_a_heap_of_equal_ones_are_quick():
    words = random_hashes(100_000, 10)
    words[:20_000] = 0
    words[90_000:] = words[30_000:40_000] ^ np.uint64(1 << 40)
    begun = time.monotonic()
    found = phash.groups(texts(words))
    assert time.monotonic() - begun < 15  # 1 s on a quiet machine; comparing all with all would take minutes
    assert found[0] == list(range(20_000))
    assert found[1:] == [[at, at + 60_000] for at in range(30_000, 40_000)]


# ---------------------------------------------------------------------------------------------- real footage


def spans(name: str) -> list[tuple[int, int]]:
    """Known shots of a file, first and last frame, of at least one second."""
    known = json.loads((DATA / "shots.json").read_text())["videos"]
    found = next(one["shots"] for one in known if one["file"] == name)
    return [(first, last) for first, last in found if last - first >= 24]


def hashes(path: Path, shots: list[tuple[int, int]], fps: float = 24.0) -> list[str]:
    """The hash of each shot, as the score stage takes it; frame numbers are those at 24 fps."""
    nearest = [Nearest(first, last + 1, phash.PLACES) for first, last in shots]
    for frame in video.read_frames(path, width=576, height=320, pixel="gray"):
        numbered = video.Frame(frame.index, round(frame.index * 24 / fps), frame.time_s, frame.image)
        for (first, last), one in zip(shots, nearest):
            if first <= numbered.pts <= last:
                one.offer(numbered)
    return [phash.clip_hash(one.images()) for one in nearest]


@pytest.mark.skipif(not DATA.is_dir(), reason="the real clips of ../shared/data are not here")
def test_recoded_copies_of_real_shots_are_found_and_other_shots_are_not_joined(tmp_path):
    """Half size, low quality, brighter, cut by 2 % at every side, and at 12 fps."""
    name = "clips/sintel_trailer_480x204.mp4"
    shots = spans(name)
    frames = [frame.image for frame in video.read_frames(DATA / name, height=204)]
    height, width = frames[0].shape[:2]
    copies = {
        "small": ([cv2.resize(frame, (240, 102), interpolation=cv2.INTER_AREA) for frame in frames], 24, 34),
        "bright and cut": (
            [np.clip(frame[4 : height - 4, 10 : width - 10] * 1.1 + 8.0, 0, 255).astype(np.uint8) for frame in frames],
            24,
            28,
        ),
        "half the frames": (frames[::2], 12, 23),
    }
    own = hashes(DATA / name, shots)
    joined = right = 0
    for images, fps, crf in copies.values():
        video.write_mp4(tmp_path / "copy.mp4", images, fps, crf=crf)
        found = phash.groups(own + hashes(tmp_path / "copy.mp4", shots, fps))
        pairs = {pair for group in found for pair in itertools.combinations(group, 2)}
        joined += len(pairs)
        right += len(pairs & {(at, at + len(own)) for at in range(len(own))})
    assert right / (len(own) * len(copies)) >= 0.95
    assert right / joined >= 0.98
