"""What is served: models by name, each with its engine."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any, Protocol

from geex_jax.errors import did_you_mean
from geex_jax.inference.infill import form_of
from geex_jax.inference.requests import Request, Ticket
from geex_jax.serving.chat_templates import ChatTemplate
from geex_jax.serving.errors import ApiError
from geex_jax.tokenizers import Tokenizer


class Runs(Protocol):
    """The part of `inference.Engine` that a server needs."""

    def submit(self, request: Request) -> Ticket:
        """Queues a request; raises GeexError, Overloaded or Stopped."""
        ...

    def stop(self, drain: bool = True, timeout: float | None = None) -> Any:
        """Ends the engine's thread, after what was taken if `drain`."""
        ...

    def stats(self) -> dict[str, Any]:
        """Numbers of now; `stopped` is not 0 once it takes nothing any more."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Served:
    """One model behind the server.

    Attributes:
      name: its id in the API.
      engine: runs it.
      tokenizer: text to ids and back.
      context: tokens that prompt and completion share.
      vocab_size: ids below it may stand in a prompt.
      chat: makes a prompt of messages.
      form: what is served, for people: "int8 weights, 13.0B parameters".
      queue: requests that its engine can hold, running and waiting.
      created: seconds since 1970.
    """

    name: str
    engine: Runs
    tokenizer: Tokenizer
    context: int
    vocab_size: int
    chat: ChatTemplate
    form: str = ""
    queue: int = 264
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))
    _texts: dict[int, str] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def stopped(self) -> bool:
        """Whether its engine takes nothing any more."""
        return bool(self.engine.stats().get("stopped"))

    @functools.cached_property
    def infill(self) -> str | None:
        """Whose form of fill-in prompts it knows, None if it cannot fill in."""
        form = form_of(self.tokenizer)
        return form and form.name

    @functools.cached_property
    def longest_token(self) -> int:
        """Most bytes of text that one id stands for."""
        return max(1, int(self.tokenizer.token_byte_lengths().max()))

    def text_of(self, token: int) -> str:
        """One id as OpenAI writes it: its text, or "bytes:\\xe2" where it is no whole text."""
        if token not in self._texts:
            data = self.bytes_of(token)
            try:
                text = data.decode() if data else f"token_id:{token}"
            except UnicodeDecodeError:
                text = "bytes:" + "".join(f"\\x{b:02x}" for b in data)
            self._texts[token] = text
        return self._texts[token]

    def bytes_of(self, token: int) -> bytes:
        """The bytes that an id stands for behind other text; its name if it is a control token."""
        # Some vocabularies drop the first space of a text: decode behind another id.
        before = self.tokenizer.decode_bytes([self.tokenizer.eos_id])
        return self.tokenizer.decode_bytes([self.tokenizer.eos_id, token])[len(before) :]

    def card(self) -> dict[str, Any]:
        """The model as `/v1/models` tells of it; `geex` holds what OpenAI's has not."""
        about = {"form": self.form, "context": self.context, "infill": self.infill}
        about["chat_template"] = "plain" if self.chat.plain else "its own"
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "geex",
            "geex": about,
        }


class Catalogue:
    """The models of a server; the first is the default."""

    def __init__(self, models: Sequence[Served]):
        self.models = {m.name: m for m in models}

    def get(self, name: str | None) -> Served:
        """The model of that name, the first one for None.

        Raises:
          ApiError: 404, there is none.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            hint = did_you_mean(name[:100], self.models)
            raise ApiError(
                404, f"the model {name[:100]!r} is not served; {hint}",
                param="model", code="model_not_found",
            )  # fmt: skip
        return self.models[name]
