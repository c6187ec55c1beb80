"""Tiny outside checkpoints of every family: random shapes, random numbers, in every file form."""

from __future__ import annotations

import json
import pathlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest

from geex_jax.checkpoints import codegeex, convert, safetensors_file, torch_write
from geex_jax.checkpoints.families import HUGGING_FACE, Family, write_config
from geex_jax.checkpoints.families import codegeex as codegeex_family
from geex_jax.checkpoints.tensors import InMemory
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig

Pick = Callable[[Sequence[Any]], Any]
HF_FORMS = ("safetensors", "sharded", "bin", "sharded_bin")
OFFICIAL_FORMS = ("pt", "mp")


def seeded(seed: int) -> Pick:
    """Picks at random, always the same for a seed."""
    return random.Random(seed).choice


def tiny(family: str, pick: Pick) -> ModelConfig:
    """A random model that the family can hold; "codegeex" is the official one."""
    if family == "codegeex":
        heads = pick([1, 2, 4])
        return ModelConfig(
            vocab_size=pick([8, 12, 20]),
            context_length=pick([8, 12]),
            d_model=heads * pick([4, 8]),
            num_layers=pick([1, 2]),
            num_heads=heads,
            d_ff=pick([16, 24, 32]),
        )
    heads = pick([4, 8]) if family == "codegen" else pick([1, 2, 4])
    width = pick([4, 8])
    d_model = heads * width
    values: dict[str, Any] = {"top_query_layer": False, **HUGGING_FACE[family].parts}
    values |= {
        "vocab_size": pick([7, 16, 33]),
        "context_length": pick([8, 16]),
        "d_model": d_model,
        "num_layers": pick([1, 2, 3]),
        "num_heads": heads,
        "d_ff": pick([5, 12, 16]),
        "tied_head": pick([True, False]),
        "norm_eps": pick([1e-5, 1e-6]),
    }
    return ModelConfig(**values | _special(family, values, width, pick))


def _special(family: str, values: Mapping[str, Any], width: int, pick: Pick) -> dict[str, Any]:
    heads, more = values["num_heads"], {}
    if family in ("gptj", "codegen"):
        more = {"rotary_dim": pick([2, 4]), "activation": pick(["gelu_tanh", "gelu", "silu"])}
    elif family == "gpt_neox":
        bias = pick([True, False])
        more = {
            "qkv_bias": bias,
            "output_bias": bias,
            "residual": pick(["serial", "parallel"]),
            "rotary_dim": pick([2, 4]),
            "activation": pick(["gelu", "gelu_tanh", "relu"]),
        }
    elif family == "xglm":
        scale = values["d_model"] ** 0.5
        more = {"embedding_scale": pick([scale, 1.0]), "activation": "gelu", "norm_eps": 1e-5}
    else:
        more = {"num_kv_heads": pick([n for n in (1, 2, 4) if heads % n == 0])}
        more |= {"rotary_theta": pick([1e4, 5e6]), "activation": "silu"}
        more |= _of_llamas(family, width, pick)
    return more


