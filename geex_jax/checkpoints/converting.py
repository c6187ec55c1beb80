"""Converts an outside checkpoint into a model folder, tensor by tensor, and goes on if killed."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from geex_jax import files, tokenizers
from geex_jax.checkpoints import arrays, output, store
from geex_jax.checkpoints.families import Binding
from geex_jax.checkpoints.output import DTYPES, cast, dtype_name, finite
from geex_jax.checkpoints.source import Source, parts_of, place, side_files
from geex_jax.checkpoints.sources import open_source
from geex_jax.checkpoints.tensors import size_of
from geex_jax.errors import GeexError, did_you_mean
from geex_jax.models import ModelConfig, to_dict
from geex_jax.parallel import AXES, fitting_spec
from geex_jax.tokenizers import Tokenizer
from geex_jax.version import __version__

SMALL = 8 << 20  # bytes; leaves up to this size are gathered in memory and written once


def convert(
    source: files.Path,
    dest: files.Path,
    *,
    dtype: str | None = None,
    mesh: Mapping[str, int] | None = None,
    tokenizer: files.Path | None = None,
    num_heads: int | None = None,
    vocab_size: int | None = None,
    compute_dtype: str = "float32",
    ignore: Collection[str] = (),
    overwrite: bool = False,
) -> pathlib.Path:
    """Converts a checkpoint of any known family into a model folder that `load_model` opens.

    One tensor at a time is in memory. Each is written where it belongs, one chunk for every layer
    and shard of `mesh`. A second call with the same arguments goes on where a killed one stopped.

    Args:
      source: see `sources.open_source`; the family is found from the files.
      dest: the model folder to make; it appears when it is whole.
      dtype: type of the float parameters written; by default as they are.
      mesh: sizes of the axes data, fsdp, tensor whose shards the chunks shall be; the result
        loads onto any other mesh as well.
      tokenizer: folder or hub id; by default the source's own, if there is one.
      num_heads: see `sources.open_source`.
      vocab_size: see `sources.open_source`.
      compute_dtype: `config.dtype` of the model.
      ignore: keys of config.json that the user vouches for.
      overwrite: replace what is at `dest`.

    Returns:
      The folder.

    Raises:
      GeexError: anything that is missing, unknown, misshaped, damaged or not finite; `dest` is
        untouched then.
    """
    dtype, compute_dtype = dtype_name(dtype) if dtype else None, dtype_name(compute_dtype)
    dest = output.destination(dest, overwrite)
    opened = open_source(source, num_heads=num_heads, vocab_size=vocab_size, ignore=ignore)
    origin = opened.path.name if pathlib.Path(source).exists() else str(source)  # a hub id
    return write_model(
        opened, dest, dtype, mesh, tokenizer, compute_dtype, {"name": origin}, overwrite
    )


def write_model(
    opened: Source,
    dest: pathlib.Path,
    dtype: str | None = None,
    mesh: Mapping[str, int] | None = None,
    tokenizer: files.Path | None = None,
    compute_dtype: str = "float32",
    origin: Mapping[str, str] | None = None,
    overwrite: bool = False,
    *,
    name: str | None = None,
    job: str = "",
    provenance: Mapping[str, Any] | None = None,
    before: Callable[[pathlib.Path], None] = lambda folder: None,
) -> pathlib.Path:
    """Writes an opened checkpoint as a model folder; see `convert`.

    Args:
      opened: what to write; its bindings say what becomes of each tensor.
      dest: see `output.destination`.
      dtype, mesh, tokenizer, compute_dtype: as of `convert`.
      origin: facts about an outside source.
      overwrite: replace what is at `dest`.
      name: of the model, by default that of `dest`.
      job: what else decides the bytes; another job does not go on with this one's work.
      provenance: more facts.
      before: called with the unfinished folder before tensors are read.
    """
    output.refuse_overlap(opened, dest)
    plan = _plan(opened, dtype, dict(mesh or {}))
    kinds = [leaf.dtype.name for leaf in plan.leaves.values()]
    stored = collections.Counter(kind for kind in kinds if kind in DTYPES)
    config = opened.config.replace(
        name=name or dest.name, dtype=compute_dtype, param_dtype=stored.most_common(1)[0][0]
    )
    words, unread = _tokenizer(opened, tokenizer, config)
    partial = dest.with_name(f".{dest.name}.partial")
    again = "the same command goes on where it stopped"
    with output.system_errors(partial, again), _locked(partial, dest):
        output.destination(dest, overwrite)  # another process may have made it since
        _prepare(partial, opened, plan, job)
        before(partial)
        _write(opened, plan, partial)
        facts = (dict(origin or {}) | unread, dict(provenance or {}))
        _finish(opened, plan, partial, config, words, facts)
        store.move_into_place(partial, dest)
    return dest


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """One of our parameters: what will be written."""

    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]
    small: bool

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class _Plan:
    leaves: dict[str, _Leaf]
    order: list[Binding]  # as they lie in the files


def _plan(source: Source, dtype: str | None, mesh: dict[str, int]) -> _Plan:
    for axis, size in mesh.items():
        if axis not in AXES:
            raise GeexError(f"unknown mesh axis {axis!r}", did_you_mean(axis, AXES))
        if size < 1:
            raise GeexError(f"mesh axis {axis} = {size}", "give a size above 0")
    kinds: dict[str, tuple[np.dtype, str]] = {}
    for name, binding in source.bindings.items():
        found = source.tensors[name].dtype
        for path, _ in binding.parts:
            made = getattr(binding, "dtypes", {})  # of leaves that are made on the way
            kind = made.get(path) or _leaf_dtype(source, name, path, found, dtype)
            first, other = kinds.setdefault(path, (kind, name))
            if first != kind:
                raise GeexError(
                    f"{place(source, name)}: {name} is {kind.name}, {other} is {first.name}",
                    "choose one with --dtype",
                )
    small_ones: set[str] = set()
    for binding in source.bindings.values():
        # All parts of an outside tensor or none: the journal says of tensors that they are done.
        paths = [path for path, _ in binding.parts]
        if sum(math.prod(source.leaves[p]) * kinds[p][0].itemsize for p in paths) <= SMALL:
            small_ones.update(paths)
    leaves = {}
    for path, shape in source.leaves.items():
        kind, small = kinds[path][0], path in small_ones
        spec = fitting_spec(path, shape, mesh, uneven=True)
        cut = [mesh.get(axis, 1) if axis else 1 for axis in spec]
        if path.startswith("layers/") and not small:
            cut[0] = 0
        chunk = arrays.chunk_of(shape, kind.itemsize, tuple(cut))
        leaves[path] = _Leaf(shape, kind, chunk, small)

    def where(binding: Binding) -> tuple[str, int]:
        tensor = source.tensors[binding.name]
        return str(place(source, binding.name)), getattr(tensor, "offset", 0)

    return _Plan(leaves, sorted(source.bindings.values(), key=where))


def _leaf_dtype(source: Source, name: str, path: str, found: np.dtype, to: str | None) -> np.dtype:
    """The type that a part of an outside tensor is written in."""
    if path.endswith(("_int8", "_int4")):
        if found.kind not in "iu" or found.itemsize != 1:
            raise GeexError(
                f"{place(source, name)}: {name} is {found.name}, no int8",
                "bring the official quantized file",
            )
        return np.dtype(np.int8 if path.endswith("8") else np.uint8)
    if found.name not in DTYPES:
        raise GeexError(
            f"{place(source, name)}: {name} is {found.name}, no float type of weights",
            "bring a checkpoint in float32, float16 or bfloat16",
        )
    # The scales' own type says how they were rounded.
    return np.dtype(found if to is None or path.endswith("_scale") else DTYPES[to])


def _tokenizer(
    source: Source, given: files.Path | None, config: ModelConfig
) -> tuple[Tokenizer | None, dict[str, str]]:
    """The tokenizer that goes along, checked against the vocabulary.

    The source's own may be of a kind that is not known here (CodeGeeX4's): that does not stop the
    weights, and is said in the provenance.
    """
    place = given
    if given is None and source.family.name == "geex":
        place = store.locate(source.path)[2]
    elif given is None and source.path.is_dir():
        named = [source.path / name for name in ("tokenizer.json", "merges.txt")]
        here = any(file.is_file() for file in named) or any(source.path.glob("*.model"))
        place = source.path if here else source.path / "tokenizer"
    if place is None or (given is None and not pathlib.Path(place).is_dir()):
        return None, {}
    try:
        words = tokenizers.load(place)
    except GeexError as error:
        if given is not None:
            raise
        return None, {"tokenizer": f"not taken along ({error}); see --tokenizer"}
    if words.vocab_size > config.vocab_size:
        raise GeexError(
            f"{place}: {words.vocab_size} token ids for {config.vocab_size} rows of the model",
            "give the checkpoint's own tokenizer with --tokenizer",
        )
    return words, {}


@contextlib.contextmanager
def _locked(folder: pathlib.Path, dest: pathlib.Path) -> Iterator[None]:
    """Makes the partial folder and holds it for this process; bad input leaves nothing behind."""
    made = output.make_folder(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = folder.exists() and os.path.samestat(os.fstat(handle), os.stat(folder))
        except BlockingIOError:
            mine = False
        if not mine:  # held by another process, or renamed by it just before it let go
            raise GeexError(f"another process is converting into {dest}", "wait for it")
        try:
            yield
        except GeexError:
            output.remove_folder(folder, made)
            raise
    finally:
        os.close(handle)


def _prepare(folder: pathlib.Path, source: Source, plan: _Plan, extra: str) -> None:
    """Keeps what an earlier run of the same conversion has done, else starts afresh."""
    stats = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in source.files]
    leaves = {p: [x.shape, x.dtype.name, x.chunk, x.small] for p, x in plan.leaves.items()}
    about = [__version__, str(source.path.absolute()), to_dict(source.config), stats, leaves, extra]
    job = files.fingerprint(json.dumps(about, sort_keys=True))
    note = folder / "job"
    if not note.is_file() or note.read_text() != job:
        for old in folder.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        output.check_space(folder, sum(leaf.nbytes for leaf in plan.leaves.values()))
        arrays.write_metadata(folder / "params", list(plan.leaves))
        with files.atomic_write(note) as file:
            file.write(job)


def _write(source: Source, plan: _Plan, folder: pathlib.Path) -> None:
    """Writes all arrays; a line in `done` for each outside tensor whose large parts are on disk."""
    journal = folder / "done"
    done = set(journal.read_text().split("\n")[:-1]) if journal.is_file() else set()
    opened: dict[str, Any] = {}
    small = {p: np.empty(x.shape, x.dtype) for p, x in plan.leaves.items() if x.small}
    total = sum(size_of(source.tensors[b.name]) for b in plan.order)
    progress = output.Meter(f"converting {source.family.name}", total)
    with open(journal, "a") as log:
        for binding in plan.order:
            tensor = source.tensors[binding.name]
            if binding.name not in done:
                _write_one(source, plan, binding, folder / "params", opened, small)
                if not plan.leaves[binding.parts[0][0]].small:
                    log.write(f"{binding.name}\n")
                    log.flush()
                    os.fsync(log.fileno())
            progress.update(size_of(tensor))
    for path, array in small.items():
        leaf = plan.leaves[path]
        target = arrays.create(folder / "params", path, leaf.shape, leaf.dtype, leaf.chunk)
        arrays.write(target, array)
    progress.close()


def _write_one(
    source: Source,
    plan: _Plan,
    binding: Binding,
    params: pathlib.Path,
    opened: dict[str, Any],
    small: dict[str, np.ndarray],
) -> None:
    """Reads one outside tensor, checks it, and puts its parts where they belong."""
    array = _read(source, binding)
    for path, part in binding.inward(array).items():
        leaf = plan.leaves[path]
        part = cast(part, leaf.dtype, f"{place(source, binding.name)}: {binding.name}")
        if leaf.small:
            small[path][... if binding.layer is None else binding.layer] = part
            continue
        if path not in opened:
            opened[path] = arrays.create(params, path, leaf.shape, leaf.dtype, leaf.chunk)
        target = opened[path] if binding.layer is None else opened[path][binding.layer]
        arrays.write(target, part)


def _read(source: Source, binding: Binding) -> np.ndarray:
    name = binding.name
    array = source.read(name)
    if not finite(array):
        parts = parts_of(source.tensors[name])
        bad = next((p for p in parts if len(parts) > 1 and not finite(p.read())), parts[0])
        raise GeexError(
            f"{getattr(bad, 'file', None) or source.path}: {name} holds a NaN or an infinity",
            "bring a checkpoint from before it diverged",
        )
    copy = source.family.tied_copy
    if binding.parts[0][0] == "embedding/tokens" and source.config.tied_head and copy:
        other = source.tensors.get(copy)
        if other is not None and not np.array_equal(array, other.read()):
            raise GeexError(
                f"{place(source, copy)}: {copy} is not the embedding, though config.json ties them",
                "set tie_word_embeddings to false if the head is its own",
            )
    return array


def _finish(
    source: Source,
    plan: _Plan,
    folder: pathlib.Path,
    config: ModelConfig,
    words: Tokenizer | None,
    facts: tuple[dict[str, str], dict[str, Any]],
) -> None:
    """Puts config, tokenizer and the source's side files beside the arrays."""
    if words is not None:
        shutil.rmtree(folder / "tokenizer", ignore_errors=True)
        words.save(folder / "tokenizer")
    (folder / "source").mkdir(exist_ok=True)
    for file in side_files(source):
        shutil.copyfile(file, folder / "source" / file.name)
    origin, more = facts
    if source.family.name == "geex":
        provenance = dict((source.original or {})["provenance"])
    else:
        held = {p.name: p.stat().st_size for p in source.files}
        came: dict[str, Any] = {"family": source.family.name, "files": held, **origin}
        provenance: dict[str, Any] = {"source": came}
    provenance |= {"converted_by": f"geex-jax {__version__}"} | more
    leaves = {p: [list(x.shape), x.dtype.name] for p, x in plan.leaves.items()}
    about = {
        "format": store.FORMAT,
        "model": to_dict(config),
        "provenance": provenance,
        "leaves": leaves,
    }
    files.write_json(folder / "config.json", about)
    for name in ("done", "job"):
        (folder / name).unlink()
    shutil.rmtree(folder / "blocks", ignore_errors=True)  # what a calibration left
