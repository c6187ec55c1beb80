"""Token lines as XLCoST's files have them, back to programs.

A sample is one line of tokens with single spaces between them. `NEW_LINE`, `INDENT` and `DEDENT`
stand for the line structure of Python and for the ends of preprocessor lines; languages with
braces have no other line structure left, nor comments. Within a string a space is `▁`, a newline
or its escape is `STRNEWLINE`, a tab `TABSYMBOL`, a literal `▁` `SPACETOKEN`, and the spaces
between tokens stand for nothing.

What comes back parses, has the same tokens, and is laid out as people write it.
"""

from __future__ import annotations

from geex_jax.data.detokenize import braces, lexing, python
from geex_jax.data.detokenize.syntax import SYNTAXES
from geex_jax.errors import GeexError, did_you_mean

__all__ = ["detokenize"]


def detokenize(line: str, language: str) -> str:
    """Returns the program of a line of tokens, ending in a newline; "" for an empty line.

    Args:
      line: the tokens.
      language: C++, Java, Python, C#, JavaScript, PHP or C.

    Raises:
      GeexError: no tokens of that language are known.
    """
    if language not in SYNTAXES:
        raise GeexError(f"no detokenizer for {language!r}", did_you_mean(language, SYNTAXES))
    syntax = SYNTAXES[language]
    pieces = lexing.pieces(line, syntax)
    layout = python.layout if language == "Python" else braces.layout
    text = layout(pieces, syntax)
    return text if not text or text.endswith("\n") else text + "\n"
