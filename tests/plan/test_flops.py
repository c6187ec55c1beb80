"""FLOPs counted on jaxprs, against the convention and against what can be said by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from geex_jax.parallel import make_mesh
from geex_jax.plan.flops import count
from geex_jax.training.config import default_config
from geex_jax.training.metrics import flops_per_token
from geex_jax.training.program import train_program

X = jax.ShapeDtypeStruct((8, 16), jnp.float32)
W = jax.ShapeDtypeStruct((16, 16), jnp.float32)
MATMUL = 2 * 8 * 16 * 16


def flops(fn, *args):
    return count(jax.make_jaxpr(fn)(*args))


def test_a_scan_counts_as_often_as_it_runs_and_a_branch_once():
    def run(x, w):
        x, _ = jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=5)
        return jax.lax.cond(x[0, 0] > 0, lambda a: (a @ w) @ w, lambda a: a @ w, x)

    assert flops(run, X, W).total == 7 * MATMUL


def test_a_loop_of_unknown_length_counts_once_and_is_said():
    def run(x, w):
        return jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c @ w, x)

    found = flops(run, X, W)
    assert found.total == MATMUL and found.loops == 1


def test_remat_and_custom_rules_count_what_runs():
    @jax.custom_vjp
    def double(x, w):
        return x @ w

    double.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, g: (g @ r[1].T, r[0].T @ g))
    assert flops(double, X, W).total == MATMUL

    def loss(x, w):
        return jnp.sum(jnp.sin(jax.checkpoint(lambda a: jnp.sin(a @ w) @ w)(double(x, w))))

    # Forward: three; again: the inner one, whose sine the second's gradient needs; backward: six.
    assert flops(jax.grad(loss, argnums=(0, 1)), X, W).total == pytest.approx(10 * MATMUL, rel=0.11)


def test_a_convolution():
    x = jax.ShapeDtypeStruct((2, 10, 3), jnp.float32)
    k = jax.ShapeDtypeStruct((4, 3, 5), jnp.float32)
    found = flops(
        lambda a, b: jax.lax.conv_general_dilated(
            a, b, (1,), "VALID", dimension_numbers=("NHC", "HIO", "NHC")
        ), x, k,
    )  # fmt: skip
    assert found.total == 2 * (2 * 7 * 5) * (4 * 3)


def test_the_body_of_a_shard_map_runs_on_every_device():
    mesh = make_mesh({"fsdp": 4}, jax.devices()[:4])
    run = jax.shard_map(
        lambda x, w: x @ w, mesh=mesh, in_specs=(PartitionSpec("fsdp"), PartitionSpec()),
        out_specs=PartitionSpec("fsdp"),
    )  # fmt: skip
    assert flops(run, X, W).total == MATMUL


def test_pallas_kernels_count_by_what_they_declare_and_others_are_said():
    def copy(x_ref, o_ref):
        o_ref[...] = x_ref[...]

    def call(name, cost):
        return pl.pallas_call(copy, out_shape=X, name=name, cost_estimate=cost, interpret=True)

    cost = pl.CostEstimate(flops=1000, transcendentals=0, bytes_accessed=0)

    def run(x):
        return call("mystery", None)(call("known", cost)(x))

    found = flops(run, X)
    assert found.total == 1000 and found.kernels == {"known": 1000} and found.unknown == ["mystery"]


def test_int8_matmuls_are_told_apart():
    q = jax.ShapeDtypeStruct((16, 16), jnp.int8)

    def run(a, b, x):
        return jax.lax.dot(a, b, preferred_element_type=jnp.int32), x @ x.T

    assert flops(run, q, q, X).int8 == 2 * 16**3


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_whole_train_step_without_remat_is_the_convention_exactly(accumulate):
    config = default_config()
    config.model.preset = "geex-3m"
    config.batch_size, config.accumulate = 8, accumulate
    program = train_program(config, make_mesh({"fsdp": 1}, jax.devices()[:1]))
    found = count(program.step.trace(program.state, program.batch).jaxpr)
    tokens = np.prod(program.batch["tokens"].shape)
    assert found.total / tokens == flops_per_token(program.model, program.model.context_length)
