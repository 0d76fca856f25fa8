"""A video on the page: within it while there is room, else beside it."""

import base64

from ptta_core.report.text import esc, href


def film(mp4: bytes | None, link: str | None, name: str, left: int) -> tuple[str, int]:
    """A <figure> and what is left of the embedding budget in bytes."""
    source = ""
    if mp4 and len(mp4) <= left:
        source, left = f"data:video/mp4;base64,{base64.b64encode(mp4).decode()}", left - len(mp4)
    elif link:
        source = href(link)
    shown = (f'<video src="{source}" controls muted loop playsinline preload="metadata"></video>' if source
             else f'<div class="blank">{"too large for this page" if mp4 else "not generated"}</div>')  # fmt: skip
    return f"<figure>{shown}<figcaption>{esc(name, 120)}</figcaption></figure>", left
