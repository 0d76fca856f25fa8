"""What is held out: whole sources, and no near-duplicate of a learned clip. On real films: test_episodes.py."""

import pytest

from ptta_core.holdout import choose
from ptta_core.memo import StageError


def test_whole_sources_are_held_out() -> None:
    source_of = {f"latent{number}": f"source{number % 7}" for number in range(70)}
    apart, left_out = choose(source_of, 0.3, 0)
    sources = {source_of[latent] for latent in apart}
    assert len(sources) == 2 and apart == {latent for latent in source_of if source_of[latent] in sources}
    assert not left_out and choose(source_of, 0.3, 0) == (apart, left_out)
    assert len({frozenset(choose(source_of, 0.3, seed)[0]) for seed in range(8)}) > 1
    lopsided = {f"latent{number}": "long" if number else "short" for number in range(20)}
    for seed in range(6):
        assert 0 < len(choose(lopsided, 0.05, seed)[0]) < 20
    assert choose({"a": "only"}, 0.0, 0) == (set(), set())
    with pytest.raises(StageError, match=r"holdout_share = 0.1 .*1 source, 2 are needed"):
        choose({"a": "only", "b": "only"}, 0.1, 0)


@pytest.mark.parametrize("seed", range(6))
def test_no_group_of_near_duplicates_is_learned_and_measured(seed: int) -> None:
    """Eight episodes of ten shots: two shots are in all of them, and episode 7 is episode 6 encoded again."""
    source_of = {f"{episode}-{shot}": f"episode{episode}" for episode in range(8) for shot in range(10)}
    group_of = {f"{episode}-{shot}": shot for episode in range(8) for shot in (0, 9)}
    group_of |= {f"{episode}-{shot}": 100 + shot for episode in (6, 7) for shot in range(1, 9)}
    apart, left_out = choose(source_of, 0.2, seed, group_of)
    learned = source_of.keys() - apart - left_out
    measured_groups, learned_groups = ({group_of[one] for one in some if one in group_of} for some in (apart, learned))
    assert not measured_groups & learned_groups
    held = {source_of[latent] for latent in apart | left_out}
    assert apart | left_out == {latent for latent in source_of if source_of[latent] in held}
    assert len(apart) == 16 and len(held) == 2  # 20 % of 80; a source gives the 8 clips that are its own
    assert {latent.partition("-")[2] for latent in left_out} == {"0", "9"}


def test_sources_without_a_clip_of_their_own_are_passed_over() -> None:
    source_of = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "c1": "c"}
    twins = {"a1": 1, "b1": 1, "a2": 2, "b2": 2}
    for seed in range(6):
        assert choose(source_of, 0.2, seed, twins) == ({"c1"}, set())
    with pytest.raises(StageError, match="every clip of each source is in another source too"):
        choose({"a1": "a", "b1": "b"}, 0.5, 0, {"a1": 1, "b1": 1})
