"""`geex quantize`: a float checkpoint to int8 or int4 weights, and what that costs."""

from __future__ import annotations

import argparse

EXAMPLE = "geex quantize runs/small --output small-int8 --bits 8 --data data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", help="a model folder or a training workdir")
    add("--output", metavar="DIR", help="folder to make (default: CKPT-intBITS)")
    add("--bits", type=int, default=8, help="8 or 4 (default %(default)s)")
    add("--rounding", default="clean",
        help="clean: the paper's formula in float32, the smaller error; official: the integers of"
        " the official code, whose division is rounded to float16 first (default %(default)s)",
        )  # fmt: skip
    add("--data", metavar="DIR",
        help="prepared data, to measure on its validation split (default: the data that the"
        " checkpoint was trained on, if it is still there)")  # fmt: skip
    add("--batches", type=int, default=4, metavar="N",
        help="validation batches of each language (default %(default)s)")  # fmt: skip
    add("--batch-size", type=int, default=4, metavar="N", help="rows (default %(default)s)")
    add("--overwrite", action="store_true", help="replace what is at --output")


def run(args: argparse.Namespace) -> None:
    """Quantizes, measures, writes the checkpoint and its report."""
    import pathlib

    from geex_jax import checkpoints, quantize
    from geex_jax.errors import GeexError

    if args.batches < 1 or args.batch_size < 1:
        raise GeexError("--batches and --batch-size must be positive", "give 1 or more")
    source = pathlib.Path(args.checkpoint)
    output = pathlib.Path(args.output or f"{source.resolve()}-int{args.bits}")
    if output.exists() and not args.overwrite:
        raise GeexError(f"{output} exists", "choose another --output, or pass --overwrite")
    if output.resolve() == source.resolve():
        raise GeexError("--output is the checkpoint itself", "choose another folder")
    loaded = checkpoints.load_model(source)
    params = quantize.quantize_params(loaded.params, args.bits, args.rounding)
    data = _data(args.data, loaded.provenance)
    comparison = None if data is None else _compare(args, loaded, params, data)
    report = quantize.make_report(
        loaded.params, params, comparison, checkpoint=str(source), data=data
    )
    provenance = {
        **loaded.provenance,
        "quantization": {"bits": args.bits, "rounding": args.rounding, "from": str(source)},
    }
    checkpoints.save_model(
        output, loaded.config, params, loaded.tokenizer, provenance, overwrite=args.overwrite
    )
    path = quantize.write_report(output, report)
    print(quantize.render(report))
    print(f"wrote {output} and {path}")


def _data(given: str | None, provenance: dict) -> str | None:
    """The prepared data to measure on: the folder given, or the training data if still there."""
    import pathlib

    from geex_jax.data import load_manifest

    known = provenance.get("data")
    if isinstance(known, dict):
        known = known.get("folder")
    if (
        given is None
        and isinstance(known, str)
        and (pathlib.Path(known) / "manifest.json").exists()
        and load_manifest(known).total("validation").rows
    ):
        return known
    return given


def _compare(args, loaded, params, data: str):
    from geex_jax import quantize
    from geex_jax.data import eval_batches, load_manifest
    from geex_jax.errors import GeexError
    from geex_jax.training.evaluate import ByteCounter

    manifest = load_manifest(data)
    if loaded.tokenizer is None:
        raise GeexError(f"{args.checkpoint} has no tokenizer", "measure without --data")
    if loaded.tokenizer.fingerprint() != manifest.tokenizer.fingerprint:
        raise GeexError(
            f"{data} was made with another tokenizer than {args.checkpoint}",
            "prepare the data with the checkpoint's tokenizer",
        )
    if manifest.seq_len > loaded.config.context_length:
        raise GeexError(
            f"{data} has rows of {manifest.seq_len} tokens, the model a context of "
            f"{loaded.config.context_length}",
            "prepare the data with a smaller --seq-len",
        )
    counter = ByteCounter.of(loaded.tokenizer, manifest, loaded.config.vocab_size)
    batches = eval_batches(
        data, "validation", args.batch_size, max_batches_per_language=args.batches
    )
    tagless = (counter.without_tags(batch) for batch in batches)
    return quantize.compare(loaded.model, loaded.params, params, tagless, counter.token_bytes)
