"""The ten stages, in the order of the river. Stages are verbs, tables are nouns; stages never import each other."""

from importlib import import_module

from ptta_core.memo import Stage

RIVER = ("gather", "split", "score", "select", "caption", "admit", "encode", "train", "generate", "evaluate")
CURATE = RIVER[:6]
FINETUNE = RIVER[6:8]
EVALUATE = RIVER[8:]


def load(name: str) -> Stage:
    """A stage by name; its models are imported only when it has something to compute."""
    if name not in RIVER:
        raise ValueError(f"no stage {name!r}; choices: {', '.join(RIVER)}")
    return getattr(import_module(f"ptta_core.stages.{name}"), name)
