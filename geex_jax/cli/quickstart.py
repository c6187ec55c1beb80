"""`geex quickstart`: everything once, on real code, in minutes."""

from __future__ import annotations

import argparse

EXAMPLE = "geex quickstart --output geex-quickstart --input ~/src"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("--output", default="geex-quickstart", metavar="DIR", help="default %(default)s")
    add("--input", nargs="+", default=(), metavar="DIR",
        help="source trees (default: what is found on this machine)")  # fmt: skip
    add("--minutes", type=float, default=5.5, metavar="N",
        help="time for everything; training takes what is left (default %(default)s)")  # fmt: skip
    add("--resume", action="store_true", help="go on in --output after an interruption")


def run(args: argparse.Namespace) -> None:
    """Runs all stages in this process."""
    from geex_jax import quickstart
    from geex_jax.cli import main

    quickstart.run(args.output, args.input, args.minutes, main, args.resume)
