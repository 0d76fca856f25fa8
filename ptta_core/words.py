"""What people say of clips, captions, sources and adapters: rows of `edits`, append-only; the newest word wins."""

import getpass
from collections.abc import Sequence

from ptta_core.memo import now
from ptta_core.rows import Edit, table_schema, to_arrow
from ptta_core.store import Store


def say(store: Store, words: Sequence[tuple[str, str, str]], author: str | None = None) -> None:
    """Append (id, field, value) as edits, all at once. author: the login name by default."""
    if words:
        who = author or getpass.getuser()
        store.append("edits", to_arrow([Edit(*word, who, now()) for word in words], table_schema(Edit)))
