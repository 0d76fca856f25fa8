"""Encoding: the right frames at the right size, and ids that follow everything they depend on."""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ptta_core import models
from ptta_core.buckets import TooShort, TooSmall, bucket, bucket_name
from ptta_core.config import BaseConfig, EncodeConfig, ModelRef
from ptta_core.stages import encode
from ptta_core.stages.encode import EncodeItem, LatentEncoder

BASE = BaseConfig(model=ModelRef(id="tiny:hunyuan", revision="0"), dtype="float32")
CONFIG = EncodeConfig(area=32 * 48, frames=9)
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def item(**changes: object) -> EncodeItem:
    """A clip of 48 frames at 24 fps, 96 x 64 px, in a time base of 1/12288."""
    plain = EncodeItem(
        clip_id="clip", caption_id="caption", path="", start_pts=0, end_pts=24576, time_base="1/12288", stream=0,
        crop="", start_s=0.0, end_s=2.0, width=96, height=64, text="a girl runs", labels='{"female":1.0}',
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- buckets


@pytest.mark.parametrize(
    ("available", "width", "height", "expected"),
    [
        (240, 1280, 720, (33, 384, 688)),  # 512 * 512 px at 16:9
        (240, 1024, 1024, (33, 512, 512)),
        (240, 720, 1280, (33, 688, 384)),
        (32, 1024, 1024, (29, 512, 512)),  # down to 4k+1
        (1, 1024, 1024, (1, 512, 512)),
        (4, 1024, 1024, (1, 512, 512)),
        (240, 320, 180, (33, 176, 320)),  # never enlarged
        (240, 4000, 40, (33, 32, 4000)),
        (240, 16, 16, (33, 16, 16)),
    ],
)
def test_bucket(available: int, width: int, height: int, expected: tuple[int, int, int]) -> None:
    assert bucket(available, width, height, EncodeConfig()) == expected


def test_every_bucket_keeps_the_rules() -> None:
    for width in range(16, 2000, 77):
        for height in range(16, 2000, 83):
            frames, bucket_height, bucket_width = bucket(width, width, height, EncodeConfig())
            assert frames % 4 == 1 and bucket_height % 16 == bucket_width % 16 == 0
            assert bucket_width <= width and bucket_height <= height
            if min(bucket_width, bucket_height) >= 128:  # below, 16 px steps are coarse
                assert bucket_width * bucket_height <= 512 * 512 * 1.15
                assert abs(bucket_width / bucket_height / (width / height) - 1) < 0.15


def test_clips_that_fit_no_bucket() -> None:
    with pytest.raises(TooShort) as short:
        bucket(0, 640, 480, EncodeConfig())
    assert short.value.kind == "too_short"
    with pytest.raises(TooSmall):
        bucket(9, 640, 15, EncodeConfig())
    assert bucket_name(33, 512, 768) == "33x512x768"


# ---------------------------------------------------------------------------------------------- windows


def test_window_first_and_middle() -> None:
    first = encode.window_of(item(), CONFIG)
    assert (first.offset_s, first.end_s, first.frames) == (0, Fraction(9, 24), 9)
    middle = encode.window_of(item(), EncodeConfig(area=32 * 48, frames=9, window="middle"))
    assert middle.offset_s == Fraction(19, 24)  # whole frames: 19 before, 20 after


def test_rounded_timestamps_do_not_cost_four_frames() -> None:
    config = EncodeConfig(area=32 * 48, frames=33)
    for milliseconds in (1374, 1375, 1376):  # 33 frames at 24 fps, give or take the container's rounding
        assert encode.window_of(item(end_pts=milliseconds, time_base="1/1000"), config).frames == 33
    assert encode.window_of(item(end_pts=1333, time_base="1/1000"), config).frames == 29


def test_a_clip_shorter_than_a_frame_is_too_short() -> None:
    with pytest.raises(TooShort):
        encode.window_of(item(end_pts=400), CONFIG)


# ------------------------------------------------------------------------------------- what is on screen


def chosen(begins_s: list[Fraction], fps: int, count: int) -> list[int]:
    window = encode.Window(Fraction(0), count, Fraction(fps), 16, 16)
    pictures = ((at, np.array(index)) for index, at in enumerate(begins_s))
    return [int(image) for image in encode.on_screen(pictures, window.times_s())]


def at_rate(rate: Fraction, count: int, tick_s: Fraction | None = None) -> list[Fraction]:
    times = [index / rate for index in range(count)]
    return [round(time / tick_s) * tick_s for time in times] if tick_s else times


MS = Fraction(1, 1000)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (at_rate(Fraction(24), 9), list(range(9))),
        (at_rate(Fraction(24), 9, MS), list(range(9))),
        (at_rate(Fraction(24000, 1001), 9), list(range(9))),
        (at_rate(Fraction(12), 5), [0, 0, 1, 1, 2, 2, 3, 3, 4]),
        (at_rate(Fraction(48), 18), [0, 2, 4, 6, 8, 10, 12, 14, 16]),
        (at_rate(Fraction(48), 18, MS), [0, 2, 4, 6, 8, 10, 12, 14, 16]),
        (at_rate(Fraction(30), 12), [0, 1, 3, 4, 5, 6, 8, 9, 10]),
        (at_rate(Fraction(60), 24, MS), [1, 3, 6, 8, 11, 13, 16, 18, 21]),
        ([Fraction(0), Fraction(5, 24)], [0, 0, 0, 0, 0, 1, 1, 1, 1]),  # a variable rate: a hold stays a hold
        ([Fraction(2, 24)], [0] * 9),  # nothing earlier to show
        ([], []),
    ],
)
def test_on_screen(times: list[Fraction], expected: list[int]) -> None:
    assert chosen(times, 24, 9) == expected


