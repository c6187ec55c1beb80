"""Security findings in model-written code: our own rules, and bandit for Python where installed.

The code is read as text and never run. A finding is a place worth a look, not a proof.
"""

from __future__ import annotations

import bisect
import re
from typing import Any

from geex_jax.benchmark.security import bandit_tool
from geex_jax.benchmark.security.blank import LANGUAGES, blank
from geex_jax.benchmark.security.rules import RULES, VERSION, Rule
from geex_jax.errors import GeexError, did_you_mean

__all__ = ["RULES", "VERSION", "Rule", "add_findings", "findings"]

LONGEST = 200_000  # characters of a sample that are read
MOST = 100  # findings of one sample


def findings(language: str, code: str) -> list[dict[str, Any]]:
    """Returns what our rules find in the code, by line; at most one finding a rule and line.

    Args:
      language: a language of HumanEval-X, such as "cpp".
      code: the text of a sample. Only its first LONGEST characters are read; a finding
        "code-too-long" says so.

    Returns:
      A list of {"rule", "severity" (low, medium or high), "line" (from 1), "message"}.

    Raises:
      GeexError: the language is not known.
    """
    if language not in LANGUAGES:
        raise GeexError(f"no security rules for {language!r}", did_you_mean(language, LANGUAGES))
    text = code[:LONGEST]
    bare, kept = blank(language, text)
    ends = [x.start() for x in re.finditer("\n", text)]
    found: dict[tuple[int, str], dict[str, Any]] = {}
    more = False
    for rule in RULES:
        if language not in rule.languages:
            continue
        for hit in rule.regex.finditer(kept if rule.strings else bare):
            if bare[hit.start()] != kept[hit.start()]:  # begins inside a string
                continue
            line = bisect.bisect_left(ends, hit.start()) + 1
            if len(found) >= MOST and (line, rule.name) not in found:
                more = True
                break
            found[line, rule.name] = _finding(rule.name, rule.severity, line, rule.message)
    result = [found[x] for x in sorted(found)]
    last = len(ends) + 1
    if more:
        result.append(
            _finding("too-many-findings", "low", last, f"more than {MOST}; rest left out")
        )
    if len(code) > LONGEST:
        message = f"{len(code):,} characters; only the first {LONGEST:,} were read"
        result.append(_finding("code-too-long", "low", last, message))
    return result


def add_findings(rows: list[dict[str, Any]], seconds: float = 600.0) -> list[str]:
    """Sets row["findings"] of each result row; each distinct (language, code) is read once.

    Args:
      rows: rows of results.jsonl; those without a language or code are left alone.
      seconds: wall time that bandit may take for all of them together.

    Returns:
      Notes for the reader: what was not looked at, and why.
    """
    cache: dict[tuple[str, str], list[dict[str, Any]]] = {}
    unknown: set[str] = set()
    mine = []
    for row in rows:
        language, code = row.get("language"), row.get("code")
        if not isinstance(language, str) or not isinstance(code, str):
            continue
        if language not in LANGUAGES:
            unknown.add(language)
            continue
        mine.append(row)
        if (language, code) not in cache:
            cache[language, code] = findings(language, code)
    notes = [f"No security rules for {x}; its samples were not looked at." for x in sorted(unknown)]
    codes = [c for language, c in cache if language == "python" and len(c) <= LONGEST]
    if codes:
        reports, said = bandit_tool.scan(codes, seconds)
        notes += said
        for code, hits in zip(codes, reports, strict=True):
            cache["python", code] += hits[:MOST]
            cache["python", code].sort(key=lambda x: (x["line"], x["rule"]))
    for row in mine:
        row["findings"] = [dict(x) for x in cache[row["language"], row["code"]]]
    return notes


def _finding(rule: str, severity: str, line: int, message: str) -> dict[str, Any]:
    return {"rule": rule, "severity": severity, "line": line, "message": message}
