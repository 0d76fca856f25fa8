"""Prompts to generate from: read from a recipe or a file, with the labels that a label gate reads."""

import json
from dataclasses import dataclass
from pathlib import Path

from ptta_core import ids
from ptta_core.config import DEPLOYMENTS, GenerateConfig, Recipe
from ptta_core.labels import labels_of
from ptta_core.memo import StageError

PREVIEWED = 2  # of generate's prompts, where training names none of its own


@dataclass(frozen=True)
class Prompt:
    """What to generate. labels: JSON object label -> share as the prompt file has it, "" for none."""

    text: str
    labels: str = ""


def read_prompts(config: GenerateConfig) -> list[Prompt]:
    """The recipe's prompts to generate from, as `read` finds them; the first `limit`. Raises StageError."""
    return read(config.prompts, "generate.prompts")[: config.limit]


def previewed(recipe: Recipe) -> list[Prompt]:
    """The prompts that training previews: its own, or the first ones of generate. Raises StageError."""
    if recipe.train.preview_prompts is None:
        return read_prompts(recipe.generate)[:PREVIEWED]
    return read(recipe.train.preview_prompts, "train.preview_prompts")


def read(prompts: str | list[str], field: str) -> list[Prompt]:
    """Prompts as a recipe names them: a list, a .jsonl or .txt file, or a name in deployments/prompts; each text once.

    A line of a .jsonl file is {"prompt": text, "labels": {label: share}}; labels are optional, and what else is there
    is for people. Raises StageError for no file, no prompt, and for a line that is neither.
    """
    if isinstance(prompts, list):
        found = [Prompt(text) for text in prompts]
    else:
        path = Path(prompts).expanduser()
        if not path.suffix:
            path = DEPLOYMENTS / "prompts" / f"{prompts}.jsonl"
        if not path.is_file():
            raise StageError(f"{field} = {prompts!r}: no such file")
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        parse = _parse if path.suffix == ".jsonl" else lambda line, where: Prompt(line)
        found = [parse(line, f"{field}: {path.name}, line {number}") for number, line in lines if line.strip()]
    once: dict[str, Prompt] = {}
    for one in found:
        if once.setdefault(one.text, one) != one:
            raise StageError(f"{field}: the same prompt with other labels: {one.text[:80]!r}")
    if not once:
        raise StageError(f"{field} holds no prompt")
    return list(once.values())


def _parse(line: str, where: str) -> Prompt:
    """One line of a .jsonl file."""
    try:
        told = json.loads(line)
    except json.JSONDecodeError as error:
        raise StageError(f"{where} is not JSON: {error}") from error
    if not isinstance(told, dict) or not isinstance(told.get("prompt"), str):
        raise StageError(f'{where}: {{"prompt": text}} is wanted, not {line[:80]}')
    labels = told.get("labels") or {}
    known = isinstance(labels, dict) and all(isinstance(one, (int, float)) and one >= 0 for one in labels.values())
    if not known or (labels and not any(labels.values())):
        raise StageError(f"{where}: labels {labels!r}: shares of 0 or more by label are wanted")
    return Prompt(told["prompt"], ids.canonical(labels) if labels else "")


def labels_for(prompt: Prompt, recipe: Recipe) -> str:
    """A prompt's labels where the recipe's adapter reads them: its file's, else those that its words give, else "".

    Words are read as those of the captions were (labels.py). With "" the adapter is given the mean over its training
    clips, which its file holds. Raises StageError when the file's labels are none that the adapter knows.
    """
    if recipe.train.gate != "label" or recipe.train.branches == 1:
        return ""
    if not prompt.labels:
        return labels_of(prompt.text, recipe.caption)
    told = json.loads(prompt.labels)
    if not any(told.get(name) for name in recipe.caption.labels):
        raise StageError(f"prompts: labels {', '.join(told)} of {prompt.text[:60]!r}: none is among "
                         f"caption.labels ({', '.join(recipe.caption.labels)})")  # fmt: skip
    return prompt.labels
