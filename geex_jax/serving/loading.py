"""From checkpoints to engines that are warm."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from geex_jax import checkpoints, files, tokenizers
from geex_jax.checkpoints import Form
from geex_jax.checkpoints.store import locate
from geex_jax.errors import GeexError
from geex_jax.inference import Engine, EngineConfig, prepare
from geex_jax.inference.engine import check_draft
from geex_jax.models import Transformer, from_dict
from geex_jax.quantize import NAMED, Policy
from geex_jax.quantize.policy import TABLE, WITH_EMBEDDING
from geex_jax.serving.chat_templates import ChatTemplate, find_template
from geex_jax.serving.served import Served
from geex_jax.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What to serve, and how.

    Attributes:
      checkpoints: (name, folder) of each model; an empty name takes the folder's.
      form: what each of them runs as.
      compare: serves each model a second time, quantized so (and rounded as `form` says), as
        NAME-int8 or what the policy is called.
      engine: fields of EngineConfig.
      mesh: sizes of the mesh's axes; None: one device.
      draft: folder of a smaller model with the same tokenizer, whose guesses the models check.
    """

    checkpoints: Sequence[tuple[str, str]]
    form: Form = dataclasses.field(default_factory=Form)
    compare: Policy | None = None
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
            found[name] = folder
        return list(found.items())

    def check(self) -> list[tuple[str, str]]:
        """Refuses what cannot be served, by the checkpoints' config.json and tokenizers alone.

        Returns:
          (name, folder), as `named`.

        Raises:
          GeexError: a checkpoint that is not there or has no tokenizer, a policy, settings of the
            engine or a draft model that do not fit.
        """
        named, settings = self.named(), EngineConfig(**self.engine)
        small = None if self.draft is None else from_dict(locate(self.draft)[0]["model"])
        for name, folder in named:
            config = (self._compared() if self.compare else self.form).check(folder)
            context = settings.sizes(config).context
            tokenizer = _tokenizer(folder)
            if small is not None and self.draft is not None:
                check_draft(config, small, settings, context)
                if _tokenizer(self.draft).fingerprint() != tokenizer.fingerprint():
                    raise GeexError(
                        f"the draft model has another tokenizer than {name}",
                        "take one trained with the same",
                    )
        return named

    def _compared(self) -> Form:
        return dataclasses.replace(self.form, policy=self.compare)


def _tokenizer(folder: str) -> Tokenizer:
    place = locate(folder)[2]
    if not place.is_dir():
        raise GeexError(f"{folder} has no tokenizer", "save the model with one")
    return tokenizers.load(place)


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

    named = wanted.check()
    mesh = make_mesh(wanted.mesh) if wanted.mesh else None
    draft = None
    if wanted.draft is not None:
        _say(f"loading the draft model from {wanted.draft}")
        small = checkpoints.load_model(wanted.draft, mesh=mesh)
        draft = (small.model, small.params)
        if mesh is None:
            draft = prepare(*draft, consume=True)  # once, for all engines
    found: list[Served] = []
    try:
        for name, folder in named:
            for served in _load(name, folder, wanted, mesh, draft):
                found.append(served)  # one by one, so that all that started are stopped below
    except BaseException:
        for served in found:
            served.engine.stop(drain=False)
        raise
    return found


def _load(
    name: str, folder: str, wanted: Wanted, mesh: Any, draft: tuple[Transformer, Any] | None
) -> Iterator[Served]:
    began = time.monotonic()
    how = f", quantized to {wanted.form.policy.name}" if wanted.form.policy else ""
    _say(f"loading {name} from {folder}{how}")
    loaded = wanted.form.open(folder, mesh)
    _say(f"loaded {name} in {files.seconds(time.monotonic() - began)}")
    for label, params in forms(name, loaded.params, wanted):
        assert loaded.tokenizer is not None
        about = describe(params, loaded.config)  # before the engine takes the parameters over
        engine = Engine(
            loaded.model, params, loaded.tokenizer, EngineConfig(**wanted.engine), mesh, draft,
            consume=True,
        )  # fmt: skip
        warm(label, engine)
        engine.start()
        yield _served(label, folder, loaded, engine, about)


def forms(name: str, params: Any, wanted: Wanted) -> list[tuple[str, Any]]:
    """(name, parameters): as they were opened, and beside them those to compare with."""
    if wanted.compare is None:
        return [(name, params)]
    known = wanted.compare.name.removesuffix(WITH_EMBEDDING) in NAMED
    word = wanted.compare.name if known else "quantized"
    _say(f"quantizing to {wanted.compare.name}")
    return [(name, params), (f"{name}-{word}", wanted._compared().quantized(params))]


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

    formats = quantize.formats_of(params)
    table = formats.pop(TABLE, "float")
    stored = sorted(set(formats.values()) - {"float"})
    words = [f"{' and '.join(stored) or params['embedding']['tokens'].dtype} weights"]
    if table != "float":
        words.append(f"{table} token table")
    words.append(f"computed in {config.dtype}")
    if config.kv_cache != "model":
        words.append(f"{config.kv_cache} key-value cache")
    if config.activations != "float" and stored:  # float weights meet them as they are
        words.append(f"{config.activations} activations")
    return f"{config.name}: " * bool(config.name) + ", ".join(words)


def _say(text: str) -> None:
    print(f"geex serve: {text}", file=sys.stderr, flush=True)
