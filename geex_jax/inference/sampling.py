"""From logits to the next token: greedy, temperature, top-k, top-p.

The order is the official one (codegeex/torch/inference.py): divide by the temperature, keep the
top k, then keep the top p of what is left. Every setting is a value per row, so one compiled
program serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from geex_jax.errors import GeexError

BANNED = -10000.0  # the official value: unlikely, but a number


@flax.struct.dataclass
class Sampling:
    """Settings for each row.

    Attributes:
      temperature: float32 [B]; 0 means greedy, and then the other two have no effect.
      top_k: int32 [B]; 0 means off. All tokens that tie with the k-th stay.
      top_p: float32 [B]; 0 means off. Tokens stay until their cumulative probability exceeds it,
        the crossing one included. 1.0 is not "off": float32 sums may pass 1.
      min_p: float32 [B]; 0 means off. Tokens stay that are at least that many times as likely as
        the most likely one (2407.01082), after temperature, besides the other two.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array


def make_sampling(
    batch_size: int,
    vocab_size: int,
    temperature: float | Sequence[float] = 0.0,
    top_k: int | Sequence[int] = 0,
    top_p: float | Sequence[float] = 0.0,
    min_p: float | Sequence[float] = 0.0,
) -> Sampling:
    """Checks settings, one for all rows or one for each, and returns them per row.

    Raises:
      GeexError: a negative or infinite temperature, top_k outside 0..vocab_size, top_p or
        min_p outside 0..1, or a list whose length is not `batch_size`.
    """

    def rows(name: str, value: Any, dtype: Any) -> np.ndarray:
        array = np.asarray(value)
        if array.ndim and array.shape != (batch_size,):
            raise GeexError(
                f"{name} has {array.shape[0]} values for {batch_size} prompts",
                "give one value, or one for each prompt",
            )
        return np.broadcast_to(array, (batch_size,)).astype(dtype)

    heat = rows("temperature", temperature, np.float32)
    if not np.all((heat >= 0) & np.isfinite(heat)):
        raise GeexError(f"temperature = {temperature}", "give 0 (greedy) or a positive number")
    k = rows("top_k", top_k, np.int64)
    if not np.all((k >= 0) & (k <= vocab_size)):
        raise GeexError(
            f"top_k = {top_k} with a vocabulary of {vocab_size}",
            f"give 0 (off) to {vocab_size}",
        )
    p = rows("top_p", top_p, np.float32)
    if not np.all((p >= 0) & (p <= 1)):
        raise GeexError(f"top_p = {top_p}", "give 0 (off) to 1")
    least = rows("min_p", min_p, np.float32)
    if not np.all((least >= 0) & (least <= 1)):
        raise GeexError(f"min_p = {min_p}", "give 0 (off) to 1")
    ids = jnp.asarray(k, jnp.int32)
    return Sampling(jnp.asarray(heat), ids, jnp.asarray(p), jnp.asarray(least))


def process_logits(
    logits: jax.Array,
    temperature: float | Sequence[float] | jax.Array = 1.0,
    top_k: int | Sequence[int] | jax.Array = 0,
    top_p: float | Sequence[float] | jax.Array = 0.0,
    min_p: float | Sequence[float] | jax.Array = 0.0,
) -> jax.Array:
    """Scales logits float32 [B, V] and sets those of dropped tokens to -inf.

    Args:
      logits: [B, V]; -inf is allowed.
      temperature, top_k, top_p, min_p: a number for all rows or one for each; see `Sampling`. At
        temperature 0 only the most likely token stays (the first of equals).

    Raises:
      GeexError: a setting out of range (values under `jax.jit` are not checked).
    """
    batch_size, vocab_size = logits.shape
    settings = (temperature, top_k, top_p, min_p)
    if any(isinstance(s, Tracer) for s in settings):
        shape = (batch_size,)
        sampling = Sampling(
            jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), shape),
            jnp.broadcast_to(jnp.asarray(top_k, jnp.int32), shape),
            jnp.broadcast_to(jnp.asarray(top_p, jnp.float32), shape),
            jnp.broadcast_to(jnp.asarray(min_p, jnp.float32), shape),
        )
    else:
        sampling = make_sampling(batch_size, vocab_size, *settings)  # pyright: ignore
    return filter_logits(logits, sampling)


