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
from geex_jax.inference.text import TextStream
from geex_jax.models import Transformer
from geex_jax.tokenizers import Tokenizer

Finish = Literal["eos", "stop", "length", "deadline"]
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
      logprobs: of each token, where they were asked for: token, logprob, top.
    """

    prompt: str
    text: str
    tokens: list[int]
    finish: Finish
    prompt_tokens: int
    logprobs: list[dict[str, Any]] | None = None

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
    texts = [TextStream(tokenizer, e, stops, eos_id=tokenizer.eos_id) for e in ids]
    parts: list[list[str]] = [[] for _ in ids]
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

    def show(row: int, text: str) -> None:
        parts[row].append(text)
        if stream is not None and text:
            stream(row, text)

    if stops or stream:
        _in_pieces(decoding, texts, show)
    else:
        decoding.advance(int(decoding.budget.max()))
        _feed(decoding, texts, show)
    repeated = [p for p in prompts for _ in range(num_samples)]
    return [
        Completion(prompt, "".join(part), text.tokens, _finish(text), len(row))
        for prompt, part, text, row in zip(repeated, parts, texts, ids, strict=True)
    ]


def generate_text(
    model: Transformer, params: Params, tokenizer: Tokenizer, prompt: str, **settings: Any
) -> str:
    """The continuation of one prompt as a string; settings as for `generate`."""
    return generate(model, params, tokenizer, prompt, **settings)[0].text


def _finish(text: TextStream) -> Finish:
    return text.finish or "length"


def _in_pieces(decoding: Decoding, texts: Sequence[TextStream], show: Stream) -> None:
    """Advances in calls of about CHUNK_SECONDS, so that text is seen and stopped in time."""
    steps, first = 1, True
    _feed(decoding, texts, show)
    while not all(t.closed for t in texts):
        began = time.monotonic()
        decoding.advance(steps, np.array([t.closed for t in texts]))
        _feed(decoding, texts, show)
        quick = time.monotonic() - began < CHUNK_SECONDS
        # The first call may have compiled: its time says nothing.
        steps = min(2 * steps, LONGEST_CHUNK) if first or quick else max(steps // 2, 1)
        first = False


def _feed(decoding: Decoding, texts: Sequence[TextStream], show: Stream) -> None:
    finished = decoding.finished()
    for row, (text, tokens) in enumerate(zip(texts, decoding.tokens(), strict=True)):
        if text.closed:
            continue
        certain = text.push(tokens[len(text.tokens) :])
        if finished[row] or text.finish is not None:
            certain += text.close()
        show(row, certain)
