"""`geex embedded`: parallel tasks in six languages, to train on and to be judged by."""

from __future__ import annotations

import argparse

EXAMPLE = "geex embedded --output tasks --train 6000 --held-out 100 --level 2 --seed 0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("--output", required=True, metavar="DIR",
        help="folder to make: train/ (source files) and held-out/ (problems)")  # fmt: skip
    add("--train", type=int, default=6000, metavar="N",
        help="tasks to train on, in each language (default %(default)s; 0: none)")  # fmt: skip
    add("--held-out", type=int, default=100, metavar="N",
        help="tasks of compositions that --train has none of (default %(default)s; 0: none)",
        )  # fmt: skip
    add("--level", type=int, default=2, metavar="L",
        help="the hardest, from 1 to 5; easier ones come along (default %(default)s)")  # fmt: skip
    add("--seed", type=int, default=0, help="same seed, same bytes (default %(default)s)")
    add("--languages", nargs="+", default=["all"], metavar="NAME",
        help="python cpp java javascript go rust (default all)")  # fmt: skip
    add("--no-examples", action="store_true",
        help="descriptions without calls and their results: shorter, learned sooner")  # fmt: skip
    add("--bytes-per-file", type=int, default=0, metavar="N",
        help="put several tasks into a source file (default: one file for each task)",
        )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Writes both parts; the folder appears when it is whole."""
    from geex_jax.benchmark.embedded import corpus
    from geex_jax.errors import GeexError

    if min(args.train, args.held_out, args.bytes_per_file) < 0:
        raise GeexError("a number of tasks or bytes is negative", "give 0 or more")
    with corpus.whole_folder(args.output) as made:
        common = (args.level, args.languages)
        if args.train:
            counts = corpus.write_corpus(
                made / "train", args.seed, args.train, *common,
                bytes_per_file=args.bytes_per_file, examples=not args.no_examples,
            )  # fmt: skip
        if args.held_out:
            written = corpus.write_benchmark(
                made / "held-out", args.seed, args.held_out, *common, examples=not args.no_examples
            )
    if args.train:
        listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        print(f"{args.output}/train: source files of {args.train:,} tasks ({listed})")
        print(
            f"next: geex tokenizer train --input {args.output}/train --min-bytes 0 --min-alpha 0 "
            f"..., geex prepare the same way and with --near-dup-threshold 0; "
            "experiments/embedded.py has all commands"
        )
    if args.held_out:
        print(f"{args.output}/held-out: {', '.join(path.name for path in written)}")
        print(f"next: geex bench humaneval-x --data {args.output}/held-out ...")
