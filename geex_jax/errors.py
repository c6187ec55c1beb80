"""The one exception that a user's mistake raises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GeexError(Exception):
    """Bad input, said in one line: what is wrong, then the remedy.

    The command line prints it without a traceback and exits with status 2.
    """

    def __init__(self, what: str, remedy: str = ""):
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}; {remedy}" if remedy else what)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns "did you mean X?" for the closest choice, else the list of choices.

    Args:
      word: what the user wrote.
      choices: what would have been accepted.
    """
    choices = [str(c) for c in choices]
    lowered = {c.lower(): c for c in choices}
    close = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.5)
    if close:
        return f"did you mean {lowered[close[0]]}?"
    return "choose one of: " + ", ".join(choices)
