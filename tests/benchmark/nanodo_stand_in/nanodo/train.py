"""The train step's interface, with nanodo's own imports of what the step does not use."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import tensorflow as tf  # noqa: F401
from clu import metric_writers  # noqa: F401
from flax.training.train_state import TrainState
from jax.sharding import NamedSharding, PartitionSpec

from nanodo import metrics as metrics_lib


def optimizer(opt):
    rate = optax.warmup_cosine_decay_schedule(
        opt.init_learning_rate, opt.peak_learning_rate, opt.warmup_steps, opt.num_train_steps,
        opt.final_learning_rate,
    )  # fmt: skip

    def mask(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: not any("scale" in str(key) for key in path), params
        )

    adamw = optax.adamw(
        rate, b1=opt.b1, b2=opt.b2, eps=opt.eps, weight_decay=opt.weight_decay, mask=mask
    )
    return optax.chain(optax.clip_by_global_norm(opt.clip_by_global_norm), adamw)


def _init_train_state(c, module, rng, mesh):
    def init(rng, inputs):
        return TrainState.create(
            apply_fn=module.apply, params=module.init(rng, inputs)["params"], tx=optimizer(c.opt)
        )

    inputs = jax.ShapeDtypeStruct((1, c.model.L), jnp.int32)
    shapes = jax.eval_shape(init, rng, inputs)
    shardings = nn.get_sharding(shapes, mesh)
    return shardings, jax.jit(init, out_shardings=shardings)(rng, inputs)


def _train_step(state, in_BxL):
    loss, grads = jax.value_and_grad(lambda p: state.apply_fn(p, in_BxL))(state.params)
    new = state.apply_gradients(grads=grads)
    return new, metrics_lib.get_metrics(None, None, loss, state, grads, None)


class Trainer:
    def __init__(self, c, state, mesh, shardings, get_loss_fn):
        self.state = state
        whole = NamedSharding(mesh, PartitionSpec())
        self.step_fn = jax.jit(
            functools.partial(_train_step),
            in_shardings=(shardings, whole),
            out_shardings=(shardings, whole),
            donate_argnames=("state", "in_BxL"),
        )
