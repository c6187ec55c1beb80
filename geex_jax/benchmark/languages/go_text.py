"""What can be told of a Go program without its compiler. Standard library only."""

from __future__ import annotations

import dataclasses
import re

_COMMENT_OR_LITERAL = re.compile(
    r"//[^\n]*|/\*.*?(?:\*/|\Z)"
    r"|\"(?:\\.|[^\"\\\n])*\"?|`[^`]*(?:`|\Z)|'(?:\\.|[^'\\\n])*'?",
    re.DOTALL,
)
_IMPORT = re.compile(r'\bimport\s?(\([^)]*\)?|(?:[\w.]+\s?)?"\d+")')
_TEST = re.compile(r"\bfunc\s+(Test\w*)\s*\(")
# Packages whose start does nothing that programs linked beside this one could notice.
_HARMLESS = frozenset((
    "bufio", "bytes", "cmp", "container/heap", "container/list", "container/ring", "crypto/md5",
    "crypto/sha1", "crypto/sha256", "encoding/hex", "errors", "fmt",
    "github.com/stretchr/testify/assert", "io", "iter", "maps", "math", "math/big", "math/bits",
    "math/cmplx", "math/rand", "math/rand/v2", "os", "reflect", "regexp", "runtime", "slices",
    "sort", "strconv", "strings", "sync", "sync/atomic", "testing", "time", "unicode",
    "unicode/utf16", "unicode/utf8",
))  # fmt: skip
# What takes addresses as numbers: a program could read the judge's secret out of its own memory.
_MEMORY = frozenset(("C", "plugin", "runtime/cgo", "unsafe"))
_CALLS = re.compile(r"\b\w*(?:Syscall|WriteHeapDump)")
# Whoever declares these anew decides what `assert.Equal(true, ...)` means.
_PREDECLARED = (
    "true|false|nil|iota|bool|string|byte|rune|error|int|int8|int16|int32|int64|uint|uint8|"
    "uint16|uint32|uint64|uintptr|float32|float64|complex64|complex128"
)
_REDECLARED = re.compile(
    rf"\b(?:func|type|const|var)\s+(?:\w+\s*,\s*)*({_PREDECLARED})\b"
    rf"|\b(?:type|const|var)\s*\((?:[^()]*[\n;(])??\s*(?:\w+\s*,\s*)*({_PREDECLARED})\b"
)
# Each of vet's analyzers that `go test` runs needs one of these to have something to say:
# bool; stringintconv; printf, errorsas, atomic; nilfunc; ifaceassert; tests; directives, tags.
_VET = re.compile(
    r"&&|\|\||\bstring\b\s*\)?\s*\(|=\s*string\b|\btype\s+\w+\s+string\b"
    r"|\b(?:fmt|log|errors|atomic)\s*\.|\.\s*(?:Error|Fatal|Log|Skip|Panic|Print)(?:f|ln)?\s*\("
    r"|[!=]=\s*nil\b|\bnil\s*[!=]=|\.\s*\("
    r"|\bfunc (?:Test[a-z]|Benchmark|Example|Fuzz)"
)
_DIRECTIVE = re.compile(r"//\s*(?:go:|\+build)|/\*line|^//line", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a program declares at its top level.

    Attributes:
      tests: names of its test functions, in order.
      alone: it must share its binary with no other program: it runs code before the runner
        chooses a program, takes memory at the start, or talks to the compiler.
      refused: why it cannot be judged at all, or "".
      vet: whether vet could have something to say.
    """

    tests: tuple[str, ...]
    alone: bool
    refused: str
    vet: bool


def bare(text: str) -> tuple[str, list[str]]:
    """Returns the text with comments blanked and literals numbered, and the literals.

    The n-th literal becomes `"n"`.
    """
    literals: list[str] = []

    def replace(match: re.Match[str]) -> str:
        found = match[0]
        if found.startswith(("//", "/*")):
            return "\n" if "\n" in found else " "
        literals.append(found)
        return f'"{len(literals) - 1}"'

    return _COMMENT_OR_LITERAL.sub(replace, text), literals


def uses(text: str, package: str) -> bool:
    """Whether bare text selects something of a package (by its last name)."""
    name = package.rpartition("/")[2]
    return re.search(rf"(?<![\w.]){name}\s*\.", text) is not None


def top_level(text: str) -> str:
    """Bare text without what stands in braces."""
    depth, kept = 0, []
    for part in re.split(r"([{}])", text):
        if part == "{":
            depth += 1
        elif part == "}":
            depth -= 1
            kept.append("\n" if depth <= 0 else "")
        elif depth <= 0:
            kept.append(part)
    return "".join(kept)


def look(text: str) -> Shape:
    """Looks at a whole program."""
    code, literals = bare(text)
    # Short runs of white space: no expression below can take long then.
    code = re.sub(r"\s+", lambda run: "\n" if "\n" in run[0] else " ", code)
    top = top_level(code)
    numbers = re.findall(r'"(\d+)"', " ".join(_IMPORT.findall(top)))
    imports = {literals[int(n)][1:-1] for n in numbers}
    tests = [name for name in _TEST.findall(top) if not name[4:5].islower()]
    refused = ""
    if any("\\" in x for x in imports):
        refused = "spells an import path with escapes"
    elif imports & _MEMORY:
        refused = f"imports {min(imports & _MEMORY)}, which can read the judge's memory"
    elif imports & {"syscall", "runtime/debug"} and (call := _CALLS.search(code)):
        refused = f"uses {call[0]}, which can read the judge's memory"
    elif again := _REDECLARED.search(top):
        refused = f"declares {again[1] or again[2]} anew"
    alone = (
        not imports <= _HARMLESS
        or re.search(r"\bvar\b|\bfunc\s+init\s*\(", top) is not None
        or _DIRECTIVE.search(text) is not None
    )
    vet = _VET.search(code) is not None or _DIRECTIVE.search(text) is not None
    return Shape(tuple(tests), alone, refused, vet)
