"""A whole model by GPTQ: block after block, with the activations that the quantized ones give.

For each block the inputs of its linears are watched on some rows of real text, their X^T X summed
up, its linears quantized, and the rows taken through the quantized block to the next. In memory
are the rows' activations (on the host), one block, and its sums: whatever the depth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer
from geex_jax.models.layers import Linear
from geex_jax.quantize.gptq import quantize_by_inputs
from geex_jax.quantize.policy import TABLE, Policy
from geex_jax.quantize.rounding import pack_int4
from geex_jax.quantize.weights import (
    Params,
    check_inputs,
    checked_policy,
    map_weights,
    quantize_params,
)

Batch = Mapping[str, np.ndarray]
Read = Callable[[str], Params]
Blocks = MutableMapping[str, Params]
PARTS = ("embedding", "layers_0", "final_norm", "top_query")  # of a model of one layer
NAMES = ("tokens", "positions", "segment_ids")


def calibrate_params(
    model: Transformer,
    params: Params,
    policy: Policy | str | int,
    batches: Iterable[Batch],
    progress: Callable[[str], None] = lambda text: None,
) -> Params:
    """Quantizes as `quantize_params` does, the linears of blocks by GPTQ.

    The token table and an untied head are rounded to nearest. Deterministic for the same batches.

    Args:
      model: the decoder.
      params: its float parameters, layers stacked.
      policy: see `policy.parse`.
      batches: int32 `tokens`, `positions`, `segment_ids` [B, S], all of one shape; segment 0 is
        padding and does not count.
      progress: is told what is done.

    Raises:
      GeexError: as `quantize_params`; no batch; batches of several shapes.
    """
    table = checked_policy(params, policy, "clean")
    if "layers" not in params:
        raise GeexError("these layers are not stacked", "stack them first (models.stack_layers)")

    def read(path: str) -> Params:
        first, _, number = path.partition("/")
        return jax.tree.map(lambda x: x[int(number)], params[first]) if number else params[first]

    blocks: dict[str, Params] = {}
    calibrate_blocks(model.config, read, table, batches, blocks, progress)
    loose = {k: v for k, v in params.items() if k not in ("layers", "top_query")}
    rest = quantize_params(loose, _loose(table)) if _any(loose, table) else loose
    layers = [blocks.pop(f"layers/{i}") for i in range(model.config.num_layers)]
    rest["layers"] = jax.tree.map(lambda *xs: jnp.stack(xs), *layers)
    if "top_query" in params:
        rest["top_query"] = blocks.pop("top_query")
    return {name: rest[name] for name in params}


def _loose(table: Policy) -> Policy:
    return Policy(table.name, table.rules, strict=False)


def _any(params: Params, table: Policy) -> bool:
    tied = "kernel" not in params.get("head", {})
    return any(table.format(p).bits for p in (TABLE, *(() if tied else ("head",))))


def calibrate_blocks(
    config: ModelConfig,
    read: Read,
    table: Policy,
    batches: Iterable[Batch],
    blocks: Blocks,
    progress: Callable[[str], None] = lambda text: None,
) -> None:
    """Fills `blocks` with the quantized leaves of "layers/0", "layers/1", ..., "top_query".

    What `blocks` holds already is not made again, only run through: so a killed run goes on.

    Args:
      config: the model's.
      read: gives the float leaves of "embedding", "layers/i", "final_norm" or "top_query".
      table: the formats, checked.
      batches: see `calibrate_params`.
      blocks: what is set here is read once more, and then no longer needed.
      progress: is told what is done.
    """
    rows = [{name: np.asarray(batch[name], np.int32) for name in NAMES} for batch in batches]
    if not rows:
        raise GeexError("nothing to calibrate on", "give more text")
    if len({row["tokens"].shape for row in rows}) > 1:
        raise GeexError("batches of several shapes", "give them all one shape")
    count = config.num_layers
    paths = [f"layers/{i}" for i in range(count)] + ["top_query"] * config.top_query_layer
    if all(path in blocks for path in paths):
        return
    empty = np.zeros((*rows[0]["tokens"].shape, config.d_model), jnp.dtype(config.dtype))
    held = [empty] * len(rows)

    def go(part: str, params: Params, window: bool = True) -> None:
        for i, row in enumerate(rows):  # back to the host: the device holds one batch
            held[i] = np.asarray(_through(config, part, params, held[i], row, window))

    go("embedding", read("embedding"))
    for number, path in enumerate(paths):
        part = "top_query" if path == "top_query" else "layers_0"
        window = number >= config.window_from_layer
        if part == "top_query":
            go("final_norm", read("final_norm"))
        if path not in blocks:
            leaves = read(path)
            sums = _sums(config, part, leaves, held, rows, window)
            blocks[path] = _quantized(path, leaves, sums, table)
            del leaves, sums
        if number + 1 < len(paths):
            go(part, blocks[path], window)
        progress(f"block {number + 1} of {len(paths)}")


def _quantized(path: str, leaves: Params, sums: Mapping[str, jax.Array], table: Policy) -> Params:
    first = "layers" if path.startswith("layers/") else path

    def linear(inside: tuple[str, ...], one: Params) -> Params:
        name = "/".join((first, *inside))
        how = table.format(name)
        if how.bits is None:
            return one
        kernel = one["kernel"]
        check_inputs(name, kernel.shape[0], how)
        if not bool(jnp.all(jnp.isfinite(kernel))):
            raise GeexError(f"{path}: {name} holds a NaN or an infinity", "use another checkpoint")
        hessian = sums["/".join(inside)]
        weight = jnp.asarray(kernel, jnp.float32).T
        ints, scale = quantize_by_inputs(weight, hessian, how.bits, how.group)
        rest = {k: v for k, v in one.items() if k != "kernel"}
        packed = pack_int4(ints) if how.bits == 4 else ints
        return rest | {f"kernel_int{how.bits}": packed, "kernel_scale": scale}

    return map_weights(leaves, linear)


def _sums(
    config: ModelConfig,
    part: str,
    leaves: Params,
    held: list[np.ndarray],
    rows: list[dict[str, np.ndarray]],
    window: bool,
) -> dict[str, jax.Array]:
    """X^T X float32 [in, in] of every linear of a block, by its path inside the block."""
    watched, whose = _watcher(config, part, window)
    total: list[jax.Array] = []
    for x, row in zip(held, rows, strict=True):
        found = watched(leaves, x, row)
        total = [a + b for a, b in zip(total, found, strict=True)] if total else list(found)
    return {name: total[i] for name, i in whose.items()}


@functools.lru_cache(maxsize=8)  # one compilation for all blocks of a kind
def _watcher(config: ModelConfig, part: str, window: bool) -> tuple[Any, dict[str, int]]:
    """A compiled function that gives the sums of a block's linears, and which sum is whose."""
    whose: dict[str, int] = {}

    def watched(leaves: Params, x: jax.Array, row: Mapping[str, jax.Array]) -> list[jax.Array]:
        inputs: dict[str, jax.Array] = {}

        def look(module: nn.Module, x: jax.Array) -> None:
            inputs["/".join(module.path[1:])] = x  # without "layers_0" or "top_query"

        _run(config, part, leaves, x, row, window, look)
        # Query, key and value share their input, and so do gate and up: one sum for each array.
        kinds = list({id(one): one for one in inputs.values()}.values())
        where = {id(one): i for i, one in enumerate(kinds)}
        whose.update({name: where[id(one)] for name, one in inputs.items()})
        counts = (row["segment_ids"] > 0)[..., None]
        return [_gram(jnp.where(counts, one.astype(jnp.float32), 0.0)) for one in kinds]

    return jax.jit(watched), whose


