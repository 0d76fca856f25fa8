"""What nothing can be faster than: plain PyAV and OpenCV on one thread, without a line of this project.

    python floor.py decode FILE...      decode every picture and drop it
    python floor.py curate SPANS.json   decode every picture once, shrink it once to gray, compute the flows asked for

SPANS.json: {file: [[start_s, end_s, flows], ...]}, the clips of each file in order of time. The last line is one JSON
object: seconds, cpu_s, frames, flows. Opening the libraries is not timed.
"""

import json
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

GAP_S = 0.625  # between the two frames of a flow
LONG, SHORT = 576, 320  # px, what flow is computed at

Span = tuple[float, float, int]


def pictures(path: str) -> Iterator[tuple[float, av.VideoFrame]]:
    """Every picture with its time in seconds, decoded on one thread."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_count, stream.thread_type = 1, "NONE"
        base = stream.time_base or Fraction(1, 1000)
        for frame in container.decode(stream):
            yield float((frame.pts or 0) * base), frame


def decode(paths: list[str]) -> dict[str, float]:
    """Decode alone."""
    begun, used = time.perf_counter(), time.process_time()
    frames = sum(1 for path in paths for _ in pictures(path))
    return _took(begun, used) | {"frames": frames, "flows": 0}


def _took(begun: float, used: float) -> dict[str, float]:
    return {"seconds": time.perf_counter() - begun, "cpu_s": time.process_time() - used}


def grays(path: str) -> Iterator[tuple[float, np.ndarray]]:
    """Every picture as uint8 [320,576], portrait transposed, with its time in seconds."""
    scaler = av.video.reformatter.VideoReformatter()
    for time_s, frame in pictures(path):
        width, height = (LONG, SHORT) if frame.width >= frame.height else (SHORT, LONG)
        # luma as it is, without a matrix: as ours, see video/shaping.py
        yield time_s, scaler.reformat(frame, width, height, "gray", "ITU601", "ITU601", "AREA", threads=1).to_ndarray()


def curate(spans: dict[str, list[Span]]) -> dict[str, float]:
    """Decode, shrink, and as many flows in each clip as asked for, end to end and a gap apart."""
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    frames = flows = 0
    begun, used = time.perf_counter(), time.process_time()
    for path, clips in spans.items():
        waiting = [list(clip) for clip in sorted(clips)]
        previous, due = None, 0.0
        for time_s, gray in grays(path):
            frames += 1
            while waiting and time_s >= waiting[0][1]:  # a clip ends: what is still owed is paid
                flows += _owed(engine, previous, waiting.pop(0)[2])
                previous = None
            if not waiting or time_s < waiting[0][0]:
                continue
            if previous is None:
                previous, due = gray, time_s + GAP_S
            elif time_s >= due and waiting[0][2]:
                engine.calc(previous, gray, None)
                waiting[0][2] -= 1
                flows += 1
                previous, due = gray, due + GAP_S
        flows += sum(_owed(engine, previous, clip[2]) for clip in waiting)
    return _took(begun, used) | {"frames": frames, "flows": flows}


def _owed(engine: cv2.DISOpticalFlow, gray: np.ndarray | None, count: int) -> int:
    for _ in range(count if gray is not None else 0):
        engine.calc(gray, np.roll(gray, 4, axis=1), None)
    return count if gray is not None else 0


def main() -> None:
    """Run what is named."""
    cv2.setNumThreads(1)
    if sys.argv[1] == "decode":
        print(json.dumps(decode(sys.argv[2:])))
    else:
        print(json.dumps(curate(json.loads(Path(sys.argv[2]).read_text()))))


if __name__ == "__main__":
    main()
