"""Encode throughput of a tokenizer, for CodeGeeX against the official path in the same run.

The official path is `transformers`' GPT2TokenizerFast behind the loop of `str.replace` that turns
runs of spaces into `<|extratoken_N|>` (`encode_whitespaces` of the official repository). Both
sides encode the same files in turns, one by one and as one batch, and every id must be equal.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable

from geex_jax.errors import GeexError
from geex_jax.tokenizers import Tokenizer, base, load
from geex_jax.tokenizers.corpus import read_sources

Encode = Callable[[list[str]], list[list[int]]]


@dataclasses.dataclass(frozen=True)
class Speed:
    """Medians over the rounds: 10**6 bytes of text and tokens per second, and the spread."""

    megabytes_per_second: float
    tokens_per_second: float
    slowest_to_fastest: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `geex bench tokenizer`."""
    parser.add_argument(
        "--tokenizer", required=True, metavar="SPEC", help="folder, *.model, tokenizer.json, hub id"
    )
    parser.add_argument("--input", nargs="+", required=True, metavar="DIR", help="source folders")
    parser.add_argument(
        "--max-megabytes", type=float, default=5, help="text to encode in a round (default 5)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Measures and prints; raises GeexError if ids differ or `transformers` is missing."""
    if args.rounds < 1 or args.max_megabytes <= 0:
        raise GeexError("--rounds and --max-megabytes must be positive", "leave them out")
    tokenizer = load(args.tokenizer)
    texts = read_sources(args.input, args.max_megabytes)
    result = measure(tokenizer, texts, args.rounds)
    if args.json:
        print(json.dumps(result))
        return
    print(
        f"{result['kind']}: {result['files']} files, {result['megabytes']:.2f} MB, "
        f"{result['tokens']} tokens, {result['cores']} cores, {args.rounds} rounds"
    )
    for name, speed in result["speeds"].items():
        print(
            f"  {name:<20} {speed['megabytes_per_second']:8.2f} MB/s "
            f"{speed['tokens_per_second']:12,.0f} tokens/s"
        )
    if "ratio_one_by_one" in result:
        print(f"ids equal to the official path's on {result['files']} of {result['files']} files")
        print(
            f"times the official path: {result['ratio_one_by_one']:.2f} one by one, "
            f"{result['ratio_batch']:.2f} in a batch"
        )
    else:
        print("(only the CodeGeeX vocabulary has an official path to compare with)")


def measure(tokenizer: Tokenizer, texts: list[str], rounds: int) -> dict:
    """Returns the figures of one run, as `--json` prints them.

    Args:
      tokenizer: for kind "codegeex" the official path is measured too.
      texts: what to encode.
      rounds: turns of each side; medians are reported.

    Raises:
      GeexError: the ids are not equal, or `transformers` is missing.
    """
    # allow_special: the official path knows no other way, and both must do the same work.
    sides: dict[str, Encode] = {
        "ours, one by one": lambda x: [tokenizer.encode(t, allow_special=True) for t in x],
        "ours, batch": lambda x: tokenizer.encode_batch(x, allow_special=True),
    }
    if tokenizer.kind == "codegeex":
        one, batch = official_path(tokenizer)
        sides["official, one by one"] = one
        sides["official, batch"] = batch
    ids = tokenizer.encode_batch(texts, allow_special=True)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name, encode in sides.items():
            start = time.perf_counter()
            found = encode(texts)
            seconds[name].append(time.perf_counter() - start)
            if turn == 0 and found != ids:
                raise GeexError(f"the ids of '{name}' differ", "report the file as a bug")
    size = sum(len(text.encode()) for text in texts) / 1e6
    tokens = sum(map(len, ids))
    result = {
        "kind": tokenizer.kind,
        "files": len(texts),
        "megabytes": size,
        "tokens": tokens,
        "cores": base.cores(),
        "speeds": {name: _speed(size, tokens, times) for name, times in seconds.items()},
    }
    if "official, batch" in sides:
        median = {name: statistics.median(times) for name, times in seconds.items()}
        result["ratio_one_by_one"] = median["official, one by one"] / median["ours, one by one"]
        result["ratio_batch"] = median["official, batch"] / median["ours, batch"]
    return result


def official_path(tokenizer: Tokenizer) -> tuple[Encode, Encode]:
    """Returns the official encoding, one by one and in a batch, with the tokenizer's own files."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # no word on missing frameworks
    try:
        from transformers import GPT2TokenizerFast  # pyright: ignore
    except ImportError:
        raise GeexError(
            "the official path needs transformers", 'pip install "geex-jax[convert]"'
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        official = GPT2TokenizerFast.from_pretrained(folder)

    def one_by_one(texts: list[str]) -> list[list[int]]:
        return [official(_replace_runs(text), verbose=False).input_ids for text in texts]

    def batch(texts: list[str]) -> list[list[int]]:
        return official([_replace_runs(text) for text in texts], verbose=False).input_ids

    return one_by_one, batch


def _replace_runs(text: str) -> str:
    for n in range(10, 1, -1):
        text = text.replace(" " * n, f"<|extratoken_{8 + n}|>")
    return text


def _speed(megabytes: float, tokens: int, times: list[float]) -> dict[str, float]:
    median = statistics.median(times)
    return dataclasses.asdict(Speed(megabytes / median, tokens / median, max(times) / min(times)))
