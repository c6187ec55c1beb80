"""Programs like those that models write: right ones, wrong ones, ones that do not compile.

Made from canonical solutions by a seed: operators and numbers changed, text cut or spoilt, and
loops that do not end.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from geex_jax.benchmark.languages.types import Problem

_SWAPS = {
    "<=": ["<", ">="], ">=": [">", "<="], "==": ["!="], "!=": ["=="], "<": ["<=", ">"],
    ">": [">=", "<"], "+": ["-"], "-": ["+"], "*": ["+"], "%": ["*"], "0": ["1"], "1": ["0", "2"],
    "2": ["3"],
}  # fmt: skip
_TOKEN = re.compile(r"(?<![<>=!+\-*/&|%])(<=|>=|==|!=|[<>+\-*%])(?![<>=+\-*&|%])|\b[012]\b")
_HANG = {
    "python": "    while True: pass\n", "cpp": "    for (volatile int i = 0;; ) i = i + 1;\n}\n",
    "java": "        while (System.nanoTime() != 1L) { }\n        throw new RuntimeException();\n"
            "    }\n}\n",
    "javascript": "  for (;;) {}\n}\n", "go": "    for {\n    }\n}\n",
    "rust": "    loop {}\n}\n",
}  # fmt: skip


def wrong(code: str, source: random.Random) -> str:
    """One operator or small number changed; the code itself where there is none."""
    places = list(_TOKEN.finditer(code))
    if not places:
        return code
    place = source.choice(places)
    return code[: place.start()] + source.choice(_SWAPS[place[0]]) + code[place.end() :]


def broken(code: str, source: random.Random) -> str:
    """Spoilt so that it should not compile: a bracket gone, a word misspelt, the end cut off."""
    kind = source.randrange(3)
    if kind == 0:
        places = [i for i, c in enumerate(code) if c in "()[]{}"]
        if places:
            at = source.choice(places)
            return code[:at] + code[at + 1 :]
    if kind == 1:
        words = list(re.finditer(r"\b[a-zA-Z_]\w{2,}\b", code))
        if words:
            word = source.choice(words)
            return code[: word.start()] + word[0] + "Qx" + code[word.end() :]
    return code[: max(1, len(code.rstrip()) * 2 // 3)] + "(\n"


def mix(
    problems: Sequence[Problem], language: str, count: int, seed: int, hanging: int = 0,
    weights: tuple[float, float, float] = (0.40, 0.35, 0.25),
) -> list[tuple[Problem, str, str]]:  # fmt: skip
    """Returns `count` triples (problem, code, kind); kind is right, wrong, broken or hanging.

    Args:
      problems: with canonical solutions.
      language: its name, for loops that do not end.
      count: how many programs. seed: same seed, same programs.
      hanging: how many of them never end.
      weights: shares of right, wrong and broken ones among the others.
    """
    source = random.Random(f"{language} {seed}")
    out = []
    for number in range(count):
        problem = problems[number % len(problems)]
        code = problem["canonical_solution"]
        if number < hanging:
            out.append((problem, _HANG[language], "hanging"))
            continue
        kind = source.choices(("right", "wrong", "broken"), weights)[0]
        if kind == "wrong":
            code = wrong(code, source)
        elif kind == "broken":
            code = broken(code, source)
        out.append((problem, code, kind))
    source.shuffle(out)
    return out
