"""`geex prepare`: sources to packed rows."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from geex_jax.errors import GeexError

if TYPE_CHECKING:
    from geex_jax.data.manifest import Manifest
    from geex_jax.data.recipe import Recipe

EXAMPLE = (
    "geex prepare --input ~/src pool/*.deb dump.jsonl.zst --output data"
    " --tokenizer vocabulary.model --seq-len 2048\n"
    "  geex prepare --recipe permissive --output data --tokenizer vocabulary.model\n"
    "  geex prepare --input ~/src --explain ~/src/setup.py"
)
# Flags that a recipe decides.
_OF_INPUTS = ("exclude", "follow_links", "no_gitignore", "max_bytes", "min_bytes",
              "max_average_line", "min_alpha", "keep_generated", "keep_duplicates",
              "allow_licences", "benchmarks", "keep_secrets", "kind", "source_option")  # fmt: skip
_OF_BOTH = ("seq_len", "validation_fraction", "seed", "packing", "rows_per_shard")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the verb."""
    from geex_jax.data.filters import Filters
    from geex_jax.data.recipe import PACKINGS, Dedup

    paper = Filters()
    add = parser.add_argument
    add("--input", nargs="+", metavar="PATH",
        help="folders, source files, archives (.tar, .zip, .deb), .jsonl(.gz|.zst), .parquet",
        )  # fmt: skip
    add("--kind", metavar="KIND",
        help="what all inputs are, where their names do not tell: instructions (prompt and"
        " completion), official (CodeGeeX's prompt and code), xlcost, ...")  # fmt: skip
    add("--source-option", nargs="+", metavar="NAME=VALUE",
        help="of all inputs, e.g. text_field=content language=Python")  # fmt: skip
    add("--recipe", metavar="NAME|FILE", help="a recipe in place of --input, e.g. permissive")
    add("--megatron", nargs="+", metavar="PREFIX",
        help="in place of --input: Megatron-LM's PREFIX.bin and .idx, read in place; several as"
        " LANGUAGE=PREFIX")  # fmt: skip
    add("--output", metavar="DIR", help="folder to make; killed runs resume there")
    add("--tokenizer", metavar="SPEC", help="folder, *.model, tokenizer.json or hub id")
    add(
        "--explain", metavar="FILE", help="print what each stage makes of FILE, and prepare nothing"
    )
    add("--seq-len", type=int, help="tokens a row predicts (default 2048, or the recipe's)")
    add("--packing", choices=PACKINGS, help="best-fit keeps files whole where they fit (default)")
    add("--validation-fraction", type=float, metavar="SHARE",
        help="files kept for validation, by content hash (default 0.02)")  # fmt: skip
    add("--languages", nargs="+", metavar="NAME", help="only these (default all 23)")
    add("--workers", type=int, metavar="N", help="processes (default one per core)")
    add("--runner", default="local", metavar="WHERE",
        help="local, ray (this machine's cluster) or ray://HOST:PORT; --output must then be on a"
        " folder that all machines see")  # fmt: skip
    add("--seed", type=int, help="draws the order of files (default 0)")
    add("--exclude", nargs="+", metavar="NAME",
        help="names of folders not to enter, e.g. site-packages")  # fmt: skip
    add("--no-tag", action="store_true", help="no language tag at the head of segments")
    add("--follow-links", action="store_true", help="enter folders behind symbolic links")
    add("--no-gitignore", action="store_true", help="read what .gitignore files leave out, too")
    add("--rows-per-shard", type=int, metavar="N", help="about; default: by the corpus's size")
    add("--overwrite", action="store_true", help="remove an earlier result in --output first")
    limits = parser.add_argument_group("filters (defaults: the paper's)")
    add = limits.add_argument
    add("--max-bytes", type=int, metavar="N",
        help=f"drop larger files (default {paper.max_bytes}; 0: no limit)")  # fmt: skip
    add("--min-bytes", type=int, metavar="N",
        help=f"drop smaller files (default {paper.min_bytes})")  # fmt: skip
    add("--max-average-line", type=float, metavar="N",
        help=f"drop files with longer lines on average (default {paper.max_average_line:g};"
        " 0: no limit)")  # fmt: skip
    add("--min-alpha", type=float, metavar="SHARE",
        help=f"drop files with fewer letters among their characters (default {paper.min_alpha})",
        )  # fmt: skip
    add("--keep-generated", action="store_true", help="keep files that say they are generated")
    more = parser.add_argument_group("copies, licences, secrets, benchmarks")
    add = more.add_argument
    add("--keep-duplicates", action="store_true", help="keep copies, exact and near")
    add("--near-dup-threshold", type=float, metavar="SHARE",
        help="similarity from which files are copies (Jaccard, of runs of 5 words, estimated;"
        f" default {Dedup().near}; 0: exact copies only)")  # fmt: skip
    add("--allow-licences", nargs="+", metavar="SPDX",
        help="keep only files under these; 'permissive' stands for a list")  # fmt: skip
    add(
        "--keep-secrets",
        action="store_true",
        help="leave keys, e-mail and IP addresses as they are",
    )
    add("--benchmarks", nargs="+", metavar="JSONL",
        help="drop files that hold their tasks (HumanEval-X, or any JSONL)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Prepares the data and prints what became of it."""
    from geex_jax.data.pipeline import prepare_recipe, slowest
    from geex_jax.data.summary import summary

    if args.megatron:
        print(summary(_megatron(args)))
        return
    recipe = _recipe(args)
    if args.explain is not None:
        from geex_jax.data.explain import explain

        print(explain(recipe, args.explain, args.output))
        return
    _need(args, "output", "tokenizer")
    seconds: collections.Counter[str] = collections.Counter()
    if args.workers is not None and args.workers < 1:
        raise GeexError(f"--workers {args.workers} is not positive", "leave it out")
    manifest = prepare_recipe(
        recipe,
        args.output,
        args.tokenizer,
        workers=args.workers,
        runner=args.runner,
        overwrite=args.overwrite,
        seconds=seconds,
    )
    print(summary(manifest))
    if line := slowest(seconds):
        print(line, file=sys.stderr)


def _need(args: argparse.Namespace, *flags: str) -> None:
    for flag in flags:
        if getattr(args, flag) is None:
            raise GeexError(f"--{flag} is missing", "see 'geex prepare --help'")


def _megatron(args: argparse.Namespace) -> Manifest:
    """Makes prepared data of token files, which no flag about texts applies to."""
    from geex_jax.data.megatron import prepare_megatron

    _need(args, "output", "tokenizer")
    for flag in ("input", "recipe", "explain", "packing", "rows_per_shard", "seed", "no_tag",
                 "near_dup_threshold", *_OF_INPUTS):  # fmt: skip
        if getattr(args, flag) not in (None, False):
            name = "--" + flag.replace("_", "-")
            raise GeexError(f"{name} does not go with --megatron", "its rows are ready: leave it")
    if len(args.languages or ()) > 1:
        raise GeexError("--languages names several", "write --megatron LANGUAGE=PREFIX ...")
    language = args.languages[0] if args.languages else ""
    return prepare_megatron(
        args.megatron,
        args.output,
        args.tokenizer,
        language=language,
        overwrite=args.overwrite,
        **_given(args, "seq_len", "validation_fraction"),
    )


def _recipe(args: argparse.Namespace) -> Recipe:
    """Returns the recipe that the flags name or make."""
    from geex_jax.data.config import PrepareConfig
    from geex_jax.data.recipe import load

    if args.recipe is not None:
        if args.input:
            raise GeexError("--input and --recipe exclude each other", "leave one out")
        for flag in _OF_INPUTS:
            if getattr(args, flag) not in (None, False):
                name = "--" + flag.replace("_", "-")
                raise GeexError(f"{name} does not go with --recipe", "change the recipe's file")
        return _changed(load(args.recipe), args)
    inputs = args.input or ([args.explain] if args.explain else None)
    if not inputs:
        raise GeexError("no input given", "name folders or files with --input, or a --recipe")
    config = PrepareConfig(
        **_given(args, "near_dup_threshold", "kind", *_OF_BOTH),
        options=_options(args.source_option or ()),
        languages=tuple(args.languages or ()),
        tags=not args.no_tag,
        filters=_filters(args),
        stages=_stages(args),
        exclude=tuple(args.exclude or ()),
        follow_links=args.follow_links,
        gitignore=not args.no_gitignore,
    )
    return config.recipe(inputs)


def _changed(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """Returns a recipe with what flags say of rows, languages and copies."""
    changes = _given(args, *_OF_BOTH)
    if args.languages:
        changes["languages"] = tuple(args.languages)
    if args.no_tag:
        changes["tags"] = False
    if args.near_dup_threshold is not None:
        changes["dedup"] = dataclasses.replace(recipe.dedup, near=args.near_dup_threshold)
    return dataclasses.replace(recipe, **changes)


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _options(words: Sequence[str]) -> dict[str, Any]:
    """Returns NAME=VALUE words as options; a value that is JSON is read as such."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise GeexError(f"--source-option {word} is not NAME=VALUE", "as in text_field=content")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _filters(args: argparse.Namespace) -> Any:
    from geex_jax.data.filters import Filters

    return Filters(
        **_given(args, "max_bytes", "min_bytes", "max_average_line", "min_alpha"),
        keep_generated=args.keep_generated,
        keep_duplicates=args.keep_duplicates,
    )


def _stages(args: argparse.Namespace) -> dict[str, Any]:
    from geex_jax.data.stages.licences import PERMISSIVE

    found: dict[str, Any] = {}
    if args.allow_licences:
        allow = [x for x in args.allow_licences if x != "permissive"]
        found["licences"] = {
            "allow": [*allow, *(PERMISSIVE if "permissive" in args.allow_licences else ())]
        }
    if args.keep_secrets:
        found["secrets"] = None
    if args.benchmarks:
        found["contamination"] = {"benchmarks": args.benchmarks}
    return found
