"""`geex prepare`: source trees to packed rows."""

from __future__ import annotations

import argparse

EXAMPLE = (
    "geex prepare --input ~/src /usr/lib/python3 --output data --tokenizer vocabulary.model"
    " --seq-len 2048"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    from geex_jax.data.filters import Filters

    paper = Filters()
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="DIR", help="source trees (or files)")
    add("--output", required=True, metavar="DIR", help="folder to make; killed runs resume there")
    add("--tokenizer", required=True, metavar="SPEC",
        help="folder, *.model, tokenizer.json or hub id")  # fmt: skip
    add("--seq-len", type=int, default=2048, help="tokens a row predicts (default %(default)s)")
    add("--validation-fraction", type=float, default=0.02, metavar="SHARE",
        help="files kept for validation, by content hash (default %(default)s)")  # fmt: skip
    add("--languages", nargs="+", default=(), metavar="NAME", help="only these (default all 23)")
    add("--workers", type=int, metavar="N", help="processes (default one per core)")
    add("--seed", type=int, default=0, help="draws the order of files (default %(default)s)")
    add("--exclude", nargs="+", default=(), metavar="NAME",
        help="names of folders not to enter, e.g. site-packages")  # fmt: skip
    add("--no-tag", action="store_true", help="no language tag at the head of segments")
    add("--follow-links", action="store_true", help="enter folders behind symbolic links")
    add("--rows-per-shard", type=int, default=0, metavar="N", help="default: about 128 MB")
    add("--overwrite", action="store_true", help="remove an earlier result in --output first")
    limits = parser.add_argument_group("filters (defaults: the paper's)")
    add = limits.add_argument
    add("--max-bytes", type=int, default=paper.max_bytes, metavar="N",
        help="drop larger files (default %(default)s; 0: no limit)")  # fmt: skip
    add("--min-bytes", type=int, default=paper.min_bytes, metavar="N",
        help="drop smaller files (default %(default)s)")  # fmt: skip
    add("--max-average-line", type=float, default=paper.max_average_line, metavar="N",
        help="drop files with longer lines on average (default %(default)s; 0: no limit)",
        )  # fmt: skip
    add("--min-alpha", type=float, default=paper.min_alpha, metavar="SHARE",
        help="drop files with fewer letters among their characters (default %(default)s)",
        )  # fmt: skip
    add("--keep-generated", action="store_true", help="keep files that say they are generated")
    add("--keep-duplicates", action="store_true", help="keep copies with the same content")


def run(args: argparse.Namespace) -> None:
    """Prepares the data and prints what became of it."""
    from geex_jax.data.config import PrepareConfig
    from geex_jax.data.filters import Filters
    from geex_jax.data.pipeline import prepare
    from geex_jax.data.summary import summary

    filters = Filters(
        args.max_bytes,
        args.min_bytes,
        args.max_average_line,
        args.min_alpha,
        args.keep_generated,
        args.keep_duplicates,
    )
    config = PrepareConfig(
        seq_len=args.seq_len,
        validation_fraction=args.validation_fraction,
        languages=tuple(args.languages),
        seed=args.seed,
        tags=not args.no_tag,
        filters=filters,
        exclude=tuple(args.exclude),
        follow_links=args.follow_links,
        workers=args.workers,
        rows_per_shard=args.rows_per_shard,
        overwrite=args.overwrite,
    )
    print(summary(prepare(args.input, args.output, args.tokenizer, config)))
