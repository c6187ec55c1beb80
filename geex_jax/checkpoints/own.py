"""Opens a geex model folder as a source: Orbax arrays, or the safetensors that export wrote."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable

from geex_jax.checkpoints import arrays, store
from geex_jax.checkpoints.families import Family, Rule
from geex_jax.checkpoints.huggingface import tensors_of_folder
from geex_jax.checkpoints.source import Source, checked
from geex_jax.checkpoints.tensors import Lazy, Tensor
from geex_jax.models import from_dict


def is_own(path: pathlib.Path) -> bool:
    """Whether a folder holds a model of ours: a model folder, a workdir or a step of one."""
    if store.saved_steps(path / "checkpoints") or path.parent.name == "checkpoints":
        return True
    file = path / "config.json"
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "format" in values and "leaves" in values


def open_own(path: pathlib.Path) -> Source:
    """Opens the folder; every leaf is a tensor, each layer of a stacked one by itself.

    Raises:
      GeexError: files are missing, damaged, or do not belong together.
    """
    about, params, _ = store.locate(path)
    config = from_dict(about["model"])
    leaves = {name: tuple(shape) for name, (shape, _) in about["leaves"].items()}
    tensors: dict[str, Lazy] = {}
    if params.is_dir():
        for name, array in arrays.open_tree(params, about["leaves"]).items():
            if _stacked(name):
                for i in range(array.shape[0]):
                    tensors[f"{name}[{i}]"] = arrays.Stored(array, name, i)
            else:
                tensors[name] = arrays.Stored(array, name)
    else:
        for name, tensor in tensors_of_folder(path).items():
            assert isinstance(tensor, Tensor)
            tensors |= _layers_of(tensor) if _stacked(name) else {name: tensor}
    family = own_family(leaves)
    return checked(
        Source(path, family, config, tensors, leaves, family.bind(config, leaves), about)
    )


def own_family(leaves: Iterable[str]) -> Family:
    """The family of our own names: nothing is cut or turned."""
    rules = [
        Rule(f"{name}[{{i}}]" if _stacked(name) else name, (name,), turn=False) for name in leaves
    ]
    return Family("geex", "Transformer", (), {}, tuple(rules))


def _stacked(name: str) -> bool:
    return name.startswith("layers/")


def _layers_of(tensor: Tensor) -> dict[str, Lazy]:
    shape = tensor.shape[1:]
    step = math.prod(shape) * tensor.dtype.itemsize
    return {
        f"{tensor.name}[{i}]": dataclasses.replace(
            tensor, name=f"{tensor.name}[{i}]", shape=shape, offset=tensor.offset + i * step
        )
        for i in range(tensor.shape[0])
    }
