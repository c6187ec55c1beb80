"""`geex bench humaneval-x`: its flags, and the run from generations to report."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import shlex
import sys
import time
from typing import Any

from geex_jax import files
from geex_jax.benchmark import languages
from geex_jax.benchmark.humaneval_x import fixes, prompts, running, tasks
from geex_jax.benchmark.judge.cache import VerdictCache
from geex_jax.benchmark.judge.evaluate import evaluate
from geex_jax.benchmark.judge.pool import Pool
from geex_jax.benchmark.judge.results import Results
from geex_jax.benchmark.languages.types import Limits, Outcome
from geex_jax.errors import GeexError
from geex_jax.files import cache_folder
from geex_jax.version import __version__

_DEFAULTS = Limits()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the bench."""
    _add_inputs(parser.add_argument_group("what is judged"))
    _add_sampling(parser.add_argument_group("samples from a model"))
    _add_limits(parser.add_argument_group("how programs run"))
    add = parser.add_argument_group("results").add_argument
    add(
        "--output",
        default="geex-humaneval-x",
        metavar="DIR",
        help="of results.jsonl and report; the same command goes on there (default %(default)s)",
    )
    add("--k", metavar="LIST", help="of pass@k (default: those of 1,10,100 that n allows)")
    add("--cache", metavar="FILE", help="verdicts of earlier runs (default: in ~/.cache/geex)")
    add("--no-cache", action="store_true", help="neither read nor keep verdicts of other runs")
    add(
        "--recheck-failures",
        type=float,
        metavar="X",
        help="judge the timeouts of --output again, with X times the time",
    )


def _add_inputs(group: Any) -> None:
    add = group.add_argument
    add(
        "--generations",
        nargs="+",
        default=[],
        metavar="FILE",
        help="JSON lines, .gz or not: task_id and generation, completion, or lists of them",
    )
    add(
        "--generation-format",
        choices=("completion", "full", "auto"),
        help="what a generation holds: what comes after the prompt, a whole program, or either",
    )
    add("--checkpoint", metavar="DIR", help="a model folder or training workdir to sample from")
    add("--endpoint", metavar="URL", help="an OpenAI-compatible server to sample from")
    add("--model", metavar="NAME", help="the model's name there")
    add("--canonical", action="store_true", help="judge the data set's own solutions")
    add(
        "--task",
        choices=("generation", "translation"),
        default="generation",
        help="default %(default)s",
    )
    add(
        "--language",
        default="all",
        metavar="NAMES",
        help="all, or some of " + ", ".join(languages.LANGUAGES),
    )
    add("--source", metavar="NAMES", help="languages to translate from (default: all others)")
    add("--data", metavar="DIR", help="folder of the problems (default: where --download puts it)")
    add("--download", action="store_true", help="fetch the problems from the hub first")
    add(
        "--fixes",
        nargs="?",
        const=True,
        default=False,
        metavar="VERSION",
        help=f"correct data known to be wrong ({fixes.newest()}); see --list-fixes",
    )
    add(
        "--extended",
        action="store_true",
        help="judge what passed again, by new tests on which canonical solutions agree",
    )
    add(
        "--similarity",
        action="store_true",
        help="BLEU and CodeBLEU against the canonical solution (needs .[metrics])",
    )
    add("--security", action="store_true", help="static security findings in the samples")
    add("--list-fixes", action="store_true", help="print the corrections and leave")
    add("--list-prompts", action="store_true", help="print the prompt templates and leave")


def _add_sampling(group: Any) -> None:
    add = group.add_argument
    add("--n", type=int, metavar="N", help="samples a task (default: 200, or all that are there)")
    add("--temperature", type=float, default=0.8, metavar="T", help="default %(default)s")
    add("--top-p", type=float, default=0.95, metavar="P", help="default %(default)s")
    add("--max-tokens", type=int, default=512, metavar="N", help="default %(default)s")
    add("--seed", type=int, default=42, metavar="N", help="default %(default)s")
    add("--prompt", metavar="NAME", help="a prompt template or its file (default: the paper's)")
    add("--shots", type=int, default=3, metavar="N", help="examples of few-shot templates")
    add("--mixed-shots", action="store_true", help="draw them from all languages")
    add("--sample-batch", type=int, default=16, metavar="N", help="texts at a time")
    add("--overwrite", action="store_true", help="begin the samples anew")


