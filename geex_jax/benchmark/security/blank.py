"""Blanks comments and strings out of source text, so that rules match code alone.

One pass of one regular expression a language. Every closing sign is optional and every loop
possessive or lazy with disjoint choices, so that hostile text (an unclosed quote) stays linear.
It is no parser: code inside f-strings and template literals counts as string, and a Rust block
comment ends at its first "*/".
"""

from __future__ import annotations

import re

_LINE = r"//[^\n]*"
_BLOCK = r"/\*.*?(?:\*/|\Z)"
_DOUBLE = r'"(?:[^"\\\n]|\\.)*+"?'
_SINGLE = r"'(?:[^'\\\n]|\\.)*+'?"
_BACKTICK = r"`(?:[^`\\]|\\.)*+`?"
_TRIPLE = r'"""(?:[^\\]|\\.)*?(?:"""|\Z)'
# After these signs a slash begins a regular expression, not a division.
_REGEX = (
    r"(?:(?<=[(,=:\[!&|?])|(?<=[(,=:\[!&|?] ))"
    r"/(?![*/])(?:[^/\\\n\[]|\\.|\[(?:[^\]\\\n]|\\.)*+\]?)++/?"
)

# language -> (comments, strings)
_TOKENS = {
    "python": (
        r"#[^\n]*",
        _TRIPLE + r"|'''(?:[^\\]|\\.)*?(?:'''|\Z)|" + _DOUBLE + "|" + _SINGLE,
    ),
    # A quote between digits separates thousands in C++.
    "cpp": (
        _LINE + "|" + _BLOCK,
        r'R"(?P<c>[^()\\\s]{0,16})\(.*?(?:\)(?P=c)"|\Z)|' + _DOUBLE + r"|(?<![0-9])" + _SINGLE,
    ),
    "java": (_LINE + "|" + _BLOCK, _TRIPLE + "|" + _DOUBLE + "|" + _SINGLE),
    "javascript": (
        _LINE + "|" + _BLOCK,
        _DOUBLE + "|" + _SINGLE + "|" + _BACKTICK + "|" + _REGEX,
    ),
    "go": (_LINE + "|" + _BLOCK, _DOUBLE + "|" + _SINGLE + r"|`[^`]*+`?"),
    # A quote that does not close within a character is a lifetime.
    "rust": (
        _LINE + "|" + _BLOCK,
        r'\bb?r(?P<r>#{0,8})".*?(?:"(?P=r)|\Z)|"(?:[^"\\]|\\.)*+"?'
        r"|'(?:\\.[^'\n]{0,10}|[^'\\\n])'",
    ),
}
LANGUAGES = tuple(_TOKENS)
_SCANNERS = {
    name: re.compile(f"(?P<comment>{comments})|(?P<string>{strings})", re.DOTALL)
    for name, (comments, strings) in _TOKENS.items()
}


def blank(language: str, code: str) -> tuple[str, str]:
    """Returns (code without comments and strings, code without comments), of the same length.

    What is taken out becomes spaces; line ends and the first sign of a string stay.
    """
    bare, kept, end = [], [], 0
    for token in _SCANNERS[language].finditer(code):
        before, text = code[end : token.start()], token.group()
        spaces = re.sub(r"[^\n]", " ", text)
        end = token.end()
        if token.lastgroup == "comment":
            bare += before, spaces
            kept += before, spaces
        else:
            bare += before, text[0] + spaces[1:]
            kept += before, text
    bare.append(code[end:])
    kept.append(code[end:])
    return "".join(bare), "".join(kept)