@jax.jit
def filter_logits(logits: jax.Array, sampling: Sampling) -> jax.Array:
    """`process_logits` for settings that `make_sampling` has checked."""
    logits = logits.astype(jnp.float32)
    greedy = sampling.temperature == 0
    scaled = logits / jnp.where(greedy, 1.0, sampling.temperature)[:, None]
    active = (sampling.top_k > 0) | (sampling.top_p > 0)
    # Sorting a whole vocabulary is dear: done only if some row asks for it.
    kept = jax.lax.cond(
        jnp.any(active & ~greedy), lambda: _keep_top(scaled, sampling), lambda: scaled
    )
    least = jnp.max(scaled, axis=1, keepdims=True) + jnp.log(sampling.min_p)[:, None]
    kept = jnp.where(scaled < least, -jnp.inf, kept)  # log 0 is -inf: off
    columns = jnp.arange(logits.shape[1])
    first = columns == jnp.argmax(logits, axis=1)[:, None]
    return jnp.where(greedy[:, None], jnp.where(first, scaled, -jnp.inf), kept)


def _keep_top(logits: jax.Array, sampling: Sampling) -> jax.Array:
    vocab_size = logits.shape[1]
    ranked = -jnp.sort(-logits, axis=1)
    k, p = sampling.top_k[:, None], sampling.top_p[:, None]
    kth = jnp.take_along_axis(ranked, jnp.clip(k - 1, 0, vocab_size - 1), axis=1)
    dropped_by_k = (k > 0) & (logits < kth)
    ranked = jnp.where((k > 0) & (ranked < kth), -jnp.inf, ranked)
    cumulative = jnp.cumsum(jax.nn.softmax(ranked, axis=1), axis=1)
    # Shifted by one: the token that crosses p stays, and the first always does.
    stays = jnp.pad(cumulative[:, :-1] <= p, ((0, 0), (1, 0)), constant_values=True)
    count = jnp.sum(jnp.cumprod(stays.astype(jnp.int32), axis=1), axis=1, keepdims=True)
    lowest = jnp.take_along_axis(ranked, count - 1, axis=1)
    # Of tokens that tie at the cut, the first ones stay.
    ties = logits == lowest
    spare = count - jnp.sum(logits > lowest, axis=1, keepdims=True)
    within = (logits > lowest) | (ties & (jnp.cumsum(ties, axis=1) <= spare))
    dropped_by_p = (p > 0) & ~within
    return jnp.where(dropped_by_k | dropped_by_p, -jnp.inf, logits)


@jax.jit
def row_keys(seed: int, rows: jax.Array) -> jax.Array:
    """One PRNG key for each row number: a row draws the same whatever stands beside it."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), rows)


def most_likely(logits: jax.Array) -> jax.Array:
    """The first of the largest of logits [B, V], int32 [B].

    XLA:CPU takes a pair of numbers a step for an argmax, and whole vectors for these two passes.
    """
    columns = jnp.arange(logits.shape[1], dtype=jnp.int32)
    largest = jnp.max(logits, axis=1, keepdims=True)
    first = jnp.min(jnp.where(logits == largest, columns, logits.shape[1]), axis=1)
    return jnp.where(first == logits.shape[1], 0, first)  # a row of NaN has no largest


@jax.jit
def sample(keys: jax.Array, logits: jax.Array, sampling: Sampling) -> jax.Array:
    """Draws one token a row.

    Args:
      keys: PRNG keys [B], one for each row.
      logits: float32 [B, V].
      sampling: checked settings.

    Returns:
      int32 [B].
    """

    def draw() -> jax.Array:
        drawn = jax.vmap(jax.random.categorical)(keys, filter_logits(logits, sampling))
        return drawn.astype(jnp.int32)

    greedy = most_likely(logits)
    return jax.lax.cond(jnp.all(sampling.temperature == 0), lambda: greedy, draw)
