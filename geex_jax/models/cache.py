"""The KV cache: an explicit value that goes into a forward pass and comes out of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from geex_jax.kernels import append_pallas, quantize
from geex_jax.models.config import ModelConfig

Held = Any  # an array of all blocks, or a tuple of one for each


@flax.struct.dataclass
class KVCache:
    """Keys and values of all blocks, the top query layer last.

    Slot s of row b holds the token at position s of that row. A row's slots at and beyond
    `length[b]` are garbage that no query sees before it is overwritten, so prompts of different
    lengths need padding on the right only.

    Attributes:
      key, value: [blocks, B, slots, kv_heads * head_width] in the compute dtype, or int8. Heads
        and their width are one axis because a TPU pads a short head axis and then copies the
        whole cache. A split cache has a tuple of one [1, B, slots, ...] for each block.
      length: int32 [b], tokens held in each row that takes part.
      key_scale, value_scale: float32 [blocks, B, slots, kv_heads] of an int8 cache (split as they
        are), else None: a number is integer * scale.
      row: int32 [], the first of the b rows that take part in a pass; None: all rows do.
      window: static; a pass reads only this many slots of a row, which hold all its tokens. None:
        all slots. Both are views: a pass over some rows and slots still writes in place.
    """

    key: Held
    value: Held
    length: jax.Array
    key_scale: Held | None = None
    value_scale: Held | None = None
    row: jax.Array | None = None
    window: int | None = flax.struct.field(pytree_node=False, default=None)

    @property
    def split(self) -> bool:
        """Whether each block has arrays of its own."""
        return isinstance(self.key, tuple)

    @property
    def rows(self) -> int:
        """Rows that are held, B."""
        return self.arrays[0].shape[1]

    @property
    def slots(self) -> int:
        """Tokens that a row can hold."""
        return self.arrays[0].shape[2]

    @property
    def reach(self) -> int:
        """Slots of a row that a pass reads."""
        return self.window or self.slots

    @property
    def arrays(self) -> list[jax.Array]:
        """All that is held for tokens: keys, values and, in an int8 cache, their scales."""
        return jax.tree.leaves(list(buffers(self).values()))

    def of(self, block: jax.Array | int) -> tuple[KVCache, jax.Array | int]:
        """A cache that is not split and holds a block, and the block's index there.

        Raises:
          TypeError: the cache is split, and the index is not known before the program runs.
        """
        if not self.split:
            return self, block
        if isinstance(block, jax.Array):
            raise TypeError("a split cache is for models with scan_layers=False, remat='none'")
        own = {name: held[block] for name, held in buffers(self).items()}
        return dataclasses.replace(self, **own), 0

    def having(self, block: jax.Array | int, one: KVCache) -> KVCache:
        """This cache after what `of` gave for a block has become `one`."""
        if not self.split:
            return one
        new = buffers(one)
        mixed = {
            name: tuple(new[name] if i == block else x for i, x in enumerate(held))
            for name, held in buffers(self).items()
        }
        return dataclasses.replace(self, **mixed)


def buffers(cache: KVCache) -> dict[str, Any]:
    """What is held for tokens by field name, scales of an int8 cache included."""
    names = ("key", "value", "key_scale", "value_scale")
    found = {name: getattr(cache, name) for name in names}
    return {name: held for name, held in found.items() if held is not None}


def init_cache(config: ModelConfig, batch_size: int, slots: int) -> KVCache:
    """Returns an empty cache for `batch_size` rows of up to `slots` tokens.

    Its type is the config's: `kv_cache = "int8"` makes one of integers and scales. That of a model
    whose layers are not scanned is split: out of an array of all blocks each layer would have to
    copy its own on a CPU, to multiply by it.
    """
    split = not config.scan_layers and config.remat == "none"
    integers = config.kv_cache == "int8"

    def make(width: int, dtype: Any) -> Any:
        def zeros(blocks: int) -> jax.Array:
            return jnp.zeros((blocks, batch_size, slots, width), dtype)

        count = config.num_blocks
        return tuple(zeros(1) for _ in range(count)) if split else zeros(count)

    length = jnp.zeros((batch_size,), jnp.int32)
    width, dtype = config.kv_heads * config.head_width, jnp.int8 if integers else config.dtype
    key, value = make(width, dtype), make(width, dtype)
    if not integers:
        return KVCache(key, value, length)
    heads = config.kv_heads
    return KVCache(key, value, length, make(heads, jnp.float32), make(heads, jnp.float32))


def append(cache: KVCache, key: jax.Array, value: jax.Array, block: jax.Array | int) -> KVCache:
    """Writes keys and values [B, T, kv_heads, head_width] of new tokens behind each row's last.

    The lengths stay: they count on when all blocks have written. An int8 cache rounds each
    token's head by its own largest magnitude.
    """
    if cache.split:
        one, index = cache.of(block)
        return cache.having(block, append(one, key, value, index))
    changes = {}
    if cache.key_scale is not None and append_pallas.wanted(cache.key, key):
        (keys, key_scale), (values, value_scale) = quantize(key, -1), quantize(value, -1)
        flat = (*key.shape[:2], -1)
        new = [keys.reshape(flat), values.reshape(flat), key_scale[..., 0], value_scale[..., 0]]
        row = 0 if cache.row is None else cache.row
        held = append_pallas.append(cache.arrays, new, block, cache.length, row)
        names = ("key", "value", "key_scale", "value_scale")
        return dataclasses.replace(cache, **dict(zip(names, held, strict=True)))
    for name, new in (("key", key), ("value", value)):
        scales = getattr(cache, f"{name}_scale")
        if scales is not None:
            new, scale = quantize(new, -1)
            changes[f"{name}_scale"] = write(scales, scale[..., 0], block, cache.length, cache.row)
        flat = new.reshape(*new.shape[:2], -1)
        changes[name] = write(getattr(cache, name), flat, block, cache.length, cache.row)
    return dataclasses.replace(cache, **changes)


def read(
    cache: KVCache, block: jax.Array | int, batch: int, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array]:
    """Keys and values [batch, reach, kv_heads * head_width] of one block, as floats of `dtype`."""
    cache, block = cache.of(block)
    start = (block, 0 if cache.row is None else cache.row, 0, 0)

    def piece(x: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(x, start, (1, batch, cache.reach, x.shape[3]))[0]

    found = []
    for held, scale in ((cache.key, cache.key_scale), (cache.value, cache.value_scale)):
        one = piece(held)
        if scale is not None:
            factor = piece(scale)
            wide = one.reshape(*factor.shape, -1) * factor[..., None]
            one = wide.reshape(one.shape)
        found.append(one.astype(dtype))
    return found[0], found[1]


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
