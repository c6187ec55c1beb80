"""The bodies of requests: fields, types and ranges, checked by pydantic.

Fields that nobody here knows are ignored, as OpenAI's clients send some that only OpenAI needs; a
known field of a wrong type, or one that asks for what this server cannot do, is an error 400.
`null` means the default throughout, as OpenAI's clients mean it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from geex_jax.serving.errors import ApiError

MOST_CHOICES = 128  # OpenAI's bound for `n`
MOST_LOGPROBS = 20
MOST_STOPS = 16

Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Number = Annotated[float, Field(ge=-2, le=2)]
Share = Annotated[float, Field(ge=0, le=1)]


class Body(BaseModel):
    """Strict types: "8" is no number, 1 no boolean."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class StreamOptions(Body):
    """What a stream has beside its text."""

    include_usage: bool | None = None


class Sampled(Body):
    """What completions and chats have in common.

    `top_k` (0 or -1: off), `min_p`, `repetition_penalty`, `ignore_eos`, `language` (a tag line
    before the prompt) and `end_rule` (a language: stop where the paper's rule for it says that a
    function is finished) are extensions.
    """

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    logit_bias: (
        Annotated[
            dict[str, Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=1024),
        ]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Share | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    ignore_eos: bool | None = None
    language: str | None = None
    end_rule: str | None = None

    @model_validator(mode="after")
    def _checked(self) -> Sampled:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: it needs stream = true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings, however they were given."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


Ids = list[int]


class CompletionBody(Sampled):
    """`POST /v1/completions`."""

    prompt: str | Ids | list[str] | list[Ids] | None = None
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    best_of: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None

    @model_validator(mode="after")
    def _possible(self) -> CompletionBody:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of: other values than n are not supported")
        if self.echo and self.suffix:
            raise ValueError("echo: it does not go together with suffix")
        return self


class Part(Body):
    """A piece of a message; only text is understood."""

    type: str
    text: str | None = None


class Message(Body):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


class ResponseFormat(Body):
    """Only free text is supported."""

    type: str


class ChatBody(Sampled):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    max_completion_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None

    @model_validator(mode="after")
    def _possible(self) -> ChatBody:
        if self.tools or self.functions:
            raise ValueError("tools: not supported, the models here only write text")
        if self.response_format is not None and self.response_format.type != "text":
            raise ValueError("response_format: only text is supported")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: it needs logprobs = true")
        for message in self.messages:
            for part in message.content if isinstance(message.content, list) else ():
                if part.type != "text":
                    raise ValueError(
                        f"messages: a part of type {part.type[:50]!r}; only text is read"
                    )
        return self


class TokenizeBody(Body):
    """`POST /tokenize`."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    """`POST /detokenize`."""

    model: str | None = None
    tokens: list[int]


class Product(Body):
    """What the routes of the paper's product have in common."""

    model: str | None = None
    source: Annotated[str, Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stream: bool | None = None


class TranslateBody(Product):
    """`POST /v1/translate`. `from` and `to` are languages; `declaration` opens the translation."""

    from_: Annotated[str, Field(alias="from")]
    to: str
    declaration: str | None = None


class ExplainBody(Product):
    """`POST /v1/explain`."""

    language: str


Kind = TypeVar("Kind", bound=Body)


def parse(kind: type[Kind], data: bytes) -> Kind:
    """Reads a body.

    Args:
      kind: the class of the body.
      data: UTF-8 JSON.

    Raises:
      ApiError: 400, with the first field that is wrong.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _first(error) from None


def _first(error: ValidationError) -> ApiError:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    # A union complains once for each of its types: say what all of them are.
    first = found[0]
    names = [x for x in first["loc"] if not isinstance(x, int)]
    path = [str(x) for x in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {message}", code="invalid_json")
    if not path:
        # Rules over several fields name the wrong one first.
        field, colon, _ = message.partition(":")
        known = field if colon and field.isidentifier() else None
        return ApiError(400, message if known else f"the body: {message}", param=known)
    field = str(names[0]) if names else path[0]
    same = [x for x in found if x["loc"][:1] == first["loc"][:1]]
    if len({x["loc"] for x in same}) > 1 and field in UNIONS:
        return ApiError(400, f"{field}: give {UNIONS[field]}", param=field)
    where = ".".join(x for x in path if x not in _TYPE_NAMES and "[" not in x)
    return ApiError(400, f"{where or field}: {message}", param=where or field)


UNIONS = {
    "prompt": "a string, a list of strings, a list of token ids, or a list of such lists",
    "stop": f"a string of 1 to 1000 characters, or a list of at most {MOST_STOPS} of them",
    "messages": "a list of objects with role and content (a string, or a list of text parts)",
}
_TYPE_NAMES = {"str", "int", "float", "bool", "list", "dict"}
