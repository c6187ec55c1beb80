"""`geex bench NAME`: one measurement against a peer, in the same run."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from geex_jax.cli import Parser

# name -> (module below geex_jax.benchmark, one line of help)
BENCHES: dict[str, tuple[str, str]] = {
    "humaneval-x": (
        "humaneval_x.command",
        "functional correctness in six languages: pass@k of files, checkpoints, servers",
    ),
    "harness": ("harness_bench", "programs judged per CPU second against the reference's way"),
    "tokenizer": ("tokenizer_bench", "encode throughput against the official path of transformers"),
    "convert": ("convert_bench", "peak memory of a conversion against its bound; kill and restart"),
    "data": ("data_bench", "the corpus pipeline, stage by stage, against peers; the same bytes"),
    "loader": ("loader_bench", "tokens/s of the loader, and its memory over epochs"),
    "decode": (
        "decode_bench",
        "ms/token against transformers and CTranslate2; GPU: the paper's table",
    ),
    "prefill": ("prefill_bench", "time to a prompt's first token against the same peers"),
    "attention": ("attention_bench", "attention's kernels here: equality and milliseconds"),
    "kernels": ("kernels_bench", "decode's kernels here: equality, ms, share of the bandwidth"),
    "plan": ("plan_bench", "what remat, rows, mesh and flags do to a step compiled for a slice"),
    "collectives": (
        "collectives_bench",
        "what the TPU compiler makes of a gradient's reduce-scatter, bytes and links",
    ),
    "chaos": ("chaos_bench", "processes killed at random, restarted on fewer: the same weights"),
    "train-step": ("train_step_bench", "tokens/s of the jitted step against plain PyTorch"),
    "peer-step": ("peer_step_bench", "our step against nanodo's: tokens/s, TPU memory and cycles"),
    "engine": ("engine_bench", "continuous batching, kept prompts and guesses: tokens/s, waits"),
    "serve": ("serve_bench", "geex serve under load: tokens/s, waiting times, leaks"),
    "gpu-step": ("gpu_step_bench", "MFU on a GPU against PyTorch with torch.compile and SDPA"),
}
EXAMPLE = "geex bench tokenizer --tokenizer DIR --input DIR"


class BenchParser(Parser):
    """A bench's parser: its module is imported when it is the chosen one, and not before.

    So a bench that is slow to import, or misses a package, does not stand in another's way.
    """

    module = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Lets the module add its flags first; an unknown flag is told from among them."""
        if self.module:
            _load(self.module).add_arguments(self)
            self.module = ""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one sub-command for each bench; the chosen one's module adds its own flags."""
    benches = parser.add_subparsers(
        dest="bench", required=True, metavar="NAME", parser_class=BenchParser
    )
    for name, (module, summary) in BENCHES.items():
        sub = benches.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        sub.module = module


def run(args: argparse.Namespace) -> int | None:
    """Runs the chosen bench's `run(args)`."""
    return _load(BENCHES[args.bench][0]).run(args)


def _load(module: str) -> Any:
    return importlib.import_module(f"geex_jax.benchmark.{module}")
