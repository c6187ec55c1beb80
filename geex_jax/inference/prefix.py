"""Prompts that begin alike share their beginning: kept keys and values, in blocks of tokens.

On the host a trie of blocks, by the tokens themselves (no hash can collide), of which the least
recently used leave; on the device one pool [blocks, N, block, F], so that memory is bounded from
the start. A hit is copied into the row, a finished prompt out of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax.inference.state import EngineState
from geex_jax.models import KVCache, buffers

Pool = dict[str, Any]  # of arrays, in the form of the cache's


class Trie:
    """Which blocks of tokens are kept, and at which place of the pool.

    Args:
      capacity: blocks of the pool.
      block: tokens of a block.
    """

    def __init__(self, capacity: int, block: int):
        self.block = block
        # (number of the block before, tokens) -> (own number, place); the least recent first.
        self._nodes: OrderedDict[tuple[int, tuple[int, ...]], tuple[int, int]] = OrderedDict()
        self._free = list(range(capacity - 1, -1, -1))
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def match(self, tokens: Sequence[int]) -> list[int]:
        """Places of the blocks that begin `tokens`, as many as are kept."""
        chain = self._chain(tokens)
        self._touch(chain)
        return [self._nodes[key][1] for key in chain]

    def add(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """Keeps the whole blocks of `tokens`; returns (block of the row, place) of the new ones.

        Blocks are forgotten to make room, but none of `tokens`: a text longer than the pool is
        kept up to where the pool is full.
        """
        chain = self._chain(tokens)
        self._touch(chain)
        parent = self._nodes[chain[-1]][0] if chain else 0
        new: list[tuple[int, int]] = []
        for i in range(len(chain), len(tokens) // self.block):
            if not self._free:
                oldest = next(iter(self._nodes), None)
                if oldest is None or oldest in chain:
                    break
                self._free.append(self._nodes.pop(oldest)[1])
            self._numbers += 1
            key = (parent, tuple(tokens[i * self.block : (i + 1) * self.block]))
            self._nodes[key] = (self._numbers, self._free.pop())
            chain.append(key)
            new.append((i, self._nodes[key][1]))
            parent = self._numbers
        self._touch(chain)
        return new

    def _chain(self, tokens: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
        chain, parent = [], 0
        for start in range(0, len(tokens) - self.block + 1, self.block):
            key = (parent, tuple(tokens[start : start + self.block]))
            if key not in self._nodes:
                break
            chain.append(key)
            parent = self._nodes[key][0]
        return chain

    def _touch(self, chain: Sequence[tuple[int, tuple[int, ...]]]) -> None:
        # Ends first: so the oldest of all is never a block that others build on.
        for key in reversed(chain):
            self._nodes.move_to_end(key)


def named(state: EngineState) -> dict[str, Any]:
    """What a state's caches hold, [blocks, B, S, ...] or split, by name."""
    found = buffers(state.cache)
    if state.draft is not None:
        found |= {f"draft_{name}": x for name, x in buffers(state.draft).items()}
    return found


def capacity(state: EngineState, block: int, size: int) -> int:
    """Blocks of `block` tokens that fit `size` bytes."""
    held = jax.tree.leaves(named(state))
    each = sum(x.shape[0] * block * x.shape[3] * x.dtype.itemsize for x in held)
    return size // each


def init_pool(state: EngineState, count: int, block: int) -> Pool:
    """An empty pool of `count` blocks, split over the mesh as the cache is."""

    def make(x: jax.Array) -> jax.Array:
        shape = (x.shape[0], count, block, x.shape[3])
        return jnp.zeros(shape, x.dtype, device=x.sharding)

    return jax.tree.map(make, named(state))


def save(
    state: EngineState, pool: Pool, row: jax.Array, first: jax.Array, places: jax.Array
) -> Pool:
    """Copies blocks first, first + 1, ... of a row to `places` int32 [W] of a pool given up.

    A place past the pool's end means that the block is not copied.
    """

    def copy(buffer: jax.Array, pool: jax.Array) -> jax.Array:
        block, width = pool.shape[2:]
        size = (buffer.shape[0], 1, len(places) * block, width)
        piece = jax.lax.dynamic_slice(buffer, (0, row, first * block, 0), size)
        piece = piece.reshape(buffer.shape[0], len(places), block, width)
        return pool.at[:, places].set(piece, mode="drop")

    return jax.tree.map(copy, named(state), pool)


def load(state: EngineState, pool: Pool, row: jax.Array, places: jax.Array) -> EngineState:
    """Copies `places` int32 [W] of the pool to a row's blocks 0, 1, ... of a state given up.

    Places past the end copy something: it lies where the row holds nothing yet.
    """

    def copy(buffer: jax.Array, pool: jax.Array) -> jax.Array:
        piece = jnp.take(pool, places, axis=1, mode="clip")
        piece = piece.reshape(buffer.shape[0], 1, -1, buffer.shape[3])
        return jax.lax.dynamic_update_slice(buffer, piece, (0, row, 0, 0))

    new = jax.tree.map(copy, named(state), pool)

    def fill(cache: KVCache, prefix: str) -> KVCache:
        return dataclasses.replace(cache, **{n: new[prefix + n] for n in buffers(cache)})

    draft = None if state.draft is None else fill(state.draft, "draft_")
    return EngineState(fill(state.cache, ""), state.rows, draft)


def padded(places: Sequence[int], count: int, filler: int) -> np.ndarray:
    """Places int32 [count], `filler` where there are none."""
    array = np.full(count, filler, np.int32)
    array[: len(places)] = places
    return array


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning of two lists of tokens."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = math.ceil((low + high) / 2)
        if list(a[low:middle]) == list(b[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low


def pool_bytes(pool: Pool | None) -> int:
    """Bytes of a pool, on all devices together."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pool))