def _add_limits(group: Any) -> None:
    add = group.add_argument
    add(
        "--timeout",
        type=float,
        default=_DEFAULTS.cpu_seconds,
        metavar="S",
        help="CPU seconds of a program (default %(default)s)",
    )
    add(
        "--wall-timeout",
        type=float,
        metavar="S",
        help="seconds for one that sleeps or is blocked (default: three times --timeout)",
    )
    add(
        "--compile-timeout",
        type=float,
        default=_DEFAULTS.compile_seconds,
        metavar="S",
        help="CPU seconds of its compiler (default %(default)s)",
    )
    add(
        "--memory",
        type=float,
        default=_DEFAULTS.memory_bytes / 2**30,
        metavar="GIB",
        help="of a program (default %(default)s)",
    )
    add(
        "--output-limit",
        type=float,
        default=_DEFAULTS.output_bytes / 2**20,
        metavar="MIB",
        help="of what it prints (default %(default)s)",
    )
    add("--workers", type=int, default=0, metavar="N", help="default: one for each core")
    add("--batch", type=int, default=0, metavar="N", help="programs at a time (default: the best)")
    add("--runner", metavar="ADDRESS", help="ray://HOST:PORT spreads the programs over a cluster")
    add(
        "--prints-ok",
        action="store_true",
        help="JavaScript programs that print may pass; in the reference they fail",
    )
    add(
        "--unsafe-i-know",
        action="store_true",
        help="run model-written programs where the sandbox lacks layers",
    )


def run(args: argparse.Namespace) -> int:
    """Judges and reports. 0 if everything was run, 1 if a language was not."""
    if args.list_fixes:
        print("\n".join(f"{task} ({what}): {why}" for task, what, why in fixes.listing()))
        return 0
    if args.list_prompts:
        print("\n".join(f"{t.name:<30} {t.task:<12} {t.description}" for t in prompts.listing()))
        return 0
    names = languages.parse(args.language)
    check(args)
    if args.download:
        for path in tasks.download(args.data):
            print(f"fetched {path}")
        if not _has_input(args):
            return 0
    limits = limits_of(args)
    problems = running.load_problems(names, args)
    output = pathlib.Path(args.output)
    samples = running.samples(args, names, problems, output)
    ks = running.choose_ks(args.k, samples)
    results = Results(output / "results.jsonl")
    began = time.monotonic()
    pool, cache = _pool(args), _cache(args)
    absent = evaluate(
        samples, results, pool, limits, cache,
        again=(lambda row: row["outcome"] == Outcome.TIMEOUT) if args.recheck_failures else None,
    )  # fmt: skip
    if args.recheck_failures:
        results.rewrite()
    if args.extended:
        more = running.extended(samples, problems, results, pool, limits, cache, args.seed)
        evaluate(more, results, pool, limits, cache)
    if args.similarity or args.security:
        for note in running.annotate(args, results, problems):
            print(note, file=sys.stderr)
    results.close()
    _note_run(args, output, names, limits, ks, pool, len(samples))
    print(f"{len(samples):,} samples in {files.seconds(time.monotonic() - began)}", file=sys.stderr)
    for name, texts in pool.warnings.items():
        for text in texts:
            print(f"{name}: {text}", file=sys.stderr)
    for name, what in absent.items():
        print(f"{name}: not run; {what}", file=sys.stderr)
    running.report(output)
    return 1 if absent else 0


def _has_input(args: argparse.Namespace) -> bool:
    return bool(args.generations or args.checkpoint or args.endpoint or args.canonical)


