"""What a checkpoint is and holds, read off its headers, and a fingerprint of its content."""

from __future__ import annotations

import collections
import dataclasses
import math
import pathlib
from collections.abc import Collection
from typing import Any

import jax

from geex_jax import files, tokenizers
from geex_jax.checkpoints import store
from geex_jax.checkpoints.arrays import Stored
from geex_jax.checkpoints.families import HUGGING_FACE, write_config
from geex_jax.checkpoints.families.configs import comparable
from geex_jax.checkpoints.layout import (
    Leaf,
    content_fingerprint,
    describe,
    is_own,
    read_leaves,
)
from geex_jax.checkpoints.source import Source
from geex_jax.checkpoints.sources import open_source
from geex_jax.checkpoints.tensors import size_of
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, to_dict
from geex_jax.models.presets import PRESETS
from geex_jax.parallel import tree_of
from geex_jax.quantize import formats_of, quantization_of

UNUSED = "not used"  # rows and copies of an outside file that the model does not need
PARTS = ("embedding", "positions", "attention", "mlp", "norms", "top query layer", "head", UNUSED)


@dataclasses.dataclass(frozen=True)
class Report:
    """What `inspect` found; every field is JSON-able by `dataclasses.asdict`.

    Attributes:
      path: what was inspected.
      kind: model folder, training step, Hugging Face folder, ...
      family: where the weights came from, else what their shape is.
      presets: named shapes that it has, with what differs.
      config: the fields of its ModelConfig.
      parameters: weights, those packed in pairs counted singly, without scales.
      scales: quantization scales.
      nbytes: of all arrays.
      disk_bytes: of the files that hold them.
      parts: embedding, attention, ... -> {"parameters", "bytes"}.
      dtypes: element type -> bytes.
      quantization: {"bits", "rounding", "formats"}, None for a float model.
      storage: {"format", "files", "chunks", "largest_chunk", "layers_apart", "mesh"}: how arrays
        are cut, and the mesh sizes that the cuts fit.
      tokenizer: {"kind", "vocab_size", "fingerprint"}, or {"error"}; None if there is none.
      provenance: how the model came about.
      fingerprint: of names, shapes, types and content of all tensors; None if not asked for.
      leaves: all tensors, by path.
    """

    path: str
    kind: str
    family: str
    presets: list[str]
    config: dict[str, Any]
    parameters: int
    scales: int
    nbytes: int
    disk_bytes: int
    parts: dict[str, dict[str, int]]
    dtypes: dict[str, int]
    quantization: dict[str, Any] | None
    storage: dict[str, Any]
    tokenizer: dict[str, Any] | None
    provenance: dict[str, Any]
    fingerprint: str | None
    leaves: list[Leaf]


def inspect(
    path: files.Path,
    fingerprint: bool = True,
    *,
    num_heads: int | None = None,
    ignore: Collection[str] = (),
) -> Report:
    """Looks into a checkpoint.

    Args:
      path: a geex model folder, a training workdir or a step of it, an outside file or folder.
      fingerprint: read all tensors, one at a time; otherwise only headers are read.
      num_heads: see `sources.open_source`.
      ignore: see `sources.open_source`.

    Raises:
      GeexError: no checkpoint there, or it is not whole.
    """
    path = pathlib.Path(path).absolute()
    if not path.exists():  # a hub id would be fetched whole, only to be looked at
        raise GeexError(f"no checkpoint at {path}", "give a file or a folder")
    source = open_source(path, num_heads=num_heads, ignore=ignore)
    holders = _holders(source)
    provenance = dict((source.original or {})["provenance"]) if is_own(source) else {}
    total = sum(size_of(tensor) for tensor in source.tensors.values())
    parts = _parts(source, total)
    leaves, mesh = read_leaves(source)
    return Report(
        path=str(path),
        kind=_kind(source),
        family=_family(source, provenance),
        presets=_presets(source.config),
        config=to_dict(source.config),
        parameters=sum(part["parameters"] for part in parts.values()),
        scales=sum(math.prod(s) for p, s in source.leaves.items() if is_scale(p)),
        nbytes=total,
        disk_bytes=sum(file.stat().st_size for file in holders),
        parts=parts,
        dtypes=_dtypes(source),
        quantization=_quantization(source),
        storage=describe(leaves, mesh, holders),
        tokenizer=_tokenizer(source),
        provenance=provenance,
        fingerprint=content_fingerprint(source) if fingerprint else None,
        leaves=leaves,
    )


