"""`geex doctor`: toolchains and the sandbox of the benchmark, and how to get what is missing."""

from __future__ import annotations

import argparse

EXAMPLE = "geex doctor --language python,cpp --start"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("--language", default="all", metavar="NAMES", help="default %(default)s")
    add("--start", action="store_true",
        help="start each language's sandbox: builds its helpers and tries them")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Prints what there is; 0 if nothing is missing, else 1."""
    from geex_jax.benchmark import doctor, languages

    names = languages.parse(args.language)
    print(doctor.machine())
    print("sandbox:")
    safe = doctor.sandbox(print)
    complete = doctor.toolchains(names, args.start, print)
    return 0 if safe and complete else 1
