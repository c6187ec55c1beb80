"""Causal attention with grouped heads, segments, a sliding window and an explicit cache."""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from geex_jax import kernels
from geex_jax.models import cache as kv
from geex_jax.models.config import ModelConfig
from geex_jax.models.layers import Initializer, Linear, dropout, rotate

EVERYTHING = 2**30  # a window that hides nothing


@flax.struct.dataclass
class Context:
    """What every block of one forward pass shares.

    Attributes:
      mask: bool [B, 1, T, S], True where a query sees a key; None where a kernel knows.
      early_mask: the same without the window, for layers before `window_from_layer`, if any.
      slots: int32 [B, T], the cache slot of each query (cached passes only).
      rotary: cosine and sine tables, rotary positions only.
      segment_ids: int32 [B, T] or None, for kernels.
      kernel: static; "xla" (plain, by the mask), "cache" (over all of the cache, by
        `kernels.decode_attention`), or the implementation to ask `kernels.attention` for.
      fresh: static; the cache was empty, so that new tokens see each other and nothing else.
    """

    mask: jax.Array | None
    early_mask: jax.Array | None = None
    slots: jax.Array | None = None
    rotary: tuple[jax.Array, jax.Array] | None = None
    segment_ids: jax.Array | None = None
    kernel: str = flax.struct.field(pytree_node=False, default="xla")
    fresh: bool = flax.struct.field(pytree_node=False, default=False)


class Attention(nn.Module):
    """Projections, positions, cache and attention of one block."""

    config: ModelConfig
    output_init: Initializer

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: Context,
        cache: kv.KVCache | None = None,
        block: jax.Array | int = 0,
        query_input: jax.Array | None = None,
    ) -> tuple[jax.Array, kv.KVCache | None]:
        """Attends from x [B, T, D] to itself, or to the cache that it has just been added to.

        Args:
          x: normalized input, of which keys and values are made.
          context: mask, cache slots and rotary tables.
          cache: of all blocks, or None.
          block: this block's index in the cache.
          query_input: [B, N, D], what queries are made of instead of x (top query layer).

        Returns:
          The output [B, T, D] (N in place of T with a query_input) and the updated cache.
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
            cache = kv.append(cache, key, value, block)
        if context.kernel == "cache":
            assert cache is not None and context.slots is not None
            held, index = cache.of(block)
            out = kernels.decode_attention(
                query,
                held.key,
                held.value,
                index,
                context.slots,
                key_scale=held.key_scale,
                value_scale=held.value_scale,
                window=self._window(block),
                row=cache.row,
                reach=cache.reach,
            )
        elif context.kernel == "xla":
            if cache is not None and not context.fresh:
                found = kv.read(cache, block, x.shape[0], query.dtype)
                split = (x.shape[0], -1, config.kv_heads, width)
                key, value = (c.reshape(split) for c in found)
            out = checkpoint_name(self._plain(query, key, value, context, block), "context")
        else:
            out = kernels.attention(
                query,
                key,
                value,
                context.segment_ids,
                window=config.sliding_window,
                implementation=context.kernel,
            )
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
        return checkpoint_name(output(out), "output"), cache

    def _window(self, block: jax.Array | int) -> jax.Array | int | None:
        config = self.config
        if config.sliding_window is None or not config.window_from_layer:
            return config.sliding_window
        return jnp.where(block < config.window_from_layer, EVERYTHING, config.sliding_window)

    def _plain(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        context: Context,
        block: jax.Array | int,
    ) -> jax.Array:
        mask = context.mask
        assert mask is not None
        if context.early_mask is not None:
            mask = jnp.where(block < self.config.window_from_layer, context.early_mask, mask)
        out, probs = kernels.dot_product_attention(
            query, key, value, mask, dropout(self, self.config)
        )
        self.sow("intermediates", "probs", probs)
        return out
