"""Encoding: the right pictures at the right size, and ids that follow everything they depend on."""

import dataclasses
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from material import nasty

from ptta_core import looks, models
from ptta_core.buckets import Cover, TooShort, TooSmall, bucket, bucket_name, cover, crop_of
from ptta_core.config import BaseConfig, EncodeConfig, ModelRef
from ptta_core.fleet import Failed
from ptta_core.looks import LookItem
from ptta_core.stages import encode
from ptta_core.stages.encode import EncodeItem, LatentEncoder, Looker
from ptta_core.windows import plan

BASE = BaseConfig(model=ModelRef(id="tiny:hunyuan", revision="0"), dtype="float32")
CONFIG = EncodeConfig(area=32 * 48, frames=9)
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def item(config: EncodeConfig = CONFIG, place: int = 0, **changes: object) -> EncodeItem:
    """A clip of 48 frames at 24 fps, 96 x 64 px, in a time base of 1/12288: the window of that place."""
    clip = {
        "clip_id": "clip", "caption_id": "caption", "path": "", "start_pts": 0, "end_pts": 24576,
        "time_base": "1/12288", "stream": 0, "crop": "", "start_s": 0.0, "end_s": 2.0, "width": 96, "height": 64,
        "text": "a girl runs", "labels": '{"female":1.0}',
    } | changes  # fmt: skip
    found = plan(clip, config)
    return EncodeItem(**clip, window=found.windows[place], held=found.held)




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


# --------------------------------------------------------------------------------------------- geometry


def test_cover_cuts_evenly_and_respects_the_crop() -> None:
    assert cover((96, 64), "", 32, 48) == Cover(48, 32, 0, 0)
    assert cover((128, 64), "", 32, 48) == Cover(64, 32, 8, 0)
    assert cover((96, 96), "", 32, 48) == Cover(48, 48, 0, 8)
    assert crop_of("0,16,96,64", 96, 96) == (0, 16, 96, 64)  # bars of 16 px above and below
    assert cover((96, 96), "0,16,96,64", 32, 48) == Cover(48, 48, 0, 8)
    with pytest.raises(ValueError, match="not inside"):
        crop_of("0,16,96,64", 96, 64)


def test_cover_never_leaves_the_picture() -> None:
    for width in range(17, 400, 13):
        for height in range(17, 400, 11):
            _, bucket_height, bucket_width = bucket(9, width, height, CONFIG)
            place = cover((width, height), "", bucket_height, bucket_width)
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
    """A picture whose halves are the digits of its number to base 8, as brightness."""
    picture = np.full((64, 96, 3), 20 + 28 * (index // 8), np.uint8)
    picture[:, 48:] = 20 + 28 * (index % 8)
    return picture


def numbers(images: np.ndarray) -> list[int]:
    """The numbers of such pictures, read back from images [T,32,48,3]."""
    digits = [(images[:, :, half].mean((1, 2, 3)) - 20) / 28 for half in (slice(4, 20), slice(28, 44))]
    assert np.abs(digits - np.round(digits)).max() < 0.2
    return [round(8 * left + right) for left, right in np.round(digits).T]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> EncodeItem:
    from ptta_core import video

    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    video.write_mp4(path, [stripes(index) for index in range(48)], 24.0, metadata={})
    times = [frame.pts for frame in video.read_frames(str(path), stream=0, pixel="rgb24")]
    probed = Fraction(1, 24) / (times[1] - times[0])
    return item(path=str(path), start_pts=times[0], end_pts=times[-1] + times[1] - times[0], time_base=str(probed))


def windows(clip: EncodeItem, rule: str, frames: int = 9) -> list[EncodeItem]:
    """The clip's windows under a rule."""
    config = EncodeConfig(area=32 * 48, frames=frames, window=rule)  # type: ignore[arg-type]
    return [dataclasses.replace(clip, window=one) for one in plan(dataclasses.asdict(clip), config).windows]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("first", [range(9)]),
        ("middle", [range(19, 28)]),
        ("chunks", [range(9), range(9, 18), range(18, 27), range(27, 36), range(36, 45)]),  # 45, 46, 47 are the rest
        # (index + 3/7) * 48 / 9: the picture on screen then
        ("uniform", [[2, 7, 12, 18, 23, 28, 34, 39, 44]]),
    ],
)
def test_read_window_takes_the_windows_frames(clip: EncodeItem, rule: str, expected: list[list[int]]) -> None:
    found = windows(clip, rule)
    assert len(found) == len(expected)
    for one, frames in zip(found, expected):
        images = encode.read_window(one, 32, 48)
        assert images.shape == (9, 32, 48, 3) and images.dtype == np.uint8
        assert numbers(images) == list(frames)


