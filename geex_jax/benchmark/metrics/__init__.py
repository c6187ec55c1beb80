"""How alike two programs read: BLEU and CodeBLEU, beside the tests that say which is right.

CodeBLEU is ours because the package `codebleu` (0.7) pins tree-sitter < 0.23 and so cannot be
installed beside today's grammars. Scores may therefore differ from that package's in the digits.
"""

from __future__ import annotations

import functools

from geex_jax.benchmark.metrics import bleu, codebleu
from geex_jax.benchmark.metrics.grammars import grammar
from geex_jax.benchmark.metrics.tree import available, clip

__all__ = ["add_scores", "available", "similarity"]


def similarity(language: str, candidate: str, reference: str) -> dict[str, float]:
    """Compares a program with a reference in the same language.

    Only the first 200,000 bytes and 50,000 syntax nodes of either are looked at. An empty
    candidate scores 0 in everything, unless the reference is empty too (then 1).

    Args:
      language: python, cpp, java, javascript, go or rust (or js, py, c++, rs, golang).
      candidate: the program to score; syntax errors are no hindrance.
      reference: what it should look like.

    Returns:
      bleu, codebleu and codebleu's four parts ngram (which is bleu), weighted, syntax and
      dataflow, each from 0 to 1.

    Raises:
      GeexError: tree-sitter is not installed, or the language is not one of the six.
    """
    table = grammar(language)
    mine, theirs = clip(candidate), clip(reference)
    features = codebleu.features(table.name, theirs)  # first, so that a missing parser is said
    cand, ref = bleu.tokens(mine), bleu.tokens(theirs)
    if not cand or not ref:
        same = 0.0 if cand or ref else 1.0
        parts = {"ngram": same, "weighted": same, "syntax": same, "dataflow": same}
    else:
        other = codebleu.features(table.name, mine)
        parts = {
            "ngram": bleu.bleu(cand, ref),
            "weighted": bleu.weighted_recall(cand, ref, table.keywords),
            "syntax": codebleu.overlap(other.subtrees, features.subtrees),
            "dataflow": codebleu.overlap(other.edges, features.edges),
        }
    return {"bleu": parts["ngram"], "codebleu": sum(parts.values()) / 4, **parts}


def add_scores(rows: list[dict], references: dict[tuple[str, str], str]) -> None:
    """Sets `bleu` and `codebleu` in rows of results, in place.

    Args:
      rows: each with language, task_id and code; samples of the same code are scored once.
      references: the reference solution of each (language, task_id). Rows without one get None.

    Raises:
      GeexError: as `similarity`.
    """

    @functools.cache
    def scored(language: str, code: str, task: str) -> dict[str, float]:
        return similarity(language, code, references[language, task])

    for row in rows:
        key = (row["language"], row["task_id"])
        scores = scored(key[0], row["code"] or "", key[1]) if key in references else {}
        row["bleu"] = scores.get("bleu")
        row["codebleu"] = scores.get("codebleu")
