"""`geex quantize`: a float checkpoint to int8 or int4 weights, and what that costs."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLE = "geex quantize runs/small --output small-int4 --policy int4-g64 --calibrate gptq"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    add = parser.add_argument
    add("checkpoint", metavar="CKPT",
        help="a model folder, a training workdir, or a checkpoint that geex convert reads",
        )  # fmt: skip
    add("--output", metavar="DIR", help="folder to make (default: CKPT-POLICY, CKPT-report)")
    add("--policy", metavar="P",
        help="int8, int4, int4-g32, int4-g64, int4-g128 (a scale for each group of inputs), mixed; "
        "each with +embedding for the token table and head in int8; rules PATTERN=FORMAT,...; or a "
        "JSON file of rules (default int8)")  # fmt: skip
    add("--bits", type=int, metavar="N", help="8 or 4: as --policy int8 or int4")
    add("--rounding", default="clean",
        help="clean: the paper's formula in float32, the smaller error; official: the integers of"
        " the official code, whose division is rounded to float16 first (default %(default)s)",
        )  # fmt: skip
    add("--calibrate", metavar="HOW", choices=("gptq",),
        help="gptq: choose the integers by what the linears meet on real code (--data or --text)",
        )  # fmt: skip
    add("--calibration-tokens", type=int, default=32768, metavar="N",
        help="tokens to calibrate on (default %(default)s)")  # fmt: skip
    add("--text", nargs="+", metavar="PATH", help="files or folders to calibrate on")
    add("--data", metavar="DIR",
        help="prepared data: calibrates on its training split, measures on its validation split"
        " (default: the data that the checkpoint was trained on, if it is still there)",
        )  # fmt: skip
    add("--no-measuring", action="store_true",
        help="never load the models to compare them: memory stays at a few tensors")  # fmt: skip
    add("--batches", type=int, default=4, metavar="N",
        help="validation batches of each language (default %(default)s)")  # fmt: skip
    add("--batch-size", type=int, default=4, metavar="N", help="rows (default %(default)s)")
    add("--num-heads", type=int, metavar="N", help="of an official CodeGeeX checkpoint")
    add("--overwrite", action="store_true", help="replace what is at --output")
    _add_report(parser.add_argument_group("comparing formats").add_argument)


def _add_report(add: Any) -> None:
    add("--report", action="store_true",
        help="write no checkpoint but a page that compares formats: bits per byte, KL, same top "
        "token, single layers, a plot of quality against bytes")  # fmt: skip
    add("--formats", nargs="+", metavar="P", help="policies to compare (default: all named)")
    add("--sensitivity", default="int4", metavar="P",
        help="policy in which each layer is tried alone (default %(default)s)")  # fmt: skip
    add("--embedded", metavar="DIR", help="held-out tasks of geex embedded: pass@1 of every format")
    add("--languages", metavar="NAMES", help="of the tasks (default: all that can be run here)")
    add("--activations", choices=("float", "int8"), default="float",
        help="int8: int8 weights with int8 activations too (W8A8)")  # fmt: skip
    add("--kv-cache", choices=("model", "int8"), default="model",
        help="int8: an int8 cache too")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Quantizes and measures, or compares formats."""
    from geex_jax.errors import GeexError

    if min(args.batches, args.batch_size, args.calibration_tokens) < 1:
        raise GeexError("--batches, --batch-size and tokens must be positive", "give 1 or more")
    if args.bits is not None and args.policy is not None:
        raise GeexError("--bits and --policy together", "give one of them")
    if args.text and not args.calibrate:
        raise GeexError("--text without --calibrate", "add --calibrate gptq")
    _compare_formats(args) if args.report else _quantize(args)


