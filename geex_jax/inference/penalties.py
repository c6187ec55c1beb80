"""Penalties on tokens that have been there before."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Penalties:
    """Settings float32 [B] for each row; see `SamplingParams`. 1, 0 and 0 are off."""

    repetition_penalty: jax.Array
    presence_penalty: jax.Array
    frequency_penalty: jax.Array


@flax.struct.dataclass
class Counts:
    """What has been there.

    Attributes:
      drawn: int32 [B, V], how often each token has been drawn.
      prompt: bool [B, V], which tokens the prompt holds.
    """

    drawn: jax.Array
    prompt: jax.Array

    def add(self, tokens: jax.Array, valid: jax.Array) -> Counts:
        """With tokens int32 [B] counted where valid bool [B]."""
        rows = jnp.arange(tokens.shape[0])
        return Counts(self.drawn.at[rows, tokens].add(valid.astype(jnp.int32)), self.prompt)


def count(history: jax.Array, prompt: jax.Array, length: jax.Array, vocab_size: int) -> Counts:
    """Counts from tokens.

    Args:
      history: int32 [B, S].
      prompt: int32 [B], how many of them are the prompt.
      length: int32 [B], how many there are.
      vocab_size: V.
    """
    steps = jnp.arange(history.shape[1])[None]
    rows = jnp.arange(history.shape[0])[:, None]
    inside = steps < prompt[:, None]
    after = ~inside & (steps < length[:, None])
    zeros = jnp.zeros((history.shape[0], vocab_size), jnp.int32)
    drawn = zeros.at[rows, history].add(after.astype(jnp.int32))
    return Counts(drawn, zeros.at[rows, history].add(inside.astype(jnp.int32)) > 0)


def penalize(logits: jax.Array, counts: Counts, penalties: Penalties) -> jax.Array:
    """Logits float32 [B, V] with repetition, presence and frequency penalties, in that order.

    The repetition penalty is that of transformers (CTRL, 1909.05858), over prompt and sample; the
    others are OpenAI's, over the sample.
    """
    drawn = counts.drawn > 0
    factor = penalties.repetition_penalty[:, None]
    repeated = jnp.where(logits > 0, logits / factor, logits * factor)
    logits = jnp.where(drawn | counts.prompt, repeated, logits)
    logits -= penalties.presence_penalty[:, None] * drawn
    return logits - penalties.frequency_penalty[:, None] * counts.drawn
