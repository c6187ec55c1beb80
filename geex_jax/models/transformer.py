"""The decoder: embedding, scanned blocks, final norm, top query layer, logits."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from geex_jax import kernels
from geex_jax.models.attention import Attention, Context
from geex_jax.models.cache import KVCache
from geex_jax.models.config import ModelConfig
from geex_jax.models.layers import MLP, Bias, Linear, dropout, norm, rotary_tables, sinusoid
from geex_jax.models.remat import POLICIES

Params = dict[str, Any]
Buffers = tuple[jax.Array, jax.Array]


def residual_constraint(x: jax.Array) -> jax.Array:
    """Says where x [B, T, D] lies between blocks; a single new token cannot be split."""
    length = "length" if x.shape[1] == 1 else "residual_length"
    return nn.with_logical_constraint(x, ("batch", length, "embed"))


class Block(nn.Module):
    """x += attention(norm x); x += mlp(norm x), or both branches from one x when parallel."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        carry: tuple[jax.Array, Buffers | None, jax.Array],
        context: Context,
        query_input: jax.Array | None = None,
    ) -> tuple[tuple[jax.Array, Buffers | None, jax.Array], None]:
        """Carry is x [B, T, D], the cache buffers or None, and this block's index."""
        config = self.config
        x, buffers, index = carry
        # Residual branches start smaller in deeper models (Megatron, GPT-2).
        out_init = nn.initializers.normal(0.02 / (2 * config.num_blocks) ** 0.5)
        normed = norm(config, "attention_norm")(x)
        attended, buffers = Attention(config, out_init, name="attention")(
            normed, context, buffers, index, query_input
        )
        self.sow("intermediates", "attention_out", attended)
        attended = dropout(self, config)(attended)
        if config.residual == "serial":
            x = x + attended
            mlp_input = norm(config, "mlp_norm")(x)
        elif config.shared_norm:
            mlp_input = normed
        else:
            mlp_input = norm(config, "mlp_norm")(x)
        fed = MLP(config, out_init, name="mlp")(mlp_input)
        self.sow("intermediates", "mlp_out", fed)
        fed = dropout(self, config)(fed)
        x = x + fed if config.residual == "serial" else x + attended + fed
        x = residual_constraint(x)
        self.sow("intermediates", "residual", x)
        return (x, buffers, index + 1), None


class Embedding(nn.Module):
    """The token table, which also makes tied logits, and the learned position table.

    A quantized token table is `tokens_int8` [V, D] and `tokens_scale` [V].
    """

    config: ModelConfig

    def setup(self):
        """Declares the tables."""
        config = self.config
        init, dtype = nn.initializers.normal(0.02), jnp.dtype(config.param_dtype)
        self.quantized = self.has_variable("params", "tokens_int8")
        if self.quantized:
            self.tokens = self.get_variable("params", "tokens_int8")
            self.scale = self.get_variable("params", "tokens_scale").astype(jnp.float32)
        else:
            self.tokens = self.param("tokens", init, (config.vocab_size, config.d_model), dtype)
        if config.position == "learned":
            shape = (config.context_length + config.position_offset, config.d_model)
            self.positions = self.param("positions", init, shape, dtype)

    def __call__(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """Looks up tokens and positions, int32 [B, T]; returns [B, T, D] in the compute dtype."""
        config = self.config
        # Tables may be stored in 16 bits; their sum keeps what float32 holds until it is cast.
        x = self.tokens[tokens].astype(jnp.float32)
        if self.quantized:
            x = x * self.scale[tokens][..., None]
        x = x * config.embedding_scale
        if config.position == "learned":
            x = x + self.positions[positions + config.position_offset].astype(jnp.float32)
        elif config.position == "sinusoidal":
            x = x + sinusoid(positions + config.position_offset, config.d_model)
        return x.astype(config.dtype)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Hidden [B, T, D] times the token table, in float32: [B, T, V]."""
        hidden = hidden.astype(self.config.dtype)
        if self.quantized:
            leaves = {"kernel_int8": self.tokens, "kernel_scale": self.scale}
            return kernels.quantized_matmul(hidden, leaves, activations=self.config.activations)
        table = self.tokens.astype(self.config.dtype)
        return jnp.einsum("btd,vd->btv", hidden, table, preferred_element_type=jnp.float32)


class TopQuery(nn.Module):
    """A block whose query at position t is made of a learned vector for t (2303.17568, 2.2.2)."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, positions: jax.Array, context: Context, buffers: Buffers | None
    ) -> tuple[jax.Array, Buffers | None]:
        """X [B, T, D] is the output of the final norm; the residual is x, not the query."""
        config = self.config
        table = self.param(
            "positions",
            nn.initializers.normal(0.02),
            (config.context_length, config.d_model),
            jnp.dtype(config.param_dtype),
        )
        query = residual_constraint(table[positions].astype(config.dtype))
        index = jnp.asarray(config.num_layers, jnp.int32)
        # Outside a loop the compiler would merge what is computed twice, and keep it meanwhile.
        block = _remat(config, prevent_cse=True)
        (x, buffers, _), _ = block(config, name="layer")((x, buffers, index), context, query)
        return x, buffers


