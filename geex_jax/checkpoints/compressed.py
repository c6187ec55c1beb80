"""int8 weights in a Hugging Face folder, as the compressed-tensors library lays them out.

A quantized linear `X` is `X.weight` int8 [out, in] and `X.weight_scale` [out, 1], a scale for each
output channel (weight = integer * scale); `quantization_config` in config.json says so, and
`ignore` there names the linears that are float. transformers (with compressed-tensors) and vLLM
read it. Rows of fused matrices lie as the float ones do, and so do their scales.

Source: https://github.com/vllm-project/compressed-tensors (format "int-quantized").
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from geex_jax.checkpoints.families import Family, Rule, expected_leaves
from geex_jax.checkpoints.tensors import Lazy
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig

METHOD, FORMAT = "compressed-tensors", "int-quantized"
WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
SCALE = ".weight_scale"


def with_integers(family: Family) -> Family:
    """The family with rules for int8 kernels and their scales, beside those for float ones."""
    more: list[Rule] = []
    for rule in family.tensors:
        if rule.ours[0].endswith("/kernel"):
            ints = tuple(f"{path}_int8" for path in rule.ours)
            scales = tuple(f"{path}_scale" for path in rule.ours)
            name = rule.outside.removesuffix(".weight") + SCALE
            more.append(Rule(rule.outside, ints, rule.blocks, rule.split))
            more.append(Rule(name, scales, rule.blocks))
    return dataclasses.replace(family, tensors=(*family.tensors, *more))


def config_of(ignored: list[str]) -> dict[str, Any]:
    """The `quantization_config` of int8 weights; `ignored` are the linears that stay float."""
    weights = WEIGHTS | {"dynamic": False, "group_size": None, "observer": "minmax"}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None,
             "output_activations": None, "format": FORMAT}  # fmt: skip
    return {
        "quant_method": METHOD,
        "format": FORMAT,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ignored,
        "kv_cache_scheme": None,
    }


def check(values: Mapping[str, Any], file: pathlib.Path) -> None:
    """Refuses a `quantization_config` that says anything else.

    Raises:
      GeexError: another method or layout; names the key.
    """
    remedy = f"only int8 weights with a scale for each output channel ({FORMAT}) are read"
    if values.get("quant_method") != METHOD or values.get("format") != FORMAT:
        found = f"{values.get('quant_method')!r}, {values.get('format')!r}"
        raise GeexError(f"{file}: quantization_config of {found}", remedy)
    groups = values.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise GeexError(f"{file}: quantization_config without config_groups", remedy)
    for group in groups.values():
        weights = group.get("weights") if isinstance(group, dict) else None
        for key, wanted in WEIGHTS.items():
            if not isinstance(weights, dict) or weights.get(key) != wanted:
                found = weights.get(key) if isinstance(weights, dict) else None
                raise GeexError(f"{file}: quantization_config: {key} = {found!r}", remedy)
        if group.get("input_activations"):
            raise GeexError(f"{file}: quantization_config: input_activations", remedy)


def opened(
    family: Family, config: ModelConfig, tensors: Mapping[str, Lazy]
) -> tuple[Family, dict[str, tuple[int, ...]], dict[str, Lazy]]:
    """Family, leaves and tensors of a folder with int8 weights; scales as [out]."""
    leaves = expected_leaves(config)
    whole = with_integers(family)
    for name, binding in family.bind(config, leaves.copy()).items():
        if name.removesuffix(".weight") + SCALE not in tensors:
            continue
        for path, _ in binding.parts:
            if path in leaves:
                shape = leaves.pop(path)
                leaves[f"{path}_int8"] = (*shape[:-2], shape[-1], shape[-2])
                leaves[f"{path}_scale"] = (*shape[:-2], shape[-1])
    flat = {
        name: Shaped(x, x.shape[:1]) if name.endswith(SCALE) and x.shape[1:] == (1,) else x
        for name, x in tensors.items()
    }
    return whole, leaves, flat


@dataclasses.dataclass(frozen=True)
class Shaped:
    """A tensor in another shape; see `tensors.Lazy`."""

    inner: Lazy
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """Element type."""
        return self.inner.dtype

    @property
    def file(self) -> pathlib.Path | None:
        """Where it lies, if in a file."""
        return getattr(self.inner, "file", None)

    @property
    def offset(self) -> int:
        """Bytes before it in the file."""
        return getattr(self.inner, "offset", 0)

    def read(self) -> np.ndarray:
        """Reads it."""
        return self.inner.read().reshape(self.shape)
