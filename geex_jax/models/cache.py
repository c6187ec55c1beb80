"""The KV cache: an explicit value that goes into a forward pass and comes out of it."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from geex_jax.models.config import ModelConfig


@flax.struct.dataclass
class KVCache:
    """Keys and values of all blocks, the top query layer last.

    Slot s of row b holds the token at position s of that row. A row's slots at and beyond
    `length[b]` are garbage that no query sees before it is overwritten, so prompts of different
    lengths need padding on the right only.

    Attributes:
      key, value: [blocks, B, slots, kv_heads * head_width] in the compute dtype. Heads and their
        width are one axis because a TPU pads a short head axis and then copies the whole cache.
      length: int32 [b], tokens held in each row that takes part.
      row: int32 [], the first of the b rows that take part in a pass; None: all rows do.
      window: static; a pass reads only this many slots of a row, which hold all its tokens. None:
        all slots. Both are views: a pass over some rows and slots still writes in place.
    """

    key: jax.Array
    value: jax.Array
    length: jax.Array
    row: jax.Array | None = None
    window: int | None = flax.struct.field(pytree_node=False, default=None)

    @property
    def slots(self) -> int:
        """Tokens that a row can hold."""
        return self.key.shape[2]


def init_cache(config: ModelConfig, batch_size: int, slots: int) -> KVCache:
    """Returns an empty cache for `batch_size` rows of up to `slots` tokens."""
    shape = (config.num_blocks, batch_size, slots, config.kv_heads * config.head_width)
    zeros = jnp.zeros(shape, config.dtype)
    return KVCache(zeros, zeros, jnp.zeros((batch_size,), jnp.int32))


def write(
    buffer: jax.Array,
    new: jax.Array,
    block: jax.Array | int,
    start: jax.Array,
    row: jax.Array | None = None,
) -> jax.Array:
    """Writes `new` [b, T, F] at slots start[b]..start[b]+T-1 of one block of `buffer`.

    One scatter into the whole buffer, which XLA does in place when the buffer is carried through
    a loop or donated. Slots past the end are dropped.
    """
    batch, length, _ = new.shape
    rows = jnp.arange(batch)[:, None] + (0 if row is None else row)
    slots = start[:, None] + jnp.arange(length)
    return buffer.at[block, rows, slots].set(
        new.astype(buffer.dtype), mode="drop", unique_indices=True, indices_are_sorted=True
    )


def read(
    buffer: jax.Array,
    block: jax.Array | int,
    batch: int,
    window: int,
    row: jax.Array | None = None,
) -> jax.Array:
    """The first `window` slots of `batch` rows, from `row` on, of one block: [batch, window, F]."""
    start = (block, 0 if row is None else row, 0, 0)
    size = (1, batch, window, buffer.shape[3])
    return jax.lax.dynamic_slice(buffer, start, size)[0]