def test_reading_stops_with_the_window() -> None:
    read = []

    def pictures() -> Iterator[tuple[Fraction, np.ndarray]]:
        for index in range(1000):
            read.append(index)
            yield Fraction(index, 24), np.array(index)

    list(encode.on_screen(pictures(), [Fraction(1, 48), Fraction(3, 48)]))
    assert len(read) == 3


# --------------------------------------------------------------------------------------------- geometry


def test_cover_cuts_evenly_and_respects_the_crop() -> None:
    assert encode.cover(item(), 32, 48) == encode.Cover(48, 32, 0, 0)
    assert encode.cover(item(width=128, height=64), 32, 48) == encode.Cover(64, 32, 8, 0)
    assert encode.cover(item(width=96, height=96), 32, 48) == encode.Cover(48, 48, 0, 8)
    boxed = item(width=96, height=96, crop="0,16,96,64")  # bars of 16 px above and below
    assert encode.crop_of(boxed) == (0, 16, 96, 64)
    assert encode.cover(boxed, 32, 48) == encode.Cover(48, 48, 0, 8)
    with pytest.raises(ValueError, match="not inside"):
        encode.crop_of(item(crop="0,16,96,64"))


def test_cover_never_leaves_the_picture() -> None:
    for width in range(17, 400, 13):
        for height in range(17, 400, 11):
            one = item(width=width, height=height)
            _, bucket_height, bucket_width = bucket(9, width, height, CONFIG)
            place = encode.cover(one, bucket_height, bucket_width)
            assert 0 <= place.left <= place.width - bucket_width and 0 <= place.top <= place.height - bucket_height


def test_prompt() -> None:
    config = EncodeConfig(trigger="ptta style,", suffix=" 2d animation ")
    assert encode.effective_prompt(" a girl runs. ", config) == "ptta style, a girl runs. 2d animation"
    assert encode.effective_prompt("a girl runs.", EncodeConfig()) == "a girl runs."


# ----------------------------------------------------------------------------------------------- worker


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def worker(models_folder: str) -> LatentEncoder:
    return LatentEncoder(CONFIG, BASE, models_folder, "fingerprint", device="cpu")


def stripes(index: int) -> np.ndarray:
    """A picture whose brightness names its frame and whose halves differ."""
    picture = np.full((64, 96, 3), 20 + 4 * index, np.uint8)
    picture[:, 48:] = 235 - 4 * index
    return picture


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> EncodeItem:
    from ptta_core import video

    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    video.write_mp4(path, [stripes(index) for index in range(48)], 24.0, metadata={})
    times = [frame.pts for frame in video.read_frames(str(path), stream=0, pixel="rgb24")]
    probed = Fraction(1, 24) / (times[1] - times[0])
    return item(path=str(path), start_pts=times[0], end_pts=times[-1] + times[1] - times[0], time_base=str(probed))


