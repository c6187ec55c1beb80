"""Log-probabilities of tokens, and of the most likely ones beside them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax.inference.requests import TokenLogprob

TOPS = (0, 1, 5, 20)  # compiled sizes


def top_size(count: int, vocab_size: int) -> int:
    """The compiled number of most likely tokens that holds `count`."""
    return min(next(t for t in TOPS if t >= count), vocab_size)


def score(logits: jax.Array, tokens: jax.Array, top: int) -> tuple[jax.Array, ...]:
    """Natural-log probabilities.

    Args:
      logits: float32 [..., V], the model's own.
      tokens: int32 [...].
      top: how many of the most likely ones.

    Returns:
      float32 [...] of the tokens, int32 [..., top] the most likely ones, float32 [..., top]
      theirs, in falling order.
    """
    total = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0] - total
    values, ids = jax.lax.top_k(logits, top)
    return chosen, ids.astype(jnp.int32), values - total[..., None]


def to_list(tokens: list[int], scored: Any, count: int) -> list[TokenLogprob]:
    """From arrays [N] and [N, top] on the host to one TokenLogprob a token, with `count` tops."""
    chosen, ids, values = (np.asarray(x) for x in scored)
    return [
        TokenLogprob(
            token,
            float(chosen[i]),
            list(zip(ids[i, :count].tolist(), values[i, :count].tolist(), strict=True)),
        )
        for i, token in enumerate(tokens)
    ]
