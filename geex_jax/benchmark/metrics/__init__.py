"""How alike two programs read: BLEU and CodeBLEU, beside the tests that say which is right.

CodeBLEU is ours because the package `codebleu` (0.7) pins tree-sitter < 0.23 and so cannot be
installed beside today's grammars. On the same tokens and keywords three of the four parts are that
package's to the last digit (tests/benchmark/test_codebleu.py); in Go, whose grammar has since
got a node for lists of statements, the syntax part is so but for that. What differs:

- Tokens are words, numbers and signs, where the package cuts at blanks.
- Data flow is our own. The package's depends on Python's hash seed, so that renamed variables get
  another score at each run; it sees no `:=` in Go, no declarations in C++ and no plain
  assignments in JavaScript, and skips the bodies of Rust's functions.
- A data flow that matches nowhere counts 0; the package takes it for 1.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Mapping

from geex_jax.benchmark.metrics import bleu, codebleu
from geex_jax.benchmark.metrics.grammars import grammar
from geex_jax.benchmark.metrics.tree import available, clip

__all__ = ["add_scores", "available", "similarity"]

MANY = 2_000  # different samples from which on more processes pay for their start
_Job = tuple[str, str, str, str]  # language, candidate, reference, context


def similarity(
    language: str, candidate: str, reference: str, context: str = ""
) -> dict[str, float]:
    """Compares a program with a reference in the same language.

    Only the first 12,000 bytes and 50,000 syntax nodes of either are looked at. An empty
    candidate scores 0 in everything, unless the reference is empty too (then 1).

    Args:
      language: python, cpp, java, javascript, go or rust (or js, py, c++, rs, golang).
      candidate: the program to score; syntax errors are no hindrance.
      reference: what it should look like.
      context: the beginning of both, such as the prompt that holds the declaration. It is parsed
        with them, so that a function's body is no syntax error and its parameters are known, but
        nothing of it counts.

    Returns:
      bleu, codebleu and codebleu's four parts ngram (which is bleu), weighted, syntax and
      dataflow, each from 0 to 1.

    Raises:
      GeexError: tree-sitter is not installed, or the language is not one of the six.
    """
    table = grammar(language)
    mine, theirs, context = clip(candidate), clip(reference), clip(context)
    features = codebleu.features(
        table.name, theirs, context
    )  # first, so that a missing parser is said
    cand, ref = bleu.tokens(mine), bleu.tokens(theirs)
    if not cand or not ref:
        same = 0.0 if cand or ref else 1.0
        parts = {"ngram": same, "weighted": same, "syntax": same, "dataflow": same}
    else:
        other = codebleu.features(table.name, mine, context)
        parts = {
            "ngram": bleu.bleu(cand, ref),
            "weighted": bleu.weighted_recall(cand, ref, table.keywords),
            "syntax": codebleu.found_again(other.subtrees, features.subtrees),
            "dataflow": codebleu.overlap(other.edges, features.edges),
        }
    return {"bleu": parts["ngram"], "codebleu": sum(parts.values()) / 4, **parts}


def add_scores(
    rows: list[dict],
    references: Mapping[tuple[str, str], str],
    contexts: Mapping[tuple[str, str], str] | None = None,
    workers: int = 0,
) -> None:
    """Sets `bleu` and `codebleu` in rows of results, in place.

    Args:
      rows: each with language, task_id and code; samples of the same code are scored once.
      references: the reference solution of each (language, task_id). Rows without one get None.
      contexts: what stands before both in the program, see `similarity`.
      workers: processes for thousands of rows; by default one for each core.

    Raises:
      GeexError: as `similarity`.
    """
    contexts = contexts or {}
    texts: dict[tuple[str, str, str], _Job] = {}
    for row in rows:
        task = (row["language"], row["task_id"])
        if task in references:
            code = row["code"] or ""
            texts[*task, code] = (task[0], code, references[task], contexts.get(task, ""))
    # One task's samples stand together: its reference is then parsed once.
    jobs = dict(sorted(texts.items()))
    scores = dict(zip(jobs, _scored(list(jobs.values()), workers), strict=True))
    for row in rows:
        key = (row["language"], row["task_id"], row["code"] or "")
        row["bleu"], row["codebleu"] = scores.get(key, (None, None))


def _scored(jobs: list[_Job], workers: int) -> list[tuple[float, float]]:
    workers = workers or len(os.sched_getaffinity(0))
    if workers == 1 or len(jobs) < MANY:
        return [_score(job) for job in jobs]
    # Not forked: threads of the caller's, such as jax's, would not live on in the child.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        return list(pool.map(_score, jobs, chunksize=64))


def _score(job: _Job) -> tuple[float, float]:
    found = similarity(*job)
    return found["bleu"], found["codebleu"]
