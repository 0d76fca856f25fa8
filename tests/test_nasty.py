"""Whatever a file claims to be: it ends as good pictures or as a VideoError that says why, and opens nothing else."""

import contextlib
import ctypes
import http.server
import os
import random
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from ptta_core import video
from ptta_core.video import VideoError, probe, read_frames, write_mp4

ROOT = Path(__file__).resolve().parents[1]


def picture(index: int, width: int = 128, height: int = 96) -> np.ndarray:
    rng = np.random.default_rng(index)
    image = np.full((height, width, 3), 40 + 4 * index % 160, np.uint8)
    image[20:60, 20 + index % 40 : 60 + index % 40] = rng.integers(0, 256, (40, 40, 3), np.uint8)
    return image


def encoded(path: Path, codec: str, count: int = 48, options: dict[str, str] | None = None) -> Path:
    """A small film of some codec; the suffix says the container."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options or {"g": "12"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("nasty")
    fast = {"g": "12", "deadline": "realtime", "cpu-used": "8"}
    return {
        "mp4": encoded(folder / "a.mp4", "libx264"), "mkv": encoded(folder / "a.mkv", "libx264"),
        "webm": encoded(folder / "a.webm", "libvpx", options=fast), "ts": encoded(folder / "a.ts", "mpeg2video"),
        "avi": encoded(folder / "a.avi", "mpeg4"),
        "av1": encoded(folder / "av1.mp4", "libsvtav1", 24, {"preset": "12"}),
    }  # fmt: skip


def outcome(path: Path | str) -> str:
    """The number of pictures, or the kind of the error; anything else that is raised fails the test."""
    try:
        info = probe(path)
        assert info.duration_s >= 0 and 0 <= info.fps <= 480 and info.width > 0 and info.height > 0
        frames = list(read_frames(path, width=32))
    except VideoError as error:
        assert str(path) in str(error)
        return error.kind
    assert all(one.pts < two.pts for one, two in pairwise(frames))
    return str(len(frames))


# ------------------------------------------------------------------------------- what has only a video's name

IMPOSTORS = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "not_video", "Git LFS pointer"),
    "html": (b"\n<!DOCTYPE html><html><body>404</body></html>", "not_video", "HTML page"),
    "json": (b'{"error": "not found"}', "not_video", "JSON"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "not_video", "XML"),
    "playlist": (b"\xef\xbb\xbf#EXTM3U\n#EXTINF:1,\na.ts\n", "not_video", "playlist"),
    "concat": (b"ffconcat version 1.0\nfile a.mp4\n", "not_video", "concat script"),
    "dash": (b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>', "not_video", "manifest"),
    "sdp": (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n", "not_video", "SDP"),
    "jpeg": (video.jpeg(picture(0)), "not_video", "a picture"),
    "zip": (b"PK\x03\x04" + bytes(60), "not_video", "archive"),
    "pdf": (b"%PDF-1.7\n", "not_video", "PDF"),
    "zeros": (bytes(5000), "unreadable", "zeros"),
    "noise": (random.Random(0).randbytes(5000), "not_video", "no video"),
    "empty": (b"", "not_video", "empty"),
}


@pytest.mark.parametrize("name", IMPOSTORS)
def test_an_impostor_is_named(tmp_path: Path, name: str) -> None:
    content, kind, said = IMPOSTORS[name]
    path = tmp_path / f"{name}.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=said) as caught:
        probe(path)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    "name",
    ["-i.mp4", "--help.mp4", "a b  c.mp4", "new\nline.mp4", "ビデオ é.mp4", "%03d.mp4", "a'b\"c;$(touch x).mp4",
     "*?.mp4", "http:x.mp4", "concat:a.mp4|b.mp4", "pipe:0", "file:a.mp4", "no suffix", b"\xff\xfe.mp4"],
)  # fmt: skip
def test_names_are_only_names(
    films: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = os.fsdecode(name)
    (tmp_path / path).write_bytes(films["mp4"].read_bytes())
    monkeypatch.chdir(tmp_path)
    for one in (path, os.path.join(tmp_path, path)):  # relative too
        try:
            assert probe(one).width == 128 and len(list(read_frames(one))) == 48
        except VideoError as error:  # a name that is no text cannot be handed on; it must say so
            assert isinstance(name, bytes) and error.kind == "unreadable"
    assert os.listdir(tmp_path) == [path]


# ----------------------------------------------------------------------------------------- nothing else is opened


class Watch:
    """Which files of a folder are opened by anybody (inotify)."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK)
        opened, accessed = 0x20, 0x1
        assert libc.inotify_add_watch(self.fd, os.fsencode(folder), opened | accessed) >= 0

    def opened(self) -> set[str]:
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return set()
        names, at = set(), 0
        while at < len(data):
            length = struct.unpack_from("I", data, at + 12)[0]
            names.add(data[at + 16 : at + 16 + length].rstrip(b"\0").decode())
            at += 16 + length
        return names


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """(address of a server on the loopback, what was asked of it)."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    class Server(socketserver.ThreadingTCPServer):
        def verify_request(self, request: object, client_address: object) -> bool:
            asked.append("connected")
            return True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def hls(target: str) -> str:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n"


def hls_key(target: str) -> str:
    return f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n'


def dash(target: str) -> str:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        f'<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL>'
        '<SegmentBase indexRange="0-1"/></Representation></AdaptationSet></Period></MPD>'
    )


SCRIPTS = {
    "concat": lambda target: f"ffconcat version 1.0\nfile '{target}'\n",
    "hls": hls, "hls key": hls_key, "dash": dash,
    "image2": lambda target: f"{target}\n",
    "lavfi": lambda target: f"movie={target}[out0]\n",
    "sdp": lambda target: f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nu={target}\nm=audio 5004 RTP 96\n",
    "smil": lambda target: f"<smil><body><video src='{target}'/></body></smil>",
    "asx": lambda target: f"<asx version='3.0'><entry><ref href='{target}'/></entry></asx>",
    "imf": lambda target: f"<?xml version='1.0'?><CompositionPlaylist><Id>{target}</Id></CompositionPlaylist>",
    "rtsp redirect": lambda target: f"[Reference]\nRef1={target}\n",
}  # fmt: skip
SUFFIXES = (".mp4", ".m3u8", ".mpd", ".sdp", ".mkv", ".ffconcat", "%03d.jpg")


def quiet(films: dict[str, Path], tmp_path: Path, listener: tuple[str, list[str]], write) -> None:  # type: ignore[no-untyped-def]
    """Nothing that `write(target)` makes leads to the canary or to the network."""
    address, asked = listener
    canary = tmp_path / "secret" / "canary.mp4"
    canary.parent.mkdir()
    canary.write_bytes(films["mp4"].read_bytes())
    watch = Watch(canary.parent)
    canary.read_bytes()
    assert watch.opened() == {"canary.mp4"}  # the watch sees an opening
    for target in ("secret/canary.mp4", str(canary), f"file:{canary}", f"{address}/canary.mp4", f"tcp{address[4:]}"):
        content = write(target)
        for suffix in SUFFIXES:
            path = tmp_path / f"innocent{suffix}"
            path.write_bytes(content)
            for read in (probe, lambda path: list(read_frames(path, width=16))):
                with contextlib.suppress(VideoError):
                    read(path)
            path.unlink()
    assert watch.opened() == set() and asked == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_leads_nowhere(
    films: dict[str, Path], tmp_path: Path, listener: tuple[str, list[str]], script: str
) -> None:
    quiet(films, tmp_path, listener, lambda target: SCRIPTS[script](target).encode())


def test_a_movie_that_keeps_its_data_elsewhere_leads_nowhere(
    films: dict[str, Path], tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    """An MP4 whose data reference (dref) is an alias or an address instead of "in this file"."""

    def elsewhere(target: str) -> bytes:
        data = films["mp4"].read_bytes()
        at = data.index(b"dref") - 4
        old = struct.unpack(">I", data[at : at + 4])[0]
        name = target.encode()
        alias = (
            bytes(10)
            + bytes([1])
            + b"x".ljust(27, b"\0")
            + bytes(12)
            + bytes([len(name[:62])])
            + name[:62].ljust(63, b"\0")
        )
        alias += bytes(16) + struct.pack(">hh", 1, 1) + bytes(16)
        padded = name + b"\0" * (len(name) % 2)
        alias += struct.pack(">hh", 2, len(name)) + padded + struct.pack(">hh", -1, 0)
        entries = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
        entries += struct.pack(">I4sI", 12 + len(name) + 1, b"url ", 0) + name + b"\0"
        box = struct.pack(">I4sII", 16 + len(entries), b"dref", 0, 2) + entries
        grown = bytearray(data[:at] + box + data[at + old :])
        for parent in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
            where = grown.index(parent) - 4
            struct.pack_into(">I", grown, where, struct.unpack_from(">I", grown, where)[0] + len(box) - old)
        return bytes(grown)

    quiet(films, tmp_path, listener, elsewhere)


def test_a_matroska_file_that_names_its_next_part_leads_nowhere(
    films: dict[str, Path], tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    """The file name of the next segment (NextFilename), where the header is padded (Void)."""

    def chained(target: str) -> bytes:
        data = bytearray(films["mkv"].read_bytes())
        info = data.index(b"\x15\x49\xa9\x66")
        muxer = data.index(b"\x4d\x80", info)  # MuxingApp, replaced by NextFilename of the same length
        room = data[muxer + 2] & 0x7F
        data[muxer : muxer + 3 + room] = b"\x3e\x83" + bytes([0x80 | room]) + target.encode()[:room].ljust(room, b"\0")
        return bytes(data)

    quiet(films, tmp_path, listener, chained)


# ------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("name", ["mp4", "mkv", "webm", "ts", "avi", "av1"])
def test_truncated_anywhere(films: dict[str, Path], tmp_path: Path, name: str) -> None:
    data = films[name].read_bytes()
    path = tmp_path / f"cut{films[name].suffix}"
    found = []
    for share in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        found.append(outcome(path))
    assert all(one in ("unreadable", "not_video", "no_frames") or int(one) <= 48 for one in found)
    if name in ("mkv", "webm", "ts", "avi"):  # readable from the front
        assert int(found[-1]) >= 40 and int(found[3]) >= 8


@pytest.mark.parametrize("name", ["mp4", "mkv", "webm", "ts", "avi", "av1"])
def test_damaged_anywhere(films: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Flipped bytes and holes; some read, with and without cleanup, none crashes."""
    data, rng = films[name].read_bytes(), random.Random(name)
    path = tmp_path / f"hurt{films[name].suffix}"
    good = 0
    for round_ in range(12):
        hurt = bytearray(data)
        for _ in range(3 + 4 * round_):
            hurt[rng.randrange(len(hurt))] = rng.randrange(256)
        at = rng.randrange(len(hurt) // 2, len(hurt))
        hurt[at : at + 50 * round_] = bytes(len(hurt[at : at + 50 * round_]))
        path.write_bytes(hurt)
        good += outcome(path).isdigit()
        for cleanup in ("deinterlace", "detelecine"):
            with contextlib.suppress(VideoError):
                list(read_frames(path, width=32, cleanup=cleanup))
    assert good >= 3


@pytest.mark.parametrize("claimed_s", [0.02, 0.5, 40.0, 3600.0])
def test_a_wrong_duration_is_not_believed(films: dict[str, Path], tmp_path: Path, claimed_s: float) -> None:
    data = bytearray(films["webm"].read_bytes())
    at = data.index(b"\x44\x89\x88")
    struct.pack_into(">d", data, at + 3, claimed_s * 1000)
    path = tmp_path / "wrong.webm"
    path.write_bytes(data)
    assert probe(path).duration_s == pytest.approx(claimed_s if abs(claimed_s - 2) < 2 else 2.0, abs=0.05)
    assert probe(path).fps == pytest.approx(24, abs=0.5)


def remuxed(source: Path, path: Path, times: list[int], base: Fraction) -> Path:
    """The packets of an intra-only copy of a film, at other times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 128, 96, "yuv420p", base
        stream.codec_context.time_base = base
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts, frame.time_base = time, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_variable_rate_keeps_its_times(films: dict[str, Path], tmp_path: Path) -> None:
    times = [0, 40, 80, 200, 240, 1240, 1280, 1320, 1360, 3000, 3040, 3080]
    path = remuxed(films["mp4"], tmp_path / "vfr.mkv", times, Fraction(1, 1000))
    assert [round(frame.time_s * 1000) for frame in read_frames(path)] == times
    assert [round(frame.time_s * 1000) for frame in read_frames(path, start_pts=240, end_pts=1320)] == [240, 1240, 1280]
    info = probe(path)
    assert info.duration_s == pytest.approx(3.1, abs=0.1) and 1 < info.fps < 30


def test_one_damaged_time_does_not_stretch_a_film(films: dict[str, Path], tmp_path: Path) -> None:
    times = [40 * index for index in range(50)] + [10**9]
    info = probe(remuxed(films["mp4"], tmp_path / "jump.mkv", times, Fraction(1, 1000)))
    assert info.duration_s == pytest.approx(2.04, abs=0.1) and info.fps == pytest.approx(25, rel=0.05)


def test_a_picture_that_cannot_be_scaled_is_left_out(films: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged AV1 turns up pictures of impossible formats; here every fifth one."""
    from ptta_core.video import reading

    class Failing(reading.Shaper):
        made = 0

        def __call__(self, frame: av.VideoFrame) -> np.ndarray:
            Failing.made += 1
            if Failing.made % 5 == 0:
                raise OSError(95, "Operation not supported")
            return super().__call__(frame)

    monkeypatch.setattr(reading, "Shaper", Failing)
    frames = list(read_frames(films["mp4"], width=32))
    assert len(frames) == 39 and [frame.index for frame in frames] == list(range(39))


def test_decoders_never_thread_by_frames(films: dict[str, Path]) -> None:
    """Frame threads can hang for ever on damaged files."""
    from ptta_core.video.opening import open_file, set_threads, video_stream

    with open_file(str(films["mp4"])) as container:
        stream = video_stream(container, "a", None)
        assert stream.codec_context.thread_type.name == "SLICE" and stream.codec_context.thread_count == 1
        set_threads(stream, 4)
        assert stream.codec_context.thread_type.name == "SLICE"


# ------------------------------------------------------------------------------------------------------- memory


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_stays_flat(tmp_path: Path) -> None:
    """720p: at most 300 MB, and ten times the length takes at most 10 MB more."""
    write_mp4(tmp_path / "short.mp4", [picture(index, 1280, 720) for index in range(48)], 24)
    peaks = {}
    for name, times in (("short", 1), ("long", 10)):
        path = tmp_path / f"{name}.mkv"
        with av.open(str(path), "w") as target:
            stream = None
            for turn in range(times):
                with av.open(str(tmp_path / "short.mp4")) as source:
                    stream = stream or target.add_stream_from_template(source.streams.video[0])
                    step = 512 * 48
                    for packet in source.demux(video=0):
                        if packet.size:
                            packet.stream, packet.pts, packet.dts = (
                                stream,
                                packet.pts + turn * step,
                                packet.dts + turn * step,
                            )
                            target.mux(packet)
        code = (
            "import re, sys; from ptta_core import video\n"
            "count = sum(1 for _ in video.read_frames(sys.argv[1], width=320))\n"
            "print(count, int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True,
                              timeout=120, check=True)  # fmt: skip
        count, peaks[name] = done.stdout.split()
        assert int(count) == 48 * times
    assert float(peaks["long"]) < 300 and float(peaks["long"]) - float(peaks["short"]) < 10
