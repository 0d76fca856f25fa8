"""What recipes and sites are made of: frozen sections, models by id and revision, and the error of a bad one."""

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class ConfigError(ValueError):
    """A bad recipe, site or override; the message names field, value and choices."""


class Section(BaseModel):
    """A part of a recipe or site: frozen, and a misspelt field is an error, not a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def secret(message: str) -> PydanticCustomError:
    """The error of a value that may be, or hold, a key: config.py shows the message and not the value."""
    return PydanticCustomError("secret", message)  # type: ignore[arg-type]  # any text is a literal to its users


# A field that shapes how a stage runs or what it keeps for people, never its result: left out of the fingerprint.
NOT_RESULT = {"result": False}


class ModelRef(Section):
    """A model by id and revision: a hub id, a local folder, or `tiny:KIND` (a tiny random model made on demand).

    For a tiny model the revision is its seed. Nothing random is ever reported as quality.
    """

    id: str
    revision: str | None = None

    @property
    def tiny(self) -> bool:
        """Whether this is one of the project's own random stand-ins."""
        return self.id.startswith("tiny:")
