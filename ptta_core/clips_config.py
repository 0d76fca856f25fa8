"""The sections of a recipe that say what a kept clip is called and how it is learnt from: caption, admit, encode."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from ptta_core.section import NOT_RESULT, ModelRef, Section, secret


class EndpointConfig(Section):
    """A server that answers chat completions as OpenAI's API defines them (vLLM, llama.cpp, a provider).

    Its model, as it is called there, and `options` are all that changes a caption. A key is named by the environment
    variable that holds it, and never written anywhere.
    """

    model: str = Field(min_length=1)
    options: dict[str, Any] = {}  # more of a request's body, {top_p: 0.9}; null takes a field out of it
    url: Annotated[str, Field(json_schema_extra=NOT_RESULT)]  # up to /chat/completions: http://127.0.0.1:8000/v1
    api_key_env: Annotated[str, Field(json_schema_extra=NOT_RESULT)] = ""  # the variable's name; "" for no key
    concurrency: Annotated[int, Field(ge=1, le=1024, json_schema_extra=NOT_RESULT)] = 8  # requests at once
    requests_per_minute: Annotated[float | None, Field(gt=0, json_schema_extra=NOT_RESULT)] = None
    timeout_s: Annotated[float, Field(gt=0, json_schema_extra=NOT_RESULT)] = 300.0  # for one request
    retries: Annotated[int, Field(ge=0, json_schema_extra=NOT_RESULT)] = 6  # of a busy or lost server

    @field_validator("url")
    @classmethod
    def _url(cls, text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must begin with http:// or https:// and name a host")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise secret("must hold no user, key or query: a key belongs into the variable of api_key_env")
        return text.rstrip("/").removesuffix("/chat/completions")

    @field_validator("api_key_env")
    @classmethod
    def _name(cls, text: str) -> str:
        if text and not (text.isidentifier() and text.isascii() and text.upper() == text):
            raise secret("must be the NAME of an environment variable, such as OPENAI_API_KEY, which holds the key")
        return text


# The base reads 256 tokens of a prompt (HunyuanVideo's text encoder): some 190 English words, trigger and suffix too.
PROMPT = ("Describe this animation clip in one paragraph of at most 150 words: subject, action, setting, style and "
          "camera. State only what is visible.")  # fmt: skip
FORMAT = """Answer with one JSON object and nothing else:
{"subject": "who or what is seen", "action": "what they do and how they move", "setting": "where and when it is", \
"style": "how it is drawn", "camera": "how it is framed and how the camera moves", "labels": {labels}, \
"caption": "all of this in one fluent paragraph of at most 150 words"}
Each share is a number from 0 to 1 and says how much the clip is about that; together they are 1."""


class CaptionConfig(Section):
    """Who writes the captions."""

    captioner: Literal["measured", "transformers", "endpoint"] = "measured"
    model: ModelRef | None = None  # of transformers
    endpoint: EndpointConfig | None = None
    # the next seven are read by models only, not by measured; "{facts}" in a prompt stands for what was measured
    prompt: str = PROMPT
    structured: bool = False  # asks for JSON: subject, action, setting, style, camera, labels, and one paragraph
    format: str = FORMAT  # how that is asked for, after the prompt; "{labels}" stands for the labels
    facts: Literal["none", "prompt", "append"] = "none"  # what was measured: told in the prompt, or added
    rewrite: str = ""  # a second prompt, before the caption of the first and without pictures; "": none
    frames: int = Field(8, ge=1)
    max_new_tokens: int = Field(512, ge=1)
    of: Literal["window", "clip"] = "window"  # the frames that are learnt with it (encode.window), or the whole clip
    labels: list[str] = ["male", "female", "object", "background"]  # of the branches of a label gate, in their order
    label_words: dict[str, list[str]] = {}  # the words that speak of a label, in place of those in labels.py

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: list[str]) -> list[str]:
        if len({label.strip() for label in labels} - {""}) < len(labels):
            raise ValueError(f"labels {labels} must be different words")
        return labels

    @model_validator(mode="after")
    def _label_words(self) -> "CaptionConfig":
        if unknown := self.label_words.keys() - set(self.labels):
            raise ValueError(f"label_words of {', '.join(sorted(unknown))}: choices: {', '.join(self.labels)}")
        return self

    @field_validator("format")
    @classmethod
    def _format(cls, text: str) -> str:
        names = ("subject", "action", "setting", "style", "camera", "{labels}", "caption")
        if missing := [name for name in names if name not in text]:
            raise ValueError(f"must ask for {', '.join(missing)}: the answer is read as JSON with all of them")
        return text

    @model_validator(mode="after")
    def _model(self) -> "CaptionConfig":
        if self.captioner == "transformers" and self.model is None:
            raise ValueError("captioner transformers needs caption.model (id and revision)")
        if "{facts}" in self.prompt and self.facts != "prompt":
            raise ValueError(f"prompt has {{facts}}, so facts must be prompt, not {self.facts}")
        if self.captioner == "endpoint" and self.endpoint is None:
            raise ValueError("captioner endpoint needs caption.endpoint (model and url)")
        return self


Flag = Literal["empty", "refusal", "repetition", "language", "boilerplate", "cut", "near_identical"]


class AdmitConfig(Section):
    """Which captions are good enough to learn from."""

    min_words: int = Field(3, ge=0)
    max_words: int = Field(400, ge=1)
    max_repeats: int | None = Field(None, ge=1)  # keep at most this many clips with the same caption
    refuse: list[Flag] = ["empty", "refusal", "repetition", "language", "cut"]  # see flags.py; near_identical keeps one
    language: Literal["en", "any"] = "en"  # that captions are wanted in


class EncodeConfig(Section):
    """Which frames of a clip the model sees (windows.py), at what size (buckets.py), with which words."""

    area: int = Field(512 * 512, ge=16 * 16)  # px a frame; the aspect ratio follows the clip
    frames: int = Field(33, ge=1)  # at most; rounded down to 4k+1 by what the clip holds
    fps: float = Field(24.0, ge=1, le=240)
    window: Literal["first", "middle", "chunks", "uniform"] = "first"
    trigger: str = ""
    suffix: str = ""
    strip_openings: bool = False  # "The video shows a girl" is learnt as "A girl" (flags.py)
    tile: bool = True  # the VAE takes pictures over 256 px in tiles; in time it always does, see buckets.TILING

    @model_validator(mode="after")
    def _four_k_plus_one(self) -> "EncodeConfig":
        if self.frames % 4 != 1:
            raise ValueError(f"frames {self.frames} is not 4k+1; nearest are {self.frames // 4 * 4 + 1} and "
                             f"{self.frames // 4 * 4 + 5}")  # fmt: skip
        return self
