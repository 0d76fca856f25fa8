"""What train.placement may say: which of the base's Linears are adapted. What that means is in models/placement.py.

    non_attention           feed-forward layers and a single block's proj_mlp and proj_out: the paper's
    non_attention_strict    the same, but of proj_out only what reads the MLP
    attention, all          query, key, value and output; both
    regex:PATTERN           Linears whose whole name fits, none of them attention
    attention_regex:PATTERN the same where attention is meant
"""

import re

NAMES = ("non_attention", "non_attention_strict", "attention", "all")
PATTERNS = ("regex", "attention_regex")


def parse(text: str) -> tuple[str, str]:
    """("non_attention", "") of a named placement, ("regex", PATTERN) of a pattern. Raises ValueError."""
    kind, _, pattern = text.partition(":")
    if text not in NAMES and (kind not in PATTERNS or not pattern):
        choices = ", ".join([*NAMES, *(f"{name}:PATTERN" for name in PATTERNS)])
        raise ValueError(f"placement {text!r}; choices: {choices}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"placement: {pattern!r} is no regular expression: {error}") from error
    return kind, pattern
