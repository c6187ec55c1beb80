"""Opens a Hugging Face folder: config.json beside safetensors or pytorch_model*.bin."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Collection
from typing import Any

from geex_jax.checkpoints import compressed, safetensors_file, torch_file
from geex_jax.checkpoints.families import HUGGING_FACE, expected_leaves, read_config
from geex_jax.checkpoints.source import Source, checked
from geex_jax.checkpoints.tensors import Lazy, Tensor
from geex_jax.checkpoints.torch_pickle import one_line
from geex_jax.errors import GeexError, did_you_mean


def open_folder(path: pathlib.Path, values: dict[str, Any], ignore: Collection[str]) -> Source:
    """Opens a folder whose config.json holds `values`.

    Raises:
      GeexError: an unknown model_type, an unsupported config, tensors that do not fit it.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in HUGGING_FACE:
        raise GeexError(
            f"{path / 'config.json'}: model_type {kind!r} is not known",
            did_you_mean(str(kind), HUGGING_FACE),
        )
    family = HUGGING_FACE[kind]
    how = values.get("quantization_config")
    quantized = isinstance(how, dict) and bool(how)
    said = {k: v for k, v in values.items() if not quantized or k != "quantization_config"}
    config = read_config(family, said, path / "config.json", ignore).replace(name=path.name)
    tensors, leaves = tensors_of_folder(path), expected_leaves(config)
    if isinstance(how, dict) and quantized:
        compressed.check(how, path / "config.json")
        family, leaves, tensors = compressed.opened(family, config, tensors)
    bindings = family.bind(config, leaves)
    return checked(Source(path, family, config, tensors, leaves, bindings, values))


def read_json(file: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object; `folder` is named if the file is not there."""
    if not file.is_file():
        raise GeexError(
            f"no {file.name} in {folder}",
            "bring config.json and model.safetensors (or pytorch_model*.bin, or mp_rank_XX parts)",
        )
    try:
        values = json.loads(file.read_text())
        if isinstance(values, dict):
            return values
    except (ValueError, OSError, RecursionError):
        pass
    raise GeexError(f"{file} is no JSON object", "fetch the file again")


def tensors_of_folder(folder: pathlib.Path) -> dict[str, Lazy]:
    """The tensors of a Hugging Face folder: one file, or shards with an index."""
    for name, read in (("model.safetensors", _safetensors), ("pytorch_model.bin", _torch)):
        if (folder / f"{name}.index.json").is_file():
            return _sharded(folder / f"{name}.index.json", read)
        if (folder / name).is_file():
            return dict(read(folder / name))
    loose = sorted(p.name for p in folder.glob("*.safetensors")) or sorted(
        p.name for p in folder.glob("*.bin")
    )
    what = f"{loose[0]} is there without an index" if loose else "no weights"
    raise GeexError(
        f"{folder}: {what}",
        "bring model.safetensors or pytorch_model.bin, or all shards with their .index.json",
    )


def _safetensors(file: pathlib.Path) -> dict[str, Tensor]:
    return safetensors_file.index(file)


def _torch(file: pathlib.Path) -> dict[str, Tensor]:
    tree = torch_file.index(file)
    if not isinstance(tree, dict):
        raise GeexError(f"{file} holds no dict of tensors", "bring a state_dict")
    return {str(name): value for name, value in tree.items() if isinstance(value, Tensor)}


def _sharded(index: pathlib.Path, read: Any) -> dict[str, Lazy]:
    places = read_json(index, index.parent).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
        raise GeexError(f"{index}: no weight_map", "fetch the file again")
    found: dict[str, Lazy] = {}
    for name in sorted(set(places.values())):
        file = index.parent / name
        mine = [tensor for tensor, place in places.items() if place == name]
        if pathlib.Path(name).name != name:
            raise GeexError(
                f"{index} places {one_line(mine[0])} in {one_line(name)}, outside its folder",
                "fetch the index again",
            )
        if not file.is_file():
            raise GeexError(
                f"{index} names {name} for {one_line(mine[0])} and {len(mine) - 1} more tensors, "
                "and it is not there",
                f"bring {name}",
            )
        held = read(file)
        for tensor in mine:
            if tensor not in held:
                raise GeexError(
                    f"{file}: no tensor {one_line(tensor)}, which {index.name} places there",
                    "fetch both again",
                )
        # What the index places elsewhere comes from there; what it does not name is seen later.
        found |= {tensor: held[tensor] for tensor in held if places.get(tensor, name) == name}
    return found
