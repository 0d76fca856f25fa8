"""Video files: what is written is read back frame by frame, and nothing a file holds crashes or misleads."""

import io
import json
import os
import pickle
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from material import NASTY, nasty
from PIL import Image

from ptta_core import video
from ptta_core.video import VideoError, probe, read_frames, write_mp4

FRAMES = 60
REJECTED = {
    "audio_only.mp4": "not_video", "bad_lacing.mkv": "no_frames", "encrypted_cenc.mp4": "encrypted",
    "git_lfs_pointer.mp4": "not_video", "html_error_page.mp4": "not_video", "init_segment_only.mp4": "no_frames",
    "invalid_vp9_bitstream.webm": "no_frames", "truncated_no_moov.mp4": "unreadable", "zero_byte.mp4": "not_video",
}  # fmt: skip


def picture(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Its index in binary, as six white or black bars; survives any codec."""
    image = np.full((height, width, 3), 128, np.uint8)
    for bit in range(6):
        image[:, 8 * bit : 8 * bit + 8] = 255 * (index >> bit & 1)
    return image


def number(image: np.ndarray) -> int:
    """The index that `picture` drew, at any size."""
    bar = image.shape[1] / 8
    means = [image[:, int(bar * (bit + 0.25)) : int(bar * (bit + 0.75))].mean() for bit in range(6)]
    return sum((mean > 128) << bit for bit, mean in enumerate(means))


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames at 24 fps with a key frame every 12 and B-frames between."""
    path = tmp_path_factory.mktemp("video") / "bars.mp4"
    with av.open(str(path), "w") as container:
        options = {"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}
        stream = container.add_stream("libx264", rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
        container.mux(stream.encode())
    return path


# ------------------------------------------------------------------------------------------------ what it is


def test_probe_of_a_plain_file(bars: Path) -> None:
    info = probe(bars)
    assert (info.width, info.height, info.frames, info.codec, info.stream) == (64, 48, FRAMES, "h264", 0)
    assert (info.fps, info.duration_s, info.start_pts, info.rotation) == (24, FRAMES / 24, 0, 0)
    assert Fraction(info.time_base).numerator == 1 and "mp4" in info.container


@pytest.mark.parametrize(
    "name, expected",
    [
        ("anamorphic_sar.mp4", {"width": 853, "height": 480}),
        ("interlaced_pal.mp4", {"width": 768, "height": 576}),
        ("rotated_90.mp4", {"width": 240, "height": 426, "rotation": 90}),
        ("attached_cover_art.mp4", {"stream": 0, "width": 426, "codec": "h264"}),
        ("wrong_declared_duration.mp4", {"duration_s": pytest.approx(3, abs=0.05), "fps": pytest.approx(24)}),
        ("webm_no_duration.webm", {"duration_s": pytest.approx(4.94, abs=0.1), "frames": 0}),
        ("truncated_mid_mdat.mp4", {"duration_s": pytest.approx(1.5, abs=0.2)}),
        ("non_zero_start.mp4", {"start_pts": 127995}),
        ("av1.mp4", {"codec": "av1"}),
        ("variable_frame_rate.mp4", {"frames": 94, "duration_s": pytest.approx(6)}),
    ],
)
def test_probe_says_what_is_shown(name: str, expected: dict) -> None:
    info = probe(nasty(name))
    assert {field: getattr(info, field) for field in expected} == expected


@pytest.mark.parametrize("name, kind", REJECTED.items())
def test_a_file_without_video_is_refused_with_its_reason(name: str, kind: str) -> None:
    path = nasty(name)
    with pytest.raises(VideoError, match=name) as probed:
        probe(path)
    with pytest.raises(VideoError) as read:
        list(read_frames(path))
    assert (probed.value.kind, read.value.kind) == (kind, kind)


def test_missing_folder_and_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, kind in (("none.mp4", "missing"), (".", "unreadable"), ("pipe.mp4", "unreadable")):
        with pytest.raises(VideoError) as caught:
            probe(tmp_path / name)
        assert caught.value.kind == kind


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(VideoError("encrypted", "a.mp4: encrypted")))  # noqa: S301
    assert (error.kind, str(error)) == ("encrypted", "a.mp4: encrypted")


SCRIPTS = {
    "concat": "ffconcat version 1.0\nfile 'bars.mp4'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nbars.mp4\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>bars.mp4</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_that_names_another_file_is_refused(bars: Path, script: str) -> None:
    path = bars.with_name(f"{script}.mp4")
    path.write_text(SCRIPTS[script])
    if script == "concat":  # the canary: without the whitelist FFmpeg does follow it
        with av.open(str(path)) as container:
            assert len(list(container.decode(video=0))) == FRAMES
    for read in (probe, lambda path: list(read_frames(path))):
        with pytest.raises(VideoError) as caught:
            read(path)
        assert caught.value.kind == "not_video"


# --------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_every_span_holds_exactly_its_frames(bars: Path, suffix: str) -> None:
    path = remuxed(bars, suffix)
    whole = list(read_frames(path))
    assert [number(frame.image) for frame in whole] == list(range(FRAMES))
    for first in (0, 1, 5, 11, 12, 13, 22, 23, 24, 35, 36, 47, 59):
        for count in (1, 7):
            end = whole[first + count].pts if first + count < FRAMES else None
            frames = list(read_frames(path, start_pts=whole[first].pts, end_pts=end))
            assert [number(frame.image) for frame in frames] == list(range(first, min(first + count, FRAMES)))
            assert [frame.index for frame in frames] == list(range(len(frames)))
            assert frames[0].pts == whole[first].pts
            np.testing.assert_array_equal(frames[0].image, whole[first].image)


def remuxed(path: Path, suffix: str) -> Path:
    """The same in another container; AVI as MPEG-4, whose decoder tells no pts of its own there."""
    if suffix == ".mp4":
        return path
    out = path.with_suffix(suffix)
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        if suffix == ".avi":
            stream = target.add_stream("mpeg4", rate=24, options={"g": "12", "b": "2000000"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for index in range(FRAMES):
                target.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
            target.mux(stream.encode())
            return out
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copied
                target.mux(packet)
    return out


def test_times_and_a_span_behind_the_end(bars: Path) -> None:
    frames = list(read_frames(bars, stream=0))
    assert [frame.time_s for frame in frames] == pytest.approx([index / 24 for index in range(FRAMES)])
    assert list(read_frames(bars, start_pts=frames[-1].pts + 1, end_pts=frames[-1].pts * 3)) == []
    with pytest.raises(VideoError):
        list(read_frames(bars, stream=3))


def test_sizes_and_gray(bars: Path) -> None:
    def shape(**size: int) -> tuple[int, ...]:
        return next(iter(read_frames(bars, **size))).image.shape

    assert shape() == (48, 64, 3)
    assert shape(width=32) == (24, 32, 3) and shape(height=24) == (24, 32, 3) and shape(width=30) == (22, 30, 3)
    assert shape(width=20, height=40) == (40, 20, 3) and shape(width=128) == (96, 128, 3)
    gray = list(read_frames(bars, width=32, pixel="gray", threads=2))
    assert gray[0].image.shape == (24, 32) and gray[0].image.dtype == np.uint8
    assert [number(frame.image) for frame in gray] == list(range(FRAMES))


def test_closing_early_closes_the_file(bars: Path) -> None:
    def held() -> int:
        return sum(os.path.realpath(f"/proc/self/fd/{fd}") == str(bars) for fd in os.listdir("/proc/self/fd"))

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    frames = read_frames(bars)
    next(frames)
    assert held() == 1
    frames.close()  # type: ignore[attr-defined]
    assert held() == 0


def test_a_turned_file_is_upright() -> None:
    upright = next(iter(read_frames(nasty("near_duplicate_b_original.mp4")))).image.astype(int)
    turned = next(iter(read_frames(nasty("rotated_90.mp4")))).image.astype(int)
    assert turned.shape == (426, 240, 3)
    # the display matrix asks for 90 degrees counter-clockwise (ffprobe: rotation of 90)
    assert np.abs(turned - np.rot90(upright, 1)).mean() < 6 < np.abs(turned - np.rot90(upright, -1)).mean()


def test_non_square_pixels_are_squared_unless_a_size_is_asked() -> None:
    path = nasty("anamorphic_sar.mp4")
    assert next(iter(read_frames(path))).image.shape == (480, 853, 3)
    assert next(iter(read_frames(path, width=426))).image.shape == (240, 426, 3)
    assert next(iter(read_frames(path, width=64, height=64))).image.shape == (64, 64, 3)


def test_a_change_of_resolution_keeps_the_size() -> None:
    path = nasty("resolution_change.ts")
    assert {frame.image.shape for frame in read_frames(path)} == {(360, 640, 3)}
    assert {frame.image.shape for frame in read_frames(path, width=96, height=54)} == {(54, 96, 3)}


def catalogue() -> list[dict]:
    return json.loads((NASTY / "nasty.json").read_text())["files"] if (NASTY / "nasty.json").exists() else []


@pytest.mark.skipif(not catalogue(), reason="needs the test material beside the repository (shared/data/nasty)")
def test_every_nasty_file_gives_the_frames_that_ffmpeg_finds() -> None:
    for entry in catalogue():
        path = str(NASTY / entry["file"])
        if entry["file"] in REJECTED:
            continue
        info, frames = probe(path), list(read_frames(path, width=32))
        assert len(frames) == entry["frames_decoded_by_ffmpeg"], path
        assert all(one.pts < two.pts for one, two in pairwise(frames)), path
        assert frames[0].pts == info.start_pts and 0 < info.duration_s < 60 and 0 < info.fps < 121, path
        middle = frames[len(frames) // 2].pts
        span = list(read_frames(path, start_pts=middle, width=32))
        if entry["file"] not in ("corrupt_packets.mp4", "resolution_change.ts"):
            # what those lose or repair depends on where decoding begins: one is damaged, one has two pictures at a time
            assert [frame.pts for frame in span] == [frame.pts for frame in frames[len(frames) // 2 :]], path


# --------------------------------------------------------------------------------------------------- writing


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    size = write_mp4(path, np.stack([picture(index) for index in range(30)]), 23.976, metadata={"title": "ü", "x": "1"})
    assert size == path.stat().st_size and os.listdir(tmp_path) == ["out.mp4"]
    assert [number(frame.image) for frame in read_frames(path)] == list(range(30))
    assert probe(path).fps == pytest.approx(23.976, abs=0.001) and probe(path).frames == 30
    with av.open(str(path)) as container:
        assert container.metadata["title"] == "ü"
        assert container.streams.video[0].pix_fmt == "yuv420p"


def test_colours_survive(tmp_path: Path) -> None:
    colours = [(220, 30, 30), (30, 200, 40), (40, 40, 210), (250, 240, 20), (255, 255, 255), (0, 0, 0)]
    write_mp4(tmp_path / "c.mp4", [np.full((32, 32, 3), colour, np.uint8) for colour in colours], 8, crf=1)
    for frame, colour in zip(read_frames(tmp_path / "c.mp4"), colours, strict=True):
        assert np.abs(frame.image.astype(int) - colour).max() <= 5
    with av.open(str(tmp_path / "c.mp4")) as container:
        assert next(container.decode(video=0)).colorspace == 1  # BT.709, for players


def test_gray_is_the_luma_that_was_coded(tmp_path: Path) -> None:
    colours = [(220, 30, 30), (30, 200, 40), (40, 40, 210), (255, 255, 255), (0, 0, 0)]
    write_mp4(tmp_path / "c.mp4", [np.full((32, 32, 3), colour, np.uint8) for colour in colours], 8, crf=1)
    for frame, colour in zip(read_frames(tmp_path / "c.mp4", width=16, pixel="gray"), colours, strict=True):
        assert abs(frame.image.mean() - np.dot(colour, (0.2126, 0.7152, 0.0722))) < 2  # BT.709, as the file says


def test_the_same_pictures_are_the_same_bytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 49, 65, 3), np.uint8)
    for name in ("a.mp4", "b.mp4"):
        write_mp4(tmp_path / name, noise, 24, metadata={"comment": "c"})
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert (probe(tmp_path / "a.mp4").width, probe(tmp_path / "a.mp4").height) == (64, 48)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    for bad in ([], [picture(0), picture(0, 32)], [picture(0).astype(np.float32)], [picture(0)[..., 0]]):
        with pytest.raises(ValueError):
            write_mp4(path, bad, 24)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["out.mp4"]


def test_jpeg() -> None:
    with Image.open(io.BytesIO(video.jpeg(np.kron(picture(5), np.ones((10, 10, 1), np.uint8)), width=192))) as image:
        assert (image.size, image.format) == ((192, 144), "JPEG")
        assert number(np.asarray(image)) == 5
    with Image.open(io.BytesIO(video.jpeg(picture(5)[..., 0]))) as image:
        assert (image.size, image.mode) == ((64, 48), "L")
