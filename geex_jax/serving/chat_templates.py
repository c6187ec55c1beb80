"""A chat as one prompt: the model's own Jinja template, or a plain one for models without.

A model that was tuned to chat brings its template with its tokenizer (`chat_template` in
tokenizer_config.json, or chat_template.jinja), and it is rendered as transformers renders it, in
Jinja's sandbox. CodeGeeX and other models of plain code were never shown a chat. Theirs is

    System: ...

    User: ...

    Assistant:

with a blank line between turns and "\\nUser:", "\\nSystem:" as stop strings: a base model goes on
with it, more or less; `/v1/completions` is what such a model is made for.

What users write is text: control strings in it (`<|im_end|>`) do not become control tokens.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import numpy as np

from geex_jax.errors import GeexError
from geex_jax.tokenizers import Tokenizer

PLAIN = (
    "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content | trim }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
PLAIN_STOPS = ("\nUser:", "\nSystem:")


class ChatTemplate:
    """Messages to token ids.

    Args:
      tokenizer: of the model.
      source: the Jinja template; None for the plain one.
      tokens: strings that templates refer to, such as bos_token and eos_token.

    Raises:
      GeexError: the template is no Jinja.
    """

    def __init__(
        self, tokenizer: Tokenizer, source: str | None = None, tokens: Mapping[str, str] = {}
    ):
        self.plain = source is None
        self.stops = PLAIN_STOPS if self.plain else ()
        self._tokenizer, self._tokens = tokenizer, dict(tokens)
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals.update(raise_exception=_raise, strftime_now=_now)
        try:
            self._template = environment.from_string(PLAIN if source is None else source)
        except jinja2.TemplateError as error:
            raise GeexError(
                f"the model's chat template is not usable ({error})", "repair it, or take it away"
            ) from None
        # A control string in a message is cut in two by a sign that no text has.
        strings = () if self.plain else control_strings(tokenizer)
        pattern = "|".join(re.escape(s) for s in sorted(strings, key=len, reverse=True))
        self._control = re.compile(pattern) if pattern else None

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the ids of the prompt that asks for the assistant's next turn.

        Args:
          messages: role and content of each turn.

        Raises:
          GeexError: the template refuses these messages, for example their order of roles.
        """
        mark = _unused(m["content"] for m in messages)
        safe = [dict(m) | {"content": self._guard(m["content"], mark)} for m in messages]
        try:
            text = self._template.render(
                messages=safe, add_generation_prompt=True, tools=None, documents=None,
                **self._tokens,
            )  # fmt: skip
        except Exception as error:  # whatever a template does wrong
            raise GeexError(
                f"the model's chat template refuses these messages ({error})",
                "see the model's card for the roles it knows",
            ) from None
        encode = self._tokenizer.encode
        if self.plain:
            return encode(text)
        ids: list[int] = []
        for at, piece in enumerate(text.split(mark)):
            # Odd pieces are the control strings that a user wrote, between two marks.
            ids += encode(piece, allow_special=at % 2 == 0) if piece else []
        return ids

    def _guard(self, content: str, mark: str) -> str:
        if self._control is None:
            return content
        return self._control.sub(lambda m: f"{mark}{m[0]}{mark}", content)


def control_strings(tokenizer: Tokenizer) -> set[str]:
    """Strings that the tokenizer makes control tokens of, if allowed."""
    silent = np.flatnonzero(tokenizer.token_byte_lengths() == 0).tolist()
    found = {tokenizer.decode([i]) for i in silent}
    return {
        s for s in found if s and tokenizer.encode(s, allow_special=True) != tokenizer.encode(s)
    }


def find_template(folder: pathlib.Path) -> tuple[str | None, dict[str, str]]:
    """The chat template of a model folder, and the strings of its special tokens.

    Looks into `tokenizer/` and, of a converted folder, `source/`: chat_template.jinja first, then
    `chat_template` of tokenizer_config.json (a string, or a list of named ones: "default").

    Raises:
      GeexError: a file that is not readable.
    """
    source, tokens = None, {}
    for place in (folder / "tokenizer", folder / "source"):
        alone, settings = place / "chat_template.jinja", place / "tokenizer_config.json"
        try:
            if source is None and alone.is_file():
                source = alone.read_text("utf-8")
            if settings.is_file():
                about = json.loads(settings.read_text("utf-8"))
                source = source if source is not None else _of(about.get("chat_template"))
                tokens = _specials(about) | tokens
        except (OSError, ValueError, AttributeError) as error:
            raise GeexError(f"{place}: its chat template is not readable ({error})",
                            "repair the file, or take it away") from None  # fmt: skip
    return source, tokens


def _of(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    named = {x["name"]: x["template"] for x in value or []}
    return named.get("default", next(iter(named.values()), None))


def _specials(about: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = about.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            found[key] = value
    return found


def _unused(texts: Iterable[str]) -> str:
    whole = "".join(texts)
    private = (chr(c) for c in range(0xE000, 0xF900))
    return next((sign for sign in private if sign not in whole), "\0")


def _tojson(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
