"""Synthetic checkpoints: published forms and proportions, any size, random weights."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import zlib
from typing import Any

import ml_dtypes
import numpy as np

SHARD = 10**9  # bytes of a safetensors file
PIECE = 1 << 24  # elements drawn at a time
CODEGEEX = "codegeex"
# What a config must say beyond the family's fixed parts; width W, heads of 128.
ROTARY = {"rotary_dim": 64, "activation": "gelu_tanh"}
HALF_HEAD = {"rotary_dim": 64, "head_dim": 128, "activation": "silu"}
GATED = {"activation": "silu", "qkv_bias": False, "mlp_bias": False}
FIELDS: dict[str, dict[str, Any]] = {
    "gptj": ROTARY,
    "codegen": ROTARY,
    "gpt_neox": {"rotary_dim": 32, "activation": "gelu", "residual": "parallel"},
    "xglm": {"embedding_scale": 1.0, "activation": "gelu"},
    "llama": GATED,
    "qwen2": {"activation": "silu"},
    "starcoder2": {"activation": "gelu_tanh"},
    "glm": {**HALF_HEAD, "qkv_bias": True},
    "chatglm": {**HALF_HEAD, "qkv_bias": True, "output_bias": False, "mlp_bias": False},
    CODEGEEX: {},
}


def shape(family: str, gigabytes: float) -> Any:
    """The ModelConfig of a model of about that size in two bytes a weight, deep as wide ones are.

    Raises:
      GeexError: the family cannot hold it.
    """
    from geex_jax.checkpoints.families import HUGGING_FACE, expected_leaves, write_config
    from geex_jax.models import ModelConfig

    wanted = gigabytes * 1e9 / 2
    width = 512 * max(round((8 * wanted) ** (1 / 3) / 512), 1)  # layers of 16 W^2, W / 128 of them
    values: dict[str, Any] = {} if family == CODEGEEX else {"top_query_layer": False}
    if family != CODEGEEX:
        values |= {"tied_head": False, **HUGGING_FACE[family].parts}
    values |= {"vocab_size": min(32000, 8 * width), "context_length": 2048, "d_model": width}
    values |= {"num_heads": width // 128, "d_ff": 4 * width, "num_layers": 1} | FIELDS[family]
    one = ModelConfig(**values)
    leaves = expected_leaves(one)
    layer = sum(math.prod(s) for p, s in leaves.items() if p.startswith("layers/"))
    rest = sum(map(math.prod, leaves.values())) - layer
    config = one.replace(num_layers=max(round((wanted - rest) / layer), 2))
    if family != CODEGEEX:
        write_config(HUGGING_FACE[family], config)
    return config


def largest_stacked(config: Any, itemsize: int) -> tuple[str, int]:
    """Path and bytes of the largest of our parameters, all layers together."""
    from geex_jax.checkpoints.families import expected_leaves

    sizes = {p: math.prod(s) * itemsize for p, s in expected_leaves(config).items()}
    path = max(sizes, key=lambda p: sizes[p])
    return path, sizes[path]


@dataclasses.dataclass(frozen=True)
class Random:
    """A tensor of random numbers, the same ones at every reading; see `tensors.Lazy`."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        """Draws it."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        flat = np.empty(math.prod(self.shape), self.dtype)
        for i in range(0, flat.size, PIECE):
            count = min(PIECE, flat.size - i)
            flat[i : i + count] = (rng.random(count, np.float32) - 0.5) / 16
        return flat.reshape(self.shape)


def write_checkpoint(folder: pathlib.Path, family: str, config: Any) -> pathlib.Path:
    """Writes a checkpoint of random weights in the family's form; returns what to convert."""
    from geex_jax import files
    from geex_jax.checkpoints import families, output, safetensors_file, torch_write

    official = family == CODEGEEX
    table = families.codegeex.FAMILY if official else families.HUGGING_FACE[family]
    kind = np.dtype(np.float16 if official else ml_dtypes.bfloat16)
    tensors = {n: Random(n, b.shape, kind) for n, b in table.bind(config).items()}
    meter = output.Meter(
        f"writing {family}", sum(math.prod(t.shape) * kind.itemsize for t in tensors.values())
    )
    folder.mkdir(parents=True)
    if official:
        file = folder / "codegeex.pt"
        torch_write.write(file, _nested(tensors), meter.update)
    else:
        files.write_json(folder / "config.json", families.write_config(table, config))
        safetensors_file.write_sharded(folder, tensors, SHARD, meter.update)
    meter.close()
    return file if official else folder


def _nested(flat: dict[str, Random]) -> dict[str, Any]:
    """The official nesting: tables of embeddings in dicts of their own, all else flat."""
    tables = {n: {"weight": t} for n, t in flat.items() if n.split(".")[0].endswith("_embeddings")}
    named = {name.partition(".")[0]: leaf for name, leaf in tables.items()}
    top = {n: named.pop(n) for n in [*named] if n.startswith("top_query")}
    rest = {n: t for n, t in flat.items() if n not in tables}
    model = {"embedding": named, "topQueryEmbedding": top, "transformer": rest}
    return {"module": {"language_model": model}}
