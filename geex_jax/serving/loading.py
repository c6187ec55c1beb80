"""From checkpoints to engines that are warm."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from geex_jax import checkpoints, files
from geex_jax.checkpoints.store import locate
from geex_jax.errors import GeexError
from geex_jax.inference import Engine, EngineConfig
from geex_jax.serving.chat_templates import ChatTemplate, find_template
from geex_jax.serving.served import Served


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What to serve, and how.

    Attributes:
      checkpoints: (name, folder) of each model; an empty name takes the folder's.
      bits: 8 or 4 quantizes float weights while loading; None leaves them.
      compare_bits: serves each model a second time, quantized so, as NAME-int8.
      changes: fields of the model's config to change: dtype, kv_cache, activations.
      engine: fields of EngineConfig.
      mesh: sizes of the mesh's axes; None: one device.
      draft: folder of a smaller model with the same tokenizer, whose guesses the models check.
    """

    checkpoints: Sequence[tuple[str, str]]
    bits: int | None = None
    compare_bits: int | None = None
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    engine: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mesh: Mapping[str, int] | None = None
    draft: str | None = None

    def named(self) -> list[tuple[str, str]]:
        """(name, folder), every name another.

        Raises:
          GeexError: two models of one name, or no folder there.
        """
        found: dict[str, str] = {}
        for name, folder in self.checkpoints:
            name = name or pathlib.Path(folder).absolute().name
            if name in found:
                raise GeexError(
                    f"two models are named {name!r}", "give names: --checkpoint NAME=FOLDER"
                )
            locate(folder)
            found[name] = folder
        if self.draft is not None:
            locate(self.draft)
        return list(found.items())


def parse_checkpoint(text: str) -> tuple[str, str]:
    """(name, folder) of "NAME=FOLDER", or of a folder alone."""
    name, sign, folder = text.partition("=")
    if not sign or pathlib.Path(text).exists() or "/" in name:
        return "", text
    return name, folder


def load(wanted: Wanted) -> list[Served]:
    """Opens, quantizes and warms everything, saying on standard error how far it is.

    Raises:
      GeexError: a checkpoint that is not there, damaged, or has no tokenizer; settings that do
        not fit the model.
    """
    from geex_jax.parallel import make_mesh

    named = wanted.named()
    mesh = make_mesh(wanted.mesh) if wanted.mesh else None
    draft = None
    if wanted.draft is not None:
        _say(f"loading the draft model from {wanted.draft}")
        draft = checkpoints.load_model(wanted.draft, mesh=mesh)
    found: list[Served] = []
    for name, folder in named:
        began = time.monotonic()
        _say(f"loading {name} from {folder}")
        loaded = checkpoints.load_model(folder, mesh=mesh, **wanted.changes)
        if loaded.tokenizer is None:
            raise GeexError(f"{folder} has no tokenizer", "save the model with one")
        _say(f"loaded {name} in {files.seconds(time.monotonic() - began)}")
        for label, params in forms(name, loaded.params, wanted):
            engine = _engine(label, loaded, params, wanted, mesh, draft)
            found.append(_served(label, folder, loaded, engine, describe(params, loaded.config)))
    return found


def forms(name: str, params: Any, wanted: Wanted) -> list[tuple[str, Any]]:
    """(name, parameters): as they are or quantized, or both side by side."""
    if wanted.bits is not None:
        return [(name, _quantized(params, wanted.bits))]
    if wanted.compare_bits is not None:
        bits = wanted.compare_bits
        return [(name, params), (f"{name}-int{bits}", _quantized(params, bits))]
    return [(name, params)]


def _quantized(params: Any, bits: int) -> Any:
    from geex_jax import quantize

    if quantize.is_quantized(params):
        raise GeexError("the checkpoint is quantized already", "serve it without --bits")
    _say(f"quantizing to int{bits}")
    return quantize.quantize_params(params, bits)


def _engine(
    name: str,
    loaded: checkpoints.Loaded,
    params: Any,
    wanted: Wanted,
    mesh: Any,
    draft: checkpoints.Loaded | None,
) -> Engine:
    tokenizer = loaded.tokenizer
    assert tokenizer is not None
    if draft is not None and (
        draft.tokenizer is None or draft.tokenizer.fingerprint() != tokenizer.fingerprint()
    ):
        raise GeexError(
            f"the draft model has another tokenizer than {name}", "take one trained with the same"
        )
    small = None if draft is None else (draft.model, draft.params)
    config = EngineConfig(**wanted.engine)
    engine = Engine(loaded.model, params, tokenizer, config, mesh=mesh, draft=small)
    warm(name, engine)
    engine.start()
    return engine


def _served(
    name: str, folder: str, loaded: checkpoints.Loaded, engine: Engine, form: str
) -> Served:
    assert loaded.tokenizer is not None
    source, tokens = find_template(pathlib.Path(folder))
    return Served(
        name=name,
        engine=engine,
        tokenizer=loaded.tokenizer,
        context=engine.sizes.context,
        vocab_size=loaded.tokenizer.vocab_size,
        chat=ChatTemplate(loaded.tokenizer, source, tokens),
        form=form,
        queue=engine.config.slots + engine.config.max_waiting,
    )


def warm(name: str, engine: Engine) -> None:
    """Compiles the engine's programs, with a progress line."""
    bar: files.Progress | None = None

    def step(done: int, total: int, label: str) -> None:
        nonlocal bar
        bar = bar or files.Progress(f"compiling {name}", total, "programs", every=5.0)
        bar.update(done - bar.done, label)

    engine.warm(step)
    if bar is not None:
        bar.close()


def describe(params: Any, config: Any) -> str:
    """What is served, in a few words: "int8 weights, 13.0B parameters"."""
    from geex_jax import quantize

    if quantize.is_quantized(params):
        weights = f"int{quantize.quantization_of(params).bits}"
    else:
        weights = str(params["embedding"]["tokens"].dtype)
    words = [f"{weights} weights", f"computed in {config.dtype}"]
    for field, usual, about in (
        ("kv_cache", "model", "key-value cache"), ("activations", "float", "activations"),
    ):  # fmt: skip
        value = getattr(config, field, usual)
        if value != usual:
            words.append(f"{value} {about}")
    return f"{config.name}: " * bool(config.name) + ", ".join(words)


def _say(text: str) -> None:
    print(f"geex serve: {text}", file=sys.stderr, flush=True)
