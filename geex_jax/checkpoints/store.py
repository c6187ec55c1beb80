"""The model store: a folder with config.json, tokenizer/ and params/ (Orbax)."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from geex_jax import files, tokenizers
from geex_jax.checkpoints.whole import damage
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer, from_dict, to_dict
from geex_jax.parallel import by_path, shardings, tree_of
from geex_jax.tokenizers import Tokenizer

FORMAT = 1
logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every save at INFO


@dataclasses.dataclass(frozen=True)
class Loaded:
    """An opened model. Unpacks as `model, params, tokenizer`.

    Attributes:
      model: the decoder; `model.config` has its shape.
      params: the parameter tree.
      tokenizer: the tokenizer saved with it, None if none was.
      provenance: how the model came about: data, steps, quantization.
    """

    model: Transformer
    params: dict[str, Any]
    tokenizer: Tokenizer | None
    provenance: dict[str, Any]

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        return self.model.config

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.params, self.tokenizer))


def save_model(
    folder: files.Path,
    config: ModelConfig,
    params: Mapping[str, Any],
    tokenizer: Tokenizer | None = None,
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes a model folder: whole, or not at all.

    Args:
      folder: where; written beside it first, then renamed.
      config: the model's shape.
      params: float or quantized parameters; each process writes its own shards.
      tokenizer: goes along.
      provenance: JSON-able facts.
      overwrite: replace what is there.

    Raises:
      GeexError: the folder exists and `overwrite` is False.
    """
    folder = pathlib.Path(folder).absolute()
    if folder.exists() and not overwrite:
        raise GeexError(f"{folder} exists", "choose another folder, or pass --overwrite")
    # One name for all processes: they write into the same folder.
    temporary = folder.with_name(f".{folder.name}.tmp")
    first = jax.process_index() == 0
    if first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(temporary / "params", dict(params), force=True)
    if first:
        if tokenizer is not None:
            tokenizer.save(temporary / "tokenizer")
        about = {
            "format": FORMAT,
            "model": to_dict(config),
            "provenance": dict(provenance or {}),
            "leaves": _leaves(params),
        }
        files.write_json(temporary / "config.json", about)
        move_into_place(temporary, folder)
    return folder


def move_into_place(temporary: pathlib.Path, folder: pathlib.Path) -> None:
    """Renames a finished folder to its place; what was there goes away last."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def _leaves(params: Any) -> dict[str, Any]:
    flat = by_path(dict(params))
    return {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in flat.items()}


def _abstract(leaves: Mapping[str, Any], mesh: jax.sharding.Mesh | None) -> dict[str, Any]:
    tree = tree_of(
        {
            path: jax.ShapeDtypeStruct(tuple(shape), jax.numpy.dtype(dtype))
            for path, (shape, dtype) in leaves.items()
        }
    )
    if mesh is None:
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        place = jax.tree.map(lambda _: one, tree)
    else:
        place = shardings(mesh, tree, uneven=True)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, place
    )


def read_config(folder: files.Path) -> dict[str, Any]:
    """Reads and checks config.json of a model folder: format, model, provenance, leaves.

    Raises:
      GeexError: no such folder, no config.json, unreadable, or of another format.
    """
    folder = pathlib.Path(folder)
    path = folder / "config.json"
    if not folder.is_dir():
        raise GeexError(f"no checkpoint folder {folder}", "give a model folder or a train workdir")
    if not path.is_file():
        raise GeexError(f"no config.json in {folder}", "give a model folder or a train workdir")
    try:
        about = json.loads(path.read_text())
        keys = {"format", "model", "provenance", "leaves"} - about.keys()
    except (ValueError, AttributeError) as error:
        raise GeexError(f"{path} is not readable ({error})", "save the model again") from None
    if keys or about["format"] != FORMAT:
        raise GeexError(
            f"{path} is not a geex model (format {about.get('format')}, missing {sorted(keys)})",
            "convert or save the model again with this version",
        )
    return about


def locate(path: files.Path) -> tuple[dict[str, Any], pathlib.Path, pathlib.Path]:
    """Finds the model in a model folder, a training workdir (its last step) or one step of it.

    Returns:
      What `read_config` gives, the folder of the parameters, and that of the tokenizer.

    Raises:
      GeexError: no model there.
    """
    path = pathlib.Path(path).absolute()
    if path.is_dir() and (steps := saved_steps(path / "checkpoints")):
        path = path / "checkpoints" / str(steps[-1])
    if is_step(path):
        if wrong := damage(path):
            raise GeexError(
                f"{path} is damaged or cut short ({wrong})",
                "use another checkpoint, or remove this one",
            )
        header = path.parent.parent / "model"
        about = read_config(header)
        about["provenance"]["step"] = int(path.name)
        return about, path / "params", header / "tokenizer"
    return read_config(path), path / "params", path / "tokenizer"


def is_step(path: pathlib.Path) -> bool:
    """Whether a folder is one step of a training workdir, not a model kept in "checkpoints/"."""
    named = path.parent.name == "checkpoints" and path.name.isdigit()
    return named and (path / "params").is_dir() and not (path / "config.json").exists()


def load_model(path: files.Path, mesh: jax.sharding.Mesh | None = None, **changes: Any) -> Loaded:
    """Opens a model folder, or the last checkpoint of a training workdir.

    Args:
      path: what `save_model` wrote, a `geex train` workdir, or one step in its `checkpoints/`.
      mesh: parameters are read straight into their places on it; by default onto one device.
      **changes: fields of the config to change, such as `dtype="bfloat16"` to compute in.

    Raises:
      GeexError: nothing there, of another format, or cut short; names the file.
    """
    about, params_folder, tokenizer_folder = locate(path)
    config = from_dict({**about["model"], **changes})
    params = restore(params_folder, _abstract(about["leaves"], mesh))
    tokenizer = tokenizers.load(tokenizer_folder) if tokenizer_folder.is_dir() else None
    model = Transformer(config)
    check_shapes(model, params, path)
    return Loaded(model, params, tokenizer, about["provenance"])


def saved_steps(folder: pathlib.Path) -> list[int]:
    """Steps of finished checkpoints in a workdir's `checkpoints/`, in order."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def write_header(
    folder: pathlib.Path, config: ModelConfig, params: Any, tokenizer: Tokenizer, provenance: Any
) -> None:
    """Writes what a workdir's checkpoints share, config.json and tokenizer/, into `folder`."""
    if not (folder / "tokenizer").is_dir():
        temporary = folder / ".tokenizer.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        tokenizer.save(temporary)
        os.rename(temporary, folder / "tokenizer")
    about = {"format": FORMAT, "model": to_dict(config), "provenance": provenance}
    files.write_json(folder / "config.json", about | {"leaves": _leaves(params)})


