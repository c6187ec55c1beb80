"""`geex generate`: prompts in, completions out, streamed to the terminal."""

from __future__ import annotations

import argparse
import sys
from typing import Any

EXAMPLE = (
    'geex generate --checkpoint small-int8 --language python --prompt "def add(a, b):"'
    " --max-new-tokens 64"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="DIR",
        help="a model folder, float or quantized, or a training workdir")  # fmt: skip
    add("--prompt", action="append", default=[], metavar="TEXT", help="may be given repeatedly")
    add("--prompt-file", action="append", default=[], metavar="FILE",
        help="a file that is one prompt; - for standard input; repeatable")  # fmt: skip
    add("--language", metavar="NAME", help="puts this language's tag line before each prompt")
    add("--max-new-tokens", type=int, default=128, metavar="N", help="default %(default)s")
    add("--temperature", type=float, default=0.0, metavar="T",
        help="0 takes the most likely token (default %(default)s)")  # fmt: skip
    add("--top-k", type=int, default=0, metavar="K", help="0: off (default %(default)s)")
    add("--top-p", type=float, default=0.0, metavar="P", help="0: off (default %(default)s)")
    add("--seed", type=int, default=0, help="same seed, same tokens (default %(default)s)")
    add("--stop", action="append", default=[], metavar="TEXT",
        help=r"ends a completion and is not shown; \n and \t are understood; repeatable",
        )  # fmt: skip
    add("--num-samples", type=int, default=1, metavar="N", help="completions for each prompt")
    add("--no-stream", action="store_true", help="print at the end only")
    add("--json", action="store_true", help="one JSON object a line for each completion")


def run(args: argparse.Namespace) -> None:
    """Loads, generates and prints; figures go to standard error."""
    import time

    from geex_jax import checkpoints
    from geex_jax.errors import GeexError
    from geex_jax.inference import generate

    prompts = _prompts(args)
    loaded = checkpoints.load_model(args.checkpoint)
    if loaded.tokenizer is None:
        raise GeexError(f"{args.checkpoint} has no tokenizer", "save the model with one")
    single = len(prompts) == 1 and args.num_samples == 1
    live = single and not args.no_stream and not args.json

    def show(row: int, text: str) -> None:
        del row
        print(text, end="", flush=True)

    began = time.monotonic()
    completions = generate(
        loaded.model,
        loaded.params,
        loaded.tokenizer,
        prompts,
        language=args.language,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=args.seed,
        stop=[s.replace("\\n", "\n").replace("\\t", "\t") for s in args.stop],
        num_samples=args.num_samples,
        stream=show if live else None,
    )
    elapsed = time.monotonic() - began
    if live:
        print()
    else:
        _print(completions, args, single)
    total = sum(c.num_tokens for c in completions)
    ends = ", ".join(sorted({c.finish for c in completions}))
    print(
        f"{total} tokens in {elapsed:.1f} s ({total / max(elapsed, 1e-9):.1f} tokens/s, "
        f"compilation included), ended by {ends}",
        file=sys.stderr,
    )


def _prompts(args: argparse.Namespace) -> list[str]:
    """The texts of --prompt and --prompt-file, in that order."""
    import pathlib

    from geex_jax.errors import GeexError

    prompts = list(args.prompt)
    for name in args.prompt_file:
        try:
            data = sys.stdin.buffer.read() if name == "-" else pathlib.Path(name).read_bytes()
        except OSError as error:
            raise GeexError(f"cannot read {name}: {error.strerror}", "give a text file") from None
        try:
            prompts.append(data.decode())
        except UnicodeDecodeError:
            raise GeexError(f"{name} is not UTF-8", "convert it first") from None
    if not prompts:
        raise GeexError("no prompt", "pass --prompt TEXT or --prompt-file FILE (- for stdin)")
    return prompts


def _print(completions: list[Any], args: argparse.Namespace, single: bool) -> None:
    import dataclasses
    import json

    for i, completion in enumerate(completions):
        if args.json:
            print(
                json.dumps(dataclasses.asdict(completion) | {"num_tokens": completion.num_tokens})
            )
            continue
        if not single:
            number, sample = divmod(i, args.num_samples)
            print(f"=== prompt {number + 1}, sample {sample + 1} ({completion.finish}, "
                  f"{completion.num_tokens} tokens)")  # fmt: skip
        print(completion.text)
