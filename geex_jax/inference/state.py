"""What the engine keeps on the device: one cache, and for each row its tokens and settings."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from geex_jax.errors import GeexError
from geex_jax.inference.penalties import Penalties
from geex_jax.inference.sampling import Sampling
from geex_jax.models import KVCache, ModelConfig, buffers, init_cache

NO_EOS = -1


@flax.struct.dataclass
class Rows:
    """One value, or one array, for each row.

    Attributes:
      history: int32 [B, S], the tokens of prompt and sample. That of position `cache.length` is
        not in the cache yet: the next step takes it in.
      prompt: int32 [B], tokens of the prompt.
      budget: int32 [B], most tokens that may be drawn.
      eos: int32 [B], the id that ends the row, or -1.
      keys: PRNG keys [B]; draw number n uses `fold_in(key, n)`.
      sampling, penalties: settings.
    """

    history: jax.Array
    prompt: jax.Array
    budget: jax.Array
    eos: jax.Array
    keys: jax.Array
    sampling: Sampling
    penalties: Penalties


@flax.struct.dataclass
class EngineState:
    """The cache [blocks, B, S, F] (and that of a draft model, if any) and the rows.

    A row's drawn tokens are those of positions `prompt` to `cache.length`, so their number is
    `cache.length + 1 - prompt`: a row that has been activated, and has drawn nothing, lacks the
    last token of its prompt in the cache.
    """

    cache: KVCache
    rows: Rows
    draft: KVCache | None = None


def init_rows(batch: int, slots: int) -> Rows:
    """Rows that hold nothing."""
    ints, floats = jnp.zeros((batch,), jnp.int32), jnp.zeros((batch,), jnp.float32)
    return Rows(
        jnp.zeros((batch, slots), jnp.int32),
        ints,
        ints,
        ints + NO_EOS,
        jax.vmap(jax.random.key)(jnp.zeros((batch,), jnp.uint32)),
        Sampling(floats, ints, floats, floats),
        Penalties(floats + 1, floats, floats),
    )


def init_state(
    config: ModelConfig,
    batch: int,
    slots: int,
    mesh: Mesh | None = None,
    draft: ModelConfig | None = None,
) -> EngineState:
    """An empty state; on a mesh keys and values are split over `tensor`, the rest is repeated."""

    def build() -> EngineState:
        other = None if draft is None else init_cache(draft, batch, slots)
        return EngineState(init_cache(config, batch, slots), init_rows(batch, slots), other)

    if mesh is None:
        return jax.jit(build)()
    places = state_shardings(jax.eval_shape(build), mesh)
    return jax.jit(build, out_shardings=places)()


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Where each leaf of a state lies on a mesh."""
    ways = mesh.shape["tensor"]

    def place(leaf: Any) -> NamedSharding:
        split = leaf.ndim == 4 and leaf.shape[3] % ways == 0
        spec = PartitionSpec(None, None, None, "tensor") if split else PartitionSpec()
        return NamedSharding(mesh, spec)

    return jax.tree.map(place, state)


def check_mesh(mesh: Mesh) -> None:
    """Refuses meshes that split anything but tensors.

    Raises:
      GeexError: another axis is longer than 1.
    """
    for name, size in mesh.shape.items():
        if name != "tensor" and size > 1:
            raise GeexError(
                f"an engine's mesh with {name}={size}",
                "split over tensor only, and run one engine for each copy of the model",
            )


def activate(
    state: EngineState, row: jax.Array, numbers: dict[str, jax.Array], tokens: jax.Array
) -> EngineState:
    """Makes a row ready to draw: its prompt but the last token is in the cache.

    Args:
      state: is given up.
      row: int32 [].
      numbers: scalars: `prompt`, `budget`, `eos`, `seed` (uint32), `sample`, and the fields of
        Sampling and Penalties.
      tokens: int32 [S], the prompt, padded.
    """
    rows = state.rows
    key = jax.random.fold_in(jax.random.key(numbers["seed"]), numbers["sample"])

    def put(group: Any) -> Any:
        fields = {f.name: getattr(group, f.name) for f in dataclasses.fields(group)}
        return type(group)(**{k: v.at[row].set(numbers[k]) for k, v in fields.items()})

    length = state.cache.length.at[row].set(numbers["prompt"] - 1)
    draft = state.draft
    if draft is not None:
        draft = dataclasses.replace(draft, length=length)
    return EngineState(
        dataclasses.replace(state.cache, length=length),
        Rows(
            rows.history.at[row].set(tokens),
            rows.prompt.at[row].set(numbers["prompt"]),
            rows.budget.at[row].set(numbers["budget"]),
            rows.eos.at[row].set(numbers["eos"]),
            rows.keys.at[row].set(key),
            put(rows.sampling),
            put(rows.penalties),
        ),
        draft,
    )


def copy_row(
    state: EngineState, source: jax.Array, target: jax.Array, *, window: int
) -> EngineState:
    """Row `source` again as row `target`: the first `window` slots, and all its settings."""

    def copy(buffer: jax.Array) -> jax.Array:
        size = (buffer.shape[0], 1, window, buffer.shape[3])
        piece = jax.lax.dynamic_slice(buffer, (0, source, 0, 0), size)
        return jax.lax.dynamic_update_slice(buffer, piece, (0, target, 0, 0))

    def cache(old: KVCache) -> KVCache:
        new = jax.tree.map(copy, buffers(old))
        length = old.length.at[target].set(old.length[source])
        return dataclasses.replace(old, length=length, **new)

    return EngineState(
        cache(state.cache),
        jax.tree.map(lambda x: x.at[target].set(x[source]), state.rows),
        None if state.draft is None else cache(state.draft),
    )


def settings_of(params: Any, *, prompt: int, room: int, eos: int, seed: int, sample: int) -> Any:
    """The scalars that `activate` takes, as numpy values, from SamplingParams.

    Args:
      params: SamplingParams.
      prompt: tokens of the prompt.
      room: slots of a row.
      eos: id that ends a sample.
      seed: of the request, any integer; its lowest 32 bits count.
      sample: number of the sample.
    """
    floats = (
        "temperature", "top_p", "min_p",
        "repetition_penalty", "presence_penalty", "frequency_penalty",
    )  # fmt: skip
    return {
        "prompt": np.int32(prompt),
        "budget": np.int32(min(params.max_new_tokens, room - prompt)),
        "eos": np.int32(NO_EOS if params.ignore_eos else eos),
        "seed": np.uint32(seed % 2**32),
        "sample": np.uint32(sample),
        "top_k": np.int32(params.top_k),
        **{name: np.float32(getattr(params, name)) for name in floats},
    }
