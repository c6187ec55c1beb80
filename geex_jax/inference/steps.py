"""The engine's two programs: a piece of a prompt into one row, and steps of many rows.

Both write into the cache that they are given and read only the rows and slots that they need, so
nothing of a cache's size is copied. What the host decides are values; what changes shapes is a
`Chunk` or `Decode`, of which few are in use.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from geex_jax.inference import penalties, speculative
from geex_jax.inference.decode import pin_quantized
from geex_jax.inference.logprobs import score
from geex_jax.inference.penalties import Counts
from geex_jax.inference.sampling import Sampling, sample
from geex_jax.inference.state import EngineState, Rows
from geex_jax.models import KVCache, Transformer

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Shape of a prefill step.

    Attributes:
      tokens: how many, padding included.
      window: slots that the row may read.
      top: None, or for log-probabilities the number of most likely tokens.
    """

    tokens: int
    window: int
    top: int | None = None


@dataclasses.dataclass(frozen=True)
class Decode:
    """Shape of a call of decode steps.

    Attributes:
      batch: rows, from the first on.
      window: slots that a row may read.
      steps: most steps.
      draft: tokens guessed before each step.
      ngram: length of what a guess by lookup has to match; 0: the draft model guesses.
      penalties: whether a row has any. bias: whether logits have anything added.
      top: as in Chunk.
    """

    batch: int
    window: int
    steps: int
    draft: int = 0
    ngram: int = 0
    penalties: bool = False
    bias: bool = False
    top: int | None = None

    @property
    def width(self) -> int:
        """Most tokens of a row."""
        return self.steps * (1 + self.draft)


@flax.struct.dataclass
class Drawn:
    """What a call of decode steps has drawn.

    Attributes:
      tokens: int32 [b, width]. count: int32 [b], how many of them.
      proposed, accepted: int32 [b], guessed tokens, and those that were right.
      steps: int32 [], passes of the model.
      scores: None, or float32 [b, width], int32 [b, width, top], float32 [b, width, top].
    """

    tokens: jax.Array
    count: jax.Array
    proposed: jax.Array
    accepted: jax.Array
    steps: jax.Array
    scores: tuple[jax.Array, ...] | None = None


def prefill_chunk(
    model: Transformer,
    drafter: Transformer | None,
    params: Params,
    draft_params: Params | None,
    state: EngineState,
    tokens: jax.Array,
    targets: jax.Array,
    row: jax.Array,
    start: jax.Array,
    *,
    shape: Chunk,
) -> tuple[EngineState, tuple[jax.Array, ...] | None]:
    """Takes tokens int32 [1, C] into the cache at slots start.. of a row.

    Padding on the right is taken in too, and overwritten by what comes after. Returns the state
    and, if asked for, log-probabilities [C] of `targets` int32 [C], each the token after.
    """

    def extend(model: Transformer, params: Params, cache: KVCache) -> tuple[KVCache, jax.Array]:
        view = dataclasses.replace(cache, length=start[None], row=row, window=shape.window)
        passed: Any = model.apply({"params": params}, tokens, kv_cache=view, method="hidden")
        hidden, view = passed
        return dataclasses.replace(view, length=cache.length, row=None, window=None), hidden

    cache, hidden = extend(model, params, state.cache)
    scores = None
    if shape.top is not None:
        logits: Any = model.apply({"params": params}, hidden, method="logits")
        scores = score(logits[0], targets, shape.top)
    draft = state.draft
    if drafter is not None and draft is not None:
        assert draft_params is not None
        draft, _ = extend(drafter, draft_params, draft)
    return EngineState(cache, state.rows, draft), scores


@flax.struct.dataclass
class _Loop:
    step: jax.Array
    cache: KVCache
    draft: KVCache | None
    history: jax.Array
    finished: jax.Array
    drawn: Drawn
    counts: Counts | None