def _quantize(args: argparse.Namespace) -> None:
    import pathlib

    from geex_jax import checkpoints, quantize
    from geex_jax.checkpoints.output import destination
    from geex_jax.checkpoints.quantizing import model_errors, shapes_of
    from geex_jax.checkpoints.sources import open_source
    from geex_jax.errors import GeexError

    for flag in ("formats", "embedded", "languages"):
        if getattr(args, flag):
            raise GeexError(f"--{flag} belongs to --report", "add --report")
    if args.activations != "float" or args.kv_cache != "model":
        raise GeexError("--activations and --kv-cache belong to --report", "add --report")
    source = pathlib.Path(args.checkpoint)
    if not source.exists():
        raise GeexError(f"no checkpoint folder {source}", "give a model folder or a train workdir")
    policy = quantize.parse(args.bits if args.bits is not None else args.policy or "int8")
    word = policy.name if policy.name.replace("+", "-").replace("-", "").isalnum() else "quantized"
    output = destination(args.output or f"{source.resolve()}-{word}", args.overwrite)
    if output.resolve() == source.resolve():
        raise GeexError("--output is the checkpoint itself", "choose another folder")
    data = _data(args)
    batches = _calibration(args, data) if args.calibrate else None
    checkpoints.quantize_model(
        source, output, policy, args.rounding, batches=batches, num_heads=args.num_heads,
        overwrite=args.overwrite, progress=lambda text: print(f"calibrating: {text}", flush=True),
    )  # fmt: skip
    comparison = None
    if data is not None and not args.no_measuring:
        loaded, after = checkpoints.load_model(source), checkpoints.load_model(output)
        comparison = _validation(args, loaded, data).compare(
            loaded.model, loaded.params, after.params
        )
    shapes = [
        shapes_of(open_source(source, num_heads=args.num_heads)),
        shapes_of(open_source(output)),
    ]
    report = quantize.make_report(
        *shapes, comparison, model_errors(source, output, args.num_heads),
        checkpoint=str(source), data=data,
    )  # fmt: skip
    path = quantize.write_report(output, report)
    print(quantize.render(report))
    print(f"wrote {output} and {path}")


def _compare_formats(args: argparse.Namespace) -> None:
    import pathlib
    import shlex
    import sys

    from geex_jax import checkpoints, quantize
    from geex_jax.benchmark.quantization import FORMATS, Wanted, measure
    from geex_jax.checkpoints.output import destination
    from geex_jax.errors import GeexError
    from geex_jax.quantize import compared

    if args.bits is not None or args.policy is not None or args.rounding != "clean":
        raise GeexError("--report compares policies", "name them with --formats")
    output = destination(
        args.output or f"{pathlib.Path(args.checkpoint).resolve()}-report", args.overwrite
    )
    data = _data(args)
    if data is None:
        raise GeexError("--report measures on validation text", "give --data")
    loaded = checkpoints.load_model(args.checkpoint)
    if quantize.is_quantized(loaded.params):
        raise GeexError(f"{args.checkpoint} is quantized", "give the float checkpoint")
    wanted = Wanted(
        policies=tuple(args.formats or _fitting(loaded.params, FORMATS)),
        calibration=_calibration(args, data) if args.calibrate else None,
        activations=args.activations == "int8",
        kv_cache=args.kv_cache == "int8",
        sensitivity=args.sensitivity,
        embedded=pathlib.Path(args.embedded) if args.embedded else None,
        languages=tuple(n.strip() for n in (args.languages or "").split(",") if n.strip()),
    )
    validation = _validation(args, loaded, data)
    report = measure(args.checkpoint, loaded, validation, wanted)
    report["command"] = shlex.join(["geex", *sys.argv[1:]])
    page = compared.write(output, report)
    print(f"\n{compared.render(report)}\n\nwrote {page} and {output}/quality.png")


def _fitting(params: Any, names: Any) -> list[str]:
    """The policies whose groups divide this model's inputs."""
    from geex_jax.errors import GeexError
    from geex_jax.quantize import check_policy

    found = []
    for name in names:
        try:
            check_policy(params, name)
            found.append(name)
        except GeexError as error:
            print(f"left out: {name} ({error})")
    return found


def _data(args: argparse.Namespace) -> str | None:
    """The prepared data to measure on: the folder given, or the training data if still there."""
    import pathlib

    from geex_jax.checkpoints import own, store
    from geex_jax.data import load_manifest

    if args.data is not None or not own.is_own(pathlib.Path(args.checkpoint)):
        return args.data
    known = store.locate(args.checkpoint)[0]["provenance"].get("data")
    if isinstance(known, dict):
        known = known.get("folder")
    if not isinstance(known, str) or not (pathlib.Path(known) / "manifest.json").exists():
        return None
    return known if load_manifest(known).total("validation").rows else None


def _calibration(args: argparse.Namespace, data: str | None) -> list:
    """Rows to calibrate on."""
    from geex_jax import tokenizers
    from geex_jax.checkpoints import store
    from geex_jax.data.calibration import prepared_rows, text_rows
    from geex_jax.errors import GeexError

    if args.text:
        about, _, folder = store.locate(args.checkpoint)
        if not folder.is_dir():
            raise GeexError(f"{args.checkpoint} has no tokenizer", "give --data")
        length = about["model"]["context_length"]
        words = tokenizers.load(folder)
        return text_rows(args.text, words, min(length, 2048), args.calibration_tokens)
    if data is None:
        raise GeexError("--calibrate needs real code", "give --data or --text")
    return prepared_rows(data, args.calibration_tokens)


def _validation(args: argparse.Namespace, loaded: Any, data: str) -> Any:
    from geex_jax.benchmark.quantization import Validation

    return Validation(loaded, data, args.batches, args.batch_size)
