"""Undoing interlacing and telecine: what is made of a span is what is made of the same place in the whole file.

Telecine (3:2 pulldown) shows four film pictures A B C D in five video pictures, as fields (top first)

    At Ab | Bt Bb | Bt Cb | Ct Db | Dt Db        place in the cycle: 0 1 2 3 4

so that A, B and D are found whole, C is the top of place 3 with the bottom of place 2. Pictures are numbered by their
pts, and film picture k is delivered at 1.25 k pictures from the beginning, whatever the cycle's phase, which edits
change: pts are exact and do not depend on where reading began. The phase is chosen for each film picture from the
combing of the pictures within REACH. Pictures that no phase makes whole are shown by one field.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
import av.filter
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ptta_core.video.fields import (
    PHASES,
    Fields,
    Pair,
    Phase,
    bob,
    fields_of,
    is_planar_yuv,
    luma,
    measure,
    weave,
    weave_of,
)

Timed = tuple[int, VideoFrame]
CLEANUPS = ("", "deinterlace", "deinterlace bff", "detelecine")
REACH = 10  # pictures before and after that decide on a phase: two cycles
MARGIN = 5  # pictures more that are decoded before a span
OWN = 3.0  # weight of a film picture's own combing beside its neighbours'
COMBED_LEVELS = 3.0  # levels a moving pixel above which a picture is not left as it is
BETTER = 0.6  # share of another picture's combing below which one is clearly cleaner
FITS = 0.1  # Weave.film up to which pictures are telecined
CHANGES = 0.42  # Weave.whole + Weave.split from which they are: less than of a whole source, for a lone cut may decide
NTSC = (Fraction(30000, 1001), Fraction(30))
NOTHING = Pair(0.0, 0.0, 0.0, 0.0)


def cleaned(
    read: Callable[[int | None], Iterator[Timed]], stream: VideoStream, start_pts: int | None, cleanup: str
) -> Iterator[Timed]:
    """Pictures with their pts, cleaned, from a little before start_pts on. Raises ValueError for an unknown cleanup.

    `read` gives the stream's pictures from some pts on.
    """
    if cleanup not in CLEANUPS:
        raise ValueError(f"cleanup must be one of {', '.join(map(repr, CLEANUPS))}, not {cleanup!r}")
    if not cleanup:
        return read(start_pts)
    before = (REACH + MARGIN if cleanup == "detelecine" else 3) * frame_ticks(stream)
    frames = read(None if start_pts is None else int(start_pts - before))
    if cleanup == "detelecine":
        return telecine_undone(frames, stream)
    return deinterlaced(frames, stream, bottom_first=cleanup.endswith("bff"))


def frame_ticks(stream: VideoStream) -> Fraction:
    """How long a picture is shown, in ticks of the stream's time base; the rates of NTSC are made exact."""
    base, rate = stream.time_base or Fraction(1, av.time_base), stream.average_rate or Fraction(25)
    if 45 < rate <= 61:  # some containers count fields
        rate /= 2
    if Fraction(59, 2) < rate < Fraction(61, 2):
        rate = min(NTSC, key=lambda one: abs(one - rate))
    return 1 / (rate * base)


# ------------------------------------------------------------------------------------------------ interlacing


def deinterlaced(frames: Iterator[Timed], stream: VideoStream, bottom_first: bool) -> Iterator[Timed]:
    """One whole picture a picture, of its first field's moment (bwdif, motion-adaptive). Flags are not asked."""
    base = stream.time_base or Fraction(1, av.time_base)
    graph: av.filter.Graph | None = None
    shape: tuple[int, int, str] | None = None
    for pts, frame in frames:
        if shape != _format(frame):
            if graph is not None:
                yield from _drained(graph, base)
            shape = _format(frame)
            try:
                graph = _bwdif(frame, base, "bff" if bottom_first else "tff")
            except (av.error.FFmpegError, ValueError):
                graph = None
        if graph is None:  # no such format can be filtered
            continue
        frame.pts, frame.time_base = pts, base
        graph.vpush(frame)
        yield from _pulled(graph, base)
    if graph is not None:
        yield from _drained(graph, base)


def _bwdif(frame: VideoFrame, base: Fraction, order: str) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=base)
    filters = [source, graph.add("bwdif", f"send_frame:{order}:all"), graph.add("buffersink")]
    graph.link_nodes(*filters).configure()
    return graph


def _pulled(graph: av.filter.Graph, base: Fraction) -> Iterator[Timed]:
    while True:
        try:
            frame = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(frame, VideoFrame) and frame.pts is not None
        pts = round(frame.pts * (frame.time_base or base) / base)
        frame.pts, frame.time_base = pts, base
        yield pts, frame


