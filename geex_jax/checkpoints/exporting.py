"""Model folders back out: for transformers, the official code, as safetensors, as StableHLO."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from geex_jax import files, tokenizers
from geex_jax.checkpoints import (
    cards,
    output,
    own,
    safetensors_file,
    stablehlo,
    store,
    torch_write,
)
from geex_jax.checkpoints.compressed import SCALE, Shaped, config_of, with_integers
from geex_jax.checkpoints.families import HUGGING_FACE, Binding, Family, codegeex, write_config
from geex_jax.checkpoints.families.configs import comparable
from geex_jax.checkpoints.output import DTYPES, cast, dtype_name
from geex_jax.checkpoints.quantizing import shapes_of
from geex_jax.checkpoints.source import Source
from geex_jax.checkpoints.sources import open_source
from geex_jax.checkpoints.tensors import Lazy, size_of
from geex_jax.errors import GeexError, did_you_mean
from geex_jax.models import ModelConfig
from geex_jax.quantize import formats_of

FORMATS = ("hf", "codegeex", "safetensors", "stablehlo")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "merges.txt")


def export(
    checkpoint: files.Path,
    dest: files.Path,
    *,
    format: str = "hf",
    family: str | None = None,
    dtype: str | None = None,
    model_parallel: int = 1,
    fused_qkv: bool = False,
    max_shard_bytes: int = 5_000_000_000,
    programs: stablehlo.Options | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes a model folder for other libraries, one tensor in memory at a time.

    Args:
      checkpoint: a geex model folder, a training workdir, or one step of it.
      dest: the folder to make; it appears when it is whole.
      format: "hf" for transformers, "codegeex" for the official loader (quantized ones too),
        "safetensors" for our own names, "stablehlo" for programs that run without this library
        (see `stablehlo`).
      family: of format "hf"; by default the one that the model came from, or the first that fits.
      dtype: of float tensors; by default as they are.
      model_parallel: parts of format "codegeex" (`mp_rank_XX_model_states.pt`).
      fused_qkv: format "codegeex" with `query_key_value` in one matrix.
      max_shard_bytes: larger safetensors are divided, with an index.
      programs: what programs of format "stablehlo" are made for.
      overwrite: replace what is at `dest`.

    Returns:
      The folder.

    Raises:
      GeexError: the format cannot hold the model, or a part does not divide.
    """
    if format not in FORMATS:
        raise GeexError(f"unknown format {format!r}", did_you_mean(format, FORMATS))
    if format != "codegeex" and (model_parallel != 1 or fused_qkv):
        raise GeexError("--model-parallel and --fused-qkv", "are for --format codegeex")
    if format != "hf" and family is not None:
        raise GeexError("--family", "is for --format hf")
    if format != "stablehlo" and programs is not None:
        raise GeexError("--platforms, --slots, --activations, --kv-cache", "are for stablehlo")
    if format == "stablehlo" and dtype is not None:
        raise GeexError("--dtype changes stored weights", "stablehlo: give --compute-dtype")
    kind = np.dtype(DTYPES[dtype_name(dtype)]) if dtype else None
    dest = output.destination(dest, overwrite)
    if not pathlib.Path(checkpoint).exists():  # a hub id would be fetched, and then refused
        raise GeexError(f"no checkpoint at {checkpoint}", "give a geex model")
    source = open_source(checkpoint)
    if source.family.name != "geex":
        raise GeexError(f"{checkpoint} is no geex model", f"geex convert {checkpoint} DEST")
    output.refuse_overlap(source, dest)
    if format == "stablehlo":
        options = programs or stablehlo.Options()
        options.config(source.config)

        def fill(folder: pathlib.Path) -> None:
            _write_programs(folder, source, options)
    else:
        chosen, config = _choose(source, format, family, model_parallel, fused_qkv)
        tensors = _outward(source, chosen, kind)

        def fill(folder: pathlib.Path) -> None:
            _write(folder, source, chosen, tensors, format, model_parallel, max_shard_bytes)
            _beside(folder, source, format, config, tensors, dest.name)

    temporary = dest.with_name(f".{dest.name}.tmp")
    with output.system_errors(dest, "nothing was written"):
        shutil.rmtree(temporary, ignore_errors=True)
        made = output.make_folder(temporary)
        try:
            fill(temporary)
            store.move_into_place(temporary, dest)
        finally:
            output.remove_folder(temporary, made)  # well ended: it is not there any more
    return dest


def _write_programs(folder: pathlib.Path, source: Source, options: stablehlo.Options) -> None:
    """Writes format "stablehlo", with the tokenizer for whoever has the library."""
    output.check_space(folder, sum(map(size_of, source.tensors.values())))
    place = store.locate(source.path)[2]
    words = tokenizers.load(place) if place.is_dir() else None
    ends = {"eos": words and words.eos_id, "tokens": words and words.vocab_size}
    stablehlo.write(folder, source, options, ends)
    if words is not None:
        words.save(folder / "tokenizer")


