"""The parts that a config picks, on models small enough to check by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.kernels import unpack_int4
from geex_jax.models import (
    ModelConfig,
    Transformer,
    init_cache,
    segment_positions,
    stack_layers,
    unstack_layers,
)
from geex_jax.models.layers import fast_gelu, rotary_tables, rotate, sinusoid
from geex_jax.quantize.weights import quantize_params
from tests.models.running import apply, init

SMALL = ModelConfig(
    vocab_size=64, context_length=32, d_model=32, num_layers=2, num_heads=4, d_ff=64
)
PARTS = {
    "codegeex": {},
    "gptj": {
        "position": "rotary", "rotary_dim": 4, "rotary_style": "interleaved",
        "residual": "parallel",
        "shared_norm": True, "qkv_bias": False, "output_bias": False, "tied_head": False,
        "head_bias": True, "top_query_layer": False, "activation": "gelu_tanh",
    },
    "neox": {
        "position": "rotary", "rotary_dim": 2, "residual": "parallel", "tied_head": False,
        "top_query_layer": False, "activation": "gelu",
    },
    "llama": {
        "position": "rotary", "norm": "rmsnorm", "gated_mlp": True, "activation": "silu",
        "num_kv_heads": 2, "qkv_bias": False, "output_bias": False, "mlp_bias": False,
        "tied_head": False, "top_query_layer": False,
    },
    "xglm": {
        "position": "sinusoidal", "position_offset": 2, "embedding_scale": 32**0.5,
        "activation": "gelu", "top_query_layer": False,
    },
    "starcoder2": {
        "position": "rotary", "num_kv_heads": 1, "sliding_window": 5, "top_query_layer": False,
        "activation": "gelu_tanh",
    },
    "qwen2": {
        "position": "rotary", "norm": "rmsnorm", "gated_mlp": True, "activation": "silu",
        "num_kv_heads": 2, "output_bias": False, "mlp_bias": False, "sliding_window": 3,
        "window_from_layer": 1, "top_query_layer": False,
    },
    "glm": {
        "position": "rotary", "norm": "rmsnorm", "gated_mlp": True, "activation": "silu",
        "num_kv_heads": 2, "head_dim": 12, "rotary_dim": 6, "rotary_style": "interleaved",
        "rotary_factor": 2.0, "output_bias": False, "mlp_bias": False, "head_bias": True,
        "top_query_layer": False,
    },
}  # fmt: skip


@functools.cache
def build(name):
    config = SMALL.replace(**PARTS[name])
    model = Transformer(config)
    tokens = jax.random.randint(jax.random.key(1), (2, 12), 0, 64)
    params = init(model, tokens)
    # Larger weights: with the initial ones a wrong mask would change next to nothing.
    params = jax.tree.map(lambda x: x * 5 if x.ndim > 1 else x, params)
    return model, params, tokens


@pytest.mark.parametrize("name", PARTS)
def test_cache_decode_equals_the_full_pass(name):
    model, params, tokens = build(name)
    full = apply(model, params, tokens)
    cache = init_cache(model.config, 2, 16)
    first, cache = apply(model, params, tokens[:, :5], kv_cache=cache)
    parts = [first]
    for i in range(5, 12):
        logits, cache = apply(model, params, tokens[:, i : i + 1], kv_cache=cache)
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, 1), full, atol=2e-4, rtol=1e-4)
    assert cache.length.tolist() == [12, 12]


@pytest.mark.parametrize("name", PARTS)
def test_unstacking_and_stacking_layers(name):
    model, params, tokens = build(name)
    loose = Transformer(model.config.replace(scan_layers=False))
    out = apply(loose, unstack_layers(params), tokens)
    np.testing.assert_allclose(out, apply(model, params, tokens), atol=2e-5, rtol=1e-5)
    again = stack_layers(unstack_layers(params))
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize("name", PARTS)
def test_packed_segments_equal_documents_alone(name):
    model, params, tokens = build(name)
    packed = jnp.concatenate([tokens[:1, :7], tokens[1:, :5]], axis=1)
    segments = jnp.array([[1] * 7 + [2] * 5])
    logits = apply(model, params, packed, segment_ids=segments)
    first = apply(model, params, tokens[:1, :7])
    second = apply(model, params, tokens[1:, :5])
    np.testing.assert_allclose(logits[:, :7], first, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(logits[:, 7:], second, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PARTS)
def test_causality_by_gradients(name):
    model, params, tokens = build(name)
    config = model.config
    vectors = params["embedding"]["tokens"][tokens[:1]]

    @jax.jit
    @jax.grad
    def gradient(vectors, at):  # the embedding of each position, as if it were its own token
        table = jnp.zeros((64, config.d_model)).at[:12].set(vectors[0])
        tree = {**params, "embedding": {**params["embedding"], "tokens": table}}
        if config.tied_head:
            hidden = model.apply({"params": tree}, jnp.arange(12)[None], method="hidden")
            return jnp.sum(hidden[0, at] ** 2)
        return jnp.sum(model.apply({"params": tree}, jnp.arange(12)[None])[0, at] ** 2)

    window = config.sliding_window
    for at in (0, 5, 11):
        norms = np.linalg.norm(gradient(vectors, at)[0], axis=-1)
        assert (norms[at + 1 :] == 0).all()
        assert norms[at] > 0
        if window is None or at < window or config.window_from_layer > 0:
            assert (norms[: at + 1] > 0).all()
        elif config.num_layers * (window - 1) < at:
            assert (norms[: at - config.num_layers * (window - 1)] == 0).all()


def test_a_window_from_a_layer_on():
    model, params, tokens = build("qwen2")

    def probs(**changes):
        config = model.config.replace(num_layers=3, **changes)
        three = {
            **params,
            "layers": jax.tree.map(lambda x: x[jnp.array([0, 1, 1])], params["layers"]),
        }
        run = jax.jit(functools.partial(Transformer(config).apply, mutable=["intermediates"]))
        return run({"params": three}, tokens)[1]["intermediates"]["layers"]["attention"]["probs"][0]

    far = np.tril(np.ones((12, 12), bool), -3)  # keys that a window of 3 hides
    got = probs(window_from_layer=1)
    assert (got[0][..., far] > 0).all()
    assert (got[1:][..., far] == 0).all()
    np.testing.assert_array_equal(probs(window_from_layer=3), probs(sliding_window=None))
    assert (probs(window_from_layer=0)[..., far] == 0).all()


def test_two_masks_exist_only_where_layers_differ():
    model, _, tokens = build("qwen2")

    def selects(**changes):
        model_ = Transformer(model.config.replace(**changes))
        shapes = jax.eval_shape(model_.init, jax.random.key(0), tokens)
        run = jax.jit(lambda p: model_.apply(p, tokens))
        return run.lower(shapes).as_text().count("tensor<1x1x12x12xi1>")

    assert selects() > selects(window_from_layer=0) > 0
    assert selects(sliding_window=None) == selects(sliding_window=None, window_from_layer=0)


@pytest.mark.parametrize("tied", [True, False])
def test_the_bias_of_a_head_is_added_to_logits(tied):
    plain, params, tokens = build("qwen2")
    config = plain.config.replace(tied_head=tied, head_bias=True)
    bias = jnp.arange(64.0)
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), tokens)["params"]
    assert set(shapes["head"]) == ({"bias"} if tied else {"bias", "kernel"})
    kernel = {} if tied else {"kernel": params["embedding"]["tokens"].T}
    with_bias = {**params, "head": {"bias": bias, **kernel}}
    logits = apply(Transformer(config), with_bias, tokens)
    expected = apply(plain, params, tokens) + bias
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    # Quantizing leaves the head alone.
    assert quantize_params(with_bias)["head"]["bias"] is bias


@pytest.mark.parametrize("tied", [True, False])
def test_bfloat16_logits_are_not_rounded_to_bfloat16(tied):
    model, params, tokens = build("llama")
    config = model.config.replace(tied_head=tied, head_bias=True, dtype="bfloat16")
    params = {**params, "head": {**params["head"], "bias": jnp.zeros(64)}}
    logits = apply(Transformer(config), params, tokens)
    assert logits.dtype == jnp.float32
    assert (logits != logits.astype(jnp.bfloat16).astype(jnp.float32)).mean() > 0.9


def test_positions_restart_at_each_segment():
    ids = jnp.array([[1, 1, 1, 2, 2, 0], [0, 0, 1, 1, 1, 1]])
    assert segment_positions(ids).tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 1, 2, 3]]


def test_fast_gelu_is_the_official_expression():
    x = jnp.linspace(-20, 20, 4001)
    official = x / (1 + jnp.exp(-1.702 * jnp.abs(x))) * jnp.exp(0.851 * (x - jnp.abs(x)))
    np.testing.assert_allclose(fast_gelu(x), official, atol=2e-6)


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_rotary_scores_depend_on_distance_alone(style):
    config = SMALL.replace(position="rotary", rotary_style=style, top_query_layer=False)
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def score(i, j):
        turned = [
            rotate(config, x, rotary_tables(config, jnp.array([[p]]))) for x, p in ((q, i), (k, j))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert score(3, 1) == pytest.approx(score(9, 7), abs=1e-5)
    assert score(0, 0) == pytest.approx(float(jnp.sum(q * k)), abs=1e-5)
    assert abs(score(3, 1) - score(4, 1)) > 1e-4


def test_sinusoid_rows():
    table = sinusoid(jnp.array([[0, 1]]), 8)[0]
    np.testing.assert_allclose(table[0], [0] * 4 + [1] * 4, atol=1e-7)
    step = np.log(10000) / 3
    np.testing.assert_allclose(table[1, :4], np.sin(np.exp(-step * np.arange(4))), atol=1e-6)


def test_int4_nibbles_the_even_column_high():
    packed = jnp.array([[0x7F, 0x80, 0x19]], jnp.uint8)
    assert unpack_int4(packed).tolist() == [[7, -1, -8, 0, 1, -7]]


def test_too_many_tokens_for_the_context():
    model, params, _ = build("codegeex")
    with pytest.raises(ValueError, match="33 tokens do not fit a context of 32"):
        model.apply({"params": params}, jnp.zeros((1, 33), jnp.int32))


def test_bfloat16_logits_are_close():
    model, params, tokens = build("codegeex")
    half = Transformer(model.config.replace(dtype="bfloat16"))
    full = apply(model, params, tokens)
    got = apply(half, params, tokens)
    assert got.dtype == jnp.float32
    assert float(jnp.abs(got - full).max()) < 0.05 * float(jnp.abs(full).max())
