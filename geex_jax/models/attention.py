"""Causal attention with grouped heads, segments, a sliding window and an explicit cache."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from geex_jax.models import cache as kv
from geex_jax.models.config import ModelConfig
from geex_jax.models.layers import Initializer, Linear, dropout, rotate

MASKED = -1e30  # finite: a row that sees nothing (padding) gives a mean, not NaN


@flax.struct.dataclass
class Context:
    """What every block of one forward pass shares.

    Attributes:
      mask: bool [B, 1, T, S], True where a query sees a key.
      early_mask: the same without the window, for layers before `window_from_layer`, if any.
      start: int32 [B], the cache slot of each row's first new token (cached passes only).
      rotary: cosine and sine tables, rotary positions only.
    """

    mask: jax.Array
    early_mask: jax.Array | None = None
    start: jax.Array | None = None
    rotary: tuple[jax.Array, jax.Array] | None = None


def attention_mask(
    query_slots: jax.Array,
    key_slots: jax.Array,
    segment_ids: jax.Array | None = None,
    window: int | None = None,
) -> jax.Array:
    """Builds the mask [B, 1, T, S] from slots int32 [B or 1, T] and [S].

    A query sees key slots up to its own, within the window, of its own segment only
    (`segment_ids` int32 [B, T], T == S).
    """
    query, key = query_slots[:, :, None], key_slots[None, None, :]
    mask = key <= query
    if window is not None:
        mask &= key > query - window
    if segment_ids is not None:
        mask &= segment_ids[:, :, None] == segment_ids[:, None, :]
    return mask[:, None]


def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    drop: Callable[[jax.Array], jax.Array] = lambda probs: probs,
) -> tuple[jax.Array, jax.Array]:
    """Softmax(q k^T / sqrt(head_width)) v, the softmax in float32.

    Args:
      query: [B, T, H, W]; key, value: [B, S, K, W] with H a multiple of K.
      mask: bool, broadcastable to [B, 1, T, S].
      drop: dropout on the probabilities.

    Returns:
      The result [B, T, H, W] and the probabilities [B, H, T, S], both in the query's dtype.
    """
    batch, length, heads, width = query.shape
    kv_heads = key.shape[2]
    query = query.reshape(batch, length, kv_heads, heads // kv_heads, width)
    scores = jnp.einsum("btkgw,bskw->bkgts", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, :, None], scores * width**-0.5, MASKED)
    probs = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    out = jnp.einsum("bkgts,bskw->btkgw", drop(probs), value)
    return out.reshape(batch, length, heads, width), probs.reshape(batch, heads, length, -1)


class Attention(nn.Module):
    """Projections, positions, cache and attention of one block."""

    config: ModelConfig
    output_init: Initializer

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: Context,
        cache: tuple[jax.Array, jax.Array] | None = None,
        block: jax.Array | int = 0,
        query_input: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        """Attends from x [B, T, D] to itself, or to the cache that it has just been added to.

        Args:
          x: normalized input, of which keys and values are made.
          context: mask, cache slots and rotary tables.
          cache: key and value buffers of all blocks, or None.
          block: this block's index in the buffers.
          query_input: what queries are made of instead of x (top query layer).

        Returns:
          The output [B, T, D] and the updated buffers (None without a cache).
        """
        config = self.config
        width = config.head_width

        def project(name: str, source: jax.Array, heads: int) -> jax.Array:
            y = Linear(heads * width, config, config.qkv_bias, axes=("embed", "heads"), name=name)(
                source
            )
            y = nn.with_logical_constraint(y, ("batch", "length", "heads"))
            return checkpoint_name(y.reshape(*y.shape[:2], heads, width), name)

        query = project("query", x if query_input is None else query_input, config.num_heads)
        key = project("key", x, config.kv_heads)
        value = project("value", x, config.kv_heads)
        if context.rotary is not None:
            query = rotate(config, query, context.rotary)
            key = rotate(config, key, context.rotary)
        if cache is not None:
            flat = (*key.shape[:2], -1)
            assert context.start is not None
            cache = (
                kv.write(cache[0], key.reshape(flat), block, context.start),
                kv.write(cache[1], value.reshape(flat), block, context.start),
            )
            key, value = (
                jax.lax.dynamic_index_in_dim(c, block, keepdims=False)
                .reshape(key.shape[0], -1, config.kv_heads, width)
                .astype(query.dtype)
                for c in cache
            )
        mask = context.mask
        if context.early_mask is not None:
            mask = jnp.where(block < config.window_from_layer, context.early_mask, mask)
        out, probs = dot_product_attention(query, key, value, mask, dropout(self, config))
        self.sow("intermediates", "probs", probs)
        out = out.reshape(*out.shape[:2], config.num_heads * width)
        out = nn.with_logical_constraint(out, ("batch", "length", "heads"))
        output = Linear(
            config.d_model,
            config,
            config.output_bias,
            self.output_init,
            axes=("heads", "embed"),
            name="output",
        )
        return output(out), cache