def _write(
    folder: pathlib.Path,
    source: Source,
    family: Family,
    tensors: Mapping[str, Lazy],
    format: str,
    ranks: int,
    largest: int,
) -> None:
    """Writes the weights."""
    parts = _ranks(source, family, tensors, ranks) if format == "codegeex" else [tensors]
    total = sum(size_of(tensor) for part in parts for tensor in part.values())
    output.check_space(folder, total)
    meter = output.Meter(f"exporting {family.name}", total)
    if format == "codegeex":
        names = [f"mp_rank_{rank:02d}_model_states.pt" for rank in range(ranks)]
        if ranks == 1:
            names = [f"{source.config.name.replace('/', '_')}.pt"]
        for name, part in zip(names, parts, strict=True):
            saved = {"module": {"language_model": _nested(part)}}
            torch_write.write(folder / name, saved, meter.update)
    else:
        safetensors_file.write_sharded(folder, tensors, largest, meter.update)
    meter.close()


def _choose(
    source: Source, format: str, name: str | None, ranks: int, fused: bool
) -> tuple[Family, dict[str, Any]]:
    """The family to write, and its config.json ({} for the official format, which has none)."""
    config, about = source.config, source.original or {}
    if format == "safetensors":
        return source.family, {**about, "leaves": dict(about["leaves"])}
    if format == "codegeex":
        _check_ranks(config, ranks)
        sizes = ("vocab_size", "context_length", "d_model", "num_layers", "num_heads", "d_ff")
        plain = comparable(ModelConfig(**{size: getattr(config, size) for size in sizes}))
        for key, value in comparable(config).items():
            if plain[key] != value:
                raise GeexError(
                    f"the official CodeGeeX code has no {key} = {value!r}", "use --format hf"
                )
        _check_official(source)
        return codegeex.family(fused, ranks), {}
    formats = _formats(source)
    if not formats:
        return _fitting(source, name)
    if formats != {"int8"} or any("tokens_scale" in path for path in source.leaves):
        raise GeexError(
            f"a folder for transformers holds int8 weights of linears, not {_listed(formats)}",
            "quantize with --policy int8, or use --format codegeex or safetensors",
        )
    family, config = _fitting(source, name)
    ignored = [n.removesuffix(".weight") for n, b in with_integers(family).bind(
        source.config, source.leaves).items() if b.parts[0][0].endswith("/kernel")]  # fmt: skip
    if source.config.tied_head or "lm_head" in ignored:
        ignored = [*(n for n in ignored if n != "lm_head"), "lm_head"]
    return with_integers(family), config | {"quantization_config": config_of(ignored)}


def _formats(source: Source) -> set[str]:
    """The formats of quantized weights, none for a float model."""
    return {name for name in formats_of(shapes_of(source)).values() if name != "float"}


def _listed(formats: set[str]) -> str:
    return " and ".join(sorted(formats)) + " (or a quantized token table)"


def _check_official(source: Source) -> None:
    """Raises GeexError for a quantized model that the official code would not load."""
    formats = _formats(source)
    scales = [p for p in source.bindings if p.endswith("kernel_scale")]
    if scales and source.tensors[scales[0]].dtype != np.float16:
        raise GeexError(
            "the official code wants float16 scales", "quantize with --rounding official"
        )
    kept = [p for p in source.leaves if p.endswith("/kernel")]
    if formats and (len(formats) > 1 or kept or formats - {"int8", "int4"}):
        raise GeexError(
            f"the official code has all linears in int8 or all in int4, not {_listed(formats)}",
            "quantize with --policy int8 or int4 and --rounding official",
        )


def _check_ranks(config: ModelConfig, ranks: int) -> None:
    if ranks < 1 or config.num_heads % ranks:
        raise GeexError(
            f"--model-parallel {ranks} does not divide {config.num_heads} heads",
            "choose a divisor",
        )


def _fitting(source: Source, name: str | None) -> tuple[Family, dict[str, Any]]:
    came = (source.original or {}).get("provenance", {}).get("source")
    came_from = came.get("family") if isinstance(came, dict) else None
    original = source.path / "source" / "config.json"
    values = json.loads(original.read_text()) if original.is_file() else None
    if name is None and came_from in HUGGING_FACE:
        name = came_from
    if name is not None:
        if name not in HUGGING_FACE:
            raise GeexError(f"unknown family {name!r}", did_you_mean(name, HUGGING_FACE))
        family = HUGGING_FACE[name]
        family.bind(source.config)
        return family, write_config(family, source.config, values if name == came_from else None)
    for family in HUGGING_FACE.values():
        try:
            family.bind(source.config)
            return family, write_config(family, source.config)
        except GeexError:
            continue
    raise GeexError(
        f"no family of transformers computes what {source.path.name} does",
        "use --format codegeex (for a top query layer) or --format safetensors",
    )