def _of_llamas(family: str, width: int, pick: Pick) -> dict[str, Any]:
    window = {"sliding_window": pick([None, 4])}
    yarn = {
        "rotary_scaling": "yarn",
        "rotary_bounds": (1.0, 32.0),
        "rotary_original_context": 4,
        "rotary_attention_factor": 1.1,
    }
    bias = pick([True, False])
    if family == "llama":
        scalings = [{}, {"rotary_factor": 4.0}, {"rotary_factor": 2.0, **yarn}]
        more = {"qkv_bias": bias, "output_bias": bias, "mlp_bias": pick([True, False])}
        return more | pick(scalings) | {"head_dim": pick([None, 6])}
    if family == "qwen2":
        return {"sliding_window": None} if bias else window
    if family == "starcoder2":
        biases = {"qkv_bias": bias, "output_bias": bias, "mlp_bias": bias}
        return window | biases | {"activation": "gelu_tanh"}
    half = {"head_dim": width, "rotary_dim": width // 2}
    if family == "glm":
        return half | {"qkv_bias": bias}
    more = {"qkv_bias": True, "output_bias": bias, "mlp_bias": bias}
    return half | more | {"norm": pick(["rmsnorm", "layernorm"])}


def outside(
    family: Family,
    config: ModelConfig,
    dtype: str = "float32",
    seed: int = 0,
    leaves: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, np.ndarray]:
    """Random outside tensors of a model, by name; integers for quantized kernels."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    found = {}
    for name, binding in family.bind(config, leaves).items():
        path = binding.parts[0][0]
        if path.endswith(("kernel_int8", "kernel_int4")):
            found[name] = rng.integers(-127, 128, binding.shape, np.int8)
        else:
            array = rng.normal(0, 0.1, binding.shape)
            if path.endswith("kernel_scale"):
                found[name] = abs(array).astype(np.float16)
            else:
                found[name] = (array + path.endswith("scale")).astype(kind)
    return found


def write_hf(
    folder: pathlib.Path,
    family: str,
    config: ModelConfig,
    tensors: Mapping[str, np.ndarray],
    form: str = "safetensors",
) -> pathlib.Path:
    """A Hugging Face folder in one of HF_FORMS; sharded: every other tensor in the second file."""
    folder.mkdir(parents=True, exist_ok=True)
    about = write_config(HUGGING_FACE[family], config)
    (folder / "config.json").write_text(json.dumps(about))
    lazy = {name: InMemory(array) for name, array in tensors.items()}
    write = torch_write.write if form.endswith("bin") else safetensors_file.write
    name = "pytorch_model.bin" if form.endswith("bin") else "model.safetensors"
    if not form.startswith("sharded"):
        write(folder / name, lazy)
        return folder
    stem, _, suffix = name.partition(".")
    places = {}
    for i in (0, 1):
        file = f"{stem}-0000{i + 1}-of-00002.{suffix}"
        part = dict(list(lazy.items())[i::2])
        write(folder / file, part)
        places |= dict.fromkeys(part, file)
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def official(
    config: ModelConfig,
    dtype: str = "float16",
    seed: int = 0,
    fused: bool = False,
    bits: int = 0,
) -> dict[str, np.ndarray]:
    """Random tensors of the official checkpoint, float or quantized, by their flat names."""
    leaves = codegeex.quantized_leaves(config, bits) if bits else None
    return outside(codegeex_family.family(fused), config, dtype, seed, leaves)


def write_official(
    path: pathlib.Path, parts: Sequence[Mapping[str, np.ndarray]], name: str = "x.pt"
) -> pathlib.Path:
    """One file for one part, a folder of ranks for more."""
    path.mkdir(parents=True, exist_ok=True)
    for rank, tensors in enumerate(parts):
        file = name if len(parts) == 1 else f"mp_rank_{rank:02d}_model_states.pt"
        torch_write.write(path / file, nested(tensors))
    return path / name if len(parts) == 1 else path


def split(tensors: Mapping[str, np.ndarray], ranks: int) -> list[dict[str, np.ndarray]]:
    """Tensor-parallel parts, by the words of the official names."""

    def part(name: str, array: np.ndarray, rank: int) -> np.ndarray:
        by_rows = ("word_emb", "top_query_emb", "query", "key", "value", "h_to_4h")
        by_columns = ("attention.dense.weight", "4h_to_h.weight")
        if name.endswith("_scale"):
            by_columns = ()
        if any(word in name for word in by_rows) and "layernorm" not in name:
            return np.split(array, ranks, axis=0)[rank]
        if name.endswith(by_columns):
            return np.split(array, ranks, axis=1)[rank]
        return array

    return [{n: part(n, a, rank) for n, a in tensors.items()} for rank in range(ranks)]


def nested(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The official nesting of flat names."""
    embeddings: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, array in flat.items():
        if "embeddings" in name:
            stem, _, leaf = name.partition(".")
            embeddings.setdefault(stem, {})[leaf] = InMemory(array)
        else:
            rest[name] = InMemory(array)
    top = {n: embeddings.pop(n) for n in list(embeddings) if n.startswith("top")}
    model = {"embedding": embeddings, "topQueryEmbedding": top, "transformer": rest}
    return {"module": {"language_model": model}}


def same_tree(one: Any, other: Any) -> bool:
    """Whether two parameter trees are equal bit for bit, types included."""

    def same(a: Any, b: Any) -> bool:
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()

    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    return all(jax.tree.leaves(jax.tree.map(same, one, other)))


LLAMA = ModelConfig(
    **{"top_query_layer": False, "activation": "silu", **HUGGING_FACE["llama"].parts}
    | {"vocab_size": 12, "context_length": 8, "d_model": 8, "num_layers": 2, "num_heads": 2}
    | {"d_ff": 12, "num_kv_heads": 1, "qkv_bias": False, "mlp_bias": False, "tied_head": False}
)
CODEGEEX = ModelConfig(
    vocab_size=12, context_length=8, d_model=8, num_layers=2, num_heads=2, d_ff=16
)
FORMS = (*HF_FORMS, *OFFICIAL_FORMS)


def tensors_for(form: str) -> dict[str, np.ndarray]:
    if form in OFFICIAL_FORMS:
        return official(CODEGEEX, "float32")
    return outside(HUGGING_FACE["llama"], LLAMA)


def write(form: str, folder: pathlib.Path, tensors) -> pathlib.Path:
    if form == "pt":
        return write_official(folder, [tensors])
    if form == "mp":
        return write_official(folder, split(tensors, 2))
    return write_hf(folder, "llama", LLAMA, tensors, form)


def fails(source, dest: pathlib.Path, *words: str, **flags) -> str:
    """Converting is one line that holds the words, and leaves no trace beside DEST."""
    before = sorted(dest.parent.rglob("*"))
    with pytest.raises(GeexError) as error:
        convert(source, dest, **flags)
    text = str(error.value)
    assert "\n" not in text and "; " in text
    for word in words:
        assert word in text, text
    assert sorted(dest.parent.rglob("*")) == before
    return text
