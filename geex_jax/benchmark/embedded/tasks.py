"""Parallel tasks in six languages, drawn from a seed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

from geex_jax.benchmark.embedded.compose import LEVELS, Plan, draw_plan
from geex_jax.benchmark.embedded.draw import Draw
from geex_jax.benchmark.embedded.emit import BACKENDS, Problem, Row
from geex_jax.benchmark.embedded.english import English, lines
from geex_jax.benchmark.embedded.functions import Lambda
from geex_jax.benchmark.embedded.near_misses import Cases, choose_cases
from geex_jax.benchmark.embedded.operations import COUNTS, INT, NUMBERS, TEXT, WORDS
from geex_jax.benchmark.embedded.trees import Node, canonical, signature, spell, split_of
from geex_jax.errors import GeexError, did_you_mean

SPLITS = ("train", "held-out")
PLAIN_LEVELS = 2  # one phrase for each primitive, one example, names that say what is done
STALE = 300  # draws without a new task after which tasks may come again with other examples
_NAMES = {NUMBERS: ("numbers", "others"), WORDS: ("words", "others"), TEXT: ("text", "other"),
          INT: ("n", "m"), COUNTS: ("scores", "others")}  # fmt: skip
_VERBS = ("solve", "compute", "process", "evaluate", "build", "derive")


@dataclasses.dataclass(frozen=True)
class Task:
    """One task in six languages.

    Attributes:
      number: as in the task ids.
      level: its difficulty; split: "train" or "held-out".
      plan: the composition and what its inputs may be.
      problem: what the languages are written from.
    """

    number: int
    level: int
    split: str
    plan: Plan
    problem: Problem

    @functools.cached_property
    def rows(self) -> dict[str, Row]:
        """Language ("python", "cpp", ...; as in BACKENDS) to a row of HumanEval-X."""
        return {name: backend.row(self.problem) for name, backend in BACKENDS.items()}

    def row(self, language: str) -> Row:
        """The row of one language, without making the others."""
        return BACKENDS[language].row(self.problem)

    @property
    def composition(self) -> str:
        """The composition as a text, with its constants."""
        return spell(self.plan.root)

    @property
    def signature(self) -> str:
        """What the composition does, whatever its constants: the split goes by this."""
        return signature(canonical(self.plan.root))


def generate(seed: int, count: int, level: int, split: str = "train") -> Iterator[Task]:
    """Draws tasks of one level.

    The same arguments give the same tasks on every machine; a larger `count` goes on after the
    same first ones. Compositions with their constants do not come twice until the level has no
    new ones to give (levels 1 and 2 are finite); then they come again with other examples and
    tests.

    Args:
      seed: another seed, other tasks.
      count: how many.
      level: 1 (one primitive) to 5; see `compose.LEVELS`.
      split: "train" or "held-out". No composition of one occurs in the other.

    Raises:
      GeexError: no such level or split, a negative count.
    """
    if level not in LEVELS:
        raise GeexError(f"no level {level}", f"give one from {min(LEVELS)} to {max(LEVELS)}")
    if split not in SPLITS:
        raise GeexError(f"no split {split!r}", did_you_mean(split, SPLITS))
    if count < 0:
        raise GeexError(f"count = {count}", "give 0 or more")
    return _generate(seed, count, level, split)


def mixture(seed: int, count: int, level: int, split: str = "train") -> Iterator[Task]:
    """Draws tasks of all levels up to one, more of the higher ones, numbered through.

    Level l gets a share of l / (1 + ... + level): the simple tasks teach each primitive, and
    there are few of them. Arguments and errors as for `generate`.
    """
    if level not in LEVELS:
        raise GeexError(f"no level {level}", f"give one from {min(LEVELS)} to {max(LEVELS)}")
    whole = level * (level + 1) // 2
    number = 0
    for one in range(1, level + 1):
        before = count * (one * (one - 1) // 2) // whole
        share = count * (one * (one + 1) // 2) // whole - before
        for task in generate(seed, share, one, split):
            problem = dataclasses.replace(task.problem, number=number)
            yield dataclasses.replace(task, number=number, problem=problem)
            number += 1


def _generate(seed: int, count: int, level: int, split: str) -> Iterator[Task]:
    draw = Draw("tasks", seed, level, split)
    seen: set[str] = set()
    prompts: set[str] = set()
    number = stale = 0
    while number < count:
        if stale >= STALE:
            seen.clear()
            stale = 0
        stale += 1
        plan = draw_plan(draw, level)
        if plan is None or spell(plan.root) in seen or _split(canonical(plan.root)) != split:
            continue
        cases = choose_cases(plan, draw, examples=1 if level <= PLAIN_LEVELS else 2)
        if cases is None:
            continue
        problem = _problem(number, level, plan, cases, draw)
        prompt = repr((problem.lines, problem.examples, problem.name))
        if prompt in prompts:
            continue
        seen.add(spell(plan.root))
        prompts.add(prompt)
        yield Task(number, level, split, plan, problem)
        number, stale = number + 1, 0


@functools.lru_cache(maxsize=200_000)
def _split(node: Node) -> str | None:
    return split_of(node)


def _problem(number: int, level: int, plan: Plan, cases: Cases, draw: Draw) -> Problem:
    names = _input_names(plan)
    plain = level <= PLAIN_LEVELS
    english = English(names, None if plain else draw)
    inputs = tuple((name, d.kind) for name, d in zip(names, plan.domains, strict=True))
    if plain:
        name = _telling_name(plan.root)
    else:
        name = (draw.pick(_VERBS), "the", inputs[0][0]) if inputs[0][1] != INT else (
            draw.pick(_VERBS), "the", "number")  # fmt: skip
    return Problem(
        number,
        tuple(name),
        inputs,
        plan.root,
        tuple(lines(english.describe(plan.root))),
        cases.tests,
        cases.examples,
    )


def _input_names(plan: Plan) -> tuple[str, ...]:
    taken: list[str] = []
    for domain in plan.domains:
        choices = ("k",) if domain.constant else _NAMES[domain.kind]
        free = [name for name in choices if name not in taken]
        taken.append(free[0] if free else f"{choices[-1]}{len(taken)}")
    return tuple(taken)


def _telling_name(root: Node) -> tuple[str, ...]:
    words: list[str] = []
    for node in root.nodes():
        words += [w for w in node.operation.word.split("_") if w]
        if node.function:
            words += _function_words(node.function)
    kind = next(iter(root.nodes())).args[0].kind
    noun = {INT: "number", COUNTS: "map"}.get(kind, kind)
    return (*words, noun) if len(words) < 2 else tuple(words)


def _function_words(function: Lambda) -> list[str]:
    return [word for leaf in function.leaves() for word in leaf.name.split("_")]
