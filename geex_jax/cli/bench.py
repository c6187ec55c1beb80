"""`geex bench NAME`: one measurement against a peer, in the same run."""

from __future__ import annotations

import argparse
import importlib

# name -> (module below geex_jax.benchmark, one line of help)
BENCHES: dict[str, tuple[str, str]] = {
    "tokenizer": ("tokenizer_bench", "encode throughput against the official path of transformers"),
    "train-step": ("train_step_bench", "tokens/s of the jitted step against plain PyTorch"),
}
EXAMPLE = "geex bench tokenizer --tokenizer DIR --input DIR"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one sub-command for each bench; each bench module adds its own flags."""
    benches = parser.add_subparsers(dest="bench", required=True, metavar="NAME")
    for name, (module, summary) in BENCHES.items():
        sub = benches.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        importlib.import_module(f"geex_jax.benchmark.{module}").add_arguments(sub)


def run(args: argparse.Namespace) -> int | None:
    """Runs the chosen bench's `run(args)`."""
    module = BENCHES[args.bench][0]
    return importlib.import_module(f"geex_jax.benchmark.{module}").run(args)
