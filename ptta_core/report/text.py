"""Values as text for a page: everything that reaches the HTML passes through `esc`."""

import html
import math
import re
from datetime import datetime, timedelta
from urllib.parse import quote

# Control characters that HTML forbids, and lone surrogates (undecodable bytes of a file name) that UTF-8 forbids.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def esc(value: object, limit: int | None = None) -> str:
    """Any value as text safe in HTML content and in quoted attributes, cut to `limit` characters before escaping."""
    text = _FORBIDDEN.sub("\ufffd", str(value))
    if limit is not None and len(text) > limit:
        text = text[: limit - 1].rstrip() + "…"
    return html.escape(text, quote=True)


def href(path: str) -> str:
    """A relative path as the value of a src or href. A scheme is quoted too, so nothing can point outside."""
    return esc(quote(path.replace("\\", "/").lstrip("/").encode("utf-8", "surrogateescape"), safe="/"))


def count(value: int) -> str:
    """12000 -> "12,000"."""
    return f"{value:,}"


def plural(value: int, noun: str) -> str:
    """(1, "clip") -> "1 clip", (12000, "clip") -> "12,000 clips"."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def number(value: float | None, decimals: int = 2) -> str:
    """At most `decimals` decimals without trailing zeros: 10.0 -> "10"; "–" for what does not exist."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.{decimals}f}".rstrip("0").rstrip(".") if decimals else f"{value:,.0f}"
    return "0" if text in {"-0", ""} else text.replace("-", "−")


def fixed(value: float | None, decimals: int, signed: bool = False) -> str:
    """Always `decimals` decimals, so that columns align: 2.5 -> "2.500"; signed: "+0.120"."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:{'+' if signed else ''},.{decimals}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """0.42 -> "0.4 s", 75 -> "1 min 15 s", 7300 -> "2 h 1 min"."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def timecode(seconds: float) -> str:
    """Where in a video: 75.25 -> "1:15.2", 3700 -> "1:01:40.0"."""
    tenths = int(seconds * 10 + 1e-6)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def when(started: str, ended: str) -> str:
    """Two ISO 8601 times as one phrase with the time between them; text that is no time is passed on as it is."""
    try:
        first = datetime.fromisoformat(started)
        day = f"{first.day} {first:%B %Y}, {first:%H:%M}"
        last = datetime.fromisoformat(ended) if ended else None
        length: timedelta | None = last - first if last else None
    except (ValueError, TypeError):
        return " to ".join(one for one in (started, ended) if one)
    zone = " UTC" if first.utcoffset() == timedelta(0) else ""
    return f"{day}{zone}, {'took ' + duration(length.total_seconds()) if length is not None else 'not ended'}"
