"""One pure function: `train_step(state, batch) -> (state, metrics)`."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from geex_jax.errors import GeexError
from geex_jax.models import Transformer
from geex_jax.parallel import ZERO_STAGES, batch_sharding, shardings, use_mesh
from geex_jax.training.loss import Batch, loss_fn


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What one step does besides the model and the optimizer.

    Attributes:
      accumulate: the batch is cut into this many parts, run one after the other.
      loss_chunk: positions of a row whose logits exist at a time.
      skip_sigma: a step is skipped when its loss or gradient norm lies more than this many
        standard deviations above the mean of the last `skip_window` good steps, or is not
        finite. 0 skips only what is not finite.
      skip_window: steps that the mean is taken over; no spike is seen before half of them.
      zero: what is split over the mesh axis `fsdp`: 1 the optimizer's state, 2 gradients too,
        3 parameters too; 0 nothing. The numbers are the same.
      languages: how many there are, for `by_language` in the metrics; 0 leaves it out.
    """

    accumulate: int = 1
    loss_chunk: int = 512
    skip_sigma: float = 6.0
    skip_window: int = 128
    zero: int = 3
    languages: int = 0

    def __post_init__(self):
        if self.accumulate < 1 or self.loss_chunk < 1 or self.skip_window < 2:
            raise GeexError(f"{self}", "accumulate and loss_chunk >= 1, skip_window >= 2")
        if self.zero not in ZERO_STAGES:
            raise GeexError(f"zero = {self.zero!r} is no stage of ZeRO", "give 0, 1, 2 or 3")


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes, and (static) how it changes it.

    Attributes:
      step: int32 [], steps taken, skipped ones included.
      skipped: int32 [], steps skipped.
      params, opt_state: trees.
      history: float32 [2, skip_window], loss and gradient norm of the last good steps.
      good: int32 [], good steps taken.
      seed: int32 [], of dropout.
      model, optimizer, config: static.
    """

    step: jax.Array
    skipped: jax.Array
    params: Any
    opt_state: Any
    history: jax.Array
    good: jax.Array
    seed: jax.Array
    model: Transformer = flax.struct.field(pytree_node=False)
    optimizer: optax.GradientTransformation = flax.struct.field(pytree_node=False)
    config: StepConfig = flax.struct.field(pytree_node=False)


REPLICATED = ("step", "skipped", "history", "good", "seed")


def init_state(
    model: Transformer,
    optimizer: optax.GradientTransformation,
    seed: int = 0,
    config: StepConfig | None = None,
    params: Any = None,
) -> TrainState:
    """A state at step 0, with fresh parameters unless some are given."""
    config = config or StepConfig()
    if params is None:
        tokens = jnp.zeros((1, 1), jnp.int32)
        params = model.init(jax.random.key(seed), tokens)["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        history=jnp.zeros((2, config.skip_window), jnp.float32),
        good=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.int32),
        model=model,
        optimizer=optimizer,
        config=config,
    )


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one optimizer step. Pure: jit it as it is, or through `jit_train_step`.

    Args:
      state: from `init_state`.
      batch: see `loss_fn`; B must be a multiple of `config.accumulate`.

    Returns:
      The new state and the metrics, all float32 []: `loss` (nats per token), `tokens` (that
      counted), `grad_norm` (before clipping), `param_norm`, `skipped` (1 if this step was),
      `not_finite`, `limit` (of the loss, infinite before the window is half full); and
      `by_language` float32 [4, languages] (see `_by_language`) if the config says how many.
    """
    loss, tokens, grads, by_language = _gradients(state, batch)
    grad_norm = optax.tree.norm(grads)
    observed = jnp.stack([loss, grad_norm])
    limit = _limits(state)
    finite = jnp.all(jnp.isfinite(observed))
    skip = ~finite | jnp.any(observed > limit)

    updates, opt_state = state.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    slot = state.good % state.config.skip_window

    def keep(new, old):
        return jax.tree.map(lambda n, o: jnp.where(skip, o, n), new, old)

    new = dataclasses.replace(
        state,
        step=state.step + 1,
        skipped=state.skipped + skip,
        params=keep(params, state.params),
        opt_state=keep(opt_state, state.opt_state),
        history=keep(state.history.at[:, slot].set(observed), state.history),
        good=state.good + ~skip,
    )
    metrics = {
        "loss": loss,
        "tokens": tokens,
        "grad_norm": grad_norm,
        "param_norm": optax.tree.norm(new.params),
        "skipped": skip.astype(jnp.float32),
        "not_finite": (~finite).astype(jnp.float32),
        "limit": limit[0],
    }
    if by_language is not None:
        metrics["by_language"] = by_language
    return new, metrics


