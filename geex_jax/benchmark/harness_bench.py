"""`geex bench harness`: the judge against the reference's way, same programs, same run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import tempfile

from geex_jax.benchmark import languages, mutants
from geex_jax.benchmark.harness_reference import TIMEOUT, Reference, check_tools
from geex_jax.benchmark.humaneval_x import tasks
from geex_jax.benchmark.judge.pool import Pool
from geex_jax.benchmark.languages.types import Limits, Outcome, Program, Verdict
from geex_jax.errors import GeexError
from geex_jax.files import cache_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the bench."""
    add = parser.add_argument
    add("--language", default="all", metavar="NAMES", help="default %(default)s")
    add("--data", metavar="DIR", help="folder of humaneval_*.jsonl.gz; default: the cache")
    add("--programs", type=int, default=164, metavar="N", help="a language (default %(default)s)")
    add("--reference-every", type=int, default=1, metavar="N",
        help="the reference, whose cost does not depend on how many there are, judges every Nth "
        "program only (default %(default)s)")  # fmt: skip
    add("--hanging", type=int, default=1, metavar="N",
        help="how many more never end, beside mutants that do not; timed apart as well "
        "(default %(default)s)")  # fmt: skip
    add("--workers", type=int, default=2, metavar="N", help="of both sides (default %(default)s)")
    add("--batch", type=int, default=0, metavar="N", help="programs at a time; 0: the best")
    add("--seed", type=int, default=0, metavar="N", help="of the mutants (default %(default)s)")
    add("--unsafe-i-know", action="store_true", help="run where the sandbox lacks layers")
    add("--json", metavar="FILE", help="write the figures there too")


@dataclasses.dataclass
class Row:
    """Figures of one language. Times are CPU milliseconds of one program, on average."""

    language: str
    programs: int
    endless: int
    passed: int
    reference_ms: float
    ours_ms: float
    with_hanging: tuple[float, float]
    differences: list[str]
    compared: int

    @property
    def gain(self) -> float:
        """How many times as many programs a CPU second judges."""
        return self.reference_ms / self.ours_ms


def run(args: argparse.Namespace) -> None:
    """Measures and prints a table; programs that hang are a line of their own."""
    names = languages.parse(args.language)
    if args.programs < 1 or args.reference_every < 1:
        raise GeexError("--programs and --reference-every must be at least 1", "raise them")
    for name in names:
        check_tools(name)
    pool = Pool(args.workers, unsafe=args.unsafe_i_know, batch=args.batch)
    rows = []
    print(f"CPU ms for one program, {args.workers} workers, seed {args.seed}: the reference's way "
          "(a compiler and a process each, no sandbox) / this judge (sandbox on)")  # fmt: skip
    for name in names:
        rows.append(row := _measure(name, args, pool))
        print(f"{name:<11} {row.reference_ms:8.1f} / {row.ours_ms:6.1f} = {row.gain:5.1f}x   "
              f"with {row.endless} that hang: {row.with_hanging[0]:.1f} / "
              f"{row.with_hanging[1]:.1f}   {row.passed} of {row.programs} pass, "
              f"{len(row.differences)} of {row.compared} verdicts differ", flush=True)  # fmt: skip
        for text in row.differences:
            print(f"    {text}")
    theirs, ours = sum(r.reference_ms for r in rows), sum(r.ours_ms for r in rows)
    print(f"{'together':<11} {theirs:8.1f} / {ours:6.1f} = {theirs / ours:5.1f}x")
    for name, texts in pool.warnings.items():
        for text in texts:
            print(f"{name}: {text}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps([dataclasses.asdict(r) for r in rows]))


def _measure(name: str, args: argparse.Namespace, pool: Pool) -> Row:
    language = languages.get(name)
    problems = tasks.load(name, args.data)
    mix = mutants.mix(problems, name, args.programs + args.hanging, args.seed, args.hanging)
    programs = [language.assemble(problem, code) for problem, code, _ in mix]
    limits = Limits(cpu_seconds=TIMEOUT)
    # A first pass builds the helpers, and finds the mutants that turned out to be endless too: one
    # of them costs both sides as much as hundreds of others.
    outcomes = [verdict.outcome for verdict in _judge(pool, name, programs, limits)[0]]
    ending = [p for p, o in zip(programs, outcomes, strict=True) if o is not Outcome.TIMEOUT]
    endless = [p for p, o in zip(programs, outcomes, strict=True) if o is Outcome.TIMEOUT]
    helpers = cache_folder() / "toolchains" / name
    with tempfile.TemporaryDirectory() as folder:
        reference = Reference(name, pathlib.Path(folder), helpers)
        reference.judge(ending[:1], 1)
        some = ending[:: args.reference_every]
        expected, theirs, _ = reference.judge(some, args.workers)
        theirs *= len(ending) / len(some)
        verdicts, ours = _judge(pool, name, ending, limits)
        more_theirs = reference.judge(endless, args.workers)[1] if endless else 0.0
        more_ours = _judge(pool, name, endless, limits)[1] if endless else 0.0
    differences = [
        f"{program.task_id}: reference {'passed' if wanted else 'failed'}, here "
        f"{verdict.outcome}: {verdict.message.splitlines()[-1][:120] if verdict.message else ''}"
        for program, wanted, verdict in zip(
            some, expected, verdicts[:: args.reference_every], strict=True
        )
        if wanted != (verdict.outcome is Outcome.PASSED)
    ]
    count, everything = len(ending), len(programs)
    passed = sum(v.outcome is Outcome.PASSED for v in verdicts)
    return Row(
        name, count, len(endless), passed, 1000 * theirs / count, 1000 * ours / count,
        (1000 * (theirs + more_theirs) / everything, 1000 * (ours + more_ours) / everything),
        differences, len(some),
    )  # fmt: skip


def _judge(
    pool: Pool, name: str, programs: list[Program], limits: Limits
) -> tuple[list[Verdict], float]:
    """Verdicts in order, and the CPU seconds of the sandboxes and of this process."""
    import time

    before, host = pool.cpu_seconds.get(name, 0.0), time.process_time()
    found = {index: verdict for _, index, verdict in pool.judge({name: programs}, limits)}
    spent = pool.cpu_seconds[name] - before + time.process_time() - host
    return [found[i] for i in range(len(programs))], spent