def _drained(graph: av.filter.Graph, base: Fraction) -> Iterator[Timed]:
    graph.vpush(None)
    yield from _pulled(graph, base)


# --------------------------------------------------------------------------------------------------- telecine


@dataclass
class _Seen:
    """A video picture, its fields' luma, and its combing with the next one."""

    frame: VideoFrame
    fields: Fields
    pair: Pair = NOTHING


def film_place(phase: Phase, slot: int) -> tuple[int, int]:
    """(number of the video picture, place in the cycle: 0, 1, 2 or 4) of film picture `slot`."""
    cycle, film = divmod(round(slot - Fraction(4, 5) * phase.shift), 4)
    place = (0, 1, 2, 4)[film]
    return phase.shift + 5 * cycle + place, place


def telecine_undone(frames: Iterator[Timed], stream: VideoStream) -> Iterator[Timed]:
    """Film pictures, four for five, evenly spaced."""
    ticks, begin = frame_ticks(stream), stream.start_time or 0
    buffer: dict[int, _Seen] = {}
    slot: int | None = None
    newest: int | None = None
    for pts, frame in frames:
        number = round((pts - begin) / ticks)
        if newest is not None and number <= newest:
            continue
        newest = _add(buffer, number, newest, frame)
        slot = -(-min(buffer) * 4 // 5) if slot is None else slot
        while slot * 5 // 4 + REACH + 3 <= newest:
            yield begin + round(slot * ticks * 5 / 4), _film_picture(buffer, slot)
            slot += 1
            _forget(buffer, slot)
    while slot is not None and newest is not None and slot * 5 // 4 <= newest:
        yield begin + round(slot * ticks * 5 / 4), _film_picture(buffer, slot)
        slot += 1


def _add(buffer: dict[int, _Seen], number: int, newest: int | None, frame: VideoFrame) -> int:
    """Keep a picture; a few missing before it are held by the last one. The number of the newest."""
    if not is_planar_yuv(frame):
        frame = frame.reformat(format="yuv420p")
    seen = _Seen(frame, fields_of(luma(frame)))
    if newest is not None:
        for gap in range(newest + 1, min(number, newest + 5)):
            buffer[gap] = buffer[newest]
        last = buffer[min(number, newest + 5) - 1]
        last.pair = measure(last.fields, seen.fields)
    buffer[number] = seen
    return number


def _forget(buffer: dict[int, _Seen], slot: int) -> None:
    for number in [one for one in buffer if one < slot * 5 // 4 - REACH - 5]:
        del buffer[number]


def _film_picture(buffer: dict[int, _Seen], slot: int) -> VideoFrame:
    """The film picture shown in a slot, under the phase that leaves the least combing around it."""
    middle = slot * 5 // 4
    around = [(number, buffer[number].pair) for number in range(middle - REACH, middle + REACH + 1) if number in buffer]

    def cost(phase: Phase) -> float:
        number, _ = film_place(phase, slot)
        total = OWN * _weighed(phase, number, buffer[number].pair) if number in buffer else 0.0
        return total + sum(
            _weighed(phase, near, pair) * (1 - abs(near - middle) / (REACH + 1)) for near, pair in around
        )

    costs = {phase: round(cost(phase), 1) for phase in PHASES}
    best = min(PHASES, key=costs.__getitem__)
    number, place = film_place(best, slot)
    nearest = min(buffer, key=lambda one: abs(one - middle))
    seen = weave_of(around)
    if seen.film > FITS or seen.whole + seen.split < CHANGES:
        return _by_itself(buffer[nearest])
    if number not in buffer or (place == 2 and number + 1 not in buffer):  # the beginning and the end
        return buffer[nearest].frame
    if place != 2:
        return buffer[number].frame
    earlier, later = buffer[number].frame, buffer[number + 1].frame
    if _format(earlier) != _format(later):
        return earlier
    return weave(earlier, later) if best.bottom_first else weave(later, earlier)


def _weighed(phase: Phase, number: int, pair: Pair) -> float:
    return phase.combing(number, pair) * pair.weight


def _by_itself(seen: _Seen) -> VideoFrame:
    """A picture of no cycle; by one field where it is combed."""
    elsewhere = min(seen.pair.top_later, seen.pair.bottom_later)
    combed = seen.pair.own > COMBED_LEVELS and seen.pair.own > BETTER * elsewhere
    return bob(seen.frame) if combed else seen.frame


def _format(frame: VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