def _remat(config: ModelConfig, prevent_cse: bool) -> type[Block]:
    if config.remat == "none":
        return Block
    return nn.remat(Block, policy=POLICIES[config.remat], prevent_cse=prevent_cse)


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
        block = _remat(config, prevent_cse=not config.scan_layers)
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
    ) -> Any:
        """As `__call__`, but returns the head's input [B, T, D] instead of logits."""
        config = self.config
        length = tokens.shape[1]
        if length > config.context_length:
            raise ValueError(f"{length} tokens do not fit a context of {config.context_length}")
        if kv_cache is not None and segment_ids is not None:
            raise ValueError("a cache holds one segment per row: give segment_ids or kv_cache")
        steps = jnp.arange(length, dtype=jnp.int32)
        if kv_cache is None:
            slots, keys, start, buffers = steps[None], steps, None, None
        else:
            start = kv_cache.length
            slots = start[:, None] + steps
            keys = jnp.arange(kv_cache.slots, dtype=jnp.int32)
            buffers = (kv_cache.key, kv_cache.value)
        if positions is None:
            positions = slots if segment_ids is None else segment_positions(segment_ids)
        positions = jnp.broadcast_to(positions, tokens.shape)
        kernel = self._kernel(tokens.shape, kv_cache is not None)
        plain, window = kernel == "xla", config.sliding_window
        early = plain and window is not None and config.window_from_layer > 0
        context = Context(
            mask=kernels.attention_mask(slots, keys, segment_ids, window) if plain else None,
            early_mask=kernels.attention_mask(slots, keys, segment_ids) if early else None,
            start=start,
            rotary=rotary_tables(config, positions) if config.position == "rotary" else None,
            segment_ids=None if plain else segment_ids,
            kernel=kernel,
        )
        x = self.embedding(tokens, positions)
        self.sow("intermediates", "embedded", x)
        x = self.embedding_dropout(x)
        x = residual_constraint(x)
        x, buffers = self._blocks(x, buffers, context)
        x = self.final_norm(x).astype(config.dtype)
        self.sow("intermediates", "normed", x)
        if config.top_query_layer:
            x, buffers = self.top_query(x, positions, context, buffers)
        if kv_cache is None:
            return x
        assert buffers is not None
        return x, KVCache(buffers[0], buffers[1], kv_cache.length + length)

    def _kernel(self, shape: tuple[int, ...], cached: bool) -> str:
        # "xla" if this pass over tokens [B, T] is a plain one, else what to ask the kernels for.
        config = self.config
        if cached or self.is_initializing():
            return "xla"  # few queries against many keys; no result at all
        early = config.sliding_window is not None and config.window_from_layer > 0
        dropped = config.dropout and self.has_rng("dropout")
        watched = self.is_mutable_collection("intermediates")
        if config.attention == "auto" and (early or dropped or watched):
            return "xla"
        query = (*shape, config.num_heads, config.head_width)
        chosen = kernels.choose(config.attention, query, config.dtype)
        return "xla" if chosen == "xla" else config.attention

    def _blocks(
        self, x: jax.Array, buffers: Buffers | None, context: Context
    ) -> tuple[jax.Array, Buffers | None]:
        carry = (x, buffers, jnp.zeros((), jnp.int32))
        if self.config.scan_layers:
            carry, _ = self.layers(carry, context)
        else:
            for layer in self.layers:
                carry, _ = layer(carry, context)
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
