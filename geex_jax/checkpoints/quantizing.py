"""Quantizes a checkpoint from disk to disk: one tensor in memory at a time, goes on if killed.

It is a conversion (`converting`) whose tensors become integers and scales on their way. The source
may be of any family; a calibration (`quantize.calibrate`) works block by block before, and what it
made lies in the unfinished folder until it is taken over.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax import files
from geex_jax.checkpoints import converting, output, safetensors_file
from geex_jax.checkpoints.families import Binding
from geex_jax.checkpoints.source import Source
from geex_jax.checkpoints.sources import open_source
from geex_jax.checkpoints.tensors import InMemory
from geex_jax.errors import GeexError
from geex_jax.parallel import by_path, tree_of
from geex_jax.quantize import Policy, formats_of, quantization_of, quantize_params
from geex_jax.quantize.calibrate import Batch, calibrate_blocks
from geex_jax.quantize.rounding import (
    Rounding,
    dequantize_kernel,
    dequantize_table,
    quantize_kernel,
    quantize_rows,
)
from geex_jax.quantize.weights import Params, checked_policy

ROWS = 4096  # of a token table at a time
LARGE = 1 << 20  # bytes of a part, after which freed memory is given back
Made = Mapping[str, np.ndarray]


def quantize_model(
    source: files.Path,
    dest: files.Path,
    policy: Policy | str | int = 8,
    rounding: Rounding = "clean",
    *,
    batches: Sequence[Batch] | None = None,
    mesh: Mapping[str, int] | None = None,
    num_heads: int | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> pathlib.Path:
    """Writes the quantized model folder of a checkpoint that is never whole in memory.

    A second call with the same arguments goes on where a killed one stopped.

    Args:
      source: see `sources.open_source`: ours, or of any family.
      dest: the model folder to make; it appears when it is whole.
      policy: see `quantize.policy.parse`.
      rounding: "clean" or "official".
      batches: calibrates linears of blocks by GPTQ on these rows (see `quantize.calibrate`).
      mesh: sizes of axes whose shards the chunks on disk shall be.
      num_heads: of an official CodeGeeX checkpoint.
      overwrite: replace what is at `dest`.
      progress: is told which blocks are calibrated.

    Returns:
      The folder.

    Raises:
      GeexError: as `convert` and `quantize_params`; `dest` is untouched then.
    """
    dest = output.destination(dest, overwrite)
    opened = open_source(source, num_heads=num_heads)
    table, abstract = _plan(opened, policy, rounding)
    if batches is not None and rounding != "clean":
        raise GeexError("GPTQ has no official rounding", "use --rounding clean")
    blocks: list[Blocks] = []

    def convert(path: str, layer: int | None, part: np.ndarray) -> Made:
        if part.nbytes >= LARGE:
            output.give_back()
        if blocks and path.endswith("/kernel") and (found := blocks[0].leaves(path, layer)):
            return found
        return _quantized(path, part, table, rounding)

    def calibrate(folder: pathlib.Path) -> None:
        if batches is not None:
            blocks.append(Blocks(folder / "blocks"))
            read = _reader(opened)
            calibrate_blocks(opened.config, read, table, batches, blocks[0], progress)

    narrow = quantization_of(abstract)
    how: dict[str, Any] = {
        "policy": table.name,
        "bits": narrow and narrow.bits,
        "rules": [list(rule) for rule in table.rules],
        "rounding": rounding,
        "calibration": _calibration(batches),
        "from": str(opened.path),
    }
    return converting.write_model(
        _source(opened, abstract, convert),
        dest,
        mesh=mesh,
        compute_dtype=opened.config.dtype,
        origin={"name": opened.path.name},
        overwrite=overwrite,
        name=opened.config.name,
        job=json.dumps(how),
        provenance={"quantization": how | {"formats": formats_of(abstract)}},
        before=calibrate,
    )


def _calibration(batches: Sequence[Batch] | None) -> dict[str, Any] | None:
    if batches is None:
        return None
    counts = sum(int((np.asarray(b["segment_ids"]) > 0).sum()) for b in batches)
    content = files.fingerprint(*(np.asarray(b["tokens"], np.int32).tobytes() for b in batches))
    return {"method": "gptq", "tokens": counts, "rows": content}


def shapes_of(source: Source) -> Params:
    """The parameters of an opened checkpoint as shapes; nothing is read."""
    kinds = {}
    for name, binding in source.bindings.items():
        kinds |= dict.fromkeys((path for path, _ in binding.parts), source.tensors[name].dtype)
    return tree_of(
        {path: jax.ShapeDtypeStruct(shape, kinds[path]) for path, shape in source.leaves.items()}
    )


def _plan(source: Source, policy: Any, rounding: Rounding) -> tuple[Policy, Params]:
    """The policy and the shapes of what will be written."""
    tree = shapes_of(source)
    table = checked_policy(tree, policy, rounding)
    return table, jax.eval_shape(lambda t: quantize_params(t, table, rounding), tree)


@dataclasses.dataclass(frozen=True)
class _Quantizing(Binding):
    """A binding whose parts become integers and scales on their way in."""

    inner: Binding
    dtypes: Mapping[str, np.dtype]
    convert: Callable[[str, int | None, np.ndarray], Made]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the outside tensor."""
        return self.inner.shape

    def inward(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Our leaves, quantized."""
        out: dict[str, np.ndarray] = {}
        for path, part in self.inner.inward(array).items():
            out |= self.convert(path, self.inner.layer, part)
        return out


def _source(source: Source, abstract: Params, convert: Any) -> Source:
    flat = by_path(abstract)
    bindings = {}
    for name, inner in source.bindings.items():
        parts: list[tuple[str, tuple[int, ...]]] = []
        dtypes = {}
        for path, _ in inner.parts:
            for leaf in _become(path, flat):
                shape = flat[leaf].shape
                parts.append((leaf, shape[1:] if inner.layer is not None else shape))
                if leaf != path:
                    dtypes[leaf] = np.dtype(flat[leaf].dtype)
        bindings[name] = _Quantizing(
            name, inner.rule, tuple(parts), inner.layer, inner.blocks, inner, dtypes, convert
        )
    leaves = {path: leaf.shape for path, leaf in flat.items()}
    return dataclasses.replace(source, bindings=bindings, leaves=leaves)


def _become(path: str, flat: Mapping[str, Any]) -> list[str]:
    if path in flat:
        return [path]
    names = (f"{path}_int8", f"{path}_int4", f"{path}_scale")
    return [name for name in names if name in flat]


def _quantized(path: str, part: np.ndarray, table: Policy, rounding: Rounding) -> Made:
    """One float leaf (of one layer) as what it becomes."""
    name = path.removesuffix("/kernel")
    if path == "embedding/tokens":
        if table.format(path).bits is None:
            return {path: part}
        pieces = [
            jax.device_get(quantize_rows(jnp.asarray(part[i : i + ROWS]), 8, rounding))
            for i in range(0, len(part), ROWS)
        ]
        ints, scale = (np.concatenate(both) for both in zip(*pieces, strict=True))
        return {f"{path}_int8": ints, f"{path}_scale": scale}
    how = table.format(name) if name != path else None
    if how is None or how.bits is None:
        return {path: part}
    limit = np.finfo(np.float16).max
    if rounding == "official" and np.max(np.abs(part.astype(np.float32))) > limit:
        raise GeexError(f"{path} holds a value beyond float16", "use --rounding clean")
    made = quantize_kernel(jnp.asarray(part), how.bits, rounding, how.group)
    ints, scale = jax.device_get(made)
    return {f"{path}_int{how.bits}": ints, f"{path}_scale": scale}


class Blocks(MutableMapping[str, Params]):
    """Calibrated blocks in files, "layers/3" in layers-3.safetensors; each is whole or absent."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def _file(self, path: str) -> pathlib.Path:
        return self.folder / f"{path.replace('/', '-')}.safetensors"

    def __setitem__(self, path: str, leaves: Params) -> None:
        arrays = {n: InMemory(np.asarray(x)) for n, x in by_path(leaves).items()}
        safetensors_file.write(self._file(path), arrays)

    def __getitem__(self, path: str) -> Params:
        if path not in self:
            raise KeyError(path)
        tensors = safetensors_file.index(self._file(path))
        return tree_of({name: tensor.read() for name, tensor in tensors.items()})

    def __contains__(self, path: object) -> bool:
        return self._file(str(path)).is_file()

    def __delitem__(self, path: str) -> None:
        self._file(path).unlink()

    def __iter__(self) -> Iterator[str]:
        return iter(file.stem.replace("-", "/") for file in self.folder.glob("*.safetensors"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def leaves(self, path: str, layer: int | None) -> Made:
        """What the kernel at a path (of one layer) became; nothing if it is in no block."""
        first, _, inside = path.partition("/")
        block = f"layers/{layer}" if layer is not None else first
        if block not in self:
            return {}
        tensors = safetensors_file.index(self._file(block))
        names = [f"{inside}_{end}" for end in ("int8", "int4", "scale")]
        return {f"{first}/{name}": tensors[name].read() for name in names if name in tensors}


def _reader(source: Source) -> Callable[[str], Params]:
    """Reads the float leaves of one part of the model: "embedding", "layers/3", "top_query"."""

    def read(path: str) -> Params:
        first, _, number = path.partition("/")
        layer = int(number) if number else None
        flat: dict[str, np.ndarray] = {}
        for name, binding in source.bindings.items():
            ours = [p for p, _ in binding.parts if p.startswith(f"{first}/")]
            if ours and binding.layer == layer:
                found = binding.inward(source.read(name))
                flat |= {p.removeprefix(f"{first}/"): found[p] for p in ours}
        return tree_of(flat)

    return read


def model_errors(
    before: files.Path, after: files.Path, num_heads: int | None = None
) -> dict[str, float]:
    """||W - W'|| / ||W|| of every quantized weight of every layer, one in memory at a time.

    Args:
      before: the float checkpoint, as `quantize_model` took it.
      after: the model folder that it made.
      num_heads: of an official CodeGeeX checkpoint.

    Returns:
      Path to error, "layers/3/mlp/up"; an all-zero weight gives 0.
    """
    floats, held = open_source(before, num_heads=num_heads), open_source(after)
    where = {(p, b.layer): n for n, b in held.bindings.items() for p, _ in b.parts}
    errors: dict[str, float] = {}
    for name, binding in floats.bindings.items():
        paths = [p for p, _ in binding.parts if (f"{p}_scale", binding.layer) in where]
        if not paths:
            continue
        parts = binding.inward(floats.read(name))
        for path in paths:
            leaf = path.rpartition("/")[2]
            named = {f"{leaf}_{e}": where.get((f"{path}_{e}", binding.layer))
                     for e in ("int8", "int4", "scale")}  # fmt: skip
            leaves: dict[str, Any] = {k: held.read(n) for k, n in named.items() if n is not None}
            shown = path.removesuffix("/kernel")
            if binding.layer is not None:
                shown = shown.replace("layers/", f"layers/{binding.layer}/", 1)
            errors[shown] = _relative(parts[path], leaves)
            output.give_back()
    return errors


def _relative(weight: np.ndarray, leaves: Mapping[str, Any]) -> float:
    if "tokens_int8" not in leaves:
        difference, norm = _squares(jnp.asarray(weight), dequantize_kernel(leaves))
    else:  # the largest tensor of most models: some rows at a time
        difference = norm = 0.0
        for i in range(0, len(weight), ROWS):
            piece = {name: x[i : i + ROWS] for name, x in leaves.items()}
            found = _squares(jnp.asarray(weight[i : i + ROWS]), dequantize_table(piece))
            difference, norm = difference + float(found[0]), norm + float(found[1])
    return float((difference / norm) ** 0.5) if norm > 0 else 0.0


@jax.jit
def _squares(weight: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    weight = weight.astype(jnp.float32)
    return jnp.sum((weight - other) ** 2), jnp.sum(weight**2)