def _limits(state: TrainState) -> jax.Array:
    # [2]: mean + sigma * std of loss and gradient norm over the window, once it is half full.
    window, sigma = state.config.skip_window, state.config.skip_sigma
    filled = jnp.minimum(state.good, window)
    valid = jnp.arange(window) < filled
    count = jnp.maximum(filled, 1)
    mean = jnp.sum(state.history * valid, axis=1) / count
    var = jnp.sum(jnp.square(state.history - mean[:, None]) * valid, axis=1) / count
    # A flat window would make every wiggle a spike: at least 5 % of the mean counts as one sigma.
    limit = mean + sigma * jnp.maximum(jnp.sqrt(var), 0.05 * mean)
    return jnp.where((filled * 2 >= window) & (sigma > 0), limit, jnp.inf)


def _by_language(nll: jax.Array, batch: Batch, config: StepConfig) -> jax.Array | None:
    """Float32 [4, languages]: nats, targets that count, bytes of their text, tokens seen.

    The batch then also has `language` and `text_bytes` (of each target), both int32 [B, S].
    """
    if not config.languages:
        return None
    counts = batch["loss_mask"] > 0
    rows = jnp.stack(
        [
            jnp.sum(x, axis=1, dtype=jnp.float32)
            for x in (
                jnp.where(counts, nll, 0),
                counts,
                jnp.where(counts, batch["text_bytes"], 0),
                batch["segment_ids"] > 0,
            )
        ]
    )
    mine = jax.nn.one_hot(batch["language"][:, 0], config.languages)
    return jnp.sum(rows[:, :, None] * mine, axis=1)


def _gradients(state: TrainState, batch: Batch) -> tuple[jax.Array, jax.Array, Any, Any]:
    config, model = state.config, state.model
    tokens = jnp.sum(batch["loss_mask"])
    weights = batch["loss_mask"] / jnp.maximum(tokens, 1.0)
    key = None
    if model.config.dropout:
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    run = functools.partial(loss_fn, model=model, chunk=config.loss_chunk)
    gradient = jax.value_and_grad(run, has_aux=True)

    if config.accumulate == 1:
        (loss, aux), grads = gradient(state.params, batch, weights=weights, dropout_key=key)
        found = _by_language(aux["nll"], batch, config)
        return loss, tokens, _placed(grads, config.zero), found

    rows = batch["tokens"].shape[0]
    if rows % config.accumulate:
        raise GeexError(
            f"a batch of {rows} rows does not divide into {config.accumulate} parts",
            "change train.batch_size or train.accumulate",
        )

    def split(x):  # row i goes to part i % accumulate, so that every device has its share of each
        return jnp.moveaxis(
            x.reshape(rows // config.accumulate, config.accumulate, *x.shape[1:]), 1, 0
        )

    def body(carry, xs):
        index, part, part_weights = xs
        part_key = None if key is None else jax.random.fold_in(key, index)
        (loss, aux), grads = gradient(
            state.params, part, weights=part_weights, dropout_key=part_key
        )
        grads = _placed(jax.tree.map(jnp.add, carry[1], grads), config.zero)
        return (carry[0] + loss, grads), _by_language(aux["nll"], part, config)

    rowwise = {k: v for k, v in batch.items() if v.shape[:1] == (rows,)}
    zeros = _placed(jax.tree.map(jnp.zeros_like, state.params), config.zero)
    start = (jnp.zeros(()), zeros)
    indices = jnp.arange(config.accumulate)
    xs = (indices, jax.tree.map(split, rowwise), split(weights))
    (loss, grads), found = jax.lax.scan(body, start, xs)
    return loss, tokens, grads, jax.tree.map(lambda x: jnp.sum(x, axis=0), found)


def _placed(grads: Any, zero: int) -> Any:
    # Says where gradients lie on the mesh in use, so that their sum over it is no larger than it
    # must be; without a word the compiler may choose another place for each.
    mesh = jax.sharding.get_abstract_mesh()
    if not any(n > 1 for n in mesh.shape.values()):
        return grads
    whole = () if "gradients" in ZERO_STAGES[zero] else ("",)
    return jax.lax.with_sharding_constraint(grads, shardings(mesh, grads, whole=whole))


def state_shardings(mesh: jax.sharding.Mesh, state: TrainState) -> TrainState:
    """Where each leaf of the state lies on the mesh."""
    split = ZERO_STAGES[state.config.zero]
    names = {"params": "params", "optimizer": "opt_state"}
    whole = tuple(path for what, path in names.items() if what not in split)
    return shardings(mesh, state, REPLICATED, whole=whole)


def sharded_init(mesh: jax.sharding.Mesh, make: Any) -> TrainState:
    """Runs `make() -> TrainState` so that every leaf is born in its place on the mesh."""
    with use_mesh(mesh):
        out = state_shardings(mesh, jax.eval_shape(make))
        return jax.jit(make, out_shardings=out)()


def jit_train_step(mesh: jax.sharding.Mesh, state: TrainState) -> Any:
    """`train_step` jitted over the mesh: state donated, shardings of the state kept.

    Call the result, or `.lower(...)` it, inside `use_mesh(mesh)`.
    """
    place = state_shardings(mesh, state)
    return jax.jit(
        train_step,
        in_shardings=(place, batch_sharding(mesh)),
        out_shardings=(place, NamedSharding(mesh, PartitionSpec())),  # every process reads all
        donate_argnums=0,
    )
