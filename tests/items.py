"""Prepared data of tiny Python files with something to learn."""

import pathlib

from geex_jax.data import PrepareConfig, prepare
from geex_jax.data.filters import Filters
from geex_jax.tokenizers import train_sentencepiece


def prepare_items(top: pathlib.Path, count: int):
    """Writes `top/sources` (`count` files) and `top/data`; returns the tokenizer."""
    (top / "sources").mkdir()
    for i in range(count):
        lines = [f"def item_{i}_{j}(a, b):\n    return a * {j} + b\n" for j in range(8)]
        (top / "sources" / f"m{i}.py").write_text("\n".join(lines))
    texts = [p.read_text() for p in sorted((top / "sources").iterdir())]
    tokenizer = train_sentencepiece(texts, top / "spm", 400)
    settings = PrepareConfig(
        seq_len=80, validation_fraction=0.2, workers=1, filters=Filters(min_bytes=1)
    )
    prepare([top / "sources"], top / "data", tokenizer, settings)
    return tokenizer
