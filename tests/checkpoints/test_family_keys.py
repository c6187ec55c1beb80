"""Which keys of config.json matter, asked of transformers: none that does is passed over."""

import json
import pathlib
import zlib
from typing import Any

import numpy as np
import pytest

from geex_jax.checkpoints.families import HUGGING_FACE
from geex_jax.checkpoints.families.fields import FREE, ONLY
from geex_jax.checkpoints.source import read_params
from geex_jax.checkpoints.sources import open_source
from geex_jax.models import Transformer
from tests.models.running import apply

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
FAMILIES = [name for name in HUGGING_FACE if name != "chatglm"]  # that one is remote code

OF_GPTJ = {"vocab_size": 40, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
OF_GPTJ |= {"rotary_dim": 4}
OF_XGLM = {"vocab_size": 40, "max_position_embeddings": 32, "d_model": 32, "ffn_dim": 56}
OF_XGLM |= {"num_layers": 2, "attention_heads": 4}
OF_LLAMA = {"vocab_size": 40, "max_position_embeddings": 32, "hidden_size": 32}
OF_LLAMA |= {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 56}
GROUPED = {**OF_LLAMA, "num_key_value_heads": 2}
SMALL: dict[str, dict[str, Any]] = {
    "gptj": OF_GPTJ,
    "codegen": OF_GPTJ,
    "gpt_neox": OF_LLAMA,
    "xglm": OF_XGLM,
    "llama": OF_LLAMA,
    "qwen2": GROUPED,
    "starcoder2": GROUPED,
    "glm": {**GROUPED, "head_dim": 8, "pad_token_id": None},
}


def made(family: str, changes: dict[str, Any]):
    """A model of transformers with weights, biases and gains large enough to show a mistake."""
    values = json.loads(json.dumps(SMALL[family] | changes))  # it changes nested ones in place
    config = transformers.CONFIG_MAPPING[family](**values)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(zlib.crc32(json.dumps([family, changes]).encode()))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_gain = parameter.ndim == 1 and not name.endswith("bias")
            parameter.copy_(1 + 0.3 * noise if is_gain else 0.3 * noise)
    return model.eval()


TOKENS = np.random.default_rng(1).integers(0, 40, (2, 24))


def theirs(model) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS)).logits.numpy()


def ours(folder: pathlib.Path) -> np.ndarray:
    """Logits of an outside folder, opened without converting it."""
    source = open_source(folder)
    return np.asarray(apply(Transformer(source.config), read_params(source), TOKENS))


def class_values(family: str) -> dict[str, Any]:
    """The keys that the class of a family's config knows, with its defaults."""
    config = transformers.CONFIG_MAPPING[family]()
    return {key: value for key, value in config.to_dict().items() if not key.startswith("_")}


def read_keys(family: str) -> set[str]:
    return {key for field in HUGGING_FACE[family].fields for key in field.keys}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_of_the_class_is_known(family):
    table = HUGGING_FACE[family]
    known = read_keys(family) | FREE | table.free | table.only.keys() | ONLY.keys()
    assert class_values(family).keys() <= known


def other(value: Any) -> Any:
    """Another value for a key of a config."""
    if isinstance(value, bool):
        return not value
    return 0.5 if isinstance(value, float) else 3


@pytest.mark.parametrize("family", FAMILIES)
def test_no_key_that_is_passed_over_changes_the_logits(family):
    # These say what kind of object comes out, or of what class or type it is.
    form = {"return_dict", "dtype", "architectures", "model_type", "transformers_version"}
    form |= {"id2label", "label2id", "problem_type"}
    model = made(family, {})
    expected = theirs(model)
    values = class_values(family) | SMALL[family] | {"pretraining_tp": 1, "pad_token_id": None}
    free = (FREE | HUGGING_FACE[family].free) & values.keys() - form - read_keys(family)
    # XGLM clears a row of its position table with it.
    assert "use_cache" in free and ("pad_token_id" in free) == (family != "xglm")
    for key in sorted(free):
        changed = SMALL[family] | {key: other(values[key])}
        config = transformers.CONFIG_MAPPING[family](**changed)
        again = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        again.load_state_dict(model.state_dict())
        np.testing.assert_array_equal(theirs(again.eval()), expected, err_msg=key)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
YARN |= {"rope_theta": 100.0}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
# Odd together, beyond what each family's own test has.
ODD: list[tuple[str, dict[str, Any]]] = [
    ("gptj", {"n_head": 1, "rotary_dim": 6, "activation_function": "silu"}),
    ("codegen", {"rotary_dim": 8, "activation_function": "quick_gelu"}),
    ("gpt_neox", {"rope_scaling": LINEAR | {"partial_rotary_factor": 0.5}}),
    ("gpt_neox", {"rope_parameters": YARN | {"partial_rotary_factor": 0.75}}),
    ("xglm", {"d_model": 33, "attention_heads": 3, "pad_token_id": None}),
    ("llama", {"rope_parameters": YARN | {"beta_fast": 4, "beta_slow": 0.5, "truncate": False}}),
    ("llama", {"rope_parameters": YARN | {"attention_factor": 1.7, "factor": 1.0}}),
    ("llama", {"num_key_value_heads": 1, "head_dim": 6, "rope_parameters": LINEAR}),
    ("qwen2", {"sliding_window": 7, "num_key_value_heads": None, "rope_parameters": YARN}),
    ("starcoder2", {"sliding_window": 31, "rope_parameters": YARN, "head_dim": 6}),
    ("glm", {"rope_parameters": YARN | {"partial_rotary_factor": 0.5}}),
    ("glm", {"head_dim": 22, "rope_parameters": {"partial_rotary_factor": 6 / 22 + 1e-9}}),
]


@pytest.mark.parametrize(("family", "changes"), ODD, ids=[f"{f}-{c}"[:70] for f, c in ODD])
def test_odd_configs(family, changes, tmp_path):
    model = made(family, changes)
    model.save_pretrained(tmp_path)
    expected = theirs(model)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(ours(tmp_path), expected, atol=3e-4, rtol=1e-5)
