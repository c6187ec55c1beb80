"""`geex export`: a geex model for transformers, for the official code, or as safetensors."""

from __future__ import annotations

import argparse

EXAMPLE = "geex export runs/a exported --format codegeex --model-parallel 4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", help="a model folder, a training workdir, or one step of it")
    add("dest", metavar="DEST", help="the folder to make")
    add("--format", default="hf", metavar="NAME",
        help="hf (transformers), codegeex (official code; int8 and int4 too) or safetensors (our "
        "names) (default %(default)s)")  # fmt: skip
    add("--family", metavar="NAME",
        help="of format hf (default: where the model came from, or what fits)")  # fmt: skip
    add("--dtype", metavar="TYPE", help="of float tensors (default: as they are)")
    add("--model-parallel", type=int, default=1, metavar="N",
        help="parts of format codegeex (default %(default)s)")  # fmt: skip
    add("--fused-qkv", action="store_true",
        help="format codegeex with query_key_value in one matrix")  # fmt: skip
    add("--max-shard-gb", type=float, default=5.0, metavar="GB",
        help="divide larger safetensors (default %(default)s)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace what is at DEST")


def run(args: argparse.Namespace) -> None:
    """Exports and lists the files."""
    from geex_jax import checkpoints
    from geex_jax.errors import GeexError

    if args.max_shard_gb <= 0:
        raise GeexError(f"--max-shard-gb {args.max_shard_gb}", "give a size above 0")
    folder = checkpoints.export(
        args.checkpoint,
        args.dest,
        format=args.format,
        family=args.family,
        dtype=args.dtype,
        model_parallel=args.model_parallel,
        fused_qkv=args.fused_qkv,
        max_shard_bytes=int(args.max_shard_gb * 1e9),
        overwrite=args.overwrite,
    )
    found = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    print(f"wrote {folder}: {', '.join(map(str, found))}")