def test_latent_row(worker: LatentEncoder, clip: EncodeItem) -> None:
    from safetensors.torch import load

    row = worker([clip])[0]
    assert (row.bucket, row.start_s, row.end_s, row.prompt) == ("9x32x48", 0.0, 9 / 24, "a girl runs")
    assert (row.clip_id, row.caption_id, row.labels) == ("clip", "caption", '{"female":1.0}')
    assert (row.frames, row.shown_s, row.speed, row.held, row.text_cut) == (9, 9 / 24, 1.0, 48, 0)
    tensors = load(row.tensors)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == {"latents": (16, 3, 4, 6), "text": (row.text_tokens, 32), "pooled": (16,)}
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.bfloat16"}
    images = encode.read_window(clip, 32, 48)
    direct = worker.encoder.latents(images, row.latent_id)
    assert (tensors["latents"].float() - direct).abs().max() < 0.02 * direct.abs().max()


def test_same_inputs_same_bytes_wherever_the_file_lies(
    worker: LatentEncoder, clip: EncodeItem, models_folder: str, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(Path(clip.path).read_bytes())
    another = LatentEncoder(CONFIG, BASE, models_folder, "fingerprint", device="cpu")
    assert another([dataclasses.replace(clip, path=str(moved))]) == worker([clip])


def test_a_time_lapse_says_its_speed(worker: LatentEncoder, clip: EncodeItem) -> None:
    row = worker(windows(clip, "uniform"))[0]
    assert (row.start_s, row.end_s, row.frames, row.shown_s, row.held) == (0.0, 2.0, 9, 9 / 24, 48)
    assert row.speed == pytest.approx((row.end_s - row.start_s) / row.shown_s) == pytest.approx(48 / 9)


def test_the_windows_of_a_clip_are_latents_of_their_own(worker: LatentEncoder, clip: EncodeItem) -> None:
    rows = worker(windows(clip, "chunks"))
    assert len({row.latent_id for row in rows}) == len({row.tensors for row in rows}) == len(rows) == 5
    assert [row.start_s for row in rows] == pytest.approx([place * 9 / 24 for place in range(5)])
    assert all(row.end_s == pytest.approx(row.start_s + 9 / 24) for row in rows)
    assert rows[0] == worker([clip])[0]  # the first chunk is the first window


def test_a_prompt_that_is_cut_says_by_how_much(worker: LatentEncoder, clip: EncodeItem) -> None:
    fits, long = worker([dataclasses.replace(clip, text=text) for text in ("a " * 200, "a " * 300)])
    assert fits.text_cut == 0 and fits.text_tokens < 256
    assert long.text_tokens == 256
    assert long.text_cut == 300 - 200 + fits.text_tokens - 256  # a token a word more


@pytest.mark.parametrize("field", ["clip_id", "caption_id", "text", "fingerprint", "window", "area", "trigger"])
def test_everything_that_matters_changes_the_id(
    worker: LatentEncoder, clip: EncodeItem, models_folder: str, field: str
) -> None:
    one, fingerprint, config = clip, "fingerprint", CONFIG
    match field:
        case "fingerprint":
            fingerprint = "another"
        case "window":
            one = windows(clip, "middle")[0]
        case "area" | "trigger":
            config = CONFIG.model_copy(update={field: {"area": 32 * 32, "trigger": "ptta"}[field]})
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
    config = EncodeConfig(area=96 * 96, frames=33)
    real = item(
        config, path=path, start_pts=times[0], end_pts=times[-1] + step, time_base=str(Fraction(1, 24) / step),
        width=1280, height=544, end_s=1.875,
    )  # fmt: skip
    row = LatentEncoder(config, BASE, models_folder, "f", device="cpu")([real])[0]
    assert row.bucket == "33x64x144"
    assert models.describe(BASE.model).startswith("tiny:")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("portrait_9x16.mp4", (128, 80)), ("rotated_90.mp4", (128, 80)), ("tiny_16x16.mp4", (16, 16)),
        ("odd_dimensions_427x241_vp9.webm", (80, 128)), ("one_frame_64x64.mp4", (64, 64)),
        ("variable_frame_rate.mp4", (80, 128)),
    ],
)  # fmt: skip
def test_upright_odd_and_tiny_footage(name: str, size: tuple[int, int]) -> None:
    """Whole files as clips, shorter than encode.frames: all that they hold, upright, in their bucket's size."""
    from ptta_core import video

    path = nasty(name)
    info = video.probe(path)
    times = [frame.pts for frame in video.read_frames(path, stream=info.stream, width=32, pixel="gray")]
    step = (times[1] - times[0]) if len(times) > 1 else round(Fraction(1, 24) / Fraction(info.time_base))
    config = EncodeConfig(area=96 * 96, frames=301)
    real = item(
        config, path=path, start_pts=times[0], end_pts=times[-1] + max(1, step), time_base=info.time_base,
        stream=info.stream, width=info.width, height=info.height, end_s=float(len(times)),
    )  # fmt: skip
    assert encode.size_of(real, config) == size
    images = encode.read_window(real, *size)
    assert images.shape == (real.window.frames, *size, 3)
    assert real.window.frames % 4 == 1 and real.held - 4 < real.window.frames <= real.held < 301