def _holders(source: Source) -> list[pathlib.Path]:
    """The files that hold the arrays."""
    if any(isinstance(tensor, Stored) for tensor in source.tensors.values()):
        folder = store.locate(source.path)[1]
        return sorted(file for file in folder.rglob("*") if file.is_file())
    return source.files


def _kind(source: Source) -> str:
    path = source.path
    if not is_own(source):
        if source.family.name != "codegeex":
            return "Hugging Face folder"
        parts = f"folder of {len(source.files)} tensor-parallel parts"
        return f"official CodeGeeX {'file' if path.is_file() else parts}"
    params = store.locate(path)[1]
    if not params.is_dir():
        return "geex safetensors"
    if params.parent != path:
        return "training workdir (its last step)"
    if not (path / "config.json").is_file():
        return "training step"
    saved = (params / "manifest.ocdbt").exists()  # conversions write a file for each chunk
    return "model folder" if saved else "model folder (converted)"


def _family(source: Source, provenance: dict[str, Any]) -> str:
    """The family: by name, by provenance, or by what could hold a model of this shape."""
    if not is_own(source):
        return source.family.name
    origin = provenance.get("source")
    if isinstance(origin, dict) and "family" in origin:
        return str(origin["family"])
    if source.config.top_query_layer:
        return "CodeGeeX (top query layer)"
    fitting = []
    for name, family in HUGGING_FACE.items():
        try:
            family.bind(source.config)
            write_config(family, source.config)
        except GeexError:
            continue
        fitting.append(name)
    return f"as {' or '.join(fitting)}" if fitting else "of no published family"


def _presets(config: ModelConfig) -> list[str]:
    """Presets of this shape; those that differ in vocabulary or context alone if there is none."""
    mine = comparable(config)
    near: dict[str, list[str]] = {"": [], "else": []}
    for name, preset in PRESETS.items():
        other = comparable(preset)
        changed = [key for key in mine if mine[key] != other[key]]
        if not changed:
            near[""].append(name)
        elif set(changed) <= {"vocab_size", "context_length"}:
            said = ", ".join(f"{key} {mine[key]}, not {other[key]}" for key in changed)
            near["else"].append(f"{name} ({said})")
    return near[""] or near["else"]


def is_scale(path: str) -> bool:
    """Whether a leaf holds the scales of quantized weights."""
    return path.endswith(("kernel_scale", "tokens_scale"))


def _part(path: str) -> str:
    if path.startswith("top_query/"):
        return "top query layer"
    for word, part in (("_norm/", "norms"), ("/attention/", "attention"), ("/mlp/", "mlp")):
        if word in path:
            return part
    if path.startswith("embedding/tokens"):
        return "embedding"
    return {"embedding/positions": "positions"}.get(path, "head")


def _parts(source: Source, total: int) -> dict[str, dict[str, int]]:
    found = {part: {"parameters": 0, "bytes": 0} for part in PARTS}
    for name, binding in source.bindings.items():
        size = source.tensors[name].dtype.itemsize
        for path, shape in binding.parts:
            part, count = found[_part(path)], math.prod(shape)
            part["bytes"] += count * size
            if not is_scale(path):
                part["parameters"] += 2 * count if path.endswith("kernel_int4") else count
    found[UNUSED]["bytes"] = total - sum(part["bytes"] for part in found.values())
    return {name: part for name, part in found.items() if part["bytes"]}


def _dtypes(source: Source) -> dict[str, int]:
    counted: collections.Counter[str] = collections.Counter()
    for tensor in source.tensors.values():
        counted[tensor.dtype.name] += size_of(tensor)
    return dict(counted.most_common())


def _quantization(source: Source) -> dict[str, Any] | None:
    """Bits (of the narrowest), rounding and formats, as `quantize` names them."""
    kinds = {p: source.tensors[n].dtype for n, b in source.bindings.items() for p, _ in b.parts}
    abstract = {p: jax.ShapeDtypeStruct(s, kinds[p]) for p, s in source.leaves.items()}
    how = quantization_of(tree_of(abstract))
    if how is None:
        return None
    found = {name for name in formats_of(tree_of(abstract)).values() if name != "float"}
    return {"bits": how.bits, "rounding": how.rounding, "formats": sorted(found)}


