"""What may be wrong with a caption, told from its words alone; `admit` stores it and decides by it.

    empty            no word in it
    refusal          the model speaks of itself instead of the clip: "I'm sorry", "As an AI"
    repetition       it goes in circles: many words in a run of four that was there before, or one word four times
    language         another script or language than the one that is wanted
    boilerplate      it begins with "The video shows" and the like (encode.strip_openings takes that away)
    cut              the model had not ended when caption.max_new_tokens were spent
    near_identical   it says what the caption of another clip says, but for a few words

The lists and limits are ours; nothing here understands a caption.
"""

import re
import unicodedata
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W_]+(?:['’][^\W_]+)?")  # of scripts without blanks: a sign
RUN = 4  # words
REPEATED = 0.3  # share of the words that stand in a repeated run, eight at least; prose has nearly none
WANTED_SCRIPT = 0.8  # share of the letters
ALIKE = 0.8  # shared three-word sequences of all (Jaccard)
SHINGLE = 3  # words
GROUP = 4  # captions of a group that a new one is compared with
SKETCH = 16  # numbers; two captions that share 80 % of their sequences agree in one of them but for 1 in 10**11

MEDIUM = r"(?:video|clip|animation|footage|image|picture|scene|frame|sequence|shot)s?"
KIND = r"(?:(?:short|brief|animated|anime|cartoon|2d|3d|given|provided|following)\s+)*"
VERB = (r"(?:shows?|depicts?|features?|captures?|presents?|displays?|illustrates?|portrays?|showcases?|contains?|"
        r"(?:begins|opens|starts)\s+with|is\s+of|is\s+about)")  # fmt: skip
OPENING = re.compile(
    rf"^\W*(?:(?:the|this|that|an?)\s+{KIND}{MEDIUM}(?:\s+{MEDIUM})?\s+{VERB}\s+(?:that\s+)?|"
    rf"in\s+(?:the|this)\s+{KIND}{MEDIUM}(?:\s+{MEDIUM})?\s*,\s*(?:we\s+(?:can\s+)?see\s+)?|"
    r"here\s+(?:we\s+see|is)\s+|we\s+(?:can\s+)?see\s+)", re.IGNORECASE)  # fmt: skip
REFUSAL = re.compile(
    r"^\W*(?:i['’]?m\s+(?:very\s+)?sorry|i\s+am\s+(?:very\s+)?sorry|sorry,|i\s+apologi[sz]e|unfortunately,\s+i\b)|"
    r"\bas\s+an?\s+(?:ai|artificial\s+intelligence|(?:large\s+)?language\s+model)\b|"
    r"\bi\s*(?:can['’]?t|cannot|can\s+not|am\s+(?:unable|not\s+able)\s+to|['’]m\s+(?:unable|not\s+able)\s+to|won['’]t)\s+"
    r"(?:\w+\s+)?(?:assist|help|provide|describe|view|see|analy[sz]e|process|watch|access|comply|identify)\b|"
    r"\bno\s+(?:image|video|clip|picture|frame)s?\s+(?:was|were|is|are|has\s+been|have\s+been)\s+"
    r"(?:provided|attached|given|uploaded|visible)\b", re.IGNORECASE)  # fmt: skip

# words without which hardly a sentence of a language goes; one that several languages have counts for each in part
SMALL_WORDS = {
    "en": "the and of with is are in on his her its their while as from by into this that",
    "de": "der die das und ein eine einen mit ist sind auf im dem den von zu einer sich nicht",
    "fr": "le les et un une des du avec est sont dans sur qui au aux ses elle il",
    "es": "el los las y un una con es son en del por su que al se está",
    "it": "il gli di e un una con è sono che nel nella della dei lo si",
    "pt": "os um uma com é são em do da no na que ao sua seu dos",
    "nl": "de het een en van met is zijn op in dat naar aan zich",
}
OF_LANGUAGE: dict[str, list[str]] = {}
for _language, _words in SMALL_WORDS.items():
    for _word in _words.split():
        OF_LANGUAGE.setdefault(_word, []).append(_language)


class Said(NamedTuple):
    """A flag, and what it was seen by."""

    flag: str
    why: str


def flags_of(text: str, language: str = "en", cut: bool = False) -> list[Said]:
    """What is wrong with one caption by itself. language: en, or any."""
    words = [word.lower() for word in WORD.findall(text)]
    if not any(any(letter.isalpha() for letter in word) for word in words):
        return [Said("empty", f"{text[:40]!r}" if text.strip() else "no text")]
    found = [refusal(text), repetition(words), wrong_language(text, words) if language == "en" else None,
             boilerplate(text), Said("cut", "caption.max_new_tokens were spent") if cut else None]  # fmt: skip
    return [one for one in found if one]


def refusal(text: str) -> Said | None:
    """Whether the model speaks of itself; what somebody in the clip says, in quotes, does not count."""
    found = REFUSAL.search(re.sub(r'["“][^"“”]*["”]', '""', text))
    return Said("refusal", f"{found[0].strip()!r}") if found else None


def repetition(words: list[str]) -> Said | None:
    """Whether the words go in circles."""
    seen: set[tuple[str, ...]] = set()
    again = np.zeros(len(words), bool)
    for at in range(len(words) - RUN + 1):
        run = tuple(words[at : at + RUN])
        if run in seen:
            again[at : at + RUN] = True
        seen.add(run)
        if len(set(run)) == 1:
            return Said("repetition", f"{run[0]!r} {RUN} times on end")
    share = float(again.mean())
    if share <= REPEATED or again.sum() < 2 * RUN:
        return None
    return Said("repetition", f"{share:.0%} of the words repeat a run of {RUN}")


def wrong_language(text: str, words: list[str]) -> Said | None:
    """Whether a text is not English: few Latin letters, or more of another language's small words."""
    letters = [letter for letter in text if letter.isalpha()]
    share = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters) / max(1, len(letters))
    if share < WANTED_SCRIPT:
        return Said("language", f"{share:.0%} Latin letters")
    counts = dict.fromkeys(SMALL_WORDS, 0.0)
    for word in words:
        for language in OF_LANGUAGE.get(word, []):
            counts[language] += 1 / len(OF_LANGUAGE[word])
    best = max(counts, key=lambda language: counts[language])
    if best != "en" and counts[best] >= 3 and counts[best] > 2 * counts["en"]:
        return Said("language", f"words of {best}")
    return None


def boilerplate(text: str) -> Said | None:
    """Whether a caption begins with words that say only that there is a clip."""
    found = OPENING.match(text)
    return Said("boilerplate", f"{found[0].strip()!r}") if found else None


def without_opening(text: str) -> str:
    """A caption without such a beginning; one that is nothing else stays."""
    rest = text[found.end() :].lstrip() if (found := OPENING.match(text)) else ""
    return rest[0].upper() + rest[1:] if WORD.search(rest) else text


# --------------------------------------------------------------------------------------- alike across clips


class Alike:
    """Captions seen so far, to find the one that a new one is nearly identical to.

    Sketches are MinHash (Broder 1997): a caption meets those that share the least of its sequences' numbers, under one
    of 16 ways to number them, and is compared exactly with the first four of each such group. So a million cost a
    million times the same, and one that is like the fifth of a crowded group alone may be missed.
    """

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.factors = random.integers(1, 1 << 32, SKETCH, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self.first: dict[tuple[int, int], list[int]] = {}  # (way, number) -> places in `kept`
        self.kept: list[tuple[str, frozenset[int]]] = []  # what the caption is called, its sequences

    def find(self, name: str, text: str) -> tuple[str, float]:
        """(the name of an earlier caption that shares most sequences, the share), ("", 0.0) where none is alike.

        One that is like no other is kept for those to come.
        """
        shingles = frozenset(shingles_of(text))
        if not shingles:
            return "", 0.0
        keys = list(self._keys(shingles))
        near = {one for key in keys for one in self.first.get(key, ())}
        share, place = max(((shared(shingles, self.kept[one][1]), -one) for one in near), default=(0.0, 0))
        if share >= ALIKE:
            return self.kept[-place][0], share
        for key in keys:
            if len(group := self.first.setdefault(key, [])) < GROUP:
                group.append(len(self.kept))
        self.kept.append((name, shingles))
        return "", 0.0

    def _keys(self, shingles: frozenset[int]) -> Iterator[tuple[int, int]]:
        numbers = np.fromiter(shingles, np.uint64, len(shingles)) + np.uint64(1)
        mixed = self.factors[:, None] * numbers[None, :]  # modulo 2**64; the high bits are well mixed
        return ((way, int(least)) for way, least in enumerate((mixed >> np.uint64(20)).min(axis=1)))


def shingles_of(text: str) -> Iterator[int]:
    """A number for each sequence of three words, whatever their case; numbers in the text count as one word."""
    words = ["0" if word[0].isdigit() else word.lower() for word in WORD.findall(text)]
    for at in range(max(1, len(words) - SHINGLE + 1) if words else 0):
        yield zlib.crc32(" ".join(words[at : at + SHINGLE]).encode())


def shared(one: frozenset[int], other: frozenset[int]) -> float:
    """Jaccard's share of common members, 0..1."""
    return len(one & other) / len(one | other)
