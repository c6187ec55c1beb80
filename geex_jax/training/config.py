"""The experiment config: defaults, the file and its overrides, and early refusals."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Any, TypeAlias

from ml_collections import ConfigDict

from geex_jax import files
from geex_jax.errors import GeexError, did_you_mean
from geex_jax.models import ModelConfig, preset
from geex_jax.training.optimizer import OptimizerConfig
from geex_jax.training.step import StepConfig

Config: TypeAlias = Any  # a ConfigDict; its attributes have no static types

# A run may be taken up again with other values of these; all others decide the losses. (Those of
# the first line change the order of sums, and so the last bits.)
FREE_ON_RESUME = (
    *("mesh", "zero", "loss_chunk", "model.remat", "model.attention"),
    "watchdog",
    "log",
    "checkpoint",
    "evaluate",
    "init_from",
    "data.folder",
    "data.prefetch",
)


def default_config() -> Config:
    """Every field of an experiment; `experiments/*.py` start from it and change what differs."""
    return ConfigDict(
        {
            "name": "experiment",
            "seed": 0,
            "steps": 1000,
            "batch_size": 32,  # rows per step, over all devices
            "accumulate": 1,  # parts that a batch is run in
            "loss_chunk": 512,  # positions of a row whose logits exist at a time
            "init_from": "",  # a model folder to fine-tune; empty: from scratch
            "model": {
                "preset": "geex-20m",
                "vocab_size": 0,  # 0: the data's vocabulary, rounded up to 128
                "context_length": 0,  # 0: the data's row length, or the preset's if longer
                "dropout": 0.0,
                "dtype": "float32",
                "remat": "none",  # none full ctx qkv dots minimal qkv_offload minimal_offload
                "attention": "auto",  # auto xla splash cudnn
                "matmul": "float",  # or int8, in the blocks' linears
                "overrides": {},  # further ModelConfig fields
            },
            "data": {
                "folder": "",
                # None and empty: as the data's recipe says, else alpha 1 and no cap
                "alpha": None,  # rows of a language p ~ share^alpha
                "weights": {},  # language to weight, in place of alpha
                "max_epochs": None,  # of each language; its share then goes to the others
                "curriculum": (),  # ((step, weights or alpha), ...): from there on, another mixture
                "prefetch": 8,
            },
            "optimizer": {
                "lr": 1e-3,
                "end_lr": 1e-5,
                "warmup": 100,
                "b1": 0.9,
                "b2": 0.95,
                "eps": 1e-8,
                "weight_decay": 0.1,
                "clip": 1.0,
                "moments": "float32",  # or bfloat16, int8: how Adam's m and v are stored
            },
            "skip": {
                "sigma": 6.0,  # see StepConfig; 0: only what is not finite
                "window": 128,
                "stop_after": 20,  # steps skipped in a row that end the run
            },
            # -1: the remaining devices; data is the axis across slices
            "mesh": {"data": 1, "fsdp": -1, "sequence": 1, "tensor": 1},
            "zero": 3,  # split over mesh.fsdp: 1 optimizer, 2 and gradients, 3 and parameters
            "evaluate": {
                "every": 200,  # steps; 0: only at the end
                "batches": 8,  # per language
                "final_batches": 0,  # per language after the last step; 0: all there are
                "prompts": ["Python: def ", "C: int main("],  # "language: text"
                "sample_tokens": 48,
                "int8_every": 0,  # steps; of evaluations at these, what int8 weights would cost
                # pass@k of each saved checkpoint, on idle CPU beside the run
                "functional": {
                    "languages": "",  # "python,go" or "all"; empty: off
                    "data": "",  # folder of humaneval_*.jsonl.gz; empty: the downloaded ones
                    "samples": 1,
                    "temperature": 0.0,
                    "max_tokens": 256,
                },
            },
            # A step may take so many seconds (0: any) before the hung process is named; then each
            # process ends with status 70 after the grace.
            "watchdog": {"seconds": 600.0, "grace": 30.0},
            "checkpoint": {"every": 200, "keep_last": 2, "keep_best": 1},
            "log": {"every": 10, "wandb": ""},  # steps; a Weights & Biases project, empty: none
        }
    )


def load_config(path: files.Path, overrides: Sequence[str] = ()) -> Config:
    """Runs `get_config()` of an experiment file and applies `--config.a.b=value` overrides.

    Raises:
      GeexError: no such file, no `get_config` in it, an unknown key, a value of another type.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        known = [p.name for p in list_experiments()]
        raise GeexError(f"no config file {path}", did_you_mean(path.name, known) if known else "")
    spec = importlib.util.spec_from_file_location(f"geex_experiment_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise GeexError(f"{path} has no get_config()", "return a ConfigDict from it")
    config = module.get_config()
    for flag in _joined(overrides):
        _override(config, flag)
    return config.lock()


def _joined(words: Sequence[str]) -> list[str]:
    # "--config.a 1" and "--config.a=1" are the same.
    out: list[str] = []
    for word in words:
        if out and "=" not in out[-1] and not word.startswith("--"):
            out[-1] += f"={word}"
        else:
            out.append(word)
    return out


def _override(config: Config, flag: str) -> None:
    name, equals, text = flag.partition("=")
    if not name.startswith("--config."):
        raise GeexError(f"unknown flag {name}", "overrides are written --config.KEY=VALUE")
    if not equals:
        raise GeexError(f"{name} has no value", f"write {name}=VALUE")
    node: Any = config
    parts = name[len("--config.") :].split(".")
    for depth, part in enumerate(parts):
        free = parts[:depth] in (["model", "overrides"], ["data", "weights"])
        if not isinstance(node, ConfigDict) or (part not in node and not free):
            keys = (
                [".".join([*parts[:depth], k]) for k in node]
                if isinstance(node, ConfigDict)
                else []
            )
            key = ".".join(parts[: depth + 1])
            raise GeexError(
                f"unknown config key {key}", did_you_mean(key, keys or [".".join(parts[:depth])])
            )
        if depth < len(parts) - 1:
            node = node[part]
    old = node.get(parts[-1])
    with node.unlocked():
        node[parts[-1]] = _typed(name, text, old)


def _typed(name: str, text: str, old: Any) -> Any:
    if isinstance(old, ConfigDict):
        raise GeexError(f"{name} is a group", "set one of: " + ", ".join(old.keys()))
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
    except (ValueError, SyntaxError):
        value = text
    if isinstance(old, bool) and value in (0, 1):
        return bool(value)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(old, int) and isinstance(value, float) and value == int(value):
        return int(value)  # 1e3
    if isinstance(old, list | tuple) and isinstance(value, list | tuple):
        return list(value)
    if old is not None and type(value) is not type(old):
        raise GeexError(f"{name}={text} is not a {type(old).__name__}", f"it is now {old!r}")
    return value


def experiments_folder() -> pathlib.Path | None:
    """`experiments/` here, beside the package, or installed with it."""
    package = pathlib.Path(__file__).parent.parent
    places = (pathlib.Path("experiments"), package.parent / "experiments", package / "_experiments")
    return next((p for p in places if p.is_dir()), None)


def list_experiments() -> list[pathlib.Path]:
    """The experiment files at hand."""
    folder = experiments_folder()
    return sorted(p for p in folder.glob("*.py") if p.name != "__init__.py") if folder else []


def summary(path: pathlib.Path) -> str:
    """The first line of an experiment's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.splitlines()[0] if text else ""


def model_config(config: Config, vocab_size: int, seq_len: int) -> ModelConfig:
    """The model's shape for data of that vocabulary and row length.

    Raises:
      GeexError: the vocabularies or lengths do not fit together.
    """
    wanted = config.model
    base = preset(wanted.preset)
    rows = wanted.vocab_size or -(-vocab_size // 128) * 128
    # Padding for the hardware is fine (50,400 to 52,224); a far larger table is another tokenizer.
    if rows < vocab_size or rows > max(vocab_size * 1.05, vocab_size + 128):
        raise GeexError(
            f"model.vocab_size {rows} does not fit the data's vocabulary of {vocab_size}",
            "set config.model.vocab_size=0, or prepare the data with the model's tokenizer",
        )
    context = wanted.context_length or max(base.context_length, seq_len)
    if context < seq_len:
        raise GeexError(
            f"model.context_length {context} is shorter than the data's rows of {seq_len}",
            f"set config.model.context_length={seq_len}, or prepare with --seq-len {context}",
        )
    return base.replace(
        vocab_size=rows,
        context_length=context,
        dropout=wanted.dropout,
        dtype=wanted.dtype,
        remat=wanted.remat,
        attention=wanted.attention,
        matmul=wanted.matmul,
        **wanted.overrides.to_dict(),
    )


def optimizer_config(config: Config) -> OptimizerConfig:
    """The optimizer's part; the cosine ends with the last step."""
    fields = config.optimizer.to_dict()
    return OptimizerConfig(steps=config.steps, **fields)


def step_config(config: Config) -> StepConfig:
    """The step's part."""
    return StepConfig(
        accumulate=config.accumulate,
        loss_chunk=config.loss_chunk,
        skip_sigma=config.skip.sigma,
        skip_window=config.skip.window,
        zero=config.zero,
    )


def check_batch(config: Config, ways: int) -> None:
    """Refuses a batch that does not divide over devices and parts, before anything is compiled."""
    unit = ways * config.accumulate
    if config.batch_size < 1 or config.batch_size % unit:
        near = max(unit, round(config.batch_size / unit) * unit)
        raise GeexError(
            f"batch_size {config.batch_size} does not divide over {ways} batch-parallel devices x "
            f"{config.accumulate} accumulation parts",
            f"set config.batch_size={near}",
        )


def same_run(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Keys whose change would make another run of it, as "key: old -> new"."""
    # A run begun before a key existed had what is now its default.
    defaults = _flat(default_config().to_dict())
    flat_old, flat_new = defaults | _flat(old), defaults | _flat(new)
    return [
        f"{key}: {flat_old.get(key)!r} -> {flat_new.get(key)!r}"
        for key in sorted(flat_old.keys() | flat_new.keys())
        if flat_old.get(key) != flat_new.get(key)
        and not any(key == free or key.startswith(f"{free}.") for free in FREE_ON_RESUME)
    ]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = list(value) if isinstance(value, tuple) else value
    return out
