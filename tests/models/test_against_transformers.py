"""CodeGen and XGLM with random weights, copied by hand: logits equal those of transformers.

These two hold the riskiest mathematics: parallel branches behind one norm with interleaved
rotary positions, and computed positions with an offset beside scaled embeddings. The other
families are held by the tests of the conversion.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.models import ModelConfig, Transformer, init_cache

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MASK = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 10])
POSITIONS = np.where(MASK > 0, np.cumsum(MASK, axis=1) - 1, 1)
TOKENS = np.random.default_rng(0).integers(3, 61, MASK.shape)


def arrays(model):
    """The state dict as numpy, linears as [in, out], with weights large enough to matter."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
            if p.ndim == 1 and name.endswith("weight"):  # a norm's
                p.add_(1.0)
    return {k: v.numpy().T if v.ndim > 1 else v.numpy() for k, v in model.state_dict().items()}


def stack(state, layers, pattern):
    return np.stack([state[pattern.format(i)] for i in range(layers)])


def codegen():
    outside = transformers.CodeGenConfig(
        vocab_size=61, n_positions=32, n_embd=64, n_layer=2, n_head=8, rotary_dim=4, n_ctx=32,
        attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.CodeGenForCausalLM(outside).eval()
    state = arrays(theirs)
    fused = stack(state, 2, "transformer.h.{}.attn.qkv_proj.weight")
    # Columns are 4 blocks of [query, value, key], each of 2 heads.
    query, value, key = np.moveaxis(fused.reshape(2, 64, 4, 3, 16), 3, 0).reshape(3, 2, 64, 64)

    def linear(name):
        leaves = {"kernel": stack(state, 2, f"transformer.h.{{}}.{name}.weight")}
        if f"transformer.h.0.{name}.bias" in state:
            leaves["bias"] = stack(state, 2, f"transformer.h.{{}}.{name}.bias")
        return leaves

    config = ModelConfig(
        vocab_size=61, context_length=32, d_model=64, num_layers=2, num_heads=8, d_ff=256,
        activation="gelu_tanh", position="rotary", rotary_dim=4, rotary_style="interleaved",
        residual="parallel", shared_norm=True, qkv_bias=False, output_bias=False,
        tied_head=False, head_bias=True, top_query_layer=False,
    )  # fmt: skip
    params = {
        "embedding": {"tokens": state["transformer.wte.weight"].T},
        "layers": {
            "attention_norm": {
                "scale": stack(state, 2, "transformer.h.{}.ln_1.weight"),
                "bias": stack(state, 2, "transformer.h.{}.ln_1.bias"),
            },
            "attention": {
                "query": {"kernel": query}, "key": {"kernel": key}, "value": {"kernel": value},
                "output": linear("attn.out_proj"),
            },
            "mlp": {"up": linear("mlp.fc_in"), "down": linear("mlp.fc_out")},
        },
        "final_norm": {
            "scale": state["transformer.ln_f.weight"], "bias": state["transformer.ln_f.bias"],
        },
        "head": {"kernel": state["lm_head.weight"], "bias": state["lm_head.bias"]},
    }  # fmt: skip
    return theirs, config, params


def xglm():
    outside = transformers.XGLMConfig(
        vocab_size=61, max_position_embeddings=32, d_model=32, ffn_dim=48, num_layers=2,
        attention_heads=4, activation_function="gelu", attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.XGLMForCausalLM(outside).eval()
    state = arrays(theirs)

    def pair(name, leaf):
        weight, bias = (f"model.layers.{{}}.{name}.{kind}" for kind in ("weight", "bias"))
        return {leaf: stack(state, 2, weight), "bias": stack(state, 2, bias)}

    config = ModelConfig(
        vocab_size=61, context_length=32, d_model=32, num_layers=2, num_heads=4, d_ff=48,
        activation="gelu", position="sinusoidal", position_offset=2, embedding_scale=32**0.5,
        top_query_layer=False,
    )  # fmt: skip
    attention = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
    params = {
        "embedding": {"tokens": state["model.embed_tokens.weight"].T},
        "layers": {
            "attention_norm": pair("self_attn_layer_norm", "scale"),
            "attention": {k: pair(f"self_attn.{v}", "kernel") for k, v in attention.items()},
            "mlp_norm": pair("final_layer_norm", "scale"),
            "mlp": {"up": pair("fc1", "kernel"), "down": pair("fc2", "kernel")},
        },
        "final_norm": {
            "scale": state["model.layer_norm.weight"], "bias": state["model.layer_norm.bias"],
        },
    }  # fmt: skip
    return theirs, config, params


@pytest.mark.parametrize("family", [codegen, xglm])
def test_logits(family):
    theirs, config, params = family()
    params = jax.tree.map(jnp.asarray, params)
    model, tokens = Transformer(config), jnp.asarray(TOKENS)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    with torch.no_grad():
        plain = theirs(torch.tensor(TOKENS)).logits.numpy()
        padded = theirs(
            torch.tensor(TOKENS),
            attention_mask=torch.tensor(MASK),
            position_ids=torch.tensor(POSITIONS),
        ).logits.numpy()
    assert np.abs(plain).max() > 2
    run = jax.jit(model.apply)
    np.testing.assert_allclose(run({"params": params}, tokens), plain, atol=3e-4, rtol=0)
    logits = run({"params": params}, tokens, jnp.asarray(POSITIONS), jnp.asarray(MASK))
    np.testing.assert_allclose(logits[MASK > 0], padded[MASK > 0], atol=3e-4, rtol=0)
    assert np.abs(padded - plain)[0, 4:].max() > 0.01
    cached, _ = run({"params": params}, tokens, kv_cache=init_cache(config, 2, 12))
    np.testing.assert_allclose(cached, plain, atol=3e-4, rtol=0)
