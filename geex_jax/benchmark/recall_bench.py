"""Recall of the corpus's copy detectors, on copies planted at a known distance.

    python -m geex_jax.benchmark.recall_bench --benchmarks HUMANEVAL_X --input /usr/lib/python3

Near-copies: pairs of files of made-up code whose sets of 5-word shingles have about a given
Jaccard similarity; a pair is found if it meets in a band and its estimate reaches the threshold.
Benchmarks: each task of HumanEval-X as it is and edited, looked for by the contamination stage; and
how many files of real code that holds none of them it would drop.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Sequence

import numpy as np

from geex_jax.benchmark import languages
from geex_jax.benchmark.humaneval_x import tasks
from geex_jax.data.dedup import minhash
from geex_jax.data.recipe import Dedup
from geex_jax.data.stages.contamination import Contamination
from geex_jax.tokenizers.corpus import read_sources

VERBS = ("read", "write", "open", "close", "list", "map", "key", "row")
WORDS = [a + b for a in VERBS for b in "ABCDEFGHIJKLM"]
SIMILARITIES = (0.93, 0.89, 0.84, 0.8, 0.75, 0.7)
_KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        "def for in if else return int float str list while and or not range len import from new "
        "public static void final class function let const var func fn mut vec std string vector "
        "bool true false True False None null",
    )
)


# --- near-copies ----------------------------------------------------------------------------


def words(rng: random.Random, count: int) -> list[str]:
    """Draws words of made-up code."""
    return [rng.choice(WORDS) + str(rng.randrange(100)) for _ in range(count)]


def lines(tokens: Sequence[str]) -> str:
    """Writes words as lines of code."""
    return "".join(" = ".join(tokens[i : i + 4]) + ";\n" for i in range(0, len(tokens), 4))


def jaccard(one: Sequence[str], other: Sequence[str], size: int = 5) -> float:
    """Returns the similarity of the sets of runs of `size` words."""
    sets = [
        {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}
        for tokens in (one, other)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def planted(rng: random.Random, similarity: float, count: int = 400) -> tuple[list[str], list[str]]:
    """Draws two runs of words whose similarity is just below that."""
    one = words(rng, count)
    other = list(one)
    while jaccard(one, other) > similarity:
        other[rng.randrange(count)] = words(rng, 1)[0]
    return one, other


def found(pairs: Sequence[tuple[list[str], list[str]]], settings: Dedup) -> float:
    """Returns the share of pairs that meet in a band and whose estimate reaches the threshold."""
    hits = 0
    for pair in pairs:
        matrix = minhash.signatures(
            [minhash.shingles(lines(x), settings.shingle) for x in pair], settings.permutations
        )
        keys = minhash.band_keys(matrix, *minhash.bands(settings))
        meet = bool(np.any(keys[0] == keys[1]))
        hits += meet and minhash.similarity(matrix[0], matrix[1:])[0] >= settings.near
    return hits / len(pairs)


# --- tasks of a benchmark -------------------------------------------------------------------


def _without_comments(text: str, python: bool) -> str:
    if python:
        return re.sub(r"(\"\"\"|''')[\s\S]*?\1", "", re.sub(r"#.*", "", text))
    return re.sub(r"//.*", "", re.sub(r"/\*[\s\S]*?\*/", "", text))


def _renamed(text: str, rng: random.Random, count: int) -> str:
    names = sorted(set(re.findall(r"\b[A-Za-z_]\w*\b", text)) - _KEYWORDS)
    rng.shuffle(names)
    for name in names[:count]:
        text = re.sub(rf"\b{name}\b", f"{name}_{rng.randint(1, 99)}", text)
    return text


def edits(problem: dict[str, str], python: bool) -> dict[str, str]:
    """Returns copies of a task, as it is and edited."""
    whole = problem["prompt"] + problem["canonical_solution"]
    rng = random.Random(problem["task_id"])
    return {
        "as it is": whole,
        "with tests": whole + problem["test"],
        "tabs, capitals": re.sub(r" +", "\t", whole).upper(),
        "3 names changed": _renamed(whole, rng, 3),
        "6 names changed": _renamed(whole, rng, 6),
        "no comments": _without_comments(whole, python),
        "solution alone": problem["canonical_solution"],
    }


def caught(
    stage: Contamination, problems: Sequence[dict[str, str]], python: bool
) -> dict[str, float]:
    """Returns edit -> share of tasks whose copy the stage drops, for that task."""
    sums: dict[str, list[bool]] = {}
    for problem in problems:
        number = stage.tasks.index(f"HumanEval/{tasks.number(problem['task_id'])}")
        for edit, text in edits(problem, python).items():
            hits = stage.hits(text)[number]
            sums.setdefault(edit, []).append(bool(hits >= stage.needed[number]))
    return {edit: sum(some) / len(some) for edit, some in sums.items()}


# --- the command ----------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Prints what is found."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--pairs", type=int, default=300, help="of near-copies, at each similarity")
    add("--threshold", type=float, default=Dedup().near, help="default %(default)s")
    add("--benchmarks", metavar="DIR", help="folder of HumanEval-X; without it only near-copies")
    add("--input", nargs="+", default=(), metavar="DIR", help="real code, for false alarms")
    add("--max-megabytes", type=float, default=20, help="of it (default %(default)s)")
    add("--seed", type=int, default=7)
    args = parser.parse_args(arguments)
    settings = Dedup(near=args.threshold)
    settings.check()
    rng = random.Random(args.seed)
    print(f"near-copies, threshold {settings.near:g}, {args.pairs} pairs each")
    for similarity in SIMILARITIES:
        pairs = [planted(rng, similarity) for _ in range(args.pairs)]
        mean = sum(jaccard(*pair) for pair in pairs) / len(pairs)
        print(f"  mean Jaccard {mean:.3f}   found {found(pairs, settings):7.1%}", flush=True)
    if args.benchmarks:
        _tasks(args.benchmarks, args.input, args.max_megabytes)


def _tasks(folder: str, inputs: Sequence[str], megabytes: float) -> None:
    stage = Contamination([folder])
    table = {
        name: caught(stage, tasks.load(name, folder), name == "python")
        for name in languages.LANGUAGES
    }
    print(f"\ntasks of {folder} dropped, share")
    print(f"  {'':<16}" + "".join(f"{name:>12}" for name in table))
    for edit in next(iter(table.values())):
        print(f"  {edit:<16}" + "".join(f"{row[edit]:12.2f}" for row in table.values()))
    if inputs:
        texts = [text for text in read_sources(inputs, megabytes) if text]
        dropped = sum(bool((stage.hits(text) >= stage.needed).any()) for text in texts)
        print(f"  of {len(texts):,} files of real code: {dropped} dropped")


if __name__ == "__main__":
    main()
