"""`geex convert`: any known checkpoint to a geex model folder."""

from __future__ import annotations

import argparse

EXAMPLE = "geex convert codegeex_13b.pt codegeex --dtype bf16 --mesh 4x2 --tokenizer codegeex"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("source", metavar="SOURCE",
        help="an official CodeGeeX file or folder of mp_rank_XX parts, a Hugging Face folder or "
        "hub id (org/name[@revision]), or a geex model to cast or cut anew")  # fmt: skip
    add("dest", metavar="DEST", help="the model folder to make")
    add("--dtype", metavar="TYPE",
        help="of float weights: float32, bfloat16, float16 (default: as stored)")  # fmt: skip
    add("--compute-dtype", default="float32", metavar="TYPE",
        help="what the model computes in unless told otherwise (default %(default)s)")  # fmt: skip
    add("--mesh", metavar="SIZES",
        help="cut the files into this mesh's shards: fsdp=4,tensor=2, or 4x2; the result loads "
        "onto any other mesh as well")  # fmt: skip
    add("--tokenizer", metavar="SPEC", help="folder, file or hub id (default: the source's own)")
    add("--num-heads", type=int, metavar="N",
        help="attention heads of an official CodeGeeX file, which does not say it (default: "
        "heads of 128)")  # fmt: skip
    add("--vocab-size", type=int, metavar="N",
        help="embedding rows to keep of an official file (default: up to 52224)")  # fmt: skip
    add("--ignore-key", action="append", default=[], metavar="KEY",
        help="a key of config.json, unknown here, that changes nothing; repeatable")  # fmt: skip
    add("--overwrite", action="store_true", help="replace what is at DEST")


def run(args: argparse.Namespace) -> None:
    """Converts and says what there is now."""
    from geex_jax import checkpoints
    from geex_jax.parallel import parse_mesh

    folder = checkpoints.convert(
        args.source,
        args.dest,
        dtype=args.dtype,
        mesh=parse_mesh(args.mesh) if args.mesh else None,
        tokenizer=args.tokenizer,
        num_heads=args.num_heads,
        vocab_size=args.vocab_size,
        compute_dtype=args.compute_dtype,
        ignore=args.ignore_key,
        overwrite=args.overwrite,
    )
    about = checkpoints.read_config(folder)
    source = about["provenance"].get("source", {})
    kinds = sorted({kind for _, kind in about["leaves"].values()})
    words = "with tokenizer"
    if not (folder / "tokenizer").is_dir():
        words = f"tokenizer {source.get('tokenizer', 'not found: see --tokenizer')}"
    print(f"wrote {folder}: family {source.get('family', 'geex')}, {', '.join(kinds)}, {words}")