def test_read_window_takes_the_windows_frames(clip: EncodeItem) -> None:
    config = EncodeConfig(area=32 * 48, frames=9, window="middle")
    images = encode.read_window(clip, encode.window_of(clip, config))
    assert images.shape == (9, 32, 48, 3) and images.dtype == np.uint8
    left, right = images[:, :, 4:20].mean((1, 2, 3)), images[:, :, 28:44].mean((1, 2, 3))
    expected = 20 + 4.0 * np.arange(19, 28)
    assert np.abs(left - expected).max() < 4 and np.abs(right - (255 - expected)).max() < 4


def test_latent_row(worker: LatentEncoder, clip: EncodeItem) -> None:
    from safetensors.torch import load

    row = worker([clip])[0]
    assert (row.bucket, row.start_s, row.end_s, row.prompt) == ("9x32x48", 0.0, 9 / 24, "a girl runs")
    assert (row.clip_id, row.caption_id, row.labels) == ("clip", "caption", '{"female":1.0}')
    tensors = load(row.tensors)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == {"latents": (16, 3, 4, 6), "text": (row.text_tokens, 32), "pooled": (16,)}
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.bfloat16"}
    images = encode.read_window(clip, encode.window_of(clip, CONFIG))
    direct = worker.encoder.latents(images, row.latent_id)
    assert (tensors["latents"].float() - direct).abs().max() < 0.02 * direct.abs().max()


def test_same_inputs_same_bytes_wherever_the_file_lies(
    worker: LatentEncoder, clip: EncodeItem, models_folder: str, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(Path(clip.path).read_bytes())
    another = LatentEncoder(CONFIG, BASE, models_folder, "fingerprint", device="cpu")
    assert another([dataclasses.replace(clip, path=str(moved))]) == worker([clip])


@pytest.mark.parametrize("field", ["clip_id", "caption_id", "text", "fingerprint", "window", "area", "trigger"])
def test_everything_that_matters_changes_the_id(
    worker: LatentEncoder, clip: EncodeItem, models_folder: str, field: str
) -> None:
    one, fingerprint, config = clip, "fingerprint", CONFIG
    match field:
        case "fingerprint":
            fingerprint = "another"
        case "window" | "area" | "trigger":
            config = CONFIG.model_copy(update={field: {"window": "middle", "area": 32 * 32, "trigger": "ptta"}[field]})
        case _:
            one = dataclasses.replace(clip, **{field: "another"})
    changed = LatentEncoder(config, BASE, models_folder, fingerprint, device="cpu")([one])[0]
    assert changed.latent_id != worker([clip])[0].latent_id


def test_a_span_without_frames_is_unreadable(worker: LatentEncoder, clip: EncodeItem) -> None:
    late = dataclasses.replace(clip, start_pts=clip.end_pts * 4, end_pts=clip.end_pts * 5)
    with pytest.raises(ValueError) as caught:
        worker([late])
    assert getattr(caught.value, "kind", "") == "unreadable"


@pytest.mark.skipif(not (DATA / "clips").is_dir(), reason="needs the test material beside the repository (shared/data)")
def test_real_footage(models_folder: str) -> None:
    from ptta_core import video

    path = str(DATA / "clips" / "sintel_wing_1280x544.mp4")
    times = [frame.pts for frame in video.read_frames(path, stream=0, width=64, height=32, pixel="rgb24")]
    step = times[1] - times[0]
    real = item(
        path=path, start_pts=times[0], end_pts=times[-1] + step, time_base=str(Fraction(1, 24) / step), width=1280,
        height=544, end_s=1.875,
    )  # fmt: skip
    row = LatentEncoder(EncodeConfig(area=96 * 96, frames=33), BASE, models_folder, "f", device="cpu")([real])[0]
    assert row.bucket == "33x64x144"
    assert models.describe(BASE.model).startswith("tiny:")
