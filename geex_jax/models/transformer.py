"""The decoder: embedding, scanned blocks, final norm, top query layer, logits."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from geex_jax import kernels
from geex_jax.models.attention import Context
from geex_jax.models.blocks import Embedding, TopQuery, at, block_class, residual_constraint
from geex_jax.models.cache import KVCache
from geex_jax.models.config import ModelConfig
from geex_jax.models.layers import Bias, Linear, dropout, norm, rotary_tables
from geex_jax.models.stack import read_in_place, scan_in_place

Params = dict[str, Any]


class Transformer(nn.Module):
    """One decoder for every family; the config picks the parts.

    `init` and `apply` are pure functions over a plain dict of parameters whose layout
    `geex_jax/README.md` gives. Apply with `rngs={"dropout": key}` to train with dropout; without
    that rng dropout is off.
    """

    config: ModelConfig

    def setup(self):
        """Declares the parts in the order in which they run."""
        config = self.config
        self.embedding = Embedding(config)
        self.embedding_dropout = dropout(self, config)
        block = block_class(config, prevent_cse=not config.scan_layers)
        self.layers: Any
        if config.scan_layers:
            self.layers = nn.scan(
                block,
                variable_axes={"params": 0, "intermediates": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
                length=config.num_layers,
                unroll=config.scan_unroll,
            )(config)
        else:
            self.layers = [block(config) for _ in range(config.num_layers)]
        self.final_norm = norm(config)
        if config.top_query_layer:
            self.top_query = TopQuery(config)
        if not config.tied_head:
            # Logits are made in float32 from the compute dtype, like tied ones.
            axes = ("embed", "vocab")
            self.head = Linear(config.vocab_size, config, config.head_bias, wide=True, axes=axes)
        elif config.head_bias:
            self.head = Bias(config.vocab_size, config)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        kv_cache: KVCache | None = None,
    ) -> Any:
        """Predicts the next token at every position.

        Args:
          tokens: int32 [B, T], T <= context_length.
          positions: int32 [B, T]; by default they count from 0 in each row, from 0 in each
            segment, or on from the cache's lengths.
          segment_ids: int32 [B, T]; attention stays within equal ids, 0 marks padding.
          kv_cache: cache to continue; the new tokens are added to it.

        Returns:
          Logits float32 [B, T, V]; with a cache, the pair (logits, updated cache).
        """
        out = self.hidden(tokens, positions, segment_ids, kv_cache)
        if kv_cache is None:
            return self.logits(out)
        return self.logits(out[0]), out[1]

    def hidden(
        self,
        tokens: jax.Array,
        positions: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        kv_cache: KVCache | None = None,
        last: jax.Array | None = None,
        fresh: bool = False,
    ) -> Any:
        """As `__call__`, but returns the head's input [B, T, D] instead of logits.

        Args:
          tokens, positions, segment_ids, kv_cache: as of `__call__`.
          last: int32 [B], an index below T for each row: the result is [B, 1, D], of those tokens
            alone. The top query layer makes keys and values of all tokens, and the rest of these.
          fresh: the cache is empty (static; not checked): new tokens attend to each other only,
            by whatever kernel is fast for long sequences, and not over all slots.
        """
        config = self.config
        length = tokens.shape[1]
        if length > config.context_length:
            raise ValueError(f"{length} tokens do not fit a context of {config.context_length}")
        if kv_cache is not None and segment_ids is not None:
            raise ValueError("a cache holds one segment per row: give segment_ids or kv_cache")
        if kv_cache is None and last is not None:
            raise ValueError("`last` is of passes with a cache")
        steps = jnp.arange(length, dtype=jnp.int32)
        slots = steps[None]
        if kv_cache is not None:
            slots = kv_cache.length[:, None] + steps
        if positions is None:
            positions = slots if segment_ids is None else segment_positions(segment_ids)
        positions = jnp.broadcast_to(positions, tokens.shape)
        context = self._context(positions, slots, segment_ids, kv_cache, fresh)
        x = self.embedding(tokens, positions)
        self.sow("intermediates", "embedded", x)
        x = self.embedding_dropout(x)
        x = residual_constraint(x)
        x, cache = self._blocks(x, kv_cache, context)
        x = self.final_norm(x).astype(config.dtype)
        self.sow("intermediates", "normed", x)
        if config.top_query_layer:
            if last is not None and kv_cache is not None:
                positions, context = self._of_last(positions, slots, last, context, kv_cache)
            x, cache = self.top_query(x, positions, context, cache, last)
        elif last is not None:
            x = at(x, last)
        if cache is None:
            return x
        return x, dataclasses.replace(cache, length=cache.length + length)

    def prefill(
        self, tokens: jax.Array, lengths: jax.Array, kv_cache: KVCache, fresh: bool = False
    ) -> tuple[jax.Array, KVCache]:
        """Takes prompts, or the next part of them, into a cache.

        The top query layer's query, output and MLP, and the head, are computed for each row's
        last token only (a scan over layers computes them for all). To be called as
        `model.apply(variables, tokens, lengths, cache, fresh, method="prefill")`.

        Args:
          tokens: int32 [B, T], padded on the right.
          lengths: int32 [B], how many of them count, 0 to T.
          kv_cache: to continue.
          fresh: the cache is empty (static; see `hidden`).

        Returns:
          Logits float32 [B, V] behind each row's last token (of no meaning where its length is
          0), and the cache, whose lengths have grown by `lengths`.
        """
        last = jnp.maximum(lengths - 1, 0)
        hidden, cache = self.hidden(tokens, kv_cache=kv_cache, last=last, fresh=fresh)
        grown = dataclasses.replace(cache, length=kv_cache.length + lengths)
        return self.logits(hidden)[:, 0], grown

    def _context(
        self,
        positions: jax.Array,
        slots: jax.Array,
        segment_ids: jax.Array | None,
        cache: KVCache | None,
        fresh: bool,
    ) -> Context:
        config = self.config
        alone = cache is None or fresh
        kernel = self._kernel(positions.shape, alone)
        plain, window = kernel == "xla", config.sliding_window
        early = plain and window is not None and config.window_from_layer > 0
        steps = jnp.arange(slots.shape[1], dtype=jnp.int32)
        seen, keys = slots, steps
        if alone:
            seen = steps[None]
        elif cache is not None:
            keys = jnp.arange(cache.reach, dtype=jnp.int32)
        return Context(
            mask=kernels.attention_mask(seen, keys, segment_ids, window) if plain else None,
            early_mask=kernels.attention_mask(seen, keys, segment_ids) if early else None,
            slots=slots if kernel == "cache" else None,
            rotary=rotary_tables(config, positions) if config.position == "rotary" else None,
            segment_ids=None if plain else segment_ids,
            kernel=kernel,
            fresh=fresh,
        )

    def _of_last(
        self,
        positions: jax.Array,
        slots: jax.Array,
        last: jax.Array,
        context: Context,
        cache: KVCache,
    ) -> tuple[jax.Array, Context]:
        # Positions [B, 1] and context of one query in each row.
        def pick(x: jax.Array) -> jax.Array:
            return jnp.take_along_axis(jnp.broadcast_to(x, positions.shape), last[:, None], axis=1)

        if context.kernel == "cache":
            return pick(positions), dataclasses.replace(context, slots=pick(slots))
        steps = jnp.arange(positions.shape[1], dtype=jnp.int32)
        keys, seen = steps, last[:, None]
        if not context.fresh:
            keys, seen = jnp.arange(cache.reach, dtype=jnp.int32), pick(slots)
        mask = kernels.attention_mask(seen, keys, window=self.config.sliding_window)
        return pick(positions), dataclasses.replace(
            context, mask=mask, early_mask=None, kernel="xla"
        )

    def _kernel(self, shape: tuple[int, ...], alone: bool) -> str:
        # How this pass over tokens [B, T] attends: see `Context.kernel`.
        config = self.config
        if self.is_initializing():
            return "xla"
        dropped = config.dropout and self.has_rng("dropout")
        watched = self.is_mutable_collection("intermediates")
        if not alone:
            return "xla" if dropped or watched else "cache"
        early = config.sliding_window is not None and config.window_from_layer > 0
        if config.attention == "auto" and (early or dropped or watched):
            return "xla"
        query = (*shape, config.num_heads, config.head_width)
        chosen = kernels.choose(config.attention, query, config.dtype)
        return "xla" if chosen == "xla" else config.attention

    def _blocks(
        self, x: jax.Array, cache: KVCache | None, context: Context
    ) -> tuple[jax.Array, KVCache | None]:
        split = cache is not None and cache.split  # then an index has to be a number
        first: Any = 0 if split else jnp.zeros((), jnp.int32)
        carry = (x, cache, first)
        watched = self.is_mutable_collection("intermediates") or self.has_rng("dropout")
        stack = self.variables.get("params", {}).get("layers", {})
        if not self.config.scan_layers:
            for layer in self.layers:
                carry, _ = layer(carry, context)
        elif cache is not None and not watched and (whole := read_in_place(stack)):
            carry = scan_in_place(self.config, stack, whole, carry, context)
        else:
            carry, _ = self.layers(carry, context)
        return carry[0], carry[1]

    def logits(self, hidden: jax.Array) -> jax.Array:
        """The head's input [B, T, D] to logits float32 [B, T, V]."""
        config = self.config
        if not config.tied_head:
            return self.head(hidden)
        out = self.embedding.logits(hidden)
        if config.head_bias:
            out = self.head(out)
        return nn.with_logical_constraint(out, ("batch", "length", "vocab"))


def segment_positions(segment_ids: jax.Array) -> jax.Array:
    """Positions int32 [B, T] that restart at 0 wherever segment_ids [B, T] change."""
    steps = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)
    changes = segment_ids[:, 1:] != segment_ids[:, :-1]
    starts = jnp.pad(changes, ((0, 0), (1, 0)), constant_values=True)
    return steps - jax.lax.cummax(jnp.where(starts, steps, 0), axis=1)


def unstack_layers(params: Params) -> Params:
    """`layers` [L, ...] to `layers_0`, `layers_1`, ... for a model with scan_layers=False."""
    rest = {k: v for k, v in params.items() if k != "layers"}
    count = jax.tree.leaves(params["layers"])[0].shape[0]
    for i in range(count):
        rest[f"layers_{i}"] = jax.tree.map(lambda x, i=i: x[i], params["layers"])
    return rest


def stack_layers(params: Params) -> Params:
    """The inverse of `unstack_layers`."""
    names = sorted((k for k in params if k.startswith("layers_")), key=lambda k: int(k[7:]))
    rest = {k: v for k, v in params.items() if k not in names}
    rest["layers"] = jax.tree.map(lambda *xs: jnp.stack(xs), *(params[n] for n in names))
    return rest
