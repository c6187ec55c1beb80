"""`geex export`: a geex model for transformers, the official code, or as StableHLO programs."""

from __future__ import annotations

import argparse

EXAMPLE = "geex export runs/a exported --to stablehlo --platforms cpu,tpu,cuda"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", help="a model folder, a training workdir, or one step of it")
    add("dest", metavar="DEST", help="the folder to make")
    add("--format", "--to", default="hf", metavar="NAME",
        help="hf (transformers; int8 as compressed-tensors), codegeex (official code; int8 and int4"
        " too), safetensors (our names) or stablehlo (prefill and decode programs with their"
        " weights, and a script that runs them without this library) (default %(default)s)",
        )  # fmt: skip
    add("--family", metavar="NAME",
        help="of format hf (default: where the model came from, or what fits)")  # fmt: skip
    add("--dtype", metavar="TYPE", help="of float tensors (default: as they are)")
    add("--model-parallel", type=int, default=1, metavar="N",
        help="parts of format codegeex (default %(default)s)")  # fmt: skip
    add("--fused-qkv", action="store_true",
        help="format codegeex with query_key_value in one matrix")  # fmt: skip
    add("--max-shard-gb", type=float, default=5.0, metavar="GB",
        help="divide larger safetensors (default %(default)s)")  # fmt: skip
    add("--platforms", metavar="NAMES",
        help="stablehlo: where it shall run, some of cpu,tpu,cuda,rocm (default cpu,tpu,cuda)",
        )  # fmt: skip
    add("--slots", type=int, metavar="N",
        help="stablehlo: tokens that a row's cache holds (default: the context)")  # fmt: skip
    add("--compute-dtype", metavar="TYPE",
        help="stablehlo: type to compute in (default: the model's)")  # fmt: skip
    add("--activations", metavar="TYPE",
        help="stablehlo: float, or int8 for quantized weights (W8A8)")  # fmt: skip
    add("--kv-cache", metavar="TYPE", help="stablehlo: model, or int8")
    add("--overwrite", action="store_true", help="replace what is at DEST")


def run(args: argparse.Namespace) -> None:
    """Exports and lists the files."""
    from geex_jax import checkpoints
    from geex_jax.checkpoints.output import dtype_name
    from geex_jax.checkpoints.stablehlo import Options
    from geex_jax.errors import GeexError

    if args.max_shard_gb <= 0:
        raise GeexError(f"--max-shard-gb {args.max_shard_gb}", "give a size above 0")
    given = {
        "platforms": args.platforms and tuple(n.strip() for n in args.platforms.split(",")),
        "slots": args.slots,
        "dtype": args.compute_dtype and dtype_name(args.compute_dtype),
        "activations": args.activations,
        "kv_cache": args.kv_cache,
    }
    given = {name: value for name, value in given.items() if value is not None}
    folder = checkpoints.export(
        args.checkpoint,
        args.dest,
        format=args.format,
        family=args.family,
        dtype=args.dtype,
        model_parallel=args.model_parallel,
        fused_qkv=args.fused_qkv,
        max_shard_bytes=int(args.max_shard_gb * 1e9),
        programs=Options(**given) if given or args.format == "stablehlo" else None,
        overwrite=args.overwrite,
    )
    found = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    print(f"wrote {folder}: {', '.join(map(str, found))}")
