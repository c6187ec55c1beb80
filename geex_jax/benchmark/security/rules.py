"""Security rules by regular expression: version 1. They read text and never run it.

Patterns see the code with comments blanked out, and, unless a rule says otherwise, with the
contents of strings blanked out too. None has nested repetition, so time is linear in the text.
"""

from __future__ import annotations

import dataclasses
import re

VERSION = 1
ALL = ("python", "cpp", "java", "javascript", "go", "rust")


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
      name: stable; goes into reports. languages: it holds for.
      severity: "low", "medium" or "high". pattern: what it looks for. message: why.
      strings: the pattern sees the contents of strings.
    """

    name: str
    languages: tuple[str, ...]
    severity: str
    pattern: re.Pattern[str]
    message: str
    strings: bool = False


def _rule(name: str, languages: str, severity: str, pattern: str, message: str,
          strings: bool = False) -> Rule:  # fmt: skip
    tongues = ALL if languages == "all" else tuple(languages.split())
    return Rule(name, tongues, severity, re.compile(pattern), message, strings)


RULES = (
    _rule("eval", "python javascript", "high",
          r"(?<![\w.])(?:eval|exec)\s*\(|\bnew\s+Function\s*\(",
          "runs text as code"),
    _rule("shell", "python", "high", r"\bos\.(?:system|popen)\s*\(|\bshell\s*=\s*True",
          "runs a shell command"),
    _rule("shell", "cpp", "high", r"(?<![\w.>])(?:system|popen)\s*\(", "runs a shell command"),
    _rule("process", "java", "medium", r"\.exec\s*\(|\bnew\s+ProcessBuilder\b", "starts a process"),
    _rule("process", "javascript", "medium", r"\bchild_process\b", "starts a process", True),
    _rule("process", "go", "medium", r"\bexec\.Command\s*\(", "starts a process"),
    _rule("process", "rust", "medium", r"\bCommand::new\s*\(", "starts a process"),
    _rule("unbounded-copy", "cpp", "high", r"\b(?:gets|strcpy|strcat|sprintf|vsprintf)\s*\(",
          "writes without a bound"),
    _rule("unbounded-scan", "cpp", "high", r"scanf\s*\([^)\n]{0,200}%s", "reads %s without a bound",
          True),
    _rule("deserialisation", "python", "high",
          r"\b(?:pickle|marshal|shelve)\.(?:load|loads|open)\s*\(|\byaml\.load\s*\(",
          "unpacks objects from data"),
    _rule("deserialisation", "java", "high", r"\bObjectInputStream\b", "unpacks objects from data"),
    _rule("secret", "all", "high",
          r"(?i)\b\w{0,30}(?:password|passwd|secret|api_?key|token)\w{0,30}\s*(?::=|=|:)\s*"
          r"[\"'][^\"'\n]{4,}",
          "a secret stands in the code", True),
    _rule("weak-hash", "all", "low", r"(?i)\b(?:md5|sha1)\b",
          "MD5 and SHA-1 are broken (problem 162 asks for MD5)", True),
    _rule("weak-cipher", "all", "medium", r"\b(?:DES|RC4|ECB|Blowfish)\b",
          "a broken cipher or mode", True),
    _rule("weak-random", "all", "medium",
          r"(?i)(?:password|token|secret|salt|nonce)\w{0,30}[^\n]{0,80}"
          r"(?:Math\.random|\brand\s*\(|random\.(?:rand|choice))",
          "a secret from a generator that can be predicted"),
    _rule("sql", "all", "high",
          r"(?i)[\"'](?:SELECT|INSERT|UPDATE|DELETE)\b[^\"'\n]{0,200}[\"']"
          r"\s*(?:\+|%|\.format)",
          "SQL put together from text", True),
    _rule("no-verify", "all", "high",
          r"\bverify\s*=\s*False|\bInsecureSkipVerify\b|rejectUnauthorized\s*:\s*false",
          "certificates are not checked"),
    _rule("world-writable", "all", "medium", r"\b(?:chmod|umask)\s*\([^)\n]{0,80}\b0?o?777\b",
          "open to every user"),
    _rule("temporary-name", "python cpp", "medium", r"\b(?:mktemp|tmpnam|tempnam)\s*\(",
          "a name that another process can take first"),
    _rule("unsafe", "rust", "medium", r"\bunsafe\s*\{|\btransmute\b", "leaves Rust's guarantees"),
    _rule("unsafe", "go", "medium", r"\bunsafe\.Pointer\b", "leaves Go's guarantees"),
    _rule("inner-html", "javascript", "medium", r"\.innerHTML\s*=|\bdocument\.write\s*\(",
          "text becomes markup"),
)  # fmt: skip
