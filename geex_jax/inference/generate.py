"""Text in, text out: tags, tokens, the compiled loop, stop strings, streaming."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from geex_jax import languages
from geex_jax.errors import GeexError
from geex_jax.inference.decode import Decoding, Params
from geex_jax.inference.stops import StopScanner
from geex_jax.models import Transformer
from geex_jax.tokenizers import StreamDecoder, Tokenizer

Finish = Literal["eos", "stop", "length"]
Stream = Callable[[int, str], None]
CHUNK_SECONDS = 0.1  # a reader sees text this often
LONGEST_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    Attributes:
      prompt: the prompt as given, without the language tag.
      text: the continuation, up to the stop string if one was met.
      tokens: ids drawn, without eos; with "stop" up to the id that completed the stop string.
      finish: "eos", "stop", or "length": the budget is spent or the context is full.
      prompt_tokens: ids of the prompt, tag included.
    """

    prompt: str
    text: str
    tokens: list[int]
    finish: Finish
    prompt_tokens: int

    @property
    def num_tokens(self) -> int:
        """Number of ids drawn, without eos."""
        return len(self.tokens)


def generate(
    model: Transformer,
    params: Params,
    tokenizer: Tokenizer,
    prompts: str | Sequence[str],
    *,
    language: str | None = None,
    max_new_tokens: int = 128,
    temperature: float | Sequence[float] = 0.0,
    top_k: int | Sequence[int] = 0,
    top_p: float | Sequence[float] = 0.0,
    seed: int = 0,
    stop: str | Sequence[str] = (),
    num_samples: int = 1,
    mask_padding: bool = True,
    banned: Sequence[int] = (),
    first_row: int = 0,
    stream: Stream | None = None,
) -> list[Completion]:
    """Continues prompts.

    Args:
      model: the decoder.
      params: float or quantized parameters.
      tokenizer: the one the model was trained with.
      prompts: one text or several, of any lengths that fit the context. An empty one starts a
        new document.
      language: puts this language's tag line before each prompt.
      max_new_tokens: most tokens for each completion.
      temperature: 0 for greedy; like `top_k` and `top_p` one value, or one for each row (rows
        are prompts, each repeated `num_samples` times).
      top_k: keep the k most likely tokens; 0 means off.
      top_p: keep the most likely tokens whose probabilities add up to p; 0 means off.
      seed: row r draws the same tokens for the same seed, whatever the other rows are.
      stop: strings that end a completion; they are not part of it.
      num_samples: completions for each prompt.
      mask_padding: never draw an id that the tokenizer has no text for (the official code may).
      banned: ids whose logits become -10000, as in the official code.
      first_row: number of the first row, for callers that split a long list into batches.
      stream: called with (row, text) as text becomes certain.

    Returns:
      One Completion for each row: all samples of the first prompt, then of the second, ...

    Raises:
      GeexError: an unknown language, a prompt that leaves no room, a setting out of range.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    stops = [stop] if isinstance(stop, str) else list(stop)
    if num_samples < 1:
        raise GeexError(f"num_samples = {num_samples}", "give 1 or more")
    head = "" if language is None else languages.get(language).tag + "\n"
    encoded = [tokenizer.encode(head + p) or [tokenizer.eos_id] for p in prompts]
    ids = [e for e in encoded for _ in range(num_samples)]
    texts = [_Text(tokenizer, e, stops) for e in ids]
    decoding = Decoding(
        model,
        params,
        ids,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        eos_id=tokenizer.eos_id,
        banned=banned,
        vocab_limit=tokenizer.vocab_size if mask_padding else None,
        first_row=first_row,
    )
    if stops or stream:
        _in_pieces(decoding, texts, stream)
    else:
        decoding.advance(int(decoding.budget.max()))
        _feed(decoding, texts, None)
    repeated = [p for p in prompts for _ in range(num_samples)]
    return [
        Completion(prompt, "".join(text.parts), text.tokens, text.finish, len(row))
        for prompt, text, row in zip(repeated, texts, ids, strict=True)
    ]


def generate_text(
    model: Transformer, params: Params, tokenizer: Tokenizer, prompt: str, **settings: Any
) -> str:
    """The continuation of one prompt as a string; settings as for `generate`."""
    return generate(model, params, tokenizer, prompt, **settings)[0].text


class _Text:
    """One row's ids on their way to text."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stops: Sequence[str]):
        self.eos_id = tokenizer.eos_id
        self.decoder = StreamDecoder(tokenizer)
        for token in prompt:  # the text of an id may depend on whether text stands before it
            self.decoder.push(token)
        self.scanner = StopScanner(stops)
        self.tokens: list[int] = []
        self.parts: list[str] = []
        self.finish: Finish = "length"
        self.ended = False

    def push(self, new: Sequence[int], last: bool) -> str:
        """Takes ids; `last` says that none will follow. Returns the text that became certain."""
        certain = ""
        for token in new:
            if self.ended:
                break
            if token == self.eos_id:
                self._end("eos")
                break
            self.tokens.append(token)
            certain += self.scanner.push(self.decoder.push(token))
            if self.scanner.stopped:
                self._end("stop")
        if (last or self.ended) and self.finish != "stop":
            certain += self.scanner.push(self.decoder.flush())
            if self.scanner.stopped:  # a stop string of replacement characters
                self._end("stop")
            certain += self.scanner.flush()
            self.ended = True
        self.parts.append(certain)
        return certain

    def _end(self, finish: Finish) -> None:
        self.finish, self.ended = finish, True


def _in_pieces(decoding: Decoding, texts: Sequence[_Text], stream: Stream | None) -> None:
    """Advances in calls of about CHUNK_SECONDS, so that text is seen and stopped in time."""
    steps, first = 1, True
    _feed(decoding, texts, stream)
    while not all(t.ended for t in texts):
        began = time.monotonic()
        decoding.advance(steps, np.array([t.ended for t in texts]))
        _feed(decoding, texts, stream)
        quick = time.monotonic() - began < CHUNK_SECONDS
        # The first call may have compiled: its time says nothing.
        steps = min(2 * steps, LONGEST_CHUNK) if first or quick else max(steps // 2, 1)
        first = False


def _feed(decoding: Decoding, texts: Sequence[_Text], stream: Stream | None) -> None:
    finished = decoding.finished()
    for row, (text, tokens) in enumerate(zip(texts, decoding.tokens(), strict=True)):
        if text.ended:
            continue
        certain = text.push(tokens[len(text.tokens) :], bool(finished[row]))
        if stream is not None and certain:
            stream(row, certain)
