"""The written-out gradient of LayerNorm is flax's, and so is the result."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.models.norm import LayerNorm


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_result_and_gradients_are_those_of_flax(dtype):
    ours = LayerNorm(1e-5, jnp.float32)
    flax = nn.LayerNorm(1e-5, jnp.float32, jnp.float32, use_fast_variance=False)
    keys = jax.random.split(jax.random.key(0), 4)
    x = (3 + 5 * jax.random.normal(keys[0], (4, 7, 48))).astype(dtype)  # a mean far from 0
    params = {
        "scale": 1 + jax.random.normal(keys[1], (48,)),
        "bias": jax.random.normal(keys[2], (48,)),
    }
    weights = jax.random.normal(keys[3], (4, 7, 48))
    assert jax.tree.all(
        jax.tree.map(
            lambda a, b: bool(jnp.array_equal(a, b)),
            dict(ours.init(keys[0], x)), dict(flax.init(keys[0], x)),
        )
    )  # fmt: skip

    def both(module):
        def loss(params, x):
            out = module.apply({"params": params}, x)
            assert out.dtype == jnp.float32
            return jnp.sum(out * weights), out

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x)

    (grads, out), (expected, result) = both(ours), both(flax)
    np.testing.assert_allclose(out, result, rtol=1e-6, atol=1e-6)
    for ours_leaf, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        assert ours_leaf.dtype == theirs.dtype
        tolerance = 1e-5 if ours_leaf.dtype == jnp.float32 else 1e-2
        np.testing.assert_allclose(
            np.asarray(ours_leaf, np.float32), np.asarray(theirs, np.float32),
            rtol=tolerance, atol=tolerance,
        )  # fmt: skip