def decode(
    model: Transformer,
    drafter: Transformer | None,
    limit: int,
    params: Params,
    draft_params: Params | None,
    state: EngineState,
    running: jax.Array,
    steps: jax.Array,
    bias: jax.Array | None,
    *,
    shape: Decode,
) -> tuple[EngineState, Drawn]:
    """Draws tokens in the first `shape.batch` rows.

    Args:
      model, params: the decoder.
      drafter, draft_params: a smaller one with the same vocabulary, or None.
      limit: ids from it on are never drawn.
      state: is given up.
      running: bool [b], rows that take part.
      steps: int32 [], at most `shape.steps`; fewer are made if all rows finish.
      bias: float32 [B, V], added to logits, or None.
      shape: what to compile for.
    """
    batch, width = shape.batch, shape.width
    rows = jax.tree.map(lambda x: x[:batch], state.rows)
    # A row that takes no part may hold a prompt that is being read: its writes go past the end.
    length = jnp.where(running, state.cache.length[:batch], state.cache.slots)
    view = dataclasses.replace(state.cache, length=length, row=jnp.int32(0), window=shape.window)
    ints = jnp.zeros((batch,), jnp.int32)
    tops = None
    if shape.top is not None:
        ids = jnp.zeros((batch, width, shape.top), jnp.int32)
        tops = (jnp.zeros((batch, width)), ids, ids.astype(jnp.float32))
    finished = ~running | (view.length + 1 - rows.prompt >= rows.budget)
    counts = None
    if shape.penalties:
        counts = penalties.count(rows.history, rows.prompt, view.length + 1, limit)
    draft = state.draft
    if draft is not None:
        draft = dataclasses.replace(
            draft, length=view.length, row=jnp.int32(0), window=shape.window
        )
    loop = _Loop(
        jnp.int32(0), view, draft, rows.history, finished,
        Drawn(jnp.zeros((batch, width), jnp.int32), ints, ints, ints, jnp.int32(0), tops), counts,
    )  # fmt: skip

    def going(loop: _Loop) -> jax.Array:
        return (loop.step < steps) & ~jnp.all(loop.finished)

    def step(loop: _Loop) -> _Loop:
        return _step(model, drafter, params, draft_params, rows, bias, limit, shape, loop)

    loop = jax.lax.while_loop(going, step, loop)
    length = jnp.where(running, loop.cache.length, state.cache.length[:batch])
    length = jax.lax.dynamic_update_slice(state.cache.length, length, (0,))
    history = jax.lax.dynamic_update_slice(state.rows.history, loop.history, (0, 0))
    whole = {"length": length, "row": None, "window": None}
    return (
        EngineState(
            dataclasses.replace(loop.cache, **whole),
            dataclasses.replace(state.rows, history=history),
            None if loop.draft is None else dataclasses.replace(loop.draft, **whole),
        ),
        loop.drawn,
    )


def _step(
    model: Transformer,
    drafter: Transformer | None,
    params: Params,
    draft_params: Params | None,
    rows: Rows,
    bias: jax.Array | None,
    limit: int,
    shape: Decode,
    loop: _Loop,
) -> _Loop:
    """One pass over [last, guesses...] of each row: [b, 1 + draft] tokens."""
    length, index = loop.cache.length, jnp.arange(shape.batch)
    last = loop.history[index, length][:, None]
    drawn = length + 1 - rows.prompt
    keys = jax.vmap(lambda k, n: jax.vmap(lambda i: jax.random.fold_in(k, n + i))(
        jnp.arange(1 + shape.draft)))(rows.keys, drawn)  # fmt: skip
    draft_cache = loop.draft
    guessed = jnp.zeros((shape.batch, 0), jnp.int32)
    known = jnp.zeros((shape.batch,), jnp.int32)
    if shape.draft and shape.ngram:
        guessed, known = speculative.lookup(loop.history, length + 1, shape.ngram, shape.draft)
    elif shape.draft:
        assert drafter is not None and draft_params is not None and draft_cache is not None
        guessed, draft_cache = speculative.by_model(
            drafter, draft_params, draft_cache, last, keys, rows.sampling, limit, shape.draft
        )
        known = known + shape.draft
    tied, tokens = pin_quantized(params, jnp.concatenate([last, guessed], axis=1))
    passed: Any = model.apply({"params": tied}, tokens, kv_cache=loop.cache)
    logits, cache = passed
    found = _draw(logits, guessed, keys, rows, bias, limit, shape, loop.counts)
    accepted = speculative.agreeing(guessed, found, known)
    return _record(found, logits, accepted, known, rows, shape, loop, cache, draft_cache)


