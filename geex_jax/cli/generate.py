"""`geex generate`: prompts in, completions out, streamed to the terminal."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from geex_jax.cli import forms

EXAMPLE = (
    'geex generate --checkpoint small-int8 --language python --prompt "def add(a, b):"'
    " --max-new-tokens 64"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="DIR",
        help="a model folder, float or quantized, or a training workdir")  # fmt: skip
    forms.add_arguments(parser)
    add("--prompt", action="append", default=[], metavar="TEXT", help="may be given repeatedly")
    add("--prompt-file", action="append", default=[], metavar="FILE",
        help="a file that is one prompt; - for standard input; repeatable")  # fmt: skip
    add("--language", metavar="NAME", help="puts this language's tag line before each prompt")
    add("--max-new-tokens", type=int, default=128, metavar="N", help="default %(default)s")
    add("--temperature", type=float, default=0.0, metavar="T",
        help="0 takes the most likely token (default %(default)s)")  # fmt: skip
    add("--top-k", type=int, default=0, metavar="K", help="0: off (default %(default)s)")
    add("--top-p", type=float, default=0.0, metavar="P", help="0: off (default %(default)s)")
    add("--min-p", type=float, default=0.0, metavar="P",
        help="drop what is less than P times as likely as the likeliest token; 0: off",
        )  # fmt: skip
    add("--repetition-penalty", type=float, default=1.0, metavar="R",
        help="above 1 repeats less; 1: off (default %(default)s)")  # fmt: skip
    add("--suffix", metavar="TEXT",
        help="what stands after a hole that is to be filled in; for models with fill-in tokens",
        )  # fmt: skip
    add("--beams", type=int, default=0, metavar="K",
        help="beam search with K beams, whose best --num-samples are printed; 0: off")  # fmt: skip
    add("--length-penalty", type=float, default=1.0, metavar="A",
        help="of beam search: log-probability over length ** A (default %(default)s)")  # fmt: skip
    add("--speculate", type=int, default=0, metavar="N",
        help="guess N tokens from the text so far and check them in one pass: the same tokens, "
        "faster where text repeats; 0: off")  # fmt: skip
    add("--draft", metavar="DIR",
        help="with --speculate: a smaller model with the same tokenizer that guesses")  # fmt: skip
    add("--logprobs", type=int, metavar="K",
        help="log-probabilities of the tokens and of the K most likely ones; needs --json",
        )  # fmt: skip
    add("--seed", type=int, default=0, help="same seed, same tokens (default %(default)s)")
    add("--stop", action="append", default=[], metavar="TEXT",
        help=r"ends a completion and is not shown; \n and \t are understood; repeatable",
        )  # fmt: skip
    add("--num-samples", "--n", type=int, default=1, metavar="N",
        help="completions for each prompt")  # fmt: skip
    add("--no-stream", action="store_true", help="print at the end only")
    add("--json", action="store_true", help="one JSON object a line for each completion")


def run(args: argparse.Namespace) -> None:
    """Loads, generates and prints; figures go to standard error."""
    import time

    from geex_jax.errors import GeexError

    prompts = _prompts(args)
    _check(args)
    form = forms.form_of(args)
    form.check(args.checkpoint)
    loaded = form.open(args.checkpoint)
    if loaded.tokenizer is None:
        raise GeexError(f"{args.checkpoint} has no tokenizer", "save the model with one")
    single = len(prompts) == 1 and args.num_samples == 1
    live = single and not args.no_stream and not args.json and not args.beams

    def show(row: int, text: str) -> None:
        del row
        print(text, end="", flush=True)

    began = time.monotonic()
    completions = _complete(args, loaded, prompts, show if live else None)
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


def _check(args: argparse.Namespace) -> None:
    from geex_jax.errors import GeexError

    if args.logprobs is not None and not args.json:
        raise GeexError("--logprobs without --json", "add --json: text has no place for them")
    if args.draft and not args.speculate:
        raise GeexError("--draft without --speculate", "add --speculate 4, say")
    if args.length_penalty != 1 and not args.beams:
        raise GeexError("--length-penalty without --beams", "add --beams 4, say")
    if args.beams:
        drawing = {
            "temperature": 0, "top_k": 0, "top_p": 0, "min_p": 0, "repetition_penalty": 1,
            "speculate": 0, "logprobs": None,
        }  # fmt: skip
        for name, off in drawing.items():
            if getattr(args, name) != off:
                flag = "--" + name.replace("_", "-")
                raise GeexError(f"{flag} with --beams", "beam search draws nothing: leave it out")


def _complete(args: argparse.Namespace, loaded: Any, prompts: list[str], stream: Any) -> list[Any]:
    """The completions, by the plain loop or, for what only that can do, by an engine."""
    from geex_jax import checkpoints
    from geex_jax.inference import (
        EngineConfig,
        SamplingParams,
        complete,
        complete_beams,
        generate,
        prepare,
    )  # fmt: skip

    model = (*prepare(loaded.model, loaded.params, consume=True), loaded.tokenizer)
    stop = tuple(s.replace("\\n", "\n").replace("\\t", "\t") for s in args.stop)
    if args.beams:
        return complete_beams(
            *model, prompts, args.beams, num_return=args.num_samples, language=args.language,
            suffix=args.suffix, stop=stop, max_new_tokens=args.max_new_tokens,
            length_penalty=args.length_penalty,
        )  # fmt: skip
    drawn = {name: getattr(args, name) for name in
             ("max_new_tokens", "temperature", "top_k", "top_p", "seed")}  # fmt: skip
    plain = args.min_p == 0 and args.repetition_penalty == 1 and args.logprobs is None
    if plain and not args.speculate and args.suffix is None:
        return generate(
            *model, prompts, language=args.language, stop=stop, num_samples=args.num_samples,
            stream=stream, **drawn,
        )  # fmt: skip
    draft = None
    if args.draft:
        small = checkpoints.load_model(args.draft)
        draft = prepare(small.model, small.params, consume=True)
    rows = min(8, len(prompts) * args.num_samples)
    sampling = SamplingParams(
        **drawn, stop=stop, n=args.num_samples, min_p=args.min_p, logprobs=args.logprobs,
        repetition_penalty=args.repetition_penalty,
    )  # fmt: skip
    config = EngineConfig(
        slots=rows, batches=(rows,), prefix_cache_bytes=0, speculate=args.speculate
    )
    return complete(
        *model, prompts, sampling, language=args.language, suffix=args.suffix, config=config,
        draft=draft, stream=stream,
    )  # fmt: skip


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
            row = dataclasses.asdict(completion) | {"num_tokens": completion.num_tokens}
            if row["logprobs"] is None:
                del row["logprobs"]
            print(json.dumps(row))
            continue
        if not single:
            number, sample = divmod(i, args.num_samples)
            print(f"=== prompt {number + 1}, sample {sample + 1} ({completion.finish}, "
                  f"{completion.num_tokens} tokens)")  # fmt: skip
        print(completion.text)
