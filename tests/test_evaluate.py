"""The evaluate worker: real video files in, verdicts out, each with the right video, judge and dimension."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ptta_core.config import EvaluateConfig, ModelRef
from ptta_core.models.judge import DIMENSIONS, measures
from ptta_core.stages.evaluate import EvaluateItem, Judge, load_video


def write_video(path: Path, frames: np.ndarray, fps: int) -> Path:
    """Lossless FFV1 in Matroska: what is read must equal what was written."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(fps))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def moving_box(step: int, frames: int = 9) -> np.ndarray:
    """A dark box on grey moving right by `step` px a frame: uint8 [T, 128, 192, 3]."""
    video = np.full((frames, 128, 192, 3), 180, np.uint8)
    for index, frame in enumerate(video):
        frame[40:90, 10 + step * index : 70 + step * index] = (30, 60, 90)
    return video


def item(path: Path, name: str, variant: str = "base") -> EvaluateItem:
    return EvaluateItem(name, variant, f"prompt of {name}", 3, str(path), f"sha of {name}")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {
        "still": write_video(folder / "still.mkv", moving_box(0), 8),
        "moving": write_video(folder / "moving.mkv", moving_box(8), 8),
    }


def test_a_video_is_read_whole_with_its_rate(videos):
    frames, fps = load_video(str(videos["moving"]))
    np.testing.assert_array_equal(frames, moving_box(8))
    assert fps == pytest.approx(8, rel=0.01)


def test_every_verdict_belongs_to_its_video(videos, tmp_path):
    judge = Judge(EvaluateConfig(), ["measures"], str(tmp_path))
    items = [item(videos["moving"], "g1", "adapter"), item(videos["still"], "g2"), item(videos["moving"], "g3")]
    found = judge(items)
    assert len(found) == 3
    for one, verdicts in zip(items, found, strict=True):
        expected = measures(moving_box(0 if one.generation_id == "g2" else 8), load_video(one.path)[1])
        assert {verdict.dimension: verdict.value for verdict in verdicts} == pytest.approx(expected)
        assert {(v.generation_id, v.variant, v.prompt, v.seed, v.judge) for v in verdicts} == {
            (one.generation_id, one.variant, one.prompt, 3, "measures")
        }
    assert {v.value for v in found[1] if v.dimension == "near_static"} == {1.0}
    assert {v.value for v in found[0] if v.dimension == "near_static"} == {0.0}


def test_verdict_ids_are_unique_and_follow_generation_judge_and_dimension(videos, tmp_path):
    judge = Judge(EvaluateConfig(), ["measures"], str(tmp_path))
    first, again, other = judge([item(videos["still"], "g1"), item(videos["still"], "g1"), item(videos["still"], "g2")])
    ids = [verdict.verdict_id for verdict in first]
    assert len(set(ids)) == len(ids) and ids == [verdict.verdict_id for verdict in again]
    assert not set(ids) & {verdict.verdict_id for verdict in other}


def test_several_judges_share_one_video(videos, tmp_path):
    config = EvaluateConfig(
        judges=["measures", "videoscore"], videoscore=ModelRef(id="tiny:videoscore"), videoscore_max_frames=2
    )
    (verdicts,) = Judge(config, ["measures", "videoscore"], str(tmp_path))([item(videos["moving"], "g1")])
    by_judge = {name: [v.dimension for v in verdicts if v.judge == name] for name in {v.judge for v in verdicts}}
    assert set(by_judge) == {"measures", "tiny:videoscore"}
    assert tuple(by_judge["tiny:videoscore"]) == DIMENSIONS
    assert len({v.verdict_id for v in verdicts}) == len(verdicts)  # both have a dynamic_degree


def test_a_broken_file_raises_and_names_itself(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    judge = Judge(EvaluateConfig(), ["measures"], str(tmp_path))
    with pytest.raises(Exception, match=r"broken\.mp4"):
        judge([item(broken, "g1")])
