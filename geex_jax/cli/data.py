"""`geex data show` and `geex data report`."""

from __future__ import annotations

import argparse
import os
import sys

EXAMPLE = "geex data report data/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the two sub-commands."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="show|report")
    show = verbs.add_parser(
        "show",
        help="print a decoded row with its segments, positions, prompt and loss mask",
        epilog="example:\n  geex data show data/ --index 7 --language python --tokens",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = show.add_argument
    add("folder", metavar="DIR", help="prepared data (of geex prepare)")
    add("--index", type=int, default=0, metavar="N",
        help="number of the row, from the end if negative (default %(default)s)")  # fmt: skip
    add("--split", default="train", help="train or validation (default %(default)s)")
    add("--language", metavar="NAME", help="count the rows of this language alone")
    add("--tokens", action="store_true", help="show where tokens begin and end")
    add("--color", choices=("auto", "always", "never"), default="auto",
        help="colours, or marks (default: colours on a terminal)")  # fmt: skip
    report = verbs.add_parser(
        "report",
        help="write one HTML page about prepared data, and print its tables",
        epilog=f"example:\n  {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = report.add_argument
    add("folder", metavar="DIR", help="prepared data (of geex prepare)")
    add("--output", metavar="FILE", help="where to write the page (default DIR/report.html)")
    add("--rows", type=int, default=2, metavar="N",
        help="sample rows of each language (default %(default)s)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Runs the chosen sub-command."""
    if args.action == "show":
        _show(args)
    else:
        _report(args)


def _show(args: argparse.Namespace) -> None:
    from geex_jax import tokenizers
    from geex_jax.data import load_manifest
    from geex_jax.data.show import render, show

    load_manifest(args.folder)
    tokenizer = tokenizers.load(os.path.join(args.folder, "tokenizer"))
    row = show(args.folder, args.index, args.split, args.language, tokenizer)
    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ
    color = args.color == "always" or (args.color == "auto" and not plain)
    print(render(row, tokenizer, color=color, boundaries=args.tokens))


def _report(args: argparse.Namespace) -> None:
    from geex_jax.data.report.page import printed, write_page

    output = args.output or os.path.join(args.folder, "report.html")
    found = write_page(args.folder, output, rows=args.rows)
    print(printed(found))
    print(f"\nwrote {output}")
