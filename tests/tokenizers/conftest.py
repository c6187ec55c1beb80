"""Small vocabularies made here, so that the tests need no files of others."""

import json
import os
import pathlib

import pytest

from geex_jax import tokenizers
from geex_jax.tokenizers.codegeex import byte_alphabet

STDLIB = pathlib.Path(os.__file__).parent


@pytest.fixture(scope="session")
def sources() -> list[str]:
    """Python's own library, as far as a small vocabulary needs it."""
    paths = sorted(STDLIB.glob("*.py"))[:60]
    return [path.read_bytes().decode() for path in paths]


@pytest.fixture(scope="session")
def tiny_codegeex_files() -> dict[str, bytes]:
    """A vocabulary of the official layout: 256 bytes, 5 merges, <|endoftext|>, 143 extra tokens."""
    symbols = sorted(byte_alphabet(), key=lambda c: (ord(c) > 255, ord(c)))
    merges = ["i n", "in t", "Ġ Ġ", "r e", "re t"]
    vocab = {symbol: number for number, symbol in enumerate(symbols)}
    for merge in merges:
        vocab[merge.replace(" ", "")] = len(vocab)
    vocab["<|endoftext|>"] = len(vocab)
    added = {f"<|extratoken_{n}|>": len(vocab) + n - 1 for n in range(1, 144)}
    return {
        "vocab.json": json.dumps(vocab).encode(),
        "merges.txt": ("#version: 0.2\n" + "\n".join(merges) + "\n").encode(),
        "added_tokens.json": json.dumps(added).encode(),
    }


@pytest.fixture(scope="session")
def codegeex(tiny_codegeex_files) -> tokenizers.CodeGeeXTokenizer:
    return tokenizers.CodeGeeXTokenizer(tiny_codegeex_files)


@pytest.fixture(scope="session")
def sentencepiece(sources) -> tokenizers.SentencePieceTokenizer:
    return tokenizers.train_sentencepiece(sources, None, 1024)


@pytest.fixture(scope="session")
def huggingface_files(sources) -> dict[str, bytes]:
    """A byte-level `tokenizer.json` as the library writes it, and its settings."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(sources[:20], trainer)
    core.add_tokens(["<fim>é"])
    config = {"eos_token": "<|endoftext|>", "pad_token": {"content": "<pad>"}}
    return {
        "tokenizer.json": core.to_str().encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }


@pytest.fixture(scope="session")
def huggingface(huggingface_files) -> tokenizers.HuggingFaceTokenizer:
    return tokenizers.HuggingFaceTokenizer(huggingface_files)


@pytest.fixture(params=["codegeex", "sentencepiece", "huggingface"])
def tokenizer(request) -> tokenizers.Tokenizer:
    """Each of the three kinds in turn."""
    return request.getfixturevalue(request.param)