# ----------------------------------------------------------------------------------- what people look at


def test_looks_are_a_few_of_each_bucket_whatever_the_order() -> None:
    latents = [LookItem(f"{bucket}-{number}", "c", bucket) for bucket, many in (("a", 50), ("b", 2), ("c", 7))
               for number in range(many)]  # fmt: skip
    found = looks.choose(latents)
    assert Counter(one.bucket for one in found) == {"a": looks.A_BUCKET, "b": 2, "c": looks.A_BUCKET}
    assert set(looks.choose(latents[::-1])) == set(found)
    assert {one for one in found if one.bucket != "a"} < set(looks.choose([one for one in latents if one not in found
                                                                           or one.bucket != "a"]))  # fmt: skip
    many = [LookItem(f"{bucket}-{number}", "c", str(bucket)) for bucket in range(60) for number in range(bucket + 1)]
    chosen = looks.choose(many)
    assert len(chosen) == looks.MOST and len({one.bucket for one in chosen}) == looks.MOST  # one each of the fullest
    assert min(int(one.bucket) for one in chosen) == 60 - looks.MOST


def test_a_look_is_the_decoded_latent(worker: LatentEncoder, clip: EncodeItem, models_folder: str) -> None:
    import io

    import torch
    from PIL import Image
    from safetensors.torch import load

    row = worker([clip])[0]
    looker = Looker(BASE, models_folder, device="cpu")
    made, missing = looker([LookItem(row.latent_id, "clip", row.bucket, row.tensors), LookItem("gone", "clip", "x")])
    assert isinstance(missing, Failed) and missing.kind == "no_latent" and missing.retryable
    assert (made.latent_id, made.clip_id, made.bucket) == (row.latent_id, "clip", "9x32x48")  # type: ignore[union-attr]
    vae = worker.encoder.vae
    with torch.no_grad():
        direct = vae.decode(load(row.tensors)["latents"][None].float() / vae.config.scaling_factor).sample[0]
    expected = ((direct.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 3, 0).numpy()
    picture = np.asarray(Image.open(io.BytesIO(made.jpeg)).convert("RGB"), np.float64)  # type: ignore[union-attr]
    assert picture.shape == (32, 3 * 48 + 2 * looks.GAP_PX, 3)
    for place, frame in enumerate((0, 4, 8)):
        left = place * (48 + looks.GAP_PX)
        assert np.abs(picture[:, left : left + 48].mean((0, 1)) - expected[frame].mean((0, 1))).max() < 6


def test_a_strip_shows_a_short_video_once() -> None:
    assert looks.strip(np.zeros((1, 16, 32, 3), np.uint8)).shape == (16, 32, 3)


# -------------------------------------------------------------------------------------------- how it tiles


def test_the_vae_tiles_as_the_fingerprint_says(models_folder: str) -> None:
    """What is written into the fingerprint is what the VAE does, and it changes what comes out of it."""
    import torch

    from ptta_core.buckets import TILING
    from ptta_core.models import hunyuan

    path, revision = models.resolve(BASE.model, models_folder)
    vae = hunyuan.load_vae(path, revision, "float32")
    assert vae.use_tiling and vae.use_framewise_encoding
    assert (vae.tile_sample_min_height, vae.tile_sample_stride_width) == (TILING["side_px"], TILING["side_stride_px"])
    assert (vae.tile_sample_min_num_frames, vae.tile_sample_stride_num_frames) == (TILING["frames"],
                                                                                   TILING["frames_stride"])  # fmt: skip
    assert not hunyuan.load_vae(path, revision, "float32", tile=False).use_tiling
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for frames, alike in ((17, True), (21, False)):  # longer ones go in tiles of time, with tile=False too
            video = torch.randn(1, 3, frames, 32, 32, generator=generator)
            vae.use_framewise_encoding = True
            tiled = vae.encode(video).latent_dist.mean
            vae.use_framewise_encoding = False
            assert torch.equal(tiled, vae.encode(video).latent_dist.mean) == alike
