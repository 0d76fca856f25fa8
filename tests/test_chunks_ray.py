"""Long sources shared by two workers are split as one process splits them."""

import random
from pathlib import Path

import numpy as np
import pytest
from demo import go, open_demo

from ptta_core import cartoon, video
from ptta_core.stages import split


def test_chunks_on_two_workers_give_the_clips_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: None
) -> None:
    folder, pictures = tmp_path / "films", []
    for number in range(4):
        drawn = cartoon.shot_frames(cartoon.Shot("pan", 40, 4.0), cartoon.PALETTES[number], random.Random(number))
        pictures += [np.asarray(one)[::2, ::2] for one in drawn]
    folder.mkdir()
    video.write_mp4(folder / "a.mp4", pictures, 24)
    monkeypatch.setattr(split, "CHUNK_S", 1.5)
    shared, seen = split._in_chunks, []
    monkeypatch.setattr(split, "_in_chunks", lambda longs, *more: seen.append(len(longs)) or shared(longs, *more))
    clips = {}
    for workers in (0, 2):
        view = open_demo(tmp_path / f"w{workers}", folder, **{"site.split.count": workers})
        go(view, ("gather", "split"))
        names = [name for name in view.rows("split").column_names if name in video_columns()]
        clips[workers] = sorted(view.rows("split", names).to_pylist(), key=lambda row: row["start_pts"])
    assert seen == [0, 1]  # the second time the film went through the workers in chunks
    assert len(clips[0]) == 4 and clips[0] == clips[2]


def video_columns() -> set[str]:
    """The columns of a clip, without the memo's."""
    from dataclasses import fields

    from ptta_core.rows import Clip

    return {field.name for field in fields(Clip)}
