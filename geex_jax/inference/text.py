"""Ids of one sample on their way to text: whole characters, up to a stop or an end rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from geex_jax.inference.stops import EndScanner, StopScanner
from geex_jax.tokenizers import StreamDecoder, Tokenizer


class TextStream:
    """One sample.

    Args:
      tokenizer: of the model.
      prompt: ids before it: an id's text may depend on whether text stands before it.
      stops: strings that end it.
      language: whose end rule ends it, or None.
      eos_id: id that ends it, or None.
      stop_ids: ids that end it like a stop string.

    Attributes:
      tokens: ids taken so far, without an end-of-text that ended the sample.
      finish: "eos" or "stop" as soon as it has ended so.
      by_id: whether it has ended with an id, which is not among `tokens`.
      closed: whether no text will follow.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        stops: Sequence[str] = (),
        language: str | None = None,
        eos_id: int | None = None,
        stop_ids: Sequence[int] = (),
    ):
        self._decoder = StreamDecoder(tokenizer)
        self._decoder.follow(prompt)
        self._eos_id, self._stop_ids = eos_id, frozenset(stop_ids)
        self._scanner = StopScanner(stops)
        self._rule = None if language is None else EndScanner(language)
        self.tokens: list[int] = []
        self.finish: Literal["eos", "stop"] | None = None
        self.closed = self.by_id = False

    def push(self, new: Sequence[int]) -> str:
        """Takes ids up to an end; returns the text that became certain."""
        certain = ""
        for token in new:
            if self.finish is not None:
                break
            if token == self._eos_id:
                self.finish, self.by_id = "eos", True
                break
            if token in self._stop_ids:
                self.finish, self.by_id = "stop", True
                break
            self.tokens.append(token)
            certain += self._scan(self._decoder.push(token))
        return certain

    def close(self) -> str:
        """Ends the text; returns what was held back (nothing after a stop)."""
        self.closed = True
        if self.finish == "stop" and not self.by_id:
            return ""
        certain = self._scan(self._decoder.flush())
        if self._scanner.stopped:  # a stop string of replacement characters
            return certain
        rest = self._scanner.flush()
        if self._rule is not None:
            rest = self._rule.push(rest)
            if self._rule.stopped:
                self.finish = "stop"
            rest += self._rule.flush()
        return certain + rest

    def _scan(self, text: str) -> str:
        text = self._scanner.push(text)
        if self._rule is not None:
            text = self._rule.push(text)
        if self._scanner.stopped or (self._rule is not None and self._rule.stopped):
            self.finish = "stop"
            if self._rule is not None and not self._rule.stopped:
                text += self._rule.flush()
        return text