def _draw(
    logits: jax.Array,
    guessed: jax.Array,
    keys: jax.Array,
    rows: Rows,
    bias: jax.Array | None,
    limit: int,
    shape: Decode,
    counts: Counts | None,
) -> jax.Array:
    """Tokens int32 [b, T] from logits [b, T, V]: the t-th if the guesses before it are right."""
    batch, length, _ = logits.shape
    logits = logits[..., :limit]
    if counts is not None:
        piece = []
        for t in range(length):
            piece.append(penalties.penalize(logits[:, t], counts, rows.penalties))
            if t + 1 < length:
                counts = counts.add(guessed[:, t], jnp.ones((batch,), bool))
        logits = jnp.stack(piece, axis=1)
    if bias is not None:
        logits = logits + bias[:batch, None, :limit]
    repeated: Sampling = jax.tree.map(lambda x: jnp.repeat(x, length), rows.sampling)
    flat = sample(keys.reshape(-1), logits.reshape(batch * length, -1), repeated)
    return flat.reshape(batch, length)


def _record(
    found: jax.Array,
    logits: jax.Array,
    accepted: jax.Array,
    known: jax.Array,
    rows: Rows,
    shape: Decode,
    loop: _Loop,
    cache: KVCache,
    draft_cache: KVCache | None,
) -> _Loop:
    """Keeps the right guesses and the token after them, up to an end."""
    batch, length = found.shape
    index, steps = jnp.arange(batch)[:, None], jnp.arange(length)[None]
    before = loop.cache.length
    drawn = before + 1 - rows.prompt
    ends = found == rows.eos[:, None]
    count = jnp.minimum(accepted + 1, rows.budget - drawn)
    first_end = jnp.min(jnp.where(ends, steps, length), axis=1)
    ended = first_end < count
    count = jnp.where(loop.finished, 0, jnp.where(ended, first_end + 1, count))
    valid = steps < count[:, None]
    place = before[:, None] + 1 + steps
    place = jnp.where(valid, place, loop.history.shape[1])
    column = jnp.where(valid, loop.drawn.count[:, None] + steps, shape.width)
    going = ~loop.finished
    scores = loop.drawn.scores
    if shape.top is not None and scores is not None:
        new = score(logits, found, shape.top)
        scores = tuple(
            old.at[index, column].set(n, mode="drop") for old, n in zip(scores, new, strict=True)
        )
    after = before + count
    counts = loop.counts
    if counts is not None:
        for t in range(length):
            counts = counts.add(found[:, t], valid[:, t])
    return _Loop(
        loop.step + 1,
        dataclasses.replace(cache, length=after),
        None if draft_cache is None else dataclasses.replace(draft_cache, length=after),
        loop.history.at[index, place].set(found, mode="drop"),
        loop.finished | ended | (drawn + count >= rows.budget),
        Drawn(
            loop.drawn.tokens.at[index, column].set(found, mode="drop"),
            loop.drawn.count + count,
            loop.drawn.proposed + jnp.where(going, known, 0),
            loop.drawn.accepted + jnp.where(going, jnp.maximum(count - 1, 0), 0),
            loop.step + 1,
            scores,
        ),
        counts,
    )
