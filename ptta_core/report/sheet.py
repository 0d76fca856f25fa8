"""The contact sheet: every clip as a card, the kept ones first by S, then the others with why not."""

import base64
import math

from ptta_core.report.data import ClipCard, finite
from ptta_core.report.text import count, duration, esc, fixed, href, plural, timecode

EMBEDDED_PICTURES = 200
PICTURES_BYTES = 6_000_000  # of embedded thumbnails, as base64 text
SHOWN = 48  # cards of a group before "show all"; a multiple of 2, 3, 4 and 6 columns
FULL_CAPTIONS = 200  # cards whose caption is given in full; later ones are cut shorter


def sheet(clips: list[ClipCard], budget: int, left_out: int = 0) -> str:
    """All cards in at most `budget` bytes; clips that do not fit are counted in a last line, with `left_out` others."""
    if not clips:
        return '<p class="none">No clips yet.</p>'
    order = {id(clip): place for place, clip in enumerate(sorted(clips, key=lambda c: (c.source_name, c.start_s)))}
    groups = [("kept", "Kept", True), ("others", "Not kept", False), ("open", "Not decided yet", None)]
    pictures = _Pictures()
    parts = [_controls()] if any(finite(clip.score) for clip in clips) else []
    left, place, dropped = budget - 2_000, 0, left_out
    for name, title, kept in groups:
        cards, members = [], sorted((clip for clip in clips if clip.kept is kept), key=_by_score)
        for clip in members:
            card = _card(clip, order[id(clip)], pictures, 600 if place < FULL_CAPTIONS else 160)
            left, place = left - len(card.encode()), place + 1
            if left < 0:
                dropped += 1
            else:
                cards.append(card)
        if members:
            parts.append(_group(name, title, members, cards))
    if dropped:
        parts.append(f'<p class="none">{plural(dropped, "more clip")} left out to keep this file small.</p>')
    return "".join(parts) + _marks()


def _marks() -> str:
    """The bar that appears once a clip is marked by hand."""
    return ('<p id="marks" class="marks" hidden><span><b>0</b> marked by hand</span>'
            '<button type="button" class="save">Save decisions.csv</button>'
            '<button type="button" class="clear">Clear</button>'
            '<span class="soft">then: ptta select --csv decisions.csv --workspace …</span></p>')  # fmt: skip


def _by_score(clip: ClipCard) -> tuple[float, str, float]:
    score = clip.score if clip.score is not None and math.isfinite(clip.score) else -math.inf
    return (-score, clip.source_name, clip.start_s)


def _controls() -> str:
    ways = [("s", "S"), ("m", "motion"), ("a", "aesthetic"), ("o", "source and time")]
    options = "".join(f'<option value="{value}">{name}</option>' for value, name in ways)
    key = "<span>Bold: S. Below it: motion in px · aesthetic, 1 to 10. Click a clip to keep or veto it by hand.</span>"
    return f'<p class="controls">{key} <label hidden>Sort by <select id="sort">{options}</select></label></p>'


def _group(name: str, title: str, members: list[ClipCard], cards: list[str]) -> str:
    length = duration(sum(clip.end_s - clip.start_s for clip in members))
    head = f'<h3>{title} <span class="soft">{plural(len(members), "clip")}, {length}</span></h3>'
    more = ""
    if len(cards) > SHOWN:
        more = (f'<input type="checkbox" id="all-{name}" class="all"><label for="all-{name}" class="all">'
                f"Show all {count(len(cards))}</label>")  # fmt: skip
    return f'<div class="group">{head}{more}<ul class="sheet">{"".join(cards)}</ul></div>'


def _card(clip: ClipCard, place: int, pictures: "_Pictures", caption_limit: int) -> str:
    keys = "".join(
        f' data-{key}="{value:.4g}"'
        for key, value in (("s", clip.score), ("m", clip.motion_px), ("a", clip.aesthetic))
        if value is not None and math.isfinite(value)
    )
    span = f"{timecode(clip.start_s)}–{timecode(clip.end_s)}"
    measured = f"<p>{fixed(clip.motion_px, 1)} px · {fixed(clip.aesthetic, 1)}</p>" if finite(clip.motion_px) else ""
    why = f'<p class="{"by" if clip.kept else "why"}" dir="auto">{esc(clip.reason, 160)}</p>' if clip.reason else ""
    said = f'<p class="said" dir="auto">{esc(clip.caption, caption_limit)}</p>' if clip.caption else ""
    return (f'<li id="{esc(clip.clip_id, 64)}"{keys} data-o="{place}" tabindex="0">{pictures.of(clip)}'
            f"<p><b>{fixed(clip.score, 2)}</b> <i>{span}</i></p>{measured}{why}{said}"
            f'<p class="file" dir="auto">{esc(clip.source_name, 120)}</p></li>')  # fmt: skip


class _Pictures:
    """Embeds the first thumbnails that it is asked for and links the rest."""

    def __init__(self) -> None:
        self.count, self.bytes = EMBEDDED_PICTURES, PICTURES_BYTES

    def of(self, clip: ClipCard) -> str:
        """The <img> of a clip, or an empty frame where there is no picture."""
        if clip.thumbnail_jpeg and self.count > 0:
            text = base64.b64encode(clip.thumbnail_jpeg).decode()
            if len(text) <= self.bytes:
                self.count, self.bytes = self.count - 1, self.bytes - len(text)
                return f'<img alt="" src="data:image/jpeg;base64,{text}">'
        if clip.thumbnail_href:
            return f'<img alt="" loading="lazy" src="{href(clip.thumbnail_href)}">'
        return '<div class="blank">no picture</div>'
