"""`geex inspect`: what a checkpoint is and holds."""

from __future__ import annotations

import argparse

EXAMPLE = "geex inspect codegeex_13b.pt --no-fingerprint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("checkpoint", metavar="CKPT",
        help="a model folder, a training workdir or a step of it, a Hugging Face folder, an"
        " official CodeGeeX file, or a folder of mp_rank_XX_model_states.pt")  # fmt: skip
    add("--no-fingerprint", action="store_true",
        help="read headers only: the fingerprint of the content reads all of it")  # fmt: skip
    add("--tree", action="store_true", help="list every tensor with shape, dtype and chunk")
    add("--num-heads", type=int, metavar="N",
        help="heads of a CodeGeeX file, which does not tell (default: config.json beside it, else"
        " heads of 128)")  # fmt: skip
    add("--ignore-key", action="append", default=[], metavar="KEY",
        help="a key of config.json that is unknown here and changes nothing; repeatable",
        )  # fmt: skip
    add("--json", action="store_true", help="print one JSON object, with all tensors")


def run(args: argparse.Namespace) -> None:
    """Inspects and prints."""
    import dataclasses
    import json

    from geex_jax.checkpoints import inspecting

    report = inspecting.inspect(
        args.checkpoint,
        not args.no_fingerprint,
        num_heads=args.num_heads,
        ignore=args.ignore_key,
    )
    if args.json:
        print(json.dumps(dataclasses.asdict(report)))
    else:
        print(inspecting.render(report, args.tree))
