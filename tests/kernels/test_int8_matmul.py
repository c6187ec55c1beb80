"""int8 matmuls: near to float, int8 in the program, and a model that learns with them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from geex_jax.kernels import int8_matmul
from geex_jax.kernels.int8_matmul import quantize
from geex_jax.models import ModelConfig, Transformer
from tests.models.running import init

CONFIG = ModelConfig(
    vocab_size=64, context_length=16, d_model=32, num_layers=1, num_heads=2, d_ff=64
)


def test_rows_and_columns_are_rounded_by_half_a_step_at_most():
    x = jax.random.normal(jax.random.key(0), (5, 7, 64)) * jnp.arange(7.0)[:, None]
    codes, scale = quantize(x, -1)
    assert codes.dtype == jnp.int8 and scale.shape == (5, 7, 1)
    assert (np.abs(codes * scale - x) <= 0.5001 * scale).all()
    np.testing.assert_allclose(scale[:, 1:, 0] * 127, jnp.abs(x).max(-1)[:, 1:], rtol=1e-6)
    assert (np.asarray(codes[:, 0]) == 0).all()  # a row of zeros stays one


def test_values_and_gradients_are_near_those_of_float():
    keys = jax.random.split(jax.random.key(1), 3)
    x = jax.random.normal(keys[0], (4, 33, 256))
    kernel = jax.random.normal(keys[1], (256, 96))
    dy = jax.random.normal(keys[2], (4, 33, 96))
    want, pull = jax.vjp(lambda x, k: jnp.einsum("bti,io->bto", x, k), x, kernel)
    got, pull_int8 = jax.vjp(int8_matmul, x, kernel)
    for a, b in zip((got, pull_int8(dy)[0]), (want, pull(dy)[0]), strict=True):
        error = np.sqrt(np.mean(np.square(a - b)) / np.mean(np.square(b)))
        assert 1e-4 < error < 0.02  # two roundings of 127 steps each
    # The gradient of the weights is not rounded.
    np.testing.assert_allclose(pull_int8(dy)[1], pull(dy)[1], rtol=1e-4, atol=1e-4)


def test_forward_and_input_gradient_are_int8_the_weights_gradient_is_not():
    x, kernel = jnp.ones((2, 8, 16), jnp.bfloat16), jnp.ones((16, 4), jnp.bfloat16)

    def loss(x, kernel):
        return jnp.sum(jnp.square(int8_matmul(x, kernel)))

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, kernel).as_text()
    dots = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    whole = [line for line in dots if line.count("xi8>") == 2 and "xi32>" in line]
    assert (len(dots), len(whole)) == (3, 2), dots
    assert "xbf16>" in next(line for line in dots if line not in whole)


def test_a_tiny_model_learns_as_well():
    tokens = ((jnp.arange(8)[:, None] * 5 + 3 * jnp.arange(16)) % 64).astype(jnp.int32)
    params = init(Transformer(CONFIG), tokens)
    optimizer = optax.adam(1e-2)

    def losses(config):
        model = Transformer(config)

        def loss(params):
            logits = model.apply({"params": params}, tokens[:, :-1])
            return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), value

        run = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), None, 30)[1])
        text = run.lower(params).as_text()
        return np.asarray(run(params)), text

    want, plain_text = losses(CONFIG)
    got, text = losses(CONFIG.replace(matmul="int8"))
    assert "xi8>" in text and "xi8>" not in plain_text
    assert want[-1] < 0.5 * want[0]
    assert np.abs(got - want).max() > 1e-5
    np.testing.assert_allclose(got, want, rtol=0.05, atol=0.02)


def test_the_head_and_the_embedding_stay_float():
    config = CONFIG.replace(matmul="int8", tied_head=False, num_layers=1, top_query_layer=False)
    tokens = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), tokens)
    run = jax.jit(lambda p: Transformer(config).apply(p, tokens))
    text = run.lower(shapes).as_text()
    dots = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    int8 = [line for line in dots if line.count("xi8>") == 2]
    assert len(int8) == 6  # query, key, value, output, up, down
    assert any("x64xf32>" in line for line in dots if line not in int8)  # logits
