"""What was measured on a clip, and the words for it: the captions of `measured`, and what a model may be told."""

from dataclasses import dataclass, replace

import numpy as np

from ptta_core.rows import Score

SPED_UP = 1.25  # from here on a time-lapse is called one


@dataclass(frozen=True)
class Facts:
    """What was measured on a clip, as far as words can use it. Fields and units as in rows.Score."""

    motion_px: float
    object_px: float
    static_share: float
    timing: str
    pan_x_px: float
    pan_y_px: float
    zoom: float
    brightness: float
    colourfulness: float
    palette: str

    @classmethod
    def of(cls, score: Score) -> "Facts":
        """The facts of a score row."""
        return cls(**{name: getattr(score, name) for name in cls.__dataclass_fields__})

    def at_speed(self, speed: float) -> "Facts":
        """The facts as a time-lapse of `speed` times the clip's own shows them, as far as motion goes on as it is.

        Shifts and zoom are per time; on which frames it was drawn cannot be seen any more.
        """
        if speed == 1:
            return self
        shifts = {name: speed * getattr(self, name) for name in ("motion_px", "object_px", "pan_x_px", "pan_y_px")}
        timing = self.timing if self.timing == "still" else "mixed"
        return replace(self, **shifts, zoom=self.zoom**speed, timing=timing)


def describe_facts(facts: Facts, seconds: float, speed: float = 1.0) -> str:
    """One to three plain sentences from what was measured; says nothing that was not.

    seconds: how long it lasts as it is seen. speed: above 1 for a time-lapse.
    Motion words follow Open-Sora's buckets (px per 0.625 s at 320 x 576): under 0.5 none, 2 little, 10 some, 20 strong.
    """
    seen = facts.at_speed(speed)
    sentences = [_shot(seen, seconds, speed), _motion(seen), _camera(seen)]
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences if sentence)


def _shot(facts: Facts, seconds: float, speed: float) -> str:
    kind = ", ".join(word for word in (_light(facts), _colour(facts), "sped-up" if speed >= SPED_UP else "") if word)
    return f"a {f'{kind} ' if kind else ''}shot of {_seconds(seconds)}{_palette(facts.palette)}"


def _seconds(seconds: float) -> str:
    rounded = round(seconds, 1)
    return "1 second" if rounded == 1 else f"{rounded:g} seconds"


def _light(facts: Facts) -> str:
    return "dark" if facts.brightness < 0.25 else "bright" if facts.brightness > 0.65 else ""


def _colour(facts: Facts) -> str:
    """Hasler and Suesstrunk's words: below 15 hardly any colour, from 59 quite colourful."""
    return "muted" if facts.colourfulness < 15 else "colourful" if facts.colourfulness >= 59 else ""


def _palette(palette: str) -> str:
    names = [name for name in palette.split(", ") if name]
    if not names:
        return ""
    return f", mostly {names[0]}" if len(names) == 1 else f" in {', '.join(names[:-1])} and {names[-1]}"


def _motion(facts: Facts) -> str:
    if facts.timing == "still" or facts.motion_px < 0.5:
        return "nothing moves" if facts.static_share == 1 else "almost nothing moves"
    if facts.motion_px >= 2 and facts.object_px < 0.1 * facts.motion_px:
        return "nothing but the camera moves"
    amount = next(word for least, word in (
        (20, "very strong"), (10, "strong"), (5, "clear"), (2, "gentle"), (0, "slight"),
    ) if facts.motion_px >= least)  # fmt: skip
    parts = [f"the movement is {amount}"]
    if facts.timing in ("twos", "threes") and facts.motion_px >= 2:  # a slow drift seems held longer than it is
        parts.append(f"drawn on {facts.timing}")
    if facts.static_share >= 0.3:
        parts.append("with pauses")
    return ", ".join(parts)


def _camera(facts: Facts) -> str:
    moves = [_pan(facts), _zoom(facts)]
    moves = [move for move in moves if move]
    if moves:
        return f"the camera {' and '.join(moves)}"
    return "the camera holds still" if facts.motion_px >= 2 and _shift_px(facts) < 0.5 else ""


def _shift_px(facts: Facts) -> float:
    return float(np.hypot(facts.pan_x_px, facts.pan_y_px))


def _pan(facts: Facts) -> str:
    """The picture moves left when the camera pans right, and up when it tilts down."""
    length = _shift_px(facts)
    if length < 2:
        return ""
    words = []
    if abs(facts.pan_x_px) >= 0.4 * length:
        words.append(f"pans {'left' if facts.pan_x_px > 0 else 'right'}")
    if abs(facts.pan_y_px) >= 0.4 * length:
        words.append(f"tilts {'up' if facts.pan_y_px > 0 else 'down'}")
    pace = " slowly" if length < 8 else " quickly" if length >= 30 else ""
    return " and ".join(words) + pace


def _zoom(facts: Facts) -> str:
    """From 2 % a second."""
    if abs(np.log(facts.zoom)) < 0.02:
        return ""
    return "zooms in" if facts.zoom > 1 else "zooms out"
