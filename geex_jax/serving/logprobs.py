"""Log-probabilities in the two shapes that OpenAI gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geex_jax.inference.requests import TokenLogprob
from geex_jax.serving.served import Served

Logprobs = Sequence[TokenLogprob | None]
LEAST = -9999.0  # JSON has no -inf and no NaN; OpenAI's floor


class Legacy:
    """The lists of `/v1/completions`: tokens, token_logprobs, top_logprobs, text_offset.

    Offsets count characters of the tokens' own texts from the beginning of the choice's text.

    Args:
      served: the model. top: most likely tokens at each place.
    """

    def __init__(self, served: Served, top: int):
        self._served, self._top, self._offset = served, top, 0

    def lists(self, prompt: Sequence[int], found: Logprobs) -> dict[str, list[Any]]:
        """The next tokens: those of `prompt` (None in `found` where nothing predicts one), then
        those that were drawn, an end-of-text included, as OpenAI counts it.
        """
        drawn = [one.token for one in found[len(prompt) :] if one is not None]
        tokens = [*prompt, *drawn]
        text_of = self._served.text_of
        result: dict[str, list[Any]] = {
            "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [],
        }  # fmt: skip
        for token, one in zip(tokens, found, strict=True):
            result["tokens"].append(text_of(token))
            result["text_offset"].append(self._offset)
            result["token_logprobs"].append(None if one is None else max(LEAST, one.logprob))
            result["top_logprobs"].append(None if one is None else self._tops(one))
            self._offset += len(self._served.bytes_of(token).decode("utf-8", "ignore"))
        return result

    def _tops(self, one: TokenLogprob) -> dict[str, float]:
        found: dict[str, float] = {}
        for token, value in one.top[: self._top]:
            found.setdefault(self._served.text_of(token), max(LEAST, value))
        return found


def chat(served: Served, found: Sequence[TokenLogprob], top: int) -> dict[str, Any]:
    """The objects of `/v1/chat/completions`."""

    def entry(token: int, value: float) -> dict[str, Any]:
        data = list(served.bytes_of(token))
        return {"token": served.text_of(token), "logprob": max(LEAST, value), "bytes": data}

    content = [
        entry(one.token, one.logprob)
        | {"top_logprobs": [entry(t, value) for t, value in one.top[:top]]}
        for one in found
    ]
    return {"content": content, "refusal": None}