def check(args: argparse.Namespace) -> None:
    """Raises GeexError for flags that do not go together, before anything is done."""
    given = [
        flag for flag, value in (
            ("--generations", args.generations), ("--checkpoint", args.checkpoint),
            ("--endpoint", args.endpoint), ("--canonical", args.canonical),
        ) if value
    ]  # fmt: skip
    if len(given) > 1:
        raise GeexError(f"{' and '.join(given)} together", "give one source of programs")
    if not given and not args.download:
        raise GeexError(
            "nothing to judge", "give --generations, --checkpoint, --endpoint or --canonical"
        )
    if args.endpoint and not args.model:
        raise GeexError("--endpoint without a model", "pass --model NAME")
    if args.source and args.task != "translation":
        raise GeexError("--source belongs to translation", "pass --task translation")
    if args.canonical and args.task == "translation":
        raise GeexError("--canonical does not translate", "leave --task")
    for name in ("timeout", "compile_timeout", "memory", "output_limit"):
        if getattr(args, name) <= 0:
            raise GeexError(
                f"--{name.replace('_', '-')} must be above 0", "leave it for the default"
            )
    if args.similarity:
        from geex_jax.benchmark import metrics

        if not metrics.available():
            raise GeexError("CodeBLEU needs tree-sitter", 'pip install "geex-jax[metrics]"')
    if args.n is not None and args.n < 1:
        raise GeexError("--n must be at least 1", "it is the number of samples a task")
    if args.recheck_failures is not None and args.recheck_failures <= 1:
        raise GeexError("--recheck-failures must be above 1", "it multiplies the time limits")


def limits_of(args: argparse.Namespace) -> Limits:
    """The limits that the flags give."""
    more = args.recheck_failures or 1.0
    return Limits(
        cpu_seconds=args.timeout * more,
        wall_seconds=(args.wall_timeout or 3 * args.timeout) * more,
        compile_seconds=args.compile_timeout * more,
        memory_bytes=int(args.memory * 2**30),
        output_bytes=int(args.output_limit * 2**20),
    )


def _pool(args: argparse.Namespace) -> Any:
    if args.runner:
        from geex_jax.benchmark.judge.ray_pool import RayPool

        return RayPool(args.runner, unsafe=args.unsafe_i_know, batch=args.batch)
    return Pool(args.workers, unsafe=args.unsafe_i_know, batch=args.batch)


def _cache(args: argparse.Namespace) -> VerdictCache:
    if args.no_cache:
        return VerdictCache(None)
    return VerdictCache(args.cache or cache_folder() / "verdicts.sqlite")


def _note_run(
    args: argparse.Namespace, output: pathlib.Path, names: list[str], limits: Limits,
    ks: list[int], pool: Any, count: int,
) -> None:  # fmt: skip
    """Writes run.json, which the report reads."""
    versions = {name: dict(languages.get(name).toolchain().versions) for name in names}
    files.write_json(output / "run.json", {
        "benchmark": tasks.benchmark(names[0], args.data),
        "command": shlex.join(["geex", *getattr(args, "words", sys.argv[1:])]),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "task": args.task, "languages": names,
        "k": ks, "n": args.n, "samples": count, "limits": dataclasses.asdict(limits),
        "fixes": fixes.newest() if args.fixes is True else args.fixes or None,
        "versions": {"geex-jax": __version__, "Python": sys.version.split()[0], **versions},
        "sandbox": {"missing layers": pool.lacking or "none",
                    "warnings": {k: v for k, v in pool.warnings.items() if v} or "none"},
        "model": args.model or args.checkpoint or ("canonical" if args.canonical else None),
        "generations": args.generations or None,
        **({"temperature": args.temperature, "top_p": args.top_p, "seed": args.seed,
            "prompt": args.prompt} if args.checkpoint or args.endpoint else {}),
    })  # fmt: skip
