"""BLEU-4 over the tokens of code, plain and with keywords weighing more."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence, Set

ORDERS = 4
EPSILON = 0.1  # what a count of 0 becomes: smoothing method 1, as in CodeBLEU's own code
KEYWORD, OTHER = 1.0, 0.2

# Words, numbers, operators of up to three signs, any other sign. Splitting at blanks only, as
# CodeBLEU's own code does, would make `f(a,b)` one token and formatting most of the score.
_TOKEN = re.compile(
    r"[^\W\d]\w*|\d[\w.]*|<<=|>>=|\*\*=|//=|\.\.\.|\.\.=|===|!==|"
    r"->|=>|::|:=|<-|\+\+|--|&&|\|\||[-+*/%&|^=!<>]=|<<|\*\*|//|[^\w\s]"
)


def tokens(code: str) -> list[str]:
    """Cuts code into words, numbers and operators, the same way in every language."""
    return _TOKEN.findall(code)


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _mean(parts: list[tuple[float, float]]) -> float:
    """The geometric mean of the smoothed fractions."""
    if not parts or not parts[0][0]:
        return 0.0  # not one token in common: smoothing would invent a likeness
    logs = [math.log((top or EPSILON) / bottom) for top, bottom in parts]
    return math.exp(sum(logs) / len(logs))


def bleu(candidate: Sequence[str], reference: Sequence[str]) -> float:
    """BLEU-4 of one sentence against one reference.

    A reference of fewer than four tokens is compared by the n-grams that it has, so that a
    program always scores 1 against itself.

    Args:
      candidate: tokens.
      reference: tokens.

    Returns:
      0 to 1.
    """
    parts = []
    for n in range(1, min(ORDERS, len(reference)) + 1):
        mine = _ngrams(candidate, n)
        shared = (mine & _ngrams(reference, n)).total()
        parts.append((shared, max(1, mine.total())))
    brevity = min(0.0, 1 - len(reference) / max(1, len(candidate)))
    return _mean(parts) * math.exp(brevity)


def weighted_recall(
    candidate: Sequence[str], reference: Sequence[str], keywords: Set[str]
) -> float:
    """CodeBLEU's weighted n-gram match: single tokens weigh 1 as keywords, else 0.2.

    As in its own code, longer n-grams are unweighted and the fractions are of the reference's
    n-grams (recall), not of the candidate's; so there is no brevity penalty, which would punish
    what is missing a second time.

    Args:
      candidate: tokens.
      reference: tokens.
      keywords: of the language.

    Returns:
      0 to 1.
    """

    def weight(ngram: tuple[str, ...]) -> float:
        return 1.0 if len(ngram) > 1 else KEYWORD if set(ngram) <= keywords else OTHER

    parts = []
    for n in range(1, min(ORDERS, len(reference)) + 1):
        theirs = _ngrams(reference, n)
        shared = _ngrams(candidate, n) & theirs
        top = sum(weight(k) * count for k, count in shared.items())
        parts.append((top, sum(weight(k) * count for k, count in theirs.items())))
    return _mean(parts)
