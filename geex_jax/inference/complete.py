"""Completions of a list of prompts by an engine of their own: all of its settings, no server."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from geex_jax import languages
from geex_jax.errors import GeexError
from geex_jax.inference.beam import beam_search
from geex_jax.inference.decode import Params
from geex_jax.inference.engine import Engine
from geex_jax.inference.generate import Completion, Stream
from geex_jax.inference.infill import infill
from geex_jax.inference.requests import Request, SamplingParams, Ticket
from geex_jax.inference.settings import EngineConfig
from geex_jax.inference.text import TextStream
from geex_jax.models import Transformer
from geex_jax.tokenizers import Tokenizer

MOST_ROWS = 8


def complete(
    model: Transformer,
    params: Params,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: SamplingParams,
    *,
    language: str | None = None,
    suffix: str | None = None,
    config: EngineConfig | None = None,
    draft: tuple[Transformer, Params] | None = None,
    stream: Stream | None = None,
) -> list[Completion]:
    """Continues prompts, or fills in what stands between each and a suffix.

    Args:
      model, params, tokenizer: the decoder.
      prompts: one or more texts.
      sampling: for all of them; each gives `sampling.n` completions.
      language: puts this language's tag line before each prompt.
      suffix: what stands after the hole.
      config: of the engine; None: rows for all completions, up to 8, and no prefix cache.
      draft: (model, params) of a smaller model that guesses; see Engine.
      stream: called with (number of the completion, text) as text becomes certain.

    Returns:
      All samples of the first prompt, then of the second, ...

    Raises:
      GeexError: no prompt, one that does not fit, a setting out of range, no fill-in tokens.
    """
    if not prompts:
        raise GeexError("no prompt given", "give at least one")
    if sampling.seed is None:
        sampling = dataclasses.replace(sampling, seed=int.from_bytes(os.urandom(4), "little"))
    sampling.check(model.config.vocab_size)
    asked = [_request(tokenizer, p, sampling, language, suffix) for p in prompts]
    if config is None:
        rows = min(MOST_ROWS, len(prompts) * sampling.n)
        config = EngineConfig(slots=rows, batches=(rows,), prefix_cache_bytes=0)
    waiting = len(prompts) * sampling.n
    config = dataclasses.replace(config, max_waiting=max(config.max_waiting, waiting))
    engine = Engine(model, params, tokenizer, config, draft=draft)
    tickets = [engine.submit(request) for request in asked]
    shown = [0] * (len(prompts) * sampling.n)
    while True:
        more = engine.turn()
        if stream is not None:
            _show(tickets, sampling.n, shown, stream)
        if not more:
            break
    return [
        Completion(
            prompt, sample.text, sample.tokens, sample.finish, len(ticket.request.prompt),  # pyright: ignore[reportArgumentType]
            None if sample.logprobs is None else [dataclasses.asdict(x) for x in sample.logprobs],
        )
        for prompt, ticket in zip(prompts, tickets, strict=True)
        for sample in ticket.result(0)
    ]  # fmt: skip


def complete_beams(
    model: Transformer,
    params: Params,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    beams: int,
    *,
    num_return: int = 1,
    language: str | None = None,
    suffix: str | None = None,
    stop: Sequence[str] = (),
    **settings: Any,
) -> list[Completion]:
    """As `complete`, by beam search; further settings are those of `beam_search`."""
    asked = [
        _request(tokenizer, p, SamplingParams(stop=tuple(stop)), language, suffix) for p in prompts
    ]
    found = beam_search(
        model, params, [r.prompt for r in asked], beams=beams, num_return=num_return,
        eos_id=tokenizer.eos_id, vocab_limit=tokenizer.vocab_size, **settings,
    )  # fmt: skip
    completions = []
    for prompt, request, row in zip(prompts, asked, found, strict=True):
        for beam in row:
            text = TextStream(
                tokenizer, request.prompt, stop, eos_id=tokenizer.eos_id,
                stop_ids=request.params.stop_ids,
            )  # fmt: skip
            words = text.push(beam.tokens) + text.close()
            finish = text.finish or beam.finish
            size = len(request.prompt)
            completions.append(Completion(prompt, words, text.tokens, finish, size))
    return completions


def _request(
    tokenizer: Tokenizer,
    prompt: str,
    sampling: SamplingParams,
    language: str | None,
    suffix: str | None,
) -> Request:
    head = "" if language is None else languages.get(language).tag + "\n"
    if suffix is None:
        ids = tokenizer.encode(head + prompt) or [tokenizer.eos_id]
        return Request(tuple(ids), sampling)
    asked = infill(tokenizer, head + prompt, suffix)
    ends = (*sampling.stop_ids, *asked.ends)
    return Request(asked.prompt, dataclasses.replace(sampling, stop_ids=ends))


def _show(tickets: list[Ticket], samples: int, shown: list[int], stream: Stream) -> None:
    for i, ticket in enumerate(tickets):
        for j, text in enumerate(ticket.texts()):
            at = i * samples + j
            if len(text) > shown[at]:
                stream(at, text[shown[at] :])
                shown[at] = len(text)
