"""Remat policies, attention kernels and int8 matmuls inside the model: the same gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer, from_dict, init_cache, to_dict
from geex_jax.models.remat import POLICIES

CONFIG = ModelConfig(
    vocab_size=64,
    context_length=32,
    d_model=32,
    num_layers=2,
    num_heads=2,
    d_ff=64,
    gated_mlp=True,
    top_query_layer=False,
)
TOKENS = jax.random.randint(jax.random.key(1), (2, 32), 0, 64)
SEGMENTS = jnp.asarray(np.repeat([[1] * 9 + [2] * 18 + [0] * 5], 2, axis=0), jnp.int32)


@functools.cache
def parameters():
    return jax.jit(Transformer(CONFIG).init)(jax.random.key(0), TOKENS)["params"]


def gradient(config, params):
    def loss(params):
        logits = Transformer(config).apply({"params": params}, TOKENS, segment_ids=SEGMENTS)
        return jnp.mean(jnp.square(jax.nn.log_softmax(logits)[:, :27]))

    return jax.value_and_grad(loss)(params)


def lowered(config):
    return jax.jit(functools.partial(gradient, config)).lower(parameters())


def assert_same(got, want, rtol=1e-4):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=rtol * np.abs(b).max() + 1e-9)


@pytest.fixture(scope="module")
def plain():
    return jax.jit(functools.partial(gradient, CONFIG))(parameters())


@pytest.mark.parametrize("remat", list(POLICIES))
def test_no_policy_changes_the_gradients(plain, remat):
    got = jax.jit(functools.partial(gradient, CONFIG.replace(remat=remat)))(parameters())
    assert_same(got, plain)


def test_policies_keep_what_they_say():
    """The fewer a policy keeps, the more matmuls its backward pass computes again."""
    dots = {
        remat: lowered(CONFIG.replace(remat=remat)).as_text().count("dot_general")
        for remat in ("none", "dots", "minimal", "qkv", "ctx", "full")
    }
    assert dots["none"] == dots["dots"]
    assert dots["dots"] < dots["minimal"] < dots["qkv"] <= dots["full"]
    assert dots["minimal"] < dots["ctx"] < dots["full"], dots


@pytest.mark.parametrize("remat", ["qkv_offload", "minimal_offload"])
def test_offload_goes_to_pinned_host_memory(remat):
    """A CPU has no other memory, and runs it as it is; tests/kernels compiles it for TPUs."""

    def traced(name):
        config = CONFIG.replace(remat=name)
        return str(jax.make_jaxpr(functools.partial(gradient, config))(parameters()))

    assert "host" in traced(remat).lower()
    assert "host" not in traced(remat.split("_")[0]).lower()


def test_a_kernel_in_the_model_gives_the_same_gradients_and_needs_no_mask(plain):
    config = CONFIG.replace(attention="splash", remat="ctx")
    run = lowered(config)
    text = run.as_text()
    assert "32x32xi1>" not in text and "32x32xi1>" in lowered(CONFIG).as_text()
    assert_same(run.compile()(parameters()), plain)


def test_intermediates_of_a_kernel_are_all_but_probs():
    def sown(config):
        run = functools.partial(Transformer(config).apply, mutable=["intermediates"])
        shapes = jax.eval_shape(lambda p: run({"params": p}, TOKENS)[1], parameters())
        layers = shapes["intermediates"]["layers"]
        return set(layers) | set(layers.get("attention", {}))

    assert sown(CONFIG) == {"attention_out", "mlp_out", "residual", "attention", "probs"}
    assert sown(CONFIG.replace(attention="splash")) == {"attention_out", "mlp_out", "residual"}


def test_a_pass_with_a_cache_is_plain():
    config = CONFIG.replace(attention="splash")
    cache = init_cache(config, 2, 32)
    text = (
        jax.jit(lambda p: Transformer(config).apply({"params": p}, TOKENS[:, :4], kv_cache=cache))
        .lower(parameters())
        .as_text()
    )
    assert "4x32xi1>" in text


def test_kernels_without_dropout_or_late_windows():
    with pytest.raises(GeexError, match="'splash' has no dropout"):
        CONFIG.replace(attention="splash", dropout=0.1)
    with pytest.raises(GeexError, match="'cudnn' has no window_from_layer"):
        CONFIG.replace(attention="cudnn", sliding_window=8, window_from_layer=1)
    assert CONFIG.replace(attention="splash", sliding_window=8).sliding_window == 8


def test_configs_written_before_there_were_kernels_still_open():
    old = to_dict(CONFIG)
    del old["attention"], old["matmul"]
    assert from_dict(old) == CONFIG
