"""A structured caption: a model's JSON, read strictly after what models commonly do to JSON has been undone.

Undone are: thoughts said aloud, code fences and words around the object, trailing commas, raw line breaks in texts,
capital letters in names, a list of texts for a text. All else is an error, which the model is told (dialogue.insist).
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from ptta_core.ids import canonical
from ptta_core.models.captioner import PARTS, Words

THOUGHT = re.compile(r"^.*?</think>", re.DOTALL)  # what a reasoning model says to itself first
TRAILING = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')  # a text, which stays, or a comma before an end


def parse(text: str, labels: Sequence[str]) -> Words:
    """The caption in a model's answer. Raises ValueError naming what is missing or wrong."""
    found = {str(name).strip().lower(): value for name, value in json_object(text).items()}
    missing = [name for name in (*PARTS, "labels", "caption") if name not in found]
    if missing:
        raise ValueError(f"the JSON object lacks {', '.join(missing)}")
    parts: dict[str, Any] = {name: one_text(name, found[name]) for name in PARTS}
    caption = one_text("caption", found["caption"])
    if not caption:
        raise ValueError("caption is empty")
    return Words(caption, distribution(found["labels"], labels), **parts)


def json_object(text: str) -> dict[str, Any]:
    """The first JSON object in a text that is about a caption. Raises ValueError."""
    text = TRAILING.sub(lambda match: match[1] or "", THOUGHT.sub("", text))
    decoder, at, trouble = json.JSONDecoder(strict=False), text.find("{"), ""
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            if "caption" in {str(name).strip().lower() for name in value}:
                return value
            trouble, at = trouble or "the JSON object lacks caption", text.find("{", end)
        except json.JSONDecodeError as error:
            trouble = trouble or f"the JSON is broken: {error.msg} at character {error.pos - at}"
            at = text.find("{", at + 1)
    raise ValueError(trouble or "there is no JSON object")


def one_text(name: str, value: Any) -> str:
    """A text on one line; "" for null. Raises ValueError."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = ", ".join(value)
    if not isinstance(value, str | None):
        raise ValueError(f"{name} must be a text, not {json.dumps(value)[:80]}")
    return " ".join((value or "").split())


def distribution(value: Any, labels: Sequence[str]) -> str:
    """Shares by label as JSON, the sum is 1; "" where all are 0. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"labels must be an object of shares, not {json.dumps(value)[:80]}")
    known = {label.lower(): label for label in labels}
    shares: dict[str, float] = {}
    for name, share in value.items():
        if str(name).strip().lower() not in known:
            raise ValueError(f"labels has {name!r}; choices: {', '.join(labels)}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < math.inf:
            raise ValueError(f"labels.{name} must be a number from 0 to 1, not {json.dumps(share)[:80]}")
        shares[known[str(name).strip().lower()]] = float(share)
    total = sum(shares.values())
    return canonical({name: round(share / total, 4) for name, share in shares.items() if share}) if total else ""
