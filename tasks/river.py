"""One Prefect task a stage. What a stage does is in ptta_core/stages; what "done" means is in ptta_core/memo."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from tasks.session import Session, bring

OPTIONS: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


@task(name="gather", **OPTIONS)
def gather(session: Session) -> State[Any]:
    """folders -> files, sources"""
    return bring("gather", session)


@task(name="split", **OPTIONS)
def split(session: Session) -> State[Any]:
    """sources -> clips"""
    return bring("split", session)


@task(name="score", **OPTIONS)
def score(session: Session) -> State[Any]:
    """clips -> scores"""
    return bring("score", session)


@task(name="select", **OPTIONS)
def select(session: Session) -> State[Any]:
    """scores -> selection"""
    return bring("select", session)


@task(name="caption", **OPTIONS)
def caption(session: Session) -> State[Any]:
    """selection -> captions"""
    return bring("caption", session)


@task(name="admit", **OPTIONS)
def admit(session: Session) -> State[Any]:
    """captions -> admissions"""
    return bring("admit", session)


@task(name="encode", **OPTIONS)
def encode(session: Session) -> State[Any]:
    """captions -> latents"""
    return bring("encode", session)


@task(name="train", **OPTIONS)
def train(session: Session) -> State[Any]:
    """latents -> adapter"""
    return bring("train", session)


@task(name="generate", **OPTIONS)
def generate(session: Session) -> State[Any]:
    """adapter -> generations"""
    return bring("generate", session)


@task(name="evaluate", **OPTIONS)
def evaluate(session: Session) -> State[Any]:
    """generations -> verdicts"""
    return bring("evaluate", session)