def restore(path: pathlib.Path, abstract: Any) -> Any:
    """Reads an Orbax tree; a missing or truncated file is one line.

    Raises:
      GeexError: the tree is not there, cut short, or of other shapes.
    """
    if not path.is_dir():
        raise GeexError(f"no parameters at {path}", "the checkpoint was cut short: use another one")
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path, abstract)
    except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
        reason = str(error).strip().splitlines()[0][:200] if str(error) else type(error).__name__
        raise GeexError(
            f"{path} is damaged or cut short ({type(error).__name__}: {reason})",
            "use another checkpoint, or remove this one",
        ) from error


def check_shapes(model: Transformer, params: Any, where: files.Path) -> None:
    """Compares float leaves with what the model would make.

    Raises:
      GeexError: a leaf is missing, unknown or of another shape; names it.
    """
    tokens = jax.ShapeDtypeStruct((1, 1), np.int32)
    tree = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    expected, found = (
        {path: shape for path, (shape, _) in _leaves(leaves).items()} for leaves in (tree, params)
    )
    check_leaves(expected, found, where)


def check_leaves(expected: Mapping[str, Any], found: Mapping[str, Any], where: files.Path) -> None:
    """Compares shapes by path; a quantized kernel may stand for a float one.

    Raises:
      GeexError: a leaf is missing, unknown or of another shape; names it.
    """
    for path, shape in expected.items():
        if path in found and list(found[path]) != list(shape):
            raise GeexError(
                f"{where}: {path} has shape {list(found[path])}, the config says {list(shape)}",
                "the checkpoint and its config.json do not belong together",
            )
        if path not in found and not _stands_for(path, shape, found, where):
            raise GeexError(f"{where}: no tensor {path}", "the checkpoint is incomplete")
    for path in found:
        float_path = re.sub(r"(kernel|embedding/tokens)_(int8|int4|scale)$", r"\1", path)
        if path not in expected and float_path not in expected:
            raise GeexError(f"{where}: unknown tensor {path}", "the checkpoint is of another model")


def _stands_for(path: str, shape: Any, found: Mapping[str, Any], where: files.Path) -> bool:
    """Whether integers and scales are there in place of a kernel or the token table.

    Raises:
      GeexError: they are, in shapes that do not belong to it.
    """
    ints = next((f"{path}_int{b}" for b in (8, 4) if f"{path}_int{b}" in found), None)
    scale = f"{path}_scale"
    if ints is None or scale not in found:
        return False
    out_major = list(shape) if path.endswith("tokens") else [*shape[:-2], shape[-1], shape[-2]]
    wanted = [*out_major[:-1], out_major[-1] // (2 if ints.endswith("4") else 1)]
    held = list(found[scale])
    groups = held[-1] if len(held) == len(wanted) else 1
    rows = held if len(held) < len(wanted) else held[:-1]
    if list(found[ints]) != wanted or rows != wanted[:-1] or out_major[-1] % max(groups, 1):
        raise GeexError(
            f"{where}: {ints} {list(found[ints])} with scales {held}, the config says "
            f"{path} {list(shape)}",
            "the checkpoint and its config.json do not belong together",
        )
    return True