def _gram(x: jax.Array) -> jax.Array:
    flat = x.reshape(-1, x.shape[-1])
    return jnp.einsum("ni,nj->ij", flat, flat, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames=("config", "part", "window"))
def _through(config: ModelConfig, part: str, params, x, row, window: bool) -> jax.Array:
    return _run(config, part, params, x, row, window, None)


def _run(
    config: ModelConfig,
    part: str,
    params: Params,
    x: jax.Array,
    row: Mapping[str, jax.Array],
    window: bool,
    look: Callable[[nn.Module, jax.Array], None] | None,
) -> jax.Array:
    """What one part of the model makes of x [B, S, D]: [B, S, D].

    It is the decoder itself that runs, with one layer, all other parts of which hand on what they
    are given: masks, segments and positions are those of every forward pass.
    """
    alone = config.replace(
        num_layers=1,
        scan_layers=False,
        top_query_layer=part == "top_query",
        tied_head=True,
        head_bias=False,
        dropout=0.0,
        remat="none",
        window_from_layer=0,
        sliding_window=config.sliding_window if window else None,
    )
    if part != "embedding":  # tables of one row stand for those that are not read
        position = config.position if config.position == "rotary" else "sinusoidal"
        alone = alone.replace(vocab_size=1, position=position)

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name == "__call__" and len(module.path) == 1:
            name = module.path[0]
            if name in PARTS and name != part:
                if name == "embedding":
                    return x
                return (args[0], None) if name == "layers_0" else args[0]
        if look is not None and isinstance(module, Linear) and context.method_name == "__call__":
            look(module, args[0])
        return call(*args, **kwargs)

    variables: Params = {part: params}
    if part != "embedding":
        variables["embedding"] = {"tokens": jnp.zeros((1, config.d_model), config.param_dtype)}
    inputs = (row["tokens"], row["positions"], row["segment_ids"])
    with nn.intercept_methods(intercept):
        out = Transformer(alone).apply({"params": variables}, *inputs, method="hidden")
    assert isinstance(out, jax.Array)
    return out
