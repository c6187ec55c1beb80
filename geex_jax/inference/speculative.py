"""Speculative decoding: tokens are guessed, and one pass of the model checks all of them.

The check is exact. Each position draws its token from the model's own distribution with the key
that it has anyway, and a guess is right if it is that token; what is emitted are only tokens that
were so drawn. So the tokens are those of decoding one by one with the same seed. A guess x is
accepted with probability p(x), and what replaces it has the distribution p without x, renormalized:
for guesses that are a function of the tokens before, that is rejection sampling (2211.17192).
A draft model guesses with the same noise as the check (Gumbel coupling), so that the more alike
the two distributions are, the more often it is right.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from geex_jax.inference.decode import pin_quantized
from geex_jax.inference.sampling import Sampling, sample
from geex_jax.models import KVCache, Transformer


def lookup(
    history: jax.Array, length: jax.Array, ngram: int, draft: int
) -> tuple[jax.Array, jax.Array]:
    """Guesses that a text goes on as it did after the last place that ended alike.

    Args:
      history: int32 [b, S], tokens.
      length: int32 [b], how many of them there are.
      ngram: how many tokens have to match.
      draft: how many to guess.

    Returns:
      Guesses int32 [b, draft], and int32 [b], how many of them count (0 without a match).
    """
    batch, slots = history.shape
    rows, steps = jnp.arange(batch)[:, None], jnp.arange(slots)
    # Place j matches if the ngram tokens that end before j are those that end before `length`.
    match = jnp.broadcast_to((steps >= ngram) & (steps < length[:, None]), (batch, slots))
    for n in range(1, ngram + 1):
        wanted = history[rows, jnp.maximum(length[:, None] - n, 0)]
        match &= jnp.roll(history, n, axis=1) == wanted
    match &= (length > ngram)[:, None]
    # Of the matches the last that has a whole draft after it; without one, the last.
    whole = steps <= (length - draft)[:, None]
    best = jnp.max(jnp.where(match & whole, steps, -1), axis=1)
    best = jnp.where(best >= 0, best, jnp.max(jnp.where(match, steps, -1), axis=1))
    at = jnp.clip(best[:, None] + jnp.arange(draft), 0, slots - 1)
    known = jnp.where(best >= 0, jnp.clip(length - best, 0, draft), 0)
    return history[rows, at], known.astype(jnp.int32)


def by_model(
    model: Transformer,
    params: dict[str, Any],
    cache: KVCache,
    last: jax.Array,
    keys: jax.Array,
    sampling: Sampling,
    limit: int,
    draft: int,
) -> tuple[jax.Array, KVCache]:
    """Guesses what a smaller model draws with the noise that the check will use.

    Args:
      model, params: the smaller model.
      cache: its cache, as long as the large one's.
      last: int32 [b, 1], the tokens to go on from.
      keys: [b, 1 + draft].
      sampling: settings for each row.
      limit: ids from it on are never drawn.
      draft: how many to guess.

    Returns:
      int32 [b, draft], and the cache with all of them in it.
    """
    token, guessed = last, []
    for t in range(draft + 1):
        tied, token = pin_quantized(params, token)
        passed: Any = model.apply({"params": tied}, token, kv_cache=cache)
        logits, cache = passed
        if t == draft:  # this pass only took the last guess into the cache
            break
        token = sample(keys[:, t], logits[:, 0, :limit], sampling)[:, None]
        guessed.append(token)
    return jnp.concatenate(guessed, axis=1), cache


def agreeing(guessed: jax.Array, found: jax.Array, known: jax.Array) -> jax.Array:
    """How many guesses [b, d] from the first on equal what was drawn, found [b, 1 + d]."""
    draft = guessed.shape[1]
    same = (guessed == found[:, :draft]) & (jnp.arange(draft) < known[:, None])
    return jnp.sum(jnp.cumprod(same.astype(jnp.int32), axis=1), axis=1)


def promising(tokens: list[int], ngram: int) -> bool:
    """On the host: whether the last `ngram` tokens have stood before in the list."""
    if len(tokens) <= ngram:
        return False
    end, first = tokens[-ngram:], tokens[-ngram]
    at = len(tokens) - ngram - 1
    lowest = max(0, at - 4096)
    while at >= lowest:
        if tokens[at] == first and tokens[at : at + ngram] == end:
            return True
        at -= 1
    return False
