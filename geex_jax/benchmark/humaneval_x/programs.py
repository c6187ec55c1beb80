"""Whole programs that a model wrote, fitted to where the tests expect prompt and completion.

What a model adds for show (a main function, examples that print) goes, what the prompt has and
the answer lacks (imports, helper functions) comes back. Signatures are left as they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from geex_jax.benchmark.humaneval_x.tasks import Problem

Fitted = tuple[str, str | None]  # code, and the prompt to put before it; None: the data set's

_DEFINED = {  # how a function is defined, with the place of its name
    "python": r"^(?:async\s+)?def\s+{}\s*\(",
    "javascript": r"^(?:export\s+)?(?:(?:async\s+)?function\s+|(?:const|let|var)\s+(?=\w+\s*=\s*"
    r"(?:async\b|function\b|\w+\s*=>|\())){}\b",
    "go": r"^func\s+{}\s*[\[(]",
    "rust": r"^[ \t]*(?:pub(?:\([^)]*\))?\s+)?fn\s+{}\s*[<(]",
    "java": r"^[ \t]*(?:(?:public|private|protected|static|final)\s+)*(?!(?:new|return|else)\b)"
    r"[\w<>\[\], ?]+[\s\]>]{}\s*\([^;{{}}]*\)[^;{{}}()]*\{{",
    "cpp": r"^(?!\s*(?:return|else|using|#)\b)[\w:<>,&* \t]+[\s&*>]{}\s*"
    r"\([^;{{}}]*\)[^;{{}}()]*\{{",
}
_GO_PACKAGES = (
    "math", "strings", "fmt", "strconv", "time", "bytes", "regexp", "sort", "math/rand",
    "crypto/md5",
)  # fmt: skip
_WORDS = {"if", "for", "while", "switch", "catch"}


def _definition(language: str, name: str | None = None) -> re.Pattern[str]:
    place = r"(\w+)" if name is None else f"({re.escape(name)})"
    return re.compile(_DEFINED[language].format(place), re.MULTILINE)


def functions(language: str, text: str) -> list[str]:
    """Names of the functions that a text defines."""
    if language not in _DEFINED:
        return []
    return [n for n in _definition(language).findall(text) if n not in _WORDS]


def entry(language: str, problem: Problem) -> str:
    """Name of the function that a problem asks for: the last one declared. "" if unknown."""
    return (functions(language, problem["declaration"]) or [""])[-1]


def defines(language: str, name: str, text: str) -> bool:
    """Whether a text defines that function."""
    return bool(name) and _definition(language, name).search(text) is not None


def is_whole(language: str, name: str, text: str) -> bool:
    """Whether a text is a whole program, not a completion that runs on into one."""
    if not name or (found := _definition(language, name).search(text)) is None:
        return False
    before = text[: found.start()]
    if language == "python":
        first = next((line for line in before.split("\n") if line.strip()), "")
        return not first.startswith((" ", "\t"))
    # A completion closes the brace that its prompt opened before it defines anything anew.
    depth = 0
    for sign in before:
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return False
    return True


def fit(language: str, problem: Problem, text: str) -> Fitted:
    """Splits a whole program into what comes before and what after the end of the prompt."""
    rule = _FIT.get(language)
    return rule(problem, text.replace("\r\n", "\n")) if rule else (text, "")


def _helpers(language: str, problem: Problem, text: str) -> str:
    """What stands in the prompt before the function, if it defines something the text lacks."""
    found = _definition(language, entry(language, problem)).search(problem["prompt"])
    before = problem["prompt"][: found.start()] if found else ""
    lacking = set(functions(language, before)) - set(functions(language, text))
    return before if lacking else ""


def _lines(text: str, pattern: str) -> tuple[str, str]:
    """The lines that match, and the others."""
    inside, outside = [], []
    for line in text.split("\n"):
        (inside if re.match(pattern, line) else outside).append(line)
    return "".join(f"{line}\n" for line in inside), "\n".join(outside)


def _python(problem: Problem, text: str) -> Fitted:
    name = entry("python", problem)
    found = list(_definition("python", name).finditer(text))
    if not found:
        return text, None
    start = found[-1].start()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        line = text.count("\n", 0, start)  # what follows the function is prose, or was cut
        rest = text.split("\n")[line + 1 :]
        body = next((i for i, t in enumerate(rest) if re.match(r"[^\s)]", t)), len(rest))
        return "\n".join(rest[:body]), text[: start + text[start:].find("\n") + 1] or None
    lines = text.split("\n")
    before, function = [], None
    for node in tree.body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        whole = "\n".join(lines[first - 1 : node.end_lineno])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            function = (node, first)
        elif not _for_show(node):
            before.append(whole)
    if function is None:
        return text, None
    node, first = function
    head = _helpers("python", problem, text) + "".join(f"{b}\n\n" for b in before)
    body = node.body[0].lineno
    if body == node.lineno:  # all in one line
        return "", head + "\n".join(lines[first - 1 : node.end_lineno]) + "\n"
    code = "\n".join(lines[body - 1 : node.end_lineno]) + "\n"
    return code, head + "\n".join(lines[first - 1 : body - 1]) + "\n"


def _for_show(node: ast.stmt) -> bool:
    """Examples of use: asserts, calls, `if __name__`, strings."""
    if isinstance(node, ast.If):
        return "__name__" in ast.unparse(node.test)
    return isinstance(node, ast.Assert | ast.Expr | ast.For | ast.While | ast.With)


def _cpp(problem: Problem, text: str) -> Fitted:
    text = without_block(text, r"^[ \t]*(?:int|void|signed)\s+main\s*\(")
    needed, _ = _lines(problem["prompt"], r"\s*#include|using ")
    return text + "\n", needed + _helpers("cpp", problem, text)


def _java(problem: Problem, text: str) -> Fitted:
    text = re.sub(r"^\s*package\s+[\w.]+;", "", text, flags=re.MULTILINE)
    needed, _ = _lines(problem["prompt"], r"import ")
    if not re.search(r"\bclass\s+Solution\b", text):
        imports, text = _lines(text, r"\s*import [\w.* ]+;")
        text = re.sub(
            r"^public\s+(?:final\s+)?(class|record|interface|enum)\b", r"\1", text, flags=re.M
        )
        if functions("java", without_block(text, r"^[ \t]*(?:final\s+)?class\s+\w+")):
            return text + "\n}", imports + needed + "class Solution {\n"  # methods alone
        return text, imports + needed
    text = without_block(text, r"^[ \t]*(?:public\s+)?(?:final\s+)?class\s+Main\b")
    # One public class a file, and that is the tests'.
    return re.sub(r"\bpublic\s+((?:final\s+)?class\b)", r"\1", text), needed


def _javascript(problem: Problem, text: str) -> Fitted:
    text = re.sub(r"^export\s+(?:default\s+)?", "", text, flags=re.MULTILINE)
    _, text = _lines(text, r"console\.(?:log|assert|error)\(.*\);?\s*(?://.*)?$")
    return text + "\n", _helpers("javascript", problem, text)


def _go(problem: Problem, text: str) -> Fitted:
    text = re.sub(r"^package\s+\w+[^\n]*", "", text, flags=re.MULTILINE)
    text = without_block(text, r"^func\s+main\s*\(")
    block = re.compile(r"^import\s*(\([^)]*\)|[^\n]*)", re.MULTILINE)
    specs = [s.strip() for m in block.findall(text) for s in re.split(r"[\n;]", m.strip("()"))]
    # The assembly brings what it knows wherever the code uses it.
    brought = {f'"{p}"' for p in _GO_PACKAGES} | set(
        re.findall(r'"[^"\n]*"', problem.get("test_setup", ""))
    )
    rest = [
        s for s in specs if s and not s.startswith("//") and s.split("//")[0].strip() not in brought
    ]
    head = "".join(f"import {s}\n" for s in rest)
    helpers = _helpers("go", problem, text).replace(problem.get("import") or "\0", "")
    return block.sub("", text) + "\n", head + helpers


def _rust(problem: Problem, text: str) -> Fitted:
    """The declaration always stands before the code: only the body can come from the answer."""
    found = _definition("rust", entry("rust", problem)).search(text)
    opened = text.find("{", found.end()) if found else -1
    closed = close(text, opened) if opened != -1 else -1
    if found is None or opened == -1 or closed == -1:
        return (text if found is None or opened == -1 else text[opened + 1 :]), None
    around = text[: found.start()] + "\n" + text[closed + 1 :]
    around = without_block(around, r"^[ \t]*(?:pub\s+)?fn\s+main\s*\(")
    around = without_block(around, r"^[ \t]*(?:#\[cfg\(test\)\]\s*)?mod\s+\w+")
    _, around = _lines(around, r"\s*(?://[/!]|#!\[|extern crate)")
    taken = set(_uses(problem["declaration"]).values())
    new = "".join(f"use {path};\n" for path, name in _uses(around).items() if name not in taken)
    return f"{text[opened + 1 : closed]}\n}}\n{new}{_USE.sub('', around)}", None


_USE = re.compile(r"^[ \t]*use\s([^;]*);", re.MULTILINE)


def _uses(text: str) -> dict[str, str]:
    """What a text uses: path -> name; a name used twice is an error."""
    paths = [path for tree in _USE.findall(text) for path in _paths(tree.strip())]
    return {p: re.split(r"::|\s+as\s+", p)[-1] for p in paths}


def _paths(tree: str) -> list[str]:
    head, opened, rest = tree.partition("{")
    if not opened:
        return [tree.strip().removesuffix("::self")]
    paths, part, depth = [], "", 0
    for sign in rest.rpartition("}")[0] + ",":
        depth += (sign == "{") - (sign == "}")
        if sign != "," or depth:
            part += sign
        elif part.strip():
            paths += _paths(head + part.strip())
            part = ""
    return paths


_FIT: dict[str, Callable[[Problem, str], Fitted]] = {
    "python": _python,
    "cpp": _cpp,
    "java": _java,
    "javascript": _javascript,
    "go": _go,
    "rust": _rust,
}


def without_block(text: str, pattern: str) -> str:
    """Takes out each block in braces whose head matches; to the end, if it is not closed."""
    while found := re.search(pattern, text, re.MULTILINE):
        opened = text.find("{", found.end())
        closed = close(text, opened) if opened != -1 else -1
        after = text[closed + 1 :] if closed != -1 else ""
        text = text[: found.start()] + after
    return text


_SKIP = re.compile(
    r"""//[^\n]* | /\*.*?(?:\*/|$) | "(?:\\.|[^"\\])*" | `[^`]*` | '(?:\\.[^'\n]*|[^'\\\n])'""",
    re.VERBOSE | re.DOTALL,
)


def close(text: str, opened: int) -> int:
    """Place of the brace that closes the one at `opened`, -1 if none does.

    Braces in strings and comments do not count. A lone quote, as of Rust's lifetimes, is none.
    """
    depth, place = 0, opened
    while place < len(text):
        skipped = _SKIP.match(text, place)
        if skipped:
            place = skipped.end()
            continue
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return place
        place += 1
    return -1
