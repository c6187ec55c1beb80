"""Whole config.json files, by a family's fields: in, with nothing ignored, and back out."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from geex_jax.checkpoints.families.base import Family
from geex_jax.checkpoints.families.fields import FREE, ONLY, Raw
from geex_jax.errors import GeexError
from geex_jax.models.config import ModelConfig, to_dict

# Fields that say how the model is run here, not what it computes.
OURS = {
    "name", "dropout", "dtype", "param_dtype", "scan_layers", "scan_unroll", "remat", "attention",
    "matmul", "activations", "kv_cache",
}  # fmt: skip


def read_config(
    family: Family,
    values: Mapping[str, Any],
    file: pathlib.Path,
    ignore: Collection[str] = (),
) -> ModelConfig:
    """A model's shape from its config.json.

    Args:
      family: whose config it is.
      values: the parsed file.
      file: its path, for messages.
      ignore: unknown keys that the user vouches for.

    Raises:
      GeexError: a key is missing, of a wrong type, unknown, or has a value that is not supported.
    """
    raw = Raw(values, file)
    ours: dict[str, Any] = {"top_query_layer": False, **family.parts}
    for field in family.fields:
        ours |= field.read(raw, ours)
    read = {key for field in family.fields for key in field.keys}
    only = {**ONLY, **family.only}
    for key, value in values.items():
        if key in read or value is None:
            continue
        if key in only:
            if value not in only[key]:
                raise raw.refuse(key, value, " or ".join(map(str, only[key])) or "null")
        elif key not in FREE | family.free and key not in ignore:
            raise GeexError(
                f"{file}: unknown key {key} = {value!r} might change the mathematics",
                f"pass --ignore-key {key} if it does not",
            )
    try:
        return ModelConfig(**ours)
    except GeexError as error:
        raise GeexError(f"{file}: {error.what}", error.remedy) from None


def write_config(
    family: Family, config: ModelConfig, original: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A config.json that reads back as `config`.

    Args:
      family: whose form it takes.
      config: the model.
      original: the file that the model came from; used as it is where it still says the same.

    Raises:
      GeexError: the family cannot express the model; names the first field that differs.
    """
    nowhere = pathlib.Path("config.json")
    wanted = comparable(config)
    if original is not None:
        try:
            if comparable(read_config(family, original, nowhere, original.keys())) == wanted:
                return dict(original)
        except GeexError:
            pass  # of another family: it is written anew
    out: dict[str, Any] = {"architectures": [family.architecture], "model_type": family.name}
    # Absent ones would be the class's own, which may lie beyond this vocabulary.
    out |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    for field in family.fields:
        out |= field.write(config)
    try:
        found = comparable(read_config(family, out, nowhere))
    except GeexError as error:
        raise GeexError(
            f"a {family.name} config cannot say this ({error.what})", "choose another family"
        ) from None
    for key, value in wanted.items():
        if found[key] != value:
            raise GeexError(
                f"a {family.name} config cannot say {key} = {value!r}",
                "choose another family, or --format safetensors",
            )
    return out


def comparable(config: ModelConfig) -> dict[str, Any]:
    """The fields that change what is computed, equal ways of saying a thing made equal."""
    full = dataclasses.replace(config, num_kv_heads=config.kv_heads, head_dim=config.head_width)
    if config.position == "rotary":
        full = dataclasses.replace(full, rotary_dim=config.rotated)
    else:
        usual = ModelConfig()
        rotary = {f: getattr(usual, f) for f in to_dict(usual) if f.startswith("rotary_")}
        full = dataclasses.replace(full, **rotary)
    if config.sliding_window is None:
        full = dataclasses.replace(full, window_from_layer=0)
    return {key: value for key, value in to_dict(full).items() if key not in OURS}
