"""The parts that a decoder is stacked of: embedding, block, top query layer."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from geex_jax import kernels
from geex_jax.models.attention import Attention, Context
from geex_jax.models.cache import KVCache
from geex_jax.models.config import ModelConfig
from geex_jax.models.layers import MLP, dropout, norm, sinusoid
from geex_jax.models.remat import POLICIES


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
        carry: tuple[jax.Array, KVCache | None, jax.Array | int],
        context: Context,
        query_input: jax.Array | None = None,
        last: jax.Array | None = None,
    ) -> tuple[tuple[jax.Array, KVCache | None, jax.Array | int], None]:
        """Carry is x [B, T, D], the cache or None, and this block's index.

        With `last`, int32 [B], the result is [B, 1, D]: of all positions there are keys and
        values, of that one alone (whose query is the query_input [B, 1, D]) the rest.
        """
        config = self.config
        x, cache, index = carry
        # Residual branches start smaller in deeper models (Megatron, GPT-2).
        out_init = nn.initializers.normal(0.02 / (2 * config.num_blocks) ** 0.5)
        normed = norm(config, "attention_norm")(x)
        attended, cache = Attention(config, out_init, name="attention")(
            normed, context, cache, index, query_input
        )
        if last is not None:
            x, normed = at(x, last), at(normed, last)
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
        return (x, cache, index + 1), None


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
        x = kernels.lookup(self.tokens, tokens).astype(jnp.float32)
        if self.quantized:
            x = x * self.scale[tokens][..., None]
        x = x * config.embedding_scale
        if config.position == "learned":
            learned = kernels.lookup(self.positions, positions + config.position_offset)
            x = x + learned.astype(jnp.float32)
        elif config.position == "sinusoidal":
            x = x + sinusoid(positions + config.position_offset, config.d_model)
        return x.astype(config.dtype)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Hidden [B, T, D] times the token table, in float32: [B, T, V]."""
        hidden = hidden.astype(self.config.dtype)
        if self.quantized:
            leaves = {"kernel_int8": self.tokens, "kernel_scale": self.scale}
            return kernels.quantized_matmul(
                hidden, leaves, activations=self.config.activations, axes=("embed", "vocab")
            )
        table = self.tokens.astype(self.config.dtype)
        rows = kernels.padded_rows(hidden)
        return kernels.unpadded(kernels.float_dot(rows, table, jnp.float32), hidden)


class TopQuery(nn.Module):
    """A block whose query at position t is made of a learned vector for t (2303.17568, 2.2.2)."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        context: Context,
        cache: KVCache | None,
        last: jax.Array | None = None,
    ) -> tuple[jax.Array, KVCache | None]:
        """X [B, T, D] is the output of the final norm; the residual is x, not the query.

        `positions` are those of the queries: [B, T], or [B, 1] with `last`, int32 [B].
        """
        config = self.config
        table = self.param(
            "positions",
            nn.initializers.normal(0.02),
            (config.context_length, config.d_model),
            jnp.dtype(config.param_dtype),
        )
        query = residual_constraint(kernels.lookup(table, positions).astype(config.dtype))
        index = config.num_layers
        # Outside a loop the compiler would merge what is computed twice, and keep it meanwhile.
        block = block_class(config, prevent_cse=True)
        (x, cache, _), _ = block(config, name="layer")((x, cache, index), context, query, last)
        return x, cache


def at(x: jax.Array, index: jax.Array) -> jax.Array:
    """Of x [B, T, D] the token at index int32 [B] of each row: [B, 1, D]."""
    return jnp.take_along_axis(x, index[:, None, None], axis=1)


def block_class(config: ModelConfig, prevent_cse: bool) -> type[Block]:
    """Block, rematerialized as the config says."""
    if config.remat == "none":
        return Block
    return nn.remat(Block, policy=POLICIES[config.remat], prevent_cse=prevent_cse)
