"""Static security findings in model-written code: our own rules, and bandit for Python."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from geex_jax.benchmark.security.rules import RULES

LONGEST = 200_000  # characters of a program that are read
_BANDIT_SECONDS = 600
_TOKENS = {
    "python": re.compile(r"#[^\n]*|\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|\"(?:\\.|[^\"\\\n])*\"|"
                         r"'(?:\\.|[^'\\\n])*'"),
    "": re.compile(r"//[^\n]*|/\*[\s\S]*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`[^`]*`"),
}  # fmt: skip
Finding = dict[str, Any]


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _views(language: str, code: str) -> tuple[str, str]:
    """The code without comments, and the same without the contents of strings."""

    def uncommented(match: re.Match[str]) -> str:
        return _blank(match[0]) if match[0].startswith(("#", "//", "/*")) else match[0]

    def unquoted(match: re.Match[str]) -> str:
        text = match[0]
        return text[0] + _blank(text[1:-1]) + text[-1] if text[0] in "\"'`" else _blank(text)

    tokens = _TOKENS.get(language, _TOKENS[""])
    return tokens.sub(uncommented, code), tokens.sub(unquoted, code)


def findings(language: str, code: str) -> list[Finding]:
    """What our own rules find.

    Args:
      language: "python", "cpp", "java", "javascript", "go" or "rust".
      code: a program; its first 200,000 characters are read.

    Returns:
      Dicts of `rule`, `severity` ("low", "medium", "high"), `line` (from 1) and `message`.
    """
    with_strings, without = _views(language, code[:LONGEST])
    out = []
    for rule in RULES:
        if language in rule.languages:
            text = with_strings if rule.strings else without
            for match in rule.pattern.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                out.append({"rule": f"geex-{rule.name}", "severity": rule.severity, "line": line,
                            "message": rule.message})  # fmt: skip
    return sorted(out, key=lambda f: (f["line"], f["rule"]))


def _bandit(codes: Sequence[str]) -> list[list[Finding]]:
    """What bandit finds in each of the texts, in one call."""
    found: list[list[Finding]] = [[] for _ in codes]
    with tempfile.TemporaryDirectory() as folder:
        for number, code in enumerate(codes):
            text = code[:LONGEST].encode("utf-8", "replace")
            pathlib.Path(folder, f"{number}.py").write_bytes(b"def program():\n" + text)
        done = subprocess.run(
            [sys.executable, "-m", "bandit", "-q", "-f", "json", "-r", folder],
            capture_output=True, timeout=_BANDIT_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    for hit in json.loads(done.stdout or b"{}").get("results", []):
        number = int(pathlib.Path(hit["filename"]).stem)
        found[number].append({
            "rule": hit["test_id"], "severity": hit["issue_severity"].lower(),
            "line": max(hit["line_number"] - 1, 1), "message": hit["issue_text"],
        })  # fmt: skip
    return found


def add_findings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Sets `findings` in rows of results.

    Args:
      rows: with `language` and `code`.

    Returns:
      What there is to say: which analysers did not take part.
    """
    known = {key: findings(*key) for key in {(row["language"], row["code"]) for row in rows}}
    notes: list[str] = ["security: semgrep is not used; its rules are not ours to bring along"]
    python = sorted(code for language, code in known if language == "python")
    if python and importlib.util.find_spec("bandit") is None:
        notes.append('security: bandit is not installed: pip install "geex-jax[security]"')
    elif python:
        try:
            for code, more in zip(python, _bandit(python), strict=True):
                known["python", code] = [*known["python", code], *more]
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            notes.append(f"security: bandit failed ({type(error).__name__})")
    for row in rows:
        row["findings"] = known[row["language"], row["code"]]
    return notes
