"""Tiny random models with odd configs, saved by transformers: converted, they compute the same."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax import save
from geex_jax.checkpoints import convert, export
from geex_jax.checkpoints.families import HUGGING_FACE, read_config
from geex_jax.checkpoints.families.configs import comparable
from geex_jax.checkpoints.families.fields import Raw, activation
from geex_jax.checkpoints.store import load_model
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer
from geex_jax.models.layers import ACTIVATIONS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

GPTJ: dict[str, Any] = {
    "vocab_size": 45, "n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4,
}  # fmt: skip
COMMON: dict[str, Any] = {
    "vocab_size": 45, "max_position_embeddings": 24, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 37, "pad_token_id": None,
}  # fmt: skip
GROUPED: dict[str, Any] = COMMON | {"num_key_value_heads": 2}
XGLM: dict[str, Any] = {
    "vocab_size": 45, "max_position_embeddings": 24, "d_model": 36, "num_layers": 2,
    "attention_heads": 3, "ffn_dim": 29,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 500000.0,
}  # fmt: skip
WINDOW = {"use_sliding_window": True, "sliding_window": 5, "num_hidden_layers": 3}
SLIDES = ["full_attention", "sliding_attention", "sliding_attention"]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gptj": ("GPTJ", GPTJ | {"n_inner": 37, "layer_norm_epsilon": 1e-3}),
    "gptj-tied": ("GPTJ", GPTJ | {"tie_word_embeddings": True, "rotary_dim": 8}),
    "gptj-gelu": ("GPTJ", GPTJ | {"activation_function": "gelu", "rotary_dim": 2, "n_head": 2}),
    "neox": ("GPTNeoX", COMMON | {"layer_norm_eps": 1e-3}),
    "neox-serial": (
        "GPTNeoX",
        COMMON | {"use_parallel_residual": False, "rotary_pct": 0.5, "hidden_act": "gelu_new"},
    ),
    "neox-bare": (
        "GPTNeoX",
        COMMON | {"attention_bias": False, "tie_word_embeddings": True, "rotary_pct": 1.0}
        | {"hidden_act": "relu", "rotary_emb_base": 500},
    ),
    "neox-linear": ("GPTNeoX", COMMON | {"rope_scaling": {"type": "linear", "factor": 3.0}}),
    "codegen": (
        "CodeGen",
        GPTJ | {"n_embd": 48, "n_head": 12, "n_inner": 41, "rotary_dim": 2},
    ),
    "codegen-tied": (
        "CodeGen",
        GPTJ | {"tie_word_embeddings": True, "layer_norm_epsilon": 1e-3, "n_ctx": 7},
    ),
    "xglm": ("XGLM", XGLM),
    "xglm-odd": (
        "XGLM",
        XGLM | {"scale_embedding": False, "tie_word_embeddings": False, "pad_token_id": 0}
        | {"activation_function": "relu"},
    ),
    "llama": ("Llama", COMMON | {"rms_norm_eps": 1e-3, "rope_theta": 500.0}),
    "llama-biases": (
        "Llama",
        GROUPED | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
        | {"head_dim": 6, "hidden_act": "gelu_pytorch_tanh", "pretraining_tp": 2},
    ),
    "llama-llama3": ("Llama", GROUPED | {"rope_parameters": LLAMA3}),
    "llama-yarn": (
        "Llama",
        GROUPED | {"rope_parameters": YARN | {"beta_fast": 2}, "head_dim": 16},
    ),
    "llama-yarn-mscale": (
        "Llama",
        GROUPED | {"head_dim": 16, "rope_scaling": YARN | {"truncate": False, "mscale": 1.4}
                   | {"mscale_all_dim": 0.7}},
    ),
    "llama-dynamic": ("Llama", GROUPED | {"rope_scaling": {"type": "dynamic", "factor": 4.0}}),
    "llama-linear": ("Llama", GROUPED | {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "qwen2-tied-yarn": (
        "Qwen2",
        GROUPED | {"tie_word_embeddings": True}
        | {"rope_parameters": YARN | {"attention_factor": 1.3}},
    ),
    "qwen2-window": ("Qwen2", GROUPED | WINDOW | {"max_window_layers": 0}),
    "qwen2-window-middle": ("Qwen2", GROUPED | WINDOW | {"max_window_layers": 2}),
    "qwen2-window-beyond": ("Qwen2", GROUPED | WINDOW | {"max_window_layers": 9, "head_dim": 6}),
    "qwen2-layer-types": ("Qwen2", GROUPED | WINDOW | {"layer_types": SLIDES}),
    "starcoder2": ("Starcoder2", GROUPED | {"use_bias": False, "tie_word_embeddings": False}),
    "starcoder2-window": (
        "Starcoder2",
        GROUPED | {"sliding_window": 4, "hidden_act": "gelu", "norm_epsilon": 1e-3, "head_dim": 10},
    ),
    "glm": ("Glm", GROUPED | {"head_dim": 12, "attention_bias": False}),
    "glm-quarter": (
        "Glm",
        GROUPED | {"head_dim": 8, "partial_rotary_factor": 0.25, "tie_word_embeddings": True},
    ),
    "glm-whole": (
        "Glm",
        GROUPED | {"head_dim": 8, "partial_rotary_factor": 1.0, "rms_norm_eps": 1e-3},
    ),
}  # fmt: skip


ACTS = [
    "gelu", "gelu_python", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_accurate",
    "gelu_python_tanh", "quick_gelu", "relu", "silu", "swish",
]  # fmt: skip


def build(kind: str, values: dict[str, Any], seed: int = 0):
    """A model of transformers whose every parameter matters."""
    config = getattr(transformers, f"{kind}Config")(**values, attn_implementation="eager")
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval().float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.25)
            if p.ndim == 1 and name.endswith("weight"):  # a norm's
                p.add_(1.0)
    return model


def tokens(vocab: int, length: int = 19) -> np.ndarray:
    # No id below 3: what transformers does with a pad token in the middle is not asked here.
    return np.random.default_rng(1).integers(3, vocab, (2, length))


def theirs(model, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(ids), use_cache=False).logits.float().numpy()


def ours(folder: pathlib.Path, ids: np.ndarray) -> np.ndarray:
    model = load_model(folder)
    apply = jax.jit(Transformer(model.config).apply)
    return np.asarray(apply({"params": model.params}, ids))


@pytest.mark.parametrize("name", CASES)
def test_logits_of_an_odd_model(name, tmp_path):
    kind, values = CASES[name]
    model = build(kind, values)
    model.save_pretrained(tmp_path / "hf")
    ids = tokens(values["vocab_size"])
    expected = theirs(model, ids)
    folder = convert(tmp_path / "hf", tmp_path / "ours")
    assert expected.std() > 0.3  # not all alike
    np.testing.assert_allclose(ours(folder, ids), expected, atol=3e-4, rtol=0)


def test_bfloat16_stays_as_stored_and_is_computed_in_float32(tmp_path):
    model = build("Llama", GROUPED)
    with torch.no_grad():
        for p in model.parameters():  # not model.to(): it would round the rotary frequencies too
            p.data = p.data.bfloat16()
    model.save_pretrained(tmp_path / "hf")
    for p in model.parameters():
        p.data = p.data.float()
    ids = tokens(45)
    folder = convert(tmp_path / "hf", tmp_path / "ours")
    assert {x.dtype.name for x in jax.tree.leaves(load_model(folder).params)} == {"bfloat16"}
    np.testing.assert_allclose(ours(folder, ids), theirs(model, ids), atol=3e-4, rtol=0)


@pytest.mark.parametrize("name", ACTS)
def test_activations_are_those_of_transformers(name):
    raw = Raw({"act": name}, pathlib.Path("config.json"))
    mine = ACTIVATIONS[activation("act").read(raw, {})["activation"]]
    x = np.linspace(-6, 6, 401, dtype=np.float32)
    other = transformers.activations.ACT2FN[name](torch.tensor(x)).numpy()
    np.testing.assert_allclose(mine(jnp.asarray(x)), other, atol=2e-6, rtol=0)


def opened(folder: pathlib.Path):
    """An exported folder in transformers, every tensor of which is used and none made up."""
    model, notes = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not notes[kind], kind
    return model.eval()


@pytest.mark.parametrize("name", ["neox-serial", "codegen", "qwen2-window-middle", "glm-quarter"])
def test_exported_again_it_is_the_same_model(name, tmp_path):
    kind, values = CASES[name]
    model = build(kind, values)
    model.save_pretrained(tmp_path / "hf")
    folder = convert(tmp_path / "hf", tmp_path / "ours")
    (folder / "source" / "config.json").unlink()  # so that it is written anew
    again = opened(export(folder, tmp_path / "again", family=model.config.model_type))
    ids = tokens(values["vocab_size"])
    np.testing.assert_allclose(theirs(again, ids), theirs(model, ids), atol=1e-5, rtol=0)


# Models of our own, in the form of a family but with no config.json of it.
SMALL: dict[str, Any] = {
    "vocab_size": 45, "context_length": 24, "d_model": 32, "num_layers": 2, "num_heads": 4,
    "d_ff": 37, "top_query_layer": False, "tied_head": False,
}  # fmt: skip
GATED: dict[str, Any] = {
    "position": "rotary", "norm": "rmsnorm", "gated_mlp": True, "activation": "silu",
    "qkv_bias": False, "output_bias": False, "mlp_bias": False,
}  # fmt: skip
PARALLEL = {"position": "rotary", "residual": "parallel", "activation": "gelu_tanh"}
OWN: dict[str, dict[str, Any]] = {
    "llama": GATED | {"num_kv_heads": 2, "head_dim": 12},
    "glm": GATED
    | {"num_kv_heads": 1, "qkv_bias": True, "rotary_dim": 4, "rotary_style": "interleaved"},
    "gptj": PARALLEL
    | {"rotary_style": "interleaved", "shared_norm": True, "qkv_bias": False}
    | {"output_bias": False, "head_bias": True},
    "gpt_neox": PARALLEL | {"rotary_dim": 4, "activation": "fast_gelu"},
    "xglm": {"position": "sinusoidal", "position_offset": 2, "embedding_scale": 32**0.5},
}


@pytest.mark.parametrize("family", OWN)
def test_a_model_trained_here_runs_in_transformers(family, tmp_path):
    config = ModelConfig(**SMALL | OWN[family])
    rng = np.random.default_rng(0)
    ids = tokens(config.vocab_size)
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), ids)["params"]
    params = jax.tree.map(lambda x: rng.normal(0.1, 0.25, x.shape).astype(np.float32), shapes)
    save(tmp_path / "ours", config, params)
    model = opened(export(tmp_path / "ours", tmp_path / "hf"))
    assert model.config.model_type == family
    np.testing.assert_allclose(ours(tmp_path / "ours", ids), theirs(model, ids), atol=3e-4, rtol=0)


def test_codegeex4_runs_in_transformers_as_glm(shared, tmp_path):
    place = shared / "fixtures" / "hf"
    folder = convert(place / "codegeex4_chatglm", tmp_path / "ours")
    model = opened(export(folder, tmp_path / "hf", family="glm"))
    reference = np.load(place / "glm4" / "reference.npz")
    expected = reference["logits_a"]
    np.testing.assert_allclose(theirs(model, reference["tokens_a"]), expected, atol=3e-4, rtol=0)


def test_codegeex2_runs_in_transformers_as_glm(shared, tmp_path):
    place = shared / "fixtures" / "hf" / "codegeex2_chatglm"
    folder = convert(place, tmp_path / "ours")
    model = opened(export(folder, tmp_path / "hf", family="glm"))
    reference = np.load(place / "reference.npz")
    expected = reference["logits_a"]
    np.testing.assert_allclose(theirs(model, reference["tokens_a"]), expected, atol=3e-4, rtol=0)


def test_a_pad_token_that_clears_a_position_is_refused(tmp_path):
    values = XGLM | {"pad_token_id": 5}
    model = build("XGLM", values)
    other = build("XGLM", XGLM)
    ids = tokens(45)
    moved = abs(theirs(model, ids) - theirs(other, ids)).max(axis=(0, 2))
    assert (moved[:3] < 1e-5).all() and moved[3] > 0.01  # row 5 is that of position 3
    model.save_pretrained(tmp_path / "hf")
    with pytest.raises(GeexError, match="pad_token_id = 5"):
        convert(tmp_path / "hf", tmp_path / "ours")


@pytest.mark.parametrize("kind", ["GPTJ", "GPTNeoX", "CodeGen", "XGLM", "Llama", "Qwen2",
                                  "Starcoder2", "Glm"])  # fmt: skip
def test_an_absent_key_means_what_the_class_says(kind, tmp_path):
    config = getattr(transformers, f"{kind}Config")()
    whole = config.to_dict() | {"pad_token_id": None}
    whole = json.loads(json.dumps(whole, default=str))
    family = HUGGING_FACE[config.model_type]
    place = pathlib.Path("config.json")
    full = comparable(read_config(family, whole, place))
    seen = 0
    for key in whole:
        less = {k: v for k, v in whole.items() if k != key}
        try:
            found = comparable(read_config(family, less, place))
        except GeexError as error:
            assert f"no {key};" in str(error)  # required: nothing is guessed
        else:
            assert found == full, key
            seen += 1
    assert seen > 5
