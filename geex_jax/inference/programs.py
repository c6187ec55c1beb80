"""The engine's compiled programs: few shapes, each compiled once, ahead of time or when needed."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from geex_jax.inference import prefix, state, steps
from geex_jax.models import Transformer
from geex_jax.parallel import use_mesh

Progress = Callable[[int, int, str], None]
MOST_PROGRAMS = 128  # that the process keeps for engines to come
_COMPILED: OrderedDict[Any, Any] = OrderedDict()
_LOCK = threading.Lock()


def persist(folder: str) -> None:
    """Keeps compiled programs in a folder, for this process and later ones (jax's own cache)."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # once in use, it stays with the folder that it had


def forget() -> None:
    """Lets go of the programs that are kept for engines to come."""
    with _LOCK:
        _COMPILED.clear()


def sizes_up_to(limit: int, first: int, factor: int) -> tuple[int, ...]:
    """first, first*factor, ... and at last `limit` itself."""
    found = []
    while first < limit:
        found.append(first)
        first *= factor
    return (*found, limit)


def fitting(sizes: Sequence[int], need: int) -> int:
    """The smallest of ascending sizes that holds `need`; the largest if none does."""
    return next((s for s in sizes if s >= need), sizes[-1])


class Programs:
    """Compiles and runs on one state, which each call gives up and replaces.

    Args:
      model, params: the decoder.
      drafter, draft_params: a smaller one that guesses, or None.
      limit: ids from it on are never drawn.
      mesh: or None.

    Attributes:
      state, pool: what is on the device; see `reset`.
      compiled: how many programs have been compiled for this engine.
    """

    def __init__(
        self,
        model: Transformer,
        params: Any,
        drafter: Transformer | None,
        draft_params: Any,
        limit: int,
        mesh: Mesh | None,
    ):
        self._model, self._params = model, params
        self._drafter, self._draft_params = drafter, draft_params
        self._limit, self._mesh = limit, mesh
        self._programs: dict[Any, Any] = {}
        self._bias: jax.Array | None = None
        self.state: Any = None
        self.pool: prefix.Pool | None = None
        self.compiled = 0

    @property
    def weights(self) -> tuple[Any, Any]:
        """Parameters of the model and of the smaller one, the first arguments of programs."""
        return self._params, self._draft_params

    @property
    def has_drafter(self) -> bool:
        """Whether there is a smaller model that guesses."""
        return self._drafter is not None

    def reset(self, rows: int, slots: int, pool_bytes: int, block: int) -> int:
        """Makes a fresh state and prefix pool; returns the pool's blocks."""
        draft = None if self._drafter is None else self._drafter.config
        self.state = self.pool = self._bias = None
        self.state = state.init_state(self._model.config, rows, slots, self._mesh, draft)
        blocks = prefix.capacity(self.state, block, pool_bytes) if pool_bytes else 0
        if blocks:
            self.pool = prefix.init_pool(self.state, blocks, block)
        return blocks

    def prefill(
        self, shape: steps.Chunk, tokens: np.ndarray, targets: np.ndarray, row: int, start: int
    ) -> Any:
        """One chunk, see `steps.prefill_chunk`; returns its scores on the device, or None."""
        given = (
            self._params, self._draft_params, self.state,
            tokens[None].astype(np.int32), targets.astype(np.int32), np.int32(row), np.int32(start),
        )  # fmt: skip
        program = self.get(shape, given)
        self.state, scores = program(*given)
        return scores

    def decode(self, shape: steps.Decode, running: np.ndarray, count: int) -> steps.Drawn:
        """Decode steps, see `steps.decode`; waits, and returns what was drawn as numpy arrays."""
        bias = self._bias if shape.bias else None
        given = (self._params, self._draft_params, self.state, running, np.int32(count), bias)
        program = self.get(shape, given)
        self.state, drawn = program(*given)
        return jax.device_get(drawn)

    def activate(self, row: int, numbers: dict[str, Any], tokens: np.ndarray) -> None:
        """See `state.activate`."""
        given = (self.state, np.int32(row), numbers, tokens)
        self.state = self.get("activate", given)(*given)

    def copy_row(self, source: int, target: int, window: int) -> None:
        """See `state.copy_row`."""
        given = (self.state, np.int32(source), np.int32(target))
        self.state = self.get(("copy", window), given)(*given)

    def save(self, row: int, first: int, places: np.ndarray) -> None:
        """Copies blocks of a row to the prefix pool; see `prefix.save`."""
        given = (self.state, self.pool, np.int32(row), np.int32(first), places)
        self.pool = self.get(("save", len(places)), given)(*given)

    def load(self, row: int, places: np.ndarray) -> None:
        """Copies blocks of the prefix pool to a row; see `prefix.load`."""
        given = (self.state, self.pool, np.int32(row), places)
        self.state = self.get(("load", len(places)), given)(*given)

    def set_bias(self, row: int, values: np.ndarray | None) -> None:
        """Sets what is added to a row's logits, float32 [V]; None: nothing."""
        if self._bias is None:
            if values is None:
                return
            shape = (self.state.cache.rows, self._model.config.vocab_size)
            self._bias = self._placed(jnp.zeros(shape, jnp.float32))
        if values is None:
            values = np.zeros(self._bias.shape[1], np.float32)
        given = (self._bias, np.int32(row), values)
        self._bias = self.get("bias", given)(*given)

    def copy_bias(self, source: int, target: int) -> None:
        """Row `source` of the bias again as row `target`."""
        if self._bias is not None:
            self.set_bias(target, np.asarray(self._bias[source]))

    def get(self, key: Any, given: tuple[Any, ...]) -> Any:
        """The compiled program for a shape, compiled now if it has not been."""
        found = self._programs.get(key)
        if found is None:
            with _LOCK:
                found = self._shared(key, given)
                self._programs[key] = found
        return found

    def _shared(self, key: Any, given: tuple[Any, ...]) -> Any:
        # Engines of one model and of the same sizes, one after the other, compile once.
        leaves, structure = jax.tree.flatten(given)
        kinds = tuple((np.shape(x), x.dtype, getattr(x, "sharding", None)) for x in leaves)
        name = (self._model, self._drafter, self._limit, self._mesh, key, structure, kinds)
        found = _COMPILED.get(name)
        if found is None:
            found = self.lower(key, given).compile()
            self.compiled += 1
            _COMPILED[name] = found
            while len(_COMPILED) > MOST_PROGRAMS:
                _COMPILED.popitem(last=False)
        _COMPILED.move_to_end(name)
        return found

    def lower(self, key: Any, given: tuple[Any, ...]) -> Any:
        """A shape's program, lowered for arguments as given."""
        with self._context():
            return self.trace(key, given).lower()

    def trace(self, key: Any, given: tuple[Any, ...]) -> Any:
        """A shape's program, traced for arguments as given: arrays, or shapes with shardings."""
        run, given_up = self._function(key)
        with self._context():
            out = self._out_shardings(key)
            settings = {} if out is None else {"out_shardings": out}
            return jax.jit(run, donate_argnums=given_up, **settings).trace(*given)

    def _function(self, key: Any) -> tuple[Callable[..., Any], int]:
        """What a shape's program computes, and which argument is given up to it."""
        model, drafter, limit = self._model, self._drafter, self._limit
        if isinstance(key, steps.Chunk):
            return functools.partial(steps.prefill_chunk, model, drafter, shape=key), 2
        if isinstance(key, steps.Decode):
            return functools.partial(steps.decode, model, drafter, limit, shape=key), 2
        if key == "activate":
            return state.activate, 0
        if key == "bias":
            return (lambda bias, row, values: bias.at[row].set(values)), 0
        if key[0] == "copy":
            return functools.partial(state.copy_row, window=key[1]), 0
        return (prefix.save, 1) if key[0] == "save" else (prefix.load, 0)

    def _out_shardings(self, key: Any) -> Any:
        # A state's place must not change from call to call.
        if self._mesh is None:
            return None
        if key == "bias":
            return NamedSharding(self._mesh, PartitionSpec())
        if isinstance(key, tuple) and key[0] == "save":
            return state.state_shardings(self.pool, self._mesh)
        place = state.state_shardings(self.state, self._mesh)
        pair = isinstance(key, steps.Chunk | steps.Decode)
        return (place, NamedSharding(self._mesh, PartitionSpec())) if pair else place

    def _context(self) -> Any:
        return contextlib.nullcontext() if self._mesh is None else use_mesh(self._mesh)

    def _placed(self, x: jax.Array) -> jax.Array:
        if self._mesh is None:
            return x
        return jax.device_put(x, NamedSharding(self._mesh, PartitionSpec()))
