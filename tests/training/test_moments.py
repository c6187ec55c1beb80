"""Adam with moments in 16 and 8 bits: what is stored, how small, and that it learns as well."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer
from geex_jax.parallel import batch_sharding, by_path, make_mesh, use_mesh
from geex_jax.training.moments import Codes, _rounded, decode, encode
from geex_jax.training.optimizer import OptimizerConfig, make_optimizer
from geex_jax.training.step import init_state, jit_train_step, sharded_init

CONFIG = ModelConfig(
    vocab_size=64,
    context_length=16,
    d_model=32,
    num_layers=1,
    num_heads=2,
    d_ff=64,
    top_query_layer=False,
)
STEPS = 16


def batches(count):
    rng = np.random.default_rng(0)
    start = rng.integers(0, 64, (count, 8, 1))
    tokens = ((start + 3 * np.arange(17)) % 64).astype(np.int32)  # the next is 3 further
    for rows in tokens:
        yield {
            "tokens": rows[:, :-1],
            "targets": rows[:, 1:],
            "positions": np.broadcast_to(np.arange(16, dtype=np.int32), (8, 16)),
            "segment_ids": np.ones((8, 16), np.int32),
            "loss_mask": np.ones((8, 16), np.float32),
        }


@functools.cache
def built(moments, fsdp, tensor):
    mesh = make_mesh({"fsdp": fsdp, "tensor": tensor})
    optimizer = make_optimizer(OptimizerConfig(lr=1e-2, warmup=2, steps=2 * STEPS, moments=moments))
    state = sharded_init(mesh, lambda: init_state(Transformer(CONFIG), optimizer, 3))
    return mesh, state, jit_train_step(mesh, state)


def train(moments, steps, fsdp=1, tensor=1, state=None, skip=0):
    mesh, first, step = built(moments, fsdp, tensor)
    state = jax.tree.map(jnp.copy, first) if state is None else state  # a step donates it
    losses = []
    with use_mesh(mesh):
        for number, batch in enumerate(batches(steps)):
            if number >= skip:
                state, metrics = step(state, jax.device_put(batch, batch_sharding(mesh)))
                losses.append(float(metrics["loss"]))
    return np.array(losses), state


@pytest.fixture(scope="module")
def exact():
    return train("float32", STEPS)


@pytest.mark.parametrize(("moments", "tolerance"), [("bfloat16", 0.01), ("int8", 0.04)])
def test_it_learns_as_with_float32(exact, moments, tolerance):
    losses, _ = train(moments, STEPS)
    assert exact[0][-1] < 0.8 * exact[0][0]
    np.testing.assert_allclose(losses, exact[0], rtol=tolerance)


@pytest.mark.parametrize(("moments", "share"), [("bfloat16", 0.5), ("int8", 0.34)])
def test_the_state_is_smaller(moments, share):
    def size(kind):
        return sum(x.nbytes for x in jax.tree.leaves(built(kind, 1, 1)[1].opt_state))

    assert size(moments) < share * size("float32") + 100


def test_float32_is_optax_own_adamw():
    leaves = jax.tree.leaves(built("float32", 1, 1)[1].opt_state)
    assert all(x.dtype in (jnp.float32, jnp.int32) for x in leaves)
    assert type(built("float32", 1, 1)[1].opt_state[1][0]).__name__ == "ScaleByAdamState"


@pytest.mark.parametrize("moments", ["bfloat16", "int8"])
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path, moments):
    want, end = train(moments, 5)
    _, middle = train(moments, 3)
    tree = {"params": middle.params, "opt_state": middle.opt_state, "good": middle.good}
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "state", tree)
        saver.wait_until_finished()
        restored = saver.restore(tmp_path / "state", jax.eval_shape(lambda: tree))
    fresh = jax.tree.map(jnp.copy, built(moments, 1, 1)[1])
    state = dataclasses.replace(
        fresh,
        **restored,
        history=middle.history,
        step=middle.step,
    )
    losses, again = train(moments, 5, state=state, skip=3)
    np.testing.assert_array_equal(losses, want[3:])
    jax.tree.map(np.testing.assert_array_equal, again.opt_state, end.opt_state)


def test_codes_lie_on_a_mesh_as_their_parameters_do():
    losses, state = train("int8", 3, fsdp=4, tensor=2)
    alone, _ = train("int8", 3)
    np.testing.assert_allclose(losses, alone, rtol=1e-4)
    moment = state.opt_state[1][0].nu
    assert isinstance(moment, Codes)
    name = "layers/mlp/up/kernel"
    param, code, row, column = (
        by_path(tree)[name] for tree in (state.params, moment.code, moment.row, moment.column)
    )
    assert code.dtype == jnp.uint8 and code.sharding == param.sharding
    assert (row.shape, column.shape) == ((1, 32, 1), (1, 1, 64))
    assert row.addressable_shards[0].data.shape == (1, 8, 1)
    assert column.addressable_shards[0].data.shape == (1, 1, 32)
    assert by_path(moment.code)["final_norm/scale"].dtype == jnp.float32


@pytest.mark.parametrize("signed", [True, False])
def test_codes_are_near_and_without_bias(signed):
    rng = np.random.default_rng(1)
    x = np.exp(rng.normal(-9, 2, (16, 64))).astype(np.float32)
    x[0] = 0
    x *= rng.choice([-1, 1], x.shape) if signed else 1
    x = jnp.asarray(x)
    keys = jax.random.split(jax.random.key(0), 400)
    read = jax.vmap(lambda key: decode(*encode(x, key, signed), signed))(keys)
    assert (np.asarray(read[:, 0]) == 0).all()
    scale = np.minimum(*(np.abs(x).max(axis, keepdims=True) for axis in (0, 1)))
    large = np.abs(x) > 1e-3 * scale
    error = np.abs(read - x) / np.maximum(np.abs(x), 1e-30)
    assert error[:, large].max() < 0.6 and np.median(error[:, large]) < 0.07
    # The mean of 400 roundings lies within 5 standard errors, half a code's distance being sigma.
    most, power = (127, 2) if signed else (255, 4)
    root = (np.abs(x) / np.maximum(scale, 1e-30)) ** (1 / power) + 1 / most
    step = scale * power / most * root ** (power - 1)
    bias = np.abs(np.asarray(read, np.float64).mean(axis=0) - x)
    assert (bias <= 5 * step / 2 / 20 + 1e-5 * np.abs(x))[large].all()
    if not signed:
        assert (np.asarray(read)[:, 1:] > 0).all()


def test_bfloat16_is_rounded_without_bias():
    x = jnp.asarray([1 + 2**-9, -3.0, 0.0, 1e-20, -1 - 3 * 2**-10], jnp.float32)
    keys = jax.random.split(jax.random.key(0), 4000)
    read = jax.vmap(lambda key: _rounded(x, key))(keys).astype(jnp.float32)
    np.testing.assert_allclose(read.mean(axis=0), x, rtol=5e-4)
    assert len(np.unique(np.asarray(read[:, 0]))) == 2


def test_an_unknown_kind_is_refused():
    with pytest.raises(GeexError, match=r"optimizer.moments = 'int4' is not known"):
        OptimizerConfig(moments="int4")  # pyright: ignore[reportArgumentType]
