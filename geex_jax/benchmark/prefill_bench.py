"""The time to a prompt's first token against transformers and CTranslate2: `geex bench prefill`.

Sides, weights and turns are those of `decode_bench`; a round is one generation of one token.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from geex_jax.benchmark import decode_bench as race
from geex_jax.errors import GeexError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `geex bench prefill`."""
    race.add_shared_arguments(parser)
    parser.add_argument("--lengths", default="512", help="tokens of the prompt (default 512)")


def run(args: argparse.Namespace) -> None:
    """Measures and prints.

    Raises:
      GeexError: a flag that does not fit, sides that draw other tokens.
    """
    spec = race.spec_of(args)
    race.check_positive(args, "rounds")
    lengths = race.numbers("lengths", args.lengths)
    if max(lengths) >= spec.config.context_length:
        raise GeexError(
            f"--lengths {args.lengths} leave a context of {spec.config.context_length}", "shorten"
        )
    with race.field(spec) as sides:
        results = {}
        for length in lengths:
            prompts = race.make_prompts(spec.config.vocab_size, 1, length)
            tokens = sides.agree(prompts, 1)
            seconds = sides.rounds("prefill", (prompts,), args.rounds)
            results[str(length)] = sides.row(seconds) | {"same_tokens": tokens}
        out = sides.header() | {"lengths": results}
    print(json.dumps(out) if args.json else report(out))


def report(result: dict[str, Any]) -> str:
    """The figures as text for people."""
    lines = race.title(result)
    for length, row in result["lengths"].items():
        bases = list(row["ratio"])
        lines.append(
            f"prompt of {length}: {'ms':>19} {'best':>8} {'tokens/s':>9}"
            + "".join(f"  x {b}" for b in bases)
        )
        for name, x in sorted(row["median"].items(), key=lambda item: item[1]):
            lines.append(
                f"  {name:<24} {x * 1e3:8.1f} {min(row['seconds'][name]) * 1e3:8.1f} "
                f"{int(length) / x:9.0f}"
                + "".join(f"{row['ratio'][b][name]:{len(b) + 4}.2f}" for b in bases)
            )
    return "\n".join(lines)
