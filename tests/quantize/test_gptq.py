"""GPTQ: a case done by hand, its objective, the identity, and whole models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer
from geex_jax.quantize import compare, formats_of, quantize_params
from geex_jax.quantize.calibrate import calibrate_blocks, calibrate_params
from geex_jax.quantize.gptq import gptq, objective, quantize_by_inputs, search_scale
from geex_jax.quantize.policy import parse
from geex_jax.quantize.rounding import scale_of, to_integers

CONFIG = ModelConfig(
    vocab_size=48, context_length=32, d_model=64, num_heads=2, num_layers=2, d_ff=96
)


def test_two_columns_by_hand():
    # The second input is always twice the first, so what rounding w0 loses, w1 makes good by half.
    hessian = jnp.array([[1.0, 2.0], [2.0, 4.0]]) + 1e-4 * jnp.eye(2)
    weight, scale = jnp.array([[1.0, 2.4]]), jnp.array([1.0])
    # Column 1 comes first: 2.4 -> 2 loses 0.4, which is worth 0.8 of column 0: 1.8 -> 2. Damping
    # (1 % of the mean diagonal) takes a little of it: 0.4 * 2 / 1.025.
    assert gptq(weight, hessian, scale, 4).tolist() == [[2, 2]]
    assert to_integers(weight, scale, 4).tolist() == [[1, 2]]
    found = [objective(weight, jnp.array([q]), hessian) for q in ([2.0, 2.0], [1.0, 2.0])]
    assert found[0] == pytest.approx((1 - 0.8) ** 2, abs=1e-3)  # (-1 + 2 * 0.4)^2
    assert found[1] == pytest.approx(0.8**2, abs=1e-3)


@pytest.mark.parametrize(("bits", "group"), [(4, None), (4, 32), (8, None)])
def test_the_objective_falls_and_without_correlation_it_is_rounding(bits, group):
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.normal(size=(24, 160)), jnp.float32)  # more than one block of columns
    mix = rng.normal(size=(160, 160)) / 12 + np.eye(160)
    x = jnp.asarray(rng.normal(size=(500, 160)) @ mix, jnp.float32).at[:, 7].set(0)
    hessian = x.T @ x
    scale = scale_of(weight.reshape(24, -1, group) if group else weight, bits)
    plain = to_integers(weight, scale, bits)
    same = gptq(weight, 3 * jnp.eye(160), scale, bits)
    np.testing.assert_array_equal(same, plain)

    def cost(ints, by):
        parts = ints.reshape(*by.shape, -1) * by[..., None]
        return objective(weight, parts.reshape(weight.shape), hessian)

    ints = gptq(weight, hessian, scale, bits)
    assert ints.dtype == jnp.int8 and np.abs(ints).max() <= 2 ** (bits - 1) - 1
    assert cost(ints, scale) < 0.6 * cost(plain, scale)
    np.testing.assert_array_equal(ints[:, 7], plain[:, 7])  # an input that never was active
    searched = search_scale(weight, jnp.diag(hessian), bits, group)
    assert np.all(searched <= scale) and (bits == 8 or np.any(searched < scale))
    both, by = quantize_by_inputs(weight, hessian, bits, group)
    assert cost(both, by) < (1.001 if bits == 8 else 0.97) * cost(ints, scale)


def batches_of(seed, count, vocab=48):
    """Rows of a language in which a token decides about the next two."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        rows = rng.integers(0, vocab, (4, 33))
        rows[:, 1::2] = (rows[:, :-1:2] * 5 + 3) % vocab
        segments = np.repeat([[1, 2]], 16, axis=1).repeat(4, axis=0).astype(np.int32)
        segments[3, 20:] = 0
        rows = rows.astype(np.int32)
        mask = (segments > 0).astype(np.float32)
        positions = np.tile(np.arange(16), (4, 2)).astype(np.int32)
        out.append({"tokens": rows[:, :-1], "targets": rows[:, 1:], "positions": positions,
                    "segment_ids": segments, "loss_mask": mask})  # fmt: skip
    return out


@pytest.fixture(scope="module")
def model_and_params():
    model = Transformer(CONFIG)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    rng = np.random.default_rng(1)
    # Inputs of real models are correlated; so are those behind norms with uneven gains.
    params["layers"]["attention_norm"]["scale"] *= rng.lognormal(0, 1, (2, 64))
    return model, jax.tree.map(lambda x: x * 6 if x.ndim > 1 else x, params)


def test_a_model_calibrated_costs_less_than_one_rounded(model_and_params):
    model, params = model_and_params
    said = []
    got = calibrate_params(model, params, "int4-g32", batches_of(0, 4), said.append)
    assert said[-1] == "block 3 of 3"
    plain = quantize_params(params, "int4-g32")
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (got, plain)]
    assert shapes[0] == shapes[1] and formats_of(got) == formats_of(plain)
    held_out, ones = batches_of(9, 3), np.ones(48, np.int32)
    kl = [compare(model, params, tree, held_out, ones).kl for tree in (got, plain)]
    assert kl[0] < 0.8 * kl[1]
    again = calibrate_params(model, params, "int4-g32", batches_of(0, 4))
    jax.tree.map(np.testing.assert_array_equal, got, again)


def test_a_calibration_goes_on_where_it_stopped(model_and_params):
    params = model_and_params[1]

    def read(path):
        first, _, i = path.partition("/")
        return jax.tree.map(lambda x: x[int(i)], params[first]) if i else params[first]

    class Stop(dict):
        def __setitem__(self, path, leaves):
            super().__setitem__(path, leaves)
            if path == "layers/0":
                raise KeyboardInterrupt

    whole, part, table = {}, Stop(), parse("int4")
    calibrate_blocks(CONFIG, read, table, batches_of(0, 2), whole)
    with pytest.raises(KeyboardInterrupt):
        calibrate_blocks(CONFIG, read, table, batches_of(0, 2), part)
    part = dict(part)
    seen = []
    calibrate_blocks(CONFIG, lambda p: seen.append(p) or read(p), table, batches_of(0, 2), part)
    assert "layers/0" not in seen and "layers/1" in seen
    jax.tree.map(np.testing.assert_array_equal, whole, part)


def test_refusals(model_and_params):
    model, params = model_and_params
    with pytest.raises(GeexError, match="nothing to calibrate on"):
        calibrate_params(model, params, "int4", [])
    with pytest.raises(GeexError, match="groups of 64 do not divide"):
        calibrate_params(model, params, "int4-g64", batches_of(0, 1))
    with pytest.raises(GeexError, match="already int8"):
        calibrate_params(model, quantize_params(params), "int4", batches_of(0, 1))
