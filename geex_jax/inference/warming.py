"""Compiles an engine's programs before the first request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from geex_jax.inference import steps
from geex_jax.inference.programs import Progress, fitting
from geex_jax.inference.requests import SamplingParams
from geex_jax.inference.state import settings_of

if TYPE_CHECKING:
    from geex_jax.inference.engine import Engine


def warm(engine: Engine, progress: Progress | None = None) -> int:
    """See `Engine.warm`."""
    work = list(plan(engine))
    for done, (label, key, given) in enumerate(work):
        if progress is not None:
            progress(done, len(work), label)
        engine.programs.get(key, given)
    if progress is not None:
        progress(len(work), len(work), "done")
    return len(work)


def plan(engine: Engine) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """(label, shape, arguments) of each program that plain requests need."""
    programs, sizes, config = engine.programs, engine.sizes, engine.config
    state, zero = programs.state, np.int32(0)
    weights = programs.weights
    for window in sizes.windows:
        for chunk in sizes.chunks:
            if chunk == sizes.chunks[0] or chunk <= window:
                tokens = np.zeros(chunk, np.int32)
                given = (*weights, state, tokens[None], tokens, zero, zero)
                yield f"prefill {chunk} of {window}", steps.Chunk(chunk, window), given
    for draft, ngram in guesses(engine):
        for batch in sizes.batches:
            if ngram and batch > fitting(sizes.batches, config.speculate_rows):
                continue  # rows are moved together before anything is guessed
            for window in sizes.windows:
                shape = steps.Decode(batch, window, config.steps, draft, ngram)
                given = (*weights, state, np.zeros(batch, bool), zero, None)
                guessed = f", {draft} guessed" if draft else ""
                yield f"decode {batch} rows of {window}{guessed}", shape, given
    numbers = settings_of(SamplingParams(), prompt=1, room=2, eos=0, seed=0, sample=0)
    tokens = np.zeros(sizes.context, np.int32)
    yield "activate", "activate", (state, zero, numbers, tokens)
    for window in sizes.windows:
        yield f"copy {window}", ("copy", window), (state, zero, zero)
    for width in sizes.blocks if programs.pool is not None else ():
        places = np.zeros(width, np.int32)
        yield f"keep {width}", ("save", width), (state, programs.pool, zero, zero, places)
        yield f"recall {width}", ("load", width), (state, programs.pool, zero, places)


def guesses(engine: Engine) -> list[tuple[int, int]]:
    """The (draft, ngram) that decode steps may have."""
    config = engine.config
    if not config.speculate:
        return [(0, 0)]
    if engine.programs.has_drafter:
        return [(config.speculate, 0)]
    return [(0, 0), (config.speculate, config.speculate_ngram)]
