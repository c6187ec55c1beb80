"""Opens a geex model folder as a source: Orbax arrays, or the safetensors that export wrote."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable

from geex_jax.checkpoints import arrays, store
from geex_jax.checkpoints.families import Family, Rule, expected_leaves
from geex_jax.checkpoints.huggingface import tensors_of_folder
from geex_jax.checkpoints.source import Source, checked
from geex_jax.checkpoints.tensors import Lazy
from geex_jax.errors import GeexError
from geex_jax.models import from_dict


def is_own(path: pathlib.Path) -> bool:
    """Whether a folder holds a model of ours: a model folder, a workdir or a step of one."""
    path = path.absolute()
    if store.saved_steps(path / "checkpoints") or store.is_step(path):
        return True
    file = path / "config.json"
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and "format" in values and "leaves" in values


def open_own(path: pathlib.Path) -> Source:
    """Opens the folder; every leaf is a tensor, each layer of a stacked one by itself.

    Raises:
      GeexError: files are missing, damaged, or do not belong together.
    """
    about, params, _ = store.locate(path)
    try:
        config = from_dict(about["model"])
        leaves = {name: tuple(shape) for name, (shape, _) in about["leaves"].items()}
    except (AttributeError, TypeError, ValueError):
        raise GeexError(
            f"{path}: its config.json is damaged", "convert or save the model again"
        ) from None
    store.check_leaves(expected_leaves(config), leaves, path)
    if params.is_dir():
        tensors: dict[str, Lazy] = {}
        for leaf, array in arrays.open_tree(params, about["leaves"]).items():
            layers = range(array.shape[0]) if leaf.startswith("layers/") else [None]
            for i in layers:
                file = arrays.place_of(params, leaf)
                tensors[outside_name(leaf).format(i=i)] = arrays.Stored(array, leaf, i, file)
    elif any(path.glob("*.safetensors")):
        tensors = tensors_of_folder(path)
    else:
        raise GeexError(f"{path}: neither params/ nor safetensors", "bring the whole folder")
    family = own_family(leaves)
    return checked(
        Source(path, family, config, tensors, leaves, family.bind(config, leaves), about)
    )


def own_family(leaves: Iterable[str]) -> Family:
    """The family of our own names, "layers.{i}.mlp.up.kernel": nothing is cut or turned."""
    rules = [Rule(outside_name(path), (path,), turn=False) for path in leaves]
    return Family("geex", "Transformer", (), {}, tuple(rules))


def outside_name(path: str) -> str:
    """The dotted name of a leaf, with "{i}" for the layer of a stacked one."""
    return path.replace("layers/", "layers.{i}.", 1).replace("/", ".")
