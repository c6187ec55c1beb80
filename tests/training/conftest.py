"""Prepared data and a small config, made once."""

import pathlib

import numpy as np
import pytest

from geex_jax.data import PrepareConfig, prepare
from geex_jax.data.filters import Filters
from geex_jax.tokenizers import train_sentencepiece
from geex_jax.training.config import default_config


def write_sources(folder: pathlib.Path, count: int = 120) -> pathlib.Path:
    """Python and C files with something to learn, each different."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta", "value", "index", "total", "result", "item"]
    for i in range(count):
        a, b, c = rng.choice(words, 3)
        body = [f"def {a}_{i}_{j}({b}, {c}):\n    return {b} + {c} * {j}\n" for j in range(8)]
        (folder / f"m{i}.py").write_text("\n".join(body))
        body = [f"int {a}_{i}_{j}(int {b}, int {c}) {{ return {b} * {j}; }}\n" for j in range(8)]
        (folder / f"m{i}.c").write_text("\n".join(body))
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> pathlib.Path:
    top = tmp_path_factory.mktemp("train")
    sources = write_sources(top / "sources")
    texts = (p.read_text() for p in sorted(sources.iterdir()))
    tokenizer = train_sentencepiece(texts, top / "spm", 512)
    settings = PrepareConfig(
        seq_len=96, validation_fraction=0.1, workers=1, filters=Filters(min_bytes=1)
    )
    prepare([sources], top / "data", tokenizer, settings)
    return top / "data"


@pytest.fixture
def config(prepared):
    """A run of 6 steps on one device."""
    config = default_config()
    config.name = "tiny"
    config.steps = 6
    config.batch_size = 8
    config.model.preset = "geex-3m"
    config.model.overrides = {"num_layers": 1, "d_model": 32, "num_heads": 2, "d_ff": 64}
    config.model.context_length = 96
    config.data.folder = str(prepared)
    config.optimizer.warmup = 2
    config.optimizer.lr = 1e-2
    config.mesh = {"data": 1, "fsdp": 1, "tensor": 1}
    config.evaluate.update(every=3, batches=1, prompts=[])
    config.checkpoint.every = 2
    config.log.every = 1
    return config
