"""What a captioning model is asked about a window, and what becomes of its answers; whoever carries them to and fro.

A dialogue is a generator: it yields what to ask (Ask), is sent what was said (Answer), and returns the caption. So one
set of rules serves a batch on this machine's GPU (`converse`) and a request to a server (`endpoint.py`).
"""

import re
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

from ptta_core.config import CaptionConfig
from ptta_core.models.captioner import CaptionItem, Malformed, Words
from ptta_core.models.structured import THOUGHT, parse

FENCE = re.compile(r"^```[\w-]*\s*\n(.*?)\n?```$", re.DOTALL)


class Ask(NamedTuple):
    """Turns of a chat, the user's first and last; the pictures stand before the first, where they are to be seen."""

    turns: tuple[str, ...]
    seen: bool = True


class Answer(NamedTuple):
    """What a model said. cut: it had no room to end. problem: why this is no answer of a model at all, "" if it is."""

    text: str
    cut: bool = False
    problem: str = ""


class Chat(NamedTuple):
    """What is shown and said to a model."""

    pictures: Sequence[Any]  # uint8 RGB [H,W,3] each
    turns: tuple[str, ...]


Dialogue = Generator[Ask, Answer, Words]


def dialogue(item: CaptionItem, config: CaptionConfig) -> Dialogue:
    """One window's caption. Raises Malformed where the model gives none, asked twice."""
    words = yield from insist(Ask((question(item, config),)), partial(described, config=config))
    if config.rewrite:
        again = yield from insist(Ask((f"{config.rewrite}\n\n{words.text}",), seen=False), plainly)
        words = words._replace(text=again.text, cut=words.cut or again.cut)
    if config.facts == "append":
        words = words._replace(text=f"{words.text} {item.words()}")
    return words


def question(item: CaptionItem, config: CaptionConfig) -> str:
    """What is asked beside the pictures: the prompt, the facts where they are to be told, the form of the answer."""
    parts = [config.prompt]
    if config.facts == "prompt":
        parts = ([config.prompt.replace("{facts}", item.words())] if "{facts}" in config.prompt else
                 [config.prompt, f"Measured in this clip, and certain: {item.words()}"])  # fmt: skip
    if config.structured:
        shares = ", ".join(f'"{label}": <share>' for label in config.labels)
        parts.append(config.format.replace("{labels}", f"{{{shares}}}"))
    return "\n\n".join(parts)


def described(answer: Answer, config: CaptionConfig) -> Words:
    """A first answer as a caption. Raises ValueError."""
    if not config.structured:
        return plainly(answer)
    return parse(answer.text, config.labels)._replace(cut=answer.cut)


def plainly(answer: Answer) -> Words:
    """An answer that is nothing but the caption. Raises ValueError for an empty one."""
    return Words(plain(answer.text), cut=answer.cut)


def insist(ask: Ask, read: Callable[[Answer], Words]) -> Generator[Ask, Answer, Words]:
    """What `read` makes of an answer; one that it cannot read (ValueError) is asked for once more, the error named."""
    for last in (False, True):
        answer = yield ask
        try:
            if answer.problem:
                raise ValueError(answer.problem)
            return read(answer)
        except ValueError as error:
            if last:
                cut = " (the answer was cut: see caption.max_new_tokens)" if answer.cut else ""
                raise Malformed(f"{error}{cut}\n{answer.text}") from error
            if answer.text.strip() and not answer.problem:
                ask = ask._replace(turns=(*ask.turns, answer.text, f"That cannot be used: {error}. Answer again."))
    raise AssertionError("the second answer returns or raises")


def plain(text: str) -> str:
    """An answer's own words: without what was thought aloud, fences or quotes around it. ValueError for none."""
    words = THOUGHT.sub("", text).strip()
    if fenced := FENCE.match(words):
        words = fenced[1].strip()
    if len(words) > 1 and words[0] == words[-1] == '"' and '"' not in words[1:-1]:
        words = words[1:-1].strip()
    if not words:
        raise ValueError("the answer is empty")
    return words


def converse(
    items: Sequence[CaptionItem], pictures: Sequence[Sequence[Any]], config: CaptionConfig,
    answer: Callable[[list[Chat]], list[Answer]],
) -> list[Words | Malformed]:  # fmt: skip
    """The captions of several windows, whose dialogues go on side by side: a batch is one round of all of them.

    answer: one Answer a Chat, in order; chats with and without pictures are never in one batch.
    """
    talks = [dialogue(item, config) for item in items]
    found: dict[int, Words | Malformed] = {}
    asked: dict[int, Ask] = {}

    def go_on(place: int, said: Answer | None) -> None:
        try:
            asked[place] = talks[place].send(said)  # type: ignore[arg-type]  # None starts it
        except StopIteration as done:
            found[place] = done.value
        except Malformed as error:
            found[place] = error

    for place in range(len(talks)):
        go_on(place, None)
    while asked:
        seen = next(iter(asked.values())).seen
        batch = {place: asked.pop(place) for place in list(asked) if asked[place].seen == seen}
        chats = [Chat(pictures[place] if seen else (), ask.turns) for place, ask in batch.items()]
        for place, said in zip(batch, answer(chats), strict=True):
            go_on(place, said)
    return [found[place] for place in range(len(talks))]
