"""A model as two StableHLO programs, prefill and decode, that run without this library.

Written by `jax.export`: one artifact for CPUs, TPUs and GPUs, the batch and the prompt's length
left open, the weights arguments that lie in a safetensors file beside it.

  prefill(weights, tokens int32 [b, t], lengths int32 [b]) -> (logits float32 [b, V], cache)
  decode(weights, tokens int32 [b, 1], cache) -> (logits float32 [b, V], cache)

Prompts are padded on the right; logits are those behind each row's last token. `cache` is the KV
cache as a dict of arrays with room for `slots` tokens a row. Float and quantized weights alike.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from geex_jax import files, kernels
from geex_jax.checkpoints import output, own, safetensors_file
from geex_jax.checkpoints.source import Source
from geex_jax.checkpoints.tensors import Lazy, size_of
from geex_jax.errors import GeexError, did_you_mean
from geex_jax.models import KVCache, ModelConfig, Transformer, init_cache, to_dict
from geex_jax.parallel import tree_of
from geex_jax.version import __version__

PLATFORMS = ("cpu", "tpu", "cuda", "rocm")
WEIGHTS = "weights.safetensors"
Weights = Mapping[str, Any]
Cache = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Options:
    """What the programs are made for.

    Attributes:
      platforms: where they shall run.
      slots: tokens that a row's cache holds; by default the context.
      dtype: type to compute in; by default the config's.
      activations, kv_cache: see `ModelConfig`; by default the config's.
    """

    platforms: tuple[str, ...] = ("cpu", "tpu", "cuda")
    slots: int | None = None
    dtype: str | None = None
    activations: str | None = None
    kv_cache: str | None = None

    def config(self, config: ModelConfig) -> ModelConfig:
        """The model's config as the programs compute it.

        Raises:
          GeexError: an unknown platform, more slots than the context, no flatbuffers.
        """
        if importlib.util.find_spec("flatbuffers") is None:
            raise GeexError("jax.export writes with flatbuffers", "pip install flatbuffers")
        for name in self.platforms:
            if name not in PLATFORMS:
                raise GeexError(f"unknown platform {name!r}", did_you_mean(name, PLATFORMS))
        if not 0 < (self.slots or 1) <= config.context_length:
            raise GeexError(
                f"--slots {self.slots} in a context of {config.context_length}", "give fewer"
            )
        given = {k: getattr(self, k) for k in ("dtype", "activations", "kv_cache")}
        changes = {k: v for k, v in given.items() if v is not None}
        # A kernel of one platform would not run on another.
        return config.replace(attention="xla", remat="none", dropout=0.0, **changes)


@dataclasses.dataclass(frozen=True)
class Stack:
    """The layers of one stacked leaf as one tensor; see `tensors.Lazy`."""

    parts: tuple[Lazy, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """[layers, ...]."""
        return (len(self.parts), *self.parts[0].shape)

    @property
    def dtype(self) -> np.dtype:
        """Element type."""
        return self.parts[0].dtype

    def read(self) -> np.ndarray:
        """Reads layer after layer."""
        whole = np.empty(self.shape, self.dtype)
        for i, part in enumerate(self.parts):
            whole[i] = part.read()
        return whole


def leaves_of(source: Source) -> dict[str, Lazy]:
    """The tensors of a geex model by our paths, layers stacked."""
    found: dict[str, Lazy] = {}
    for path, shape in sorted(source.leaves.items()):
        name = own.outside_name(path)
        if path.startswith("layers/"):
            found[path] = Stack(tuple(source.tensors[name.format(i=i)] for i in range(shape[0])))
        else:
            found[path] = source.tensors[name]
    return found


def programs(config: ModelConfig, slots: int) -> tuple[Any, Any]:
    """The functions `prefill` and `decode` of the module's docstring."""
    model = Transformer(config)

    def prefill(weights: Weights, tokens: jax.Array, lengths: jax.Array) -> tuple[jax.Array, Cache]:
        params = tree_of(weights)
        cache = init_cache(config, tokens.shape[0], slots)
        passed: Any = model.apply(
            {"params": params}, tokens, lengths, cache, True, method="prefill"
        )
        return passed[0], _fields(passed[1])

    def decode(weights: Weights, tokens: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        variables = {"params": tree_of(weights)}
        fields: Any = cache
        passed: Any = model.apply(variables, tokens, kv_cache=KVCache(**fields))
        return passed[0][:, 0], _fields(passed[1])

    return prefill, decode


def _fields(cache: KVCache) -> Cache:
    held = {f.name: getattr(cache, f.name) for f in dataclasses.fields(cache)}
    return {name: value for name, value in held.items() if value is not None}


def write(folder: pathlib.Path, source: Source, options: Options, ends: Any) -> dict[str, Any]:
    """Writes programs, weights, manifest and runner into a folder.

    Args:
      folder: that is there already, and empty.
      source: an opened geex model.
      options: see there.
      ends: {"eos": id or None, "tokens": ids of the tokenizer or None}.

    Returns:
      The manifest.

    Raises:
      GeexError: see `Options.config`.
    """
    config = options.config(source.config)
    slots = options.slots or config.context_length
    leaves = leaves_of(source)
    abstract = {p: jax.ShapeDtypeStruct(x.shape, x.dtype) for p, x in leaves.items()}
    prefill, decode = programs(config, slots)
    b, t = jax.export.symbolic_shape("b, t", constraints=[f"t <= {slots}"])
    (rows,) = jax.export.symbolic_shape("b")  # another scope: decode has no t to solve for
    whole = jax.eval_shape(lambda: _fields(init_cache(config, 1, slots)))
    cache = {
        name: jax.ShapeDtypeStruct(
            (rows,) if name == "length" else (x.shape[0], rows, *x.shape[2:]), x.dtype
        )
        for name, x in whole.items()
    }
    tokens, lengths = (jax.ShapeDtypeStruct(s, jnp.int32) for s in ((b, t), (b,)))
    arguments = {
        "prefill": (prefill, (abstract, tokens, lengths)),
        "decode": (decode, (abstract, jax.ShapeDtypeStruct((rows, 1), jnp.int32), cache)),
    }
    about: dict[str, Any] = {
        "format": "geex-jax stablehlo 1",
        "written_by": f"geex-jax {__version__}, jax {jax.__version__}",
        "platforms": list(options.platforms),
        "slots": slots,
        "weights": WEIGHTS,
        **ends,
        "model": to_dict(config),
        "programs": {},
    }
    for name, (function, args) in arguments.items():
        with kernels.portable():
            exported = jax.export.export(jax.jit(function), platforms=options.platforms)(*args)
        with files.atomic_write(folder / f"{name}.bin", "wb") as file:
            file.write(exported.serialize())
        with files.atomic_write(folder / f"{name}.mlir") as file:
            file.write(str(exported.mlir_module()))
        about["programs"][name] = _signature(exported, args)
    meter = output.Meter("exporting weights", sum(map(size_of, leaves.values())))
    safetensors_file.write(folder / WEIGHTS, leaves, meter.update)
    meter.close()
    files.write_json(folder / "manifest.json", about)
    runner = pathlib.Path(__file__).with_name("run_exported.py")
    with files.atomic_write(folder / "run.py") as file:
        file.write(runner.read_text())
    return about


def _signature(exported: jax.export.Exported, args: Sequence[Any]) -> dict[str, Any]:
    """Names, shapes and types of what a program takes, in the order of its arguments, and gives."""
    third = "cache" if isinstance(args[2], dict) else "lengths"
    names = ("weights", "tokens", third)
    inputs = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tuple(args))[0]:
        first, *rest = path
        name = "/".join([names[first.idx], *(str(key.key) for key in rest)])  # pyright: ignore
        inputs.append([name, [str(n) for n in leaf.shape], str(leaf.dtype)])
    outputs = [[[str(n) for n in aval.shape], str(aval.dtype)] for aval in exported.out_avals]
    return {
        "calling_convention": exported.calling_convention_version,
        "inputs": inputs,
        "outputs": outputs,  # logits, then the cache in the order of decode's inputs
    }
