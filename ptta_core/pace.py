"""How fast a stage goes, and so how long it will take: from its latest reports, not from its beginning.

A training run that is taken up again has most of its steps behind it, and its first one waits for workers and models.
"""

from collections import deque

REPORTS = 50  # that the pace is measured over


class Pace:
    """Take in where a stage stands; ask how much longer it will be."""

    def __init__(self) -> None:
        self._total = 0
        self._points: deque[tuple[float, int]] = deque(maxlen=REPORTS)

    def left_s(self, seconds: float, done: int, total: int) -> float | None:
        """Seconds until `done` is `total`, at `seconds` since the beginning; None while that cannot be known.

        Another total is another count, such as steps after items: the pace begins anew.
        """
        if total != self._total or (self._points and done < self._points[-1][1]):
            self._total = total
            self._points.clear()
        self._points.append((seconds, done))
        (first_s, first), (last_s, last) = self._points[0], self._points[-1]
        if done >= total or last == first:
            return None
        return (last_s - first_s) / (last - first) * (total - done)


def length(seconds: float) -> str:
    """42 -> "42 s", 754 -> "13 min", 7300 -> "2 h 2 min", 200000 -> "2 d 8 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
