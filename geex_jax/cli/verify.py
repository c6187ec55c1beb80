"""`geex verify`: a checkpoint here against the original files run by PyTorch."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLE = "geex verify codegeex-13b --against codegeex_13b.pt --prompt-file quicksort.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("checkpoint", metavar="CKPT",
        help="a model folder, float or quantized, or a training workdir")  # fmt: skip
    add("--against", required=True, metavar="PATH",
        help="what it was converted from: a Hugging Face folder, or the official CodeGeeX"
        " checkpoint (a .pt file or a folder of mp_rank_XX_model_states.pt)")  # fmt: skip
    add("--prompt", action="append", default=[], metavar="TEXT", help="may be given repeatedly")
    add("--prompt-file", action="append", default=[], metavar="FILE",
        help="a file that is one prompt; - for standard input; repeatable")  # fmt: skip
    add("--length", type=int, metavar="N",
        help="tokens in a row: prompts are cut to it; without prompts, rows of that many random"
        " tokens are compared (default 64)")  # fmt: skip
    add("--rows", type=int, default=2, metavar="N", help="random rows (default %(default)s)")
    add("--seed", type=int, default=0, help="of the random tokens (default %(default)s)")
    add("--batch-size", type=int, metavar="N", help="rows at a time (default: all)")
    add("--num-heads", type=int, metavar="N",
        help="heads of a CodeGeeX file, which does not tell (default: config.json beside it, else"
        " heads of 128)")  # fmt: skip
    add("--tolerance", type=float, metavar="X",
        help="largest difference of a logit (default: 3e-4; none for quantized checkpoints)",
        )  # fmt: skip
    add("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Compares and prints; the exit status is 1 if the logits differ by more than allowed."""
    import json

    from geex_jax import checkpoints
    from geex_jax.checkpoints import peers, verify
    from geex_jax.errors import GeexError

    for flag in ("length", "rows", "batch_size", "num_heads", "tolerance"):
        value = getattr(args, flag)
        if value is not None and not value > 0:
            raise GeexError(f"--{flag.replace('_', '-')} {value} must be positive", "see --help")
    peers.peer_shape(args.against, args.num_heads)  # what is wrong with it shows before we load
    loaded = checkpoints.load_model(args.checkpoint)
    report = verify.verify(
        loaded,
        args.against,
        _tokens(args, loaded),
        tolerance=args.tolerance,
        num_heads=args.num_heads,
        batch_size=args.batch_size,
        release=True,
    )
    print(json.dumps(report.to_dict(), indent=2) if args.json else verify.render(report))
    return 1 if report.passed is False else 0


def _tokens(args: argparse.Namespace, loaded: Any) -> Any:
    """Ids of the prompts, or random ones."""
    import numpy as np

    from geex_jax.cli.generate import _prompts
    from geex_jax.errors import GeexError

    if not args.prompt and not args.prompt_file:
        length = args.length or min(64, loaded.config.context_length)
        random = np.random.default_rng(args.seed)
        return random.integers(0, loaded.config.vocab_size, (args.rows, length), np.int32)
    if loaded.tokenizer is None:
        raise GeexError(
            f"{args.checkpoint} has no tokenizer", "compare on random tokens: pass no prompt"
        )
    return [loaded.tokenizer.encode(text)[: args.length] for text in _prompts(args)]