@dataclasses.dataclass(frozen=True)
class Outward:
    """An outside tensor made of ours when it is read; see `tensors.Lazy`."""

    binding: Binding
    parts: Mapping[str, Lazy]
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the outside tensor."""
        return self.binding.shape

    def read(self) -> np.ndarray:
        """Reads our parts, turns and joins them."""
        array = self.binding.outward({path: part.read() for path, part in self.parts.items()})
        return cast(array, self.dtype, self.binding.name)


def _outward(source: Source, family: Family, kind: np.dtype | None) -> dict[str, Lazy]:
    out: dict[str, Lazy] = {}
    for name, binding in family.bind(source.config, source.leaves).items():
        inside = [own.outside_name(p).format(i=binding.layer) for p, _ in binding.parts]
        parts = {p: source.tensors[n] for (p, _), n in zip(binding.parts, inside, strict=True)}
        found = next(iter(parts.values())).dtype
        if any(part.dtype != found for part in parts.values()):
            raise GeexError(f"{name} is made of several dtypes", "choose one with --dtype")
        if found == np.uint8 and family.name == "codegeex":
            found = np.dtype(np.int8)  # pairs of int4, as the official code types them
        elif kind is not None and found.name in DTYPES and not name.endswith("_scale"):
            found = kind
        out[name] = Outward(binding, parts, found)
        if name.endswith(SCALE) and family.name in HUGGING_FACE:
            out[name] = Shaped(out[name], (*out[name].shape, 1))
    return out


@dataclasses.dataclass(frozen=True)
class Part:
    """Rank `rank` of `ranks` equal parts of a tensor along `axis`; see `tensors.Lazy`."""

    whole: Lazy
    axis: int
    rank: int
    ranks: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the part."""
        shape = list(self.whole.shape)
        shape[self.axis] //= self.ranks
        return tuple(shape)

    @property
    def dtype(self) -> np.dtype:
        """Element type."""
        return self.whole.dtype

    def read(self) -> np.ndarray:
        """Reads the whole and gives the part.

        Every rank reads everything once: writing all ranks together would need all of them open,
        and reading only the part would read whole chunks all the same.
        """
        return np.split(self.whole.read(), self.ranks, axis=self.axis)[self.rank]


def _ranks(
    source: Source, family: Family, tensors: Mapping[str, Lazy], ranks: int
) -> list[Mapping[str, Lazy]]:
    """The tensors of each tensor-parallel file."""
    if ranks == 1:
        return [tensors]
    split = {name: b.rule.split for name, b in family.bind(source.config, source.leaves).items()}
    for name, tensor in tensors.items():
        axis = split[name]
        if axis is not None and tensor.shape[axis] % ranks:
            raise GeexError(
                f"--model-parallel {ranks} does not divide {name} {list(tensor.shape)}",
                "choose a divisor",
            )
    return [
        {
            name: tensor if (axis := split[name]) is None else Part(tensor, axis, rank, ranks)
            for name, tensor in tensors.items()
        }
        for rank in range(ranks)
    ]


def _nested(flat: Mapping[str, Lazy]) -> dict[str, Any]:
    """The official nesting: embeddings as dicts of dicts, the transformer flat."""

    def leaf(name: str) -> dict[str, Any]:
        return {"weight": flat[f"{name}.weight"]}

    names = ("word_embeddings", "position_embeddings", "top_query_embeddings")
    rest = {n: t for n, t in flat.items() if n.removesuffix(".weight") not in names}
    return {
        "embedding": {name: leaf(name) for name in names[:2]},
        "topQueryEmbedding": {names[2]: leaf(names[2])},
        "transformer": rest,
    }


def _beside(
    folder: pathlib.Path,
    source: Source,
    format: str,
    config: dict[str, Any],
    tensors: Mapping[str, Lazy],
    name: str,
) -> None:
    """Writes config.json, the tokenizer and the model card."""
    place = store.locate(source.path)[2]
    words = tokenizers.load(place) if place.is_dir() else None
    floats = {t.dtype.name for t in tensors.values() if t.dtype.name in DTYPES}
    kind = floats.pop() if len(floats) == 1 else None
    if format == "hf":
        if (source.path / "source").is_dir():
            for file in (source.path / "source").iterdir():
                shutil.copyfile(file, folder / file.name)
        known = [key for key in ("torch_dtype", "dtype") if key in config] or ["torch_dtype"]
        if words is not None and config.get("eos_token_id") is None:
            config["eos_token_id"] = words.eos_id
            if config["model_type"] != "xglm":  # there it clears a row of the position table
                config["pad_token_id"] = words.pad_id
        files.write_json(folder / "config.json", config | ({known[0]: kind} if kind else {}))
    elif format == "safetensors":
        stored = {p: kind for p, (_, kind) in config["leaves"].items()}
        for b in source.bindings.values():
            stored |= {path: tensors[b.name].dtype.name for path, _ in b.parts}
        config["leaves"] = {p: [shape, stored[p]] for p, (shape, _) in config["leaves"].items()}
        files.write_json(folder / "config.json", config)
        if (source.path / "source").is_dir():
            shutil.copytree(source.path / "source", folder / "source")
    if words is not None and not any((folder / file).is_file() for file in TOKENIZER_FILES):
        words.save(folder if format == "hf" else folder / "tokenizer")
    with files.atomic_write(folder / "README.md") as file:
        file.write(cards.render(source, format, config, tensors, name))
