"""Beam search: the most likely continuations instead of one token after the other.

Scores, ends and early stopping are those of transformers' `generate(num_beams=...)` (4.50 and
later): a continuation's score is its log-probability over length ** length_penalty, an
end-of-text counted as a token.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from geex_jax.errors import GeexError
from geex_jax.inference.decode import NO_EOS, bucket, check_prompts, override, pin_quantized
from geex_jax.models import KVCache, Transformer, init_cache

EarlyStopping = Literal["heuristic", "full", "never"]
LOW = -1e9


@dataclasses.dataclass(frozen=True)
class Beam:
    """A continuation: ids without eos, its score, and "eos" or "length"."""

    tokens: list[int]
    score: float
    finish: Literal["eos", "length"]


@flax.struct.dataclass
class _Search:
    """P prompts with K beams each: [P, K]; sequences int32 [P, K, N]."""

    cache: KVCache
    count: jax.Array
    scores: jax.Array
    sequences: jax.Array
    done_scores: jax.Array
    done_sequences: jax.Array
    done_lengths: jax.Array
    done: jax.Array
    hopeful: jax.Array
    ended: jax.Array


@flax.struct.dataclass
class _Limits:
    eos: jax.Array
    budget: jax.Array
    penalty: jax.Array
    override: jax.Array


def beam_search(
    model: Transformer,
    params: Any,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int = 4,
    max_new_tokens: int = 128,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = "heuristic",
    num_return: int = 1,
    eos_id: int | None = None,
    banned: Iterable[int] = (),
    vocab_limit: int | None = None,
) -> list[list[Beam]]:
    """Searches for likely continuations of prompts given as ids.

    Each step copies the keys and values of the beams that live on.

    Args:
      model, params: the decoder.
      prompts: one or more lists of at least one id, of any lengths below the context.
      beams: continuations kept while searching.
      max_new_tokens: most tokens, eos included; fewer where a prompt's context is full.
      length_penalty: above 0 favours long continuations, below 0 short ones.
      early_stopping: "full" stops at `beams` ended continuations; "heuristic" (transformers'
        False) goes on while the best live one would be better were it to end now; "never" while
        it could be better at full length.
      num_return: how many for each prompt, at most `beams`.
      eos_id, banned, vocab_limit: as of `generate_tokens`.

    Returns:
      For each prompt `num_return` Beams, the best first.

    Raises:
      GeexError: as of `generate_tokens`; sizes out of range.
    """
    config = model.config
    lengths = check_prompts(prompts, config)
    if not 1 <= beams <= config.vocab_size // 2:
        raise GeexError(f"beams = {beams}", f"give 1 to {config.vocab_size // 2}")
    if not 1 <= num_return <= beams:
        raise GeexError(f"num_return = {num_return} of {beams} beams", f"give 1 to {beams}")
    if max_new_tokens < 1:
        raise GeexError(f"max_new_tokens = {max_new_tokens}", "give a number above 0")
    if early_stopping not in ("heuristic", "full", "never"):
        raise GeexError(f"early_stopping = {early_stopping!r}", "choose heuristic, full or never")
    budget = min(max_new_tokens, config.context_length - int(lengths.max()))
    padded = bucket(int(lengths.max()), config.context_length)
    tokens = np.zeros((len(prompts), padded), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    limits = _Limits(
        jnp.asarray(NO_EOS if eos_id is None else eos_id, jnp.int32),
        jnp.asarray(budget, jnp.int32),
        jnp.asarray(length_penalty, jnp.float32),
        override(config.vocab_size, banned, vocab_limit),
    )
    found = _search(
        model, params, jnp.asarray(tokens), jnp.asarray(lengths, jnp.int32), limits, beams=beams,
        slots=max(padded, bucket(int(lengths.max()) + budget, config.context_length)),
        width=bucket(budget, config.context_length), early=early_stopping,
    )  # fmt: skip
    scores, sequences, counts = (np.asarray(x) for x in found)

    def one(row: int, k: int) -> Beam:
        ids = sequences[row, k, : counts[row, k]].tolist()
        ended = bool(ids) and ids[-1] == eos_id
        finish: Literal["eos", "length"] = "eos" if ended else "length"
        return Beam(ids[:-1] if ended else ids, float(scores[row, k]), finish)

    return [[one(row, k) for k in range(num_return)] for row in range(len(prompts))]


@functools.partial(jax.jit, static_argnames=("model", "beams", "slots", "width", "early"))
def _search(
    model: Transformer,
    params: Any,
    tokens: jax.Array,
    lengths: jax.Array,
    limits: _Limits,
    *,
    beams: int,
    slots: int,
    width: int,
    early: EarlyStopping,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    prompts = tokens.shape[0]
    cache = init_cache(model.config, prompts, slots)
    passed: Any = model.apply({"params": params}, tokens, kv_cache=cache, method="hidden")
    hidden, cache = passed
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
    logits: Any = model.apply({"params": params}, last, method="logits")
    cache = dataclasses.replace(
        _rows(cache, jnp.repeat(jnp.arange(prompts), beams)), length=jnp.repeat(lengths, beams)
    )
    shape = (prompts, beams)
    none, empty = jnp.full(shape, LOW), jnp.zeros((*shape, width), jnp.int32)
    # All beams are alike at first: only the first one counts.
    first = jnp.where(jnp.arange(beams) == 0, 0.0, LOW)
    state = _Search(
        cache, jnp.int32(0), jnp.broadcast_to(first, shape), empty, none, empty,
        jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.ones((prompts, 1), bool),
        jnp.zeros((), bool),
    )  # fmt: skip
    state = _advance(jnp.repeat(logits, beams, axis=1), state, limits, early)

    def going(state: _Search) -> jax.Array:
        open_beam = ~jnp.all(state.done) if early == "full" else jnp.bool_(True)
        return jnp.any(state.hopeful) & open_beam & ~state.ended

    def step(state: _Search) -> _Search:
        # The newest tokens are those of place count - 1.
        last = jax.lax.dynamic_index_in_dim(state.sequences, state.count - 1, 2, keepdims=True)
        tied, last = pin_quantized(params, last.reshape(prompts * beams, 1))
        passed: Any = model.apply({"params": tied}, last, kv_cache=state.cache)
        logits, cache = passed
        state = dataclasses.replace(state, cache=cache)
        return _advance(logits.reshape(*shape, -1), state, limits, early)

    state = jax.lax.while_loop(going, step, state)
    return state.done_scores, state.done_sequences, state.done_lengths


def _advance(logits: jax.Array, state: _Search, limits: _Limits, early: EarlyStopping) -> _Search:
    """One step for logits [P, K, V] behind each beam."""
    prompts, beams, vocab = logits.shape
    logs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    logs = jnp.where(limits.override == 0, logs, limits.override)
    total = (logs + state.scores[..., None]).reshape(prompts, beams * vocab)
    # Twice as many as beams: half of them may end.
    best, place = jax.lax.top_k(total, 2 * beams)
    parent, token = place // vocab, (place % vocab).astype(jnp.int32)
    candidates = jnp.take_along_axis(state.sequences, parent[..., None], axis=1)
    candidates = jax.lax.dynamic_update_slice(candidates, token[..., None], (0, 0, state.count))
    count = state.count + 1
    ends = (token == limits.eos) | (count >= limits.budget)
    scores, chosen = jax.lax.top_k(jnp.where(ends, best + LOW, best), beams)
    kept = jnp.take_along_axis(parent, chosen, axis=1)
    rows = (jnp.arange(prompts)[:, None] * beams + kept).reshape(-1)
    done = _finish(best, candidates, ends, count, state, limits, early)
    state = dataclasses.replace(
        done,
        cache=_rows(state.cache, rows),
        count=count,
        scores=scores,
        sequences=jnp.take_along_axis(candidates, chosen[..., None], axis=1),
        ended=jnp.all(ends),
    )
    longest = limits.budget if early == "never" else count
    length = jnp.where(limits.penalty > 0, longest, count).astype(jnp.float32)
    possible = state.scores[:, :1] / length**limits.penalty
    worst = jnp.min(state.done_scores, axis=1, keepdims=True)
    worst = jnp.where(state.done, worst, LOW)
    better = jnp.any(possible > worst, axis=1, keepdims=True)
    return dataclasses.replace(state, hopeful=state.hopeful & better)


def _finish(
    best: jax.Array,
    candidates: jax.Array,
    ends: jax.Array,
    count: jax.Array,
    state: _Search,
    limits: _Limits,
    early: EarlyStopping,
) -> _Search:
    """Of 2K candidates those of the first K that end join the ended ones; the best K stay."""
    beams = state.scores.shape[1]
    ended = ends & (jnp.arange(2 * beams) < beams)
    value = best / count.astype(jnp.float32) ** limits.penalty
    if early == "full":
        value += jnp.all(state.done, axis=1, keepdims=True) * LOW
    value += ~state.hopeful * LOW
    value += ~ended * LOW
    merged = jnp.concatenate([state.done_scores, value], axis=1)
    scores, kept = jax.lax.top_k(merged, beams)

    def pick(old: jax.Array, new: jax.Array) -> jax.Array:
        both = jnp.concatenate([old, new], axis=1)
        index = kept if both.ndim == 2 else kept[..., None]
        return jnp.take_along_axis(both, index, axis=1)

    return dataclasses.replace(
        state,
        done_scores=scores,
        done_sequences=pick(state.done_sequences, candidates),
        done_lengths=pick(state.done_lengths, jnp.broadcast_to(count, ended.shape)),
        done=pick(state.done, ended),
    )


def _rows(cache: KVCache, rows: jax.Array) -> KVCache:
    """The cache with rows [B'] of the old one."""

    def pick(x: Any) -> Any:
        return jnp.take(x, rows, axis=1) if x.ndim == 4 else jnp.take(x, rows, axis=0)

    return jax.tree.map(pick, cache)
