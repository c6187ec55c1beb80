"""The command `geex`: finds the verb, imports only its module, turns mistakes into one line."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from geex_jax.errors import GeexError, did_you_mean
from geex_jax.version import __version__

# verb -> (module below geex_jax.cli, one line of help). Only the chosen module is imported.
VERBS: dict[str, tuple[str, str]] = {
    "quickstart": (
        "quickstart",
        "source files to a trained, quantized, generating model, in minutes",
    ),
    "tokenizer": ("tokenizer", "train a SentencePiece vocabulary, or show how a text is split"),
    "prepare": (
        "prepare",
        "source trees to filtered, deduplicated, tagged, tokenized, packed rows",
    ),
    "data": ("data", "what prepared data holds: a report as one page, single rows decoded"),
    "train": ("train", "train or fine-tune a model by an experiment config"),
    "plan": ("plan", "whether a train step or a server fits a TPU slice, and what bounds it"),
    "quantize": (
        "quantize",
        "float checkpoint to int8 or int4 weights, with a report of the error",
    ),
    "verify": ("verify", "a checkpoint against its original run by PyTorch, layer by layer"),
    "generate": ("generate", "complete prompts with a checkpoint, float or quantized"),
    "serve": ("serve", "checkpoints behind an OpenAI-compatible server, and a page to try them"),
    "convert": ("convert", "any known checkpoint to a model folder, streamed"),
    "export": ("export", "a model folder to transformers, official code, safetensors, StableHLO"),
    "inspect": ("inspect", "what a checkpoint is and holds, and a fingerprint of its content"),
    "embedded": ("embedded", "parallel programming tasks in six languages, from a seed"),
    "doctor": ("doctor", "what the benchmark needs of this machine, and how to install it"),
    "build-kernels": ("build_kernels", "C++ kernels for int8 models on this CPU (optional)"),
    "bench": ("bench", "measure against peers in the same run"),
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints name the nearest flag that exists."""

    def error(self, message: str) -> NoReturn:
        """Raises GeexError instead of printing the usage and leaving."""
        found = re.match(r"unrecognized arguments: (.*)", message)
        if found:
            word = next((w for w in found[1].split() if w.startswith("-")), found[1].split()[0])
            flags = [f for a in self._actions for f in a.option_strings if f.startswith("--")]
            message = f"unknown flag {word}; {did_you_mean(word.split('=')[0], flags)}"
        raise GeexError(message, f"see '{self.prog} --help'")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns the exit status: 0 well, 2 for a user's mistake, 130 for Ctrl-C.

    A verb's module has `EXAMPLE` (one command line), `add_arguments(parser)` and
    `run(args) -> int | None`. A verb that passes on flags of its own (config overrides) sets
    `TAKES_EXTRA = True` and finds them in `args.extra`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [a for a in argv if a != "--debug"]
    try:
        return _dispatch(argv)
    except GeexError as error:
        if debug:
            traceback.print_exc()
        print(f"geex: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("geex: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away: nothing is left to say
        return 141


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"geex {__version__}")
        return 0
    verb = argv[0]
    if verb not in VERBS:
        kind = "flag" if verb.startswith("-") else "verb"
        raise GeexError(f"unknown {kind} {verb}", did_you_mean(verb, VERBS))
    name, summary = VERBS[verb]
    module = importlib.import_module(f"geex_jax.cli.{name}")
    parser = Parser(
        prog=f"geex {verb}",
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    if getattr(module, "TAKES_EXTRA", False):
        args, args.extra = parser.parse_known_args(argv[1:])
    else:
        args = parser.parse_args(argv[1:])
    args.words = argv  # for reports that say how they were made
    return module.run(args) or 0


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {summary}" for verb, (_, summary) in VERBS.items()]
    return "\n".join(
        [
            f"geex {__version__}: multilingual code models in JAX: train, evaluate, quantize, use",
            "",
            "usage: geex VERB [flags]",
            "",
            *lines,
            "",
            "'geex VERB --help' shows a verb's flags and an example; --debug shows tracebacks.",
        ]
    )
