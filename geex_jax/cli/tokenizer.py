"""`geex tokenizer train` and `geex tokenizer show`."""

from __future__ import annotations

import argparse
import pathlib
import time

from geex_jax import files
from geex_jax.errors import GeexError

EXAMPLE = "geex tokenizer train --input src/ --output my-tokenizer --vocab-size 8192"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the two sub-commands."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="train|show")
    train = verbs.add_parser(
        "train",
        help="train a SentencePiece vocabulary on source files",
        epilog=f"example:\n  {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    train.add_argument(
        "--input", nargs="+", required=True, metavar="DIR", help="folders with source files"
    )
    train.add_argument("--output", required=True, metavar="DIR", help="where to save it")
    train.add_argument("--vocab-size", type=int, default=8192, help="pieces (default 8192)")
    train.add_argument(
        "--max-megabytes",
        type=float,
        default=20,
        help="text to sample at most, balanced over the languages (default 20)",
    )
    train.add_argument(
        "--exclude", nargs="+", default=(), metavar="NAME", help="names of folders not to enter"
    )
    train.add_argument(
        "--validation-fraction", type=float, default=0.02, metavar="SHARE",
        help="files that geex prepare will keep for validation are not read (default 0.02)",
    )  # fmt: skip
    train.add_argument(
        "--min-bytes", type=int, default=1024, metavar="N",
        help="leave smaller files, as geex prepare does (default %(default)s)",
    )  # fmt: skip
    train.add_argument(
        "--min-alpha", type=float, default=0.4, metavar="SHARE",
        help="leave files with fewer letters, as geex prepare does (default %(default)s)",
    )  # fmt: skip
    show = verbs.add_parser(
        "show",
        help="print the ids and pieces of a text or file",
        epilog='example:\n  geex tokenizer show --tokenizer my-tokenizer "def f(x):"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    show.add_argument(
        "--tokenizer", required=True, metavar="SPEC",
        help="folder, *.model, tokenizer.json or hub id",
    )  # fmt: skip
    show.add_argument("text", metavar="TEXT_OR_FILE", help="a file that exists, else a text")
    show.add_argument(
        "--special", action="store_true", help="take literal control strings as control tokens"
    )


def run(args: argparse.Namespace) -> int | None:
    """Runs the chosen sub-command."""
    return _train(args) if args.action == "train" else _show(args)


def _train(args: argparse.Namespace) -> None:
    from geex_jax import tokenizers
    from geex_jax.data import PrepareConfig, sample_texts
    from geex_jax.data.filters import Filters

    if args.max_megabytes <= 0:
        raise GeexError(f"--max-megabytes {args.max_megabytes:g} is not positive", "try 20")
    progress = files.Progress("reading", args.max_megabytes, "MB")
    config = PrepareConfig(
        exclude=tuple(args.exclude),
        validation_fraction=args.validation_fraction,
        near_dup_threshold=0.0,  # exact copies only: a vocabulary does not mind a few near ones
        filters=Filters(min_bytes=args.min_bytes, min_alpha=args.min_alpha),
    )
    texts = []
    # Tag lines go in front, as in training, so that they become few pieces.
    for language, text in sample_texts(args.input, config, max_bytes=int(args.max_megabytes * 1e6)):
        texts.append(f"{language.tag}\n{text}")
        progress.update(len(text) / 1e6)
    progress.close()
    size = sum(len(text.encode()) for text in texts)
    print(f"training {args.vocab_size} pieces on {len(texts)} files, {size / 1e6:.1f} MB")
    start = time.monotonic()
    tokenizer = tokenizers.train_sentencepiece(texts, args.output, args.vocab_size)
    duration = time.monotonic() - start
    sample = texts[: max(1, len(texts) // 10)]
    tokens = sum(map(len, tokenizer.encode_batch(sample)))
    density = sum(len(text.encode()) for text in sample) / max(tokens, 1)
    print(
        f"saved {args.output}: {tokenizer.vocab_size} pieces, {density:.2f} bytes per token on a "
        f"tenth of these files, fingerprint {tokenizer.fingerprint()}, {duration:.1f} s"
    )


def _show(args: argparse.Namespace) -> None:
    from geex_jax import tokenizers

    tokenizer = tokenizers.load(args.tokenizer)
    text = _text(args.text)
    ids = tokenizer.encode(text, allow_special=args.special)
    for token in ids:
        piece = tokenizer.decode_bytes([token])
        try:
            shown = repr(piece.decode())
        except UnicodeDecodeError:
            shown = repr(piece)
        print(f"{token:>7}  {shown}")
    size = len(text.encode())
    print(f"{len(ids)} tokens, {size} bytes, {size / max(len(ids), 1):.2f} bytes per token")


def _text(text_or_file: str) -> str:
    try:
        path = pathlib.Path(text_or_file)
        if not path.is_file():
            return text_or_file
    except (OSError, ValueError):  # too long or with NUL: no file name
        return text_or_file
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise GeexError(f"{path} is not UTF-8", "convert it first") from None
    except OSError as error:
        raise GeexError(f"cannot read {path}: {error.strerror}", "check the file") from None
