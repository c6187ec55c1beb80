"""Names the first part of the model whose numbers are not finite (`--debug-nans-layerwise`)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from geex_jax.parallel import by_path
from geex_jax.training.loss import Batch, loss_fn
from geex_jax.training.step import TrainState

# What a block sows, in the order in which it computes.
_BLOCK = ("attention_out", "mlp_out", "residual")
Range = tuple[bool, float, float]  # all finite, smallest, largest


def first_not_finite(state: TrainState, batch: Batch, step: int) -> str:
    """Runs a batch again, forward and backward, and says where it first went wrong.

    To be called by all processes alike, inside `use_mesh`.

    Args:
      state: with the parameters that the step began with (a skipped step leaves them).
      batch: as the step had it, on the mesh.
      step: number of the step, from 0, which draws its dropout.

    Returns:
      One line: the first part in the order of the forward pass with its smallest and largest
      number; else the first gradient in the order of the backward pass; and a parameter that is
      not finite, if one is.
    """
    rows = batch["tokens"].shape[0]
    parts = state.config.accumulate
    found = []
    for number in range(parts):
        part = {
            name: x.reshape(rows // parts, parts, *x.shape[1:])[:, number]
            if x.shape[:1] == (rows,)
            else x
            for name, x in batch.items()
        } if parts > 1 else batch  # fmt: skip
        found.append(_ranges(state, part, number, step))
    broken = _parameter(found[0][2])
    for forward, _, _ in found:
        if where := next((name for name, value in forward if not value[0]), None):
            return f"first not finite: {_told(where, dict(forward)[where])}{broken}"
    for _, gradients, _ in found:
        if where := next((name for name, value in gradients if not value[0]), None):
            told = _told(where, dict(gradients)[where])
            return f"the forward pass is finite; first not finite: the gradient of {told}{broken}"
    return f"finite when run again: the loss in other arithmetic, or a device that errs{broken}"


def _told(where: str, value: Range) -> str:
    return f"{where} (its finite numbers from {value[1]:.3g} to {value[2]:.3g})"


def _parameter(ranges: list[tuple[str, Range]]) -> str:
    bad = [name for name, value in ranges if not value[0]]
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"; the parameter {bad[0]}{more} is not finite itself" if bad else ""


def _ranges(state: TrainState, batch: Batch, part: int, step: int) -> tuple[Any, Any, Any]:
    """Name and range of each part: forward, gradients, parameters, each in the pass's order."""
    key = None
    if state.model.config.dropout:
        key = jax.random.fold_in(jax.random.key(jax.device_get(state.seed)), step)
        key = key if state.config.accumulate == 1 else jax.random.fold_in(key, part)
    place = getattr(jax.tree.leaves(state.params)[0], "sharding", None)
    mesh = place.mesh if isinstance(place, NamedSharding) else None
    model: Any = state.model
    run = _compiled(model, state.config.loss_chunk, mesh)
    data = None if key is None else np.asarray(jax.device_get(jax.random.key_data(key)))
    sown, loss, gradients, parameters = jax.device_get(run(state.params, batch, data))
    forward = [*_in_order(sown), ("the loss", _range(loss))]
    return forward, _by_layer(gradients, reverse=True), _by_layer(parameters, reverse=False)


@functools.cache
def _compiled(model: Any, chunk: int, mesh: Any) -> Any:
    # Every process reads the results whole.
    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    measure = functools.partial(_measure, model=model, chunk=chunk)
    return jax.jit(measure, out_shardings=everywhere)


def _measure(params: Any, batch: Batch, key_data: Any, *, model: Any, chunk: int) -> Any:
    # float32 [.., 3] for each array: whether it is finite, smallest and largest finite number.
    key = None if key_data is None else jax.random.wrap_key_data(key_data)
    _, left = model.apply(
        {"params": params}, batch["tokens"], batch["positions"], batch["segment_ids"],
        method="hidden", mutable=["intermediates"],
        rngs={} if key is None else {"dropout": key},
    )  # fmt: skip
    # A sown value is a tuple; of scanned layers the leading axis is the layer.
    sown = {
        path.removesuffix("/0"): _summary(x, path.startswith("layers/"))
        for path, x in by_path(left["intermediates"]).items()
        if path.removesuffix("/0").split("/")[-1] in (*_BLOCK, "embedded", "normed")
    }

    def loss(params: Any) -> Any:
        return loss_fn(params, batch, model, dropout_key=key, chunk=chunk)[0]

    value, gradients = jax.value_and_grad(loss)(params)
    layered = [
        {path: _summary(x, path.startswith("layers/")) for path, x in by_path(tree).items()}
        for tree in (gradients, params)
    ]
    return sown, _summary(value, False), *layered


def _summary(x: jax.Array, layered: bool) -> jax.Array:
    axes = tuple(range(1 if layered else 0, x.ndim))
    x = x.astype(jnp.float32)
    good = jnp.isfinite(x)
    return jnp.stack(
        [
            jnp.all(good, axis=axes).astype(jnp.float32),
            jnp.min(jnp.where(good, x, jnp.inf), axis=axes),
            jnp.max(jnp.where(good, x, -jnp.inf), axis=axes),
        ],
        axis=-1,
    )


def _range(row: Any) -> Range:
    return bool(row[0]), float(row[1]), float(row[2])


def _in_order(sown: dict[str, np.ndarray]) -> list[tuple[str, Range]]:
    """What the model sowed, in the order in which it was computed."""
    out: list[tuple[str, Range]] = []

    def add(path: str, name: str) -> None:
        if path in sown:
            out.append((name, _range(sown[path])))

    add("embedded", "the embedding's output")
    scanned = [sown.get(f"layers/{part}") for part in _BLOCK]
    count = max((len(x) for x in scanned if x is not None), default=0)
    for layer in range(count):
        for part, rows in zip(_BLOCK, scanned, strict=True):
            if rows is not None:
                out.append((f"layers[{layer}] {part}", _range(rows[layer])))
    layer = 0
    while any(f"layers_{layer}/{part}" in sown for part in _BLOCK):  # not scanned
        for part in _BLOCK:
            add(f"layers_{layer}/{part}", f"layers[{layer}] {part}")
        layer += 1
    add("normed", "the final norm's output")
    for part in _BLOCK:
        add(f"top_query/layer/{part}", f"the top query layer's {part}")
    return out


def _by_layer(rows: dict[str, np.ndarray], reverse: bool) -> list[tuple[str, Range]]:
    """Leaves in the order of the forward pass, or of the backward pass."""
    found: list[tuple[tuple[int, int], str, Range]] = []
    places = {"embedding": 0, "layers": 1, "final_norm": 2, "top_query": 3, "head": 4}
    for path, value in rows.items():
        top, _, rest = path.partition("/")
        if top == "layers":
            for layer, row in enumerate(value):
                found.append(((1, layer), f"layers[{layer}]/{rest}", _range(row)))
        elif top.startswith("layers_"):
            layer = int(top[7:])
            found.append(((1, layer), f"layers[{layer}]/{rest}", _range(value)))
        else:
            found.append(((places.get(top, 5), 0), path, _range(value)))
    found.sort(key=lambda item: item[0], reverse=reverse)
    return [(name, value) for _, name, value in found]