def _tokenizer(source: Source) -> dict[str, Any] | None:
    """The tokenizer beside the weights; one that cannot be read is said, and stops nothing."""
    folder = store.locate(source.path)[2] if is_own(source) else source.path
    names = ("tokenizer.json", "merges.txt", "tokenizer_config.json")
    if not folder.is_dir() or not (
        is_own(source) or any((folder / n).is_file() for n in names) or [*folder.glob("*.model")]
    ):
        return None
    try:
        words = tokenizers.load(folder)
    except GeexError as error:
        return {"error": str(error)}
    return {
        "kind": words.kind,
        "vocab_size": words.vocab_size,
        "fingerprint": words.fingerprint(),
    }


def render(report: Report, tree: bool = False) -> str:
    """The report for people, with `tree` a line for every tensor as well."""
    lines = [(report.path, "")]
    lines += [("kind", report.kind), ("family", report.family)]
    lines += [("preset", name) for name in report.presets]
    lines += [("model" if i == 0 else "", line) for i, line in enumerate(_shape_lines(report))]
    scales = f" and {report.scales:,} scales" if report.scales else ""
    lines.append(("parameters", f"{report.parameters:,}{scales}"))
    lines.append(("size", f"{_size(report.nbytes)} of arrays, {_size(report.disk_bytes)} on disk"))
    for name, part in report.parts.items():
        share = part["bytes"] / max(report.nbytes, 1)
        lines.append(
            ("", f"{name:<16}{part['parameters']:>16,}{_size(part['bytes']):>12}{share:>7.1%}")
        )
    kinds = ", ".join(f"{name} {_size(count)}" for name, count in report.dtypes.items())
    lines.append(("dtypes", kinds))
    how = report.quantization
    lines.append(
        (
            "quantized",
            f"{' and '.join(how['formats'])}, {how['rounding']} rounding" if how else "no",
        )
    )
    lines += [("storage", _storage_line(report)), ("shards", _shards_line(report))]
    words = report.tokenizer or {"none": "with this checkpoint"}
    lines.append(("tokenizer", ", ".join(f"{key} {value}" for key, value in words.items())))
    lines += [("provenance", f"{key}: {value}") for key, value in report.provenance.items()]
    if report.fingerprint:
        lines.append(("fingerprint", report.fingerprint))
    text = [f"{label:<12}{value}".rstrip() if value else label for label, value in lines]
    return "\n".join(text + ([*map(_leaf_line, report.leaves)] if tree else []))


def _shape_lines(report: Report) -> list[str]:
    c = ModelConfig(**report.config)
    heads = f"{c.num_heads} heads of {c.head_width}"
    heads += f" ({c.kv_heads} for keys and values)" if c.kv_heads != c.num_heads else ""
    top = " and a top query layer" if c.top_query_layer else ""
    mlp = f"{c.activation}, gated" if c.gated_mlp else c.activation
    return [
        f"{c.num_layers} layers{top}, width {c.d_model}, {heads}, mlp {c.d_ff} ({mlp})",
        f"vocabulary {c.vocab_size}, context {c.context_length}, {c.position} positions, {c.norm},"
        f" {c.residual} branches, {'tied' if c.tied_head else 'untied'} head",
        f"computes in {c.dtype}",
    ]


def _storage_line(report: Report) -> str:
    about = report.storage
    line = f"{about['format']}, {about['files']} file{'s' if about['files'] > 1 else ''}"
    if "chunks" in about:
        line += f", {about['chunks']} chunks, the largest of {_size(about['largest_chunk'])}"
    return line


def _shards_line(report: Report) -> str:
    about = report.storage
    if "mesh" not in about:
        return "tensors lie whole in their files"
    cut = [f"{axis}={ways}" for axis, ways in about["mesh"].items()]
    line = f"cut for a mesh of {', '.join(cut)}" if cut else "whole"
    apart = about["layers_apart"]
    return line + (f"; layers apart in {apart} of {len(report.leaves)} leaves" if apart else "")


def _leaf_line(leaf: Leaf) -> str:
    chunk = ""
    if leaf.chunk is not None:
        chunk = f"  chunk {list(leaf.chunk)}" + (f" ({', '.join(leaf.cut)})" if leaf.cut else "")
    holds = f"  = {', '.join(leaf.holds)}" if leaf.holds else ""
    return f"  {leaf.path}  {list(leaf.shape)} {leaf.dtype} {_size(leaf.nbytes)}{chunk}{holds}"


def _size(count: int) -> str:
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count} B"
