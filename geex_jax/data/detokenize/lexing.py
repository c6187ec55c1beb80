"""Tokens of a line to pieces: words, operators, whole strings, directives, line ends."""

from __future__ import annotations

import re
from typing import NamedTuple

from geex_jax.data.detokenize import strings
from geex_jax.data.detokenize.strings import STRUCTURE
from geex_jax.data.detokenize.syntax import Syntax, words

WORD, NAME, NUMBER, STRING = "word", "name", "number", "string"
OPERATOR, DIRECTIVE = "operator", "directive"
NEWLINE, INDENT, DEDENT = "newline", "indent", "dedent"
_DIRECTIVES = words(
    "include include_next import define undef if ifdef ifndef elif elifdef elifndef else endif"
    " error warning pragma line region endregion nullable"
)
_CLOSERS = (")", "]", "}")


class Piece(NamedTuple):
    """A token, or a whole string, regular expression or directive, as it stands in the program.

    A word is a name where it cannot be a keyword: behind a dot.
    """

    kind: str
    text: str


def pieces(line: str, syntax: Syntax) -> list[Piece]:
    """Returns the pieces of a line of tokens; lossless but for the spaces between tokens."""
    return _Lexer(line, syntax).run()


def ends_value(piece: Piece | None, syntax: Syntax) -> bool:
    """Tells whether a value has ended: what follows is an operator, not an operand."""
    if piece is None:
        return False
    if piece.kind == WORD:
        return piece.text not in syntax.keywords
    return piece.kind in (NAME, NUMBER, STRING) or piece.text in _CLOSERS


class _Lexer:
    """`tokens` keep the empty ones of doubled spaces, which tell macros apart."""

    def __init__(self, line: str, syntax: Syntax):
        self.tokens = line.split(" ")
        self.syntax = syntax
        self.at = 0
        self.found: list[Piece] = []
        self.hopeless: set[str] = set()  # what opens and never closes: looked for once

    def run(self) -> list[Piece]:
        while self.at < len(self.tokens):
            token = self.tokens[self.at].strip()
            if not token:
                self.at += 1
            elif token in STRUCTURE:
                self.at += 1
                self.found.append(Piece(STRUCTURE[token], ""))
            elif not (self._directive(token) or self._string(token) or self._special(token)):
                self.at += 1
                kind = _kind(token)
                self.found.append(Piece(NAME if kind == WORD and self._member() else kind, token))
        return self.found

    def _member(self) -> bool:
        last = self.found[-1].text if self.found else ""
        return last in self.syntax.tight and self.syntax.name != "Python"

    def _next(self, ahead: int = 1) -> str:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else ""

    def _special(self, token: str) -> bool:
        """PHP writes $ and <?php apart; JavaScript has regular expressions."""
        if self.syntax.regexes and token.startswith("/") and token not in ("/=", "//"):
            last = self.found[-1] if self.found else None
            if "/" in self.hopeless or ends_value(last, self.syntax):
                return False
            return self._found(strings.read_regex(self.tokens, self.at), opening="/")
        if self.syntax.name != "PHP":
            return False
        for opening in (["<", "?", "php"], ["<", "?", "="], ["<?", "php"], ["?", ">"]):
            if self.tokens[self.at : self.at + len(opening)] == opening:
                self.at += len(opening)
                self.found.append(Piece(OPERATOR, "".join(opening)))
                return True
        here = token.startswith("<<<") or self.tokens[self.at : self.at + 3] == ["<"] * 3
        if here and "<<<" not in self.hopeless:
            return self._found(strings.read_heredoc(self.tokens, self.at), opening="<<<")
        if token == "$" and _kind(self._next()) == WORD:
            self.found.append(Piece(WORD, "$" + self._next()))
            self.at += 2
            return True
        return False

    def _directive(self, token: str) -> bool:
        """A preprocessor line, up to NEW_LINE; those without arguments end by themselves."""
        if not self.syntax.directives or not token.startswith("#"):
            return False
        name, width = (token[1:], 1) if len(token) > 1 else (self._next(), 2)
        if name not in _DIRECTIVES:
            return False
        self.at += width
        if name in ("include", "include_next", "import"):
            text = self._included()
        elif name in ("ifdef", "ifndef", "elifdef", "elifndef"):
            text, self.at = " " + self._next(0), self.at + 1
        elif name in ("else", "endif"):
            text = ""
        else:
            text = self._arguments(name)
        self.found.append(Piece(DIRECTIVE, f"#{name}{text}"))
        return True

    def _included(self) -> str:
        if self._next(0).startswith("<"):
            text = ""
            while self.at < len(self.tokens) and not text.endswith(">"):
                text, self.at = text + self.tokens[self.at], self.at + 1
            return " " + text
        if self._string(self._next(0)):
            return " " + self.found.pop().text
        return self._arguments("include")

    def _arguments(self, name: str) -> str:
        """Tokens up to NEW_LINE, which stays; a backslash before it goes on in the next line."""
        taken: list[str] = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token in STRUCTURE:
                if not taken or not taken[-1].endswith("\\"):
                    break
                token = "\n"
            taken.append(token)
            self.at += 1
        text = re.sub(r" ?\n ?", "\n", " ".join(taken))
        text = re.sub(r"[\s\\]+$", "", text)  # or the next line would belong to it
        if name == "define":
            # "( x )" right behind the name are parameters: a value in parentheses is one token
            # or has two spaces before it.
            pattern = r"(\w+) (\( (?:(?:\w+|\.\.\.) (?:\.\.\. )?(?:, )?)*\))(?= |$)"
            match = re.match(pattern, text)
            if match:
                inside = match[2].replace("( ", "(").replace(" )", ")").replace(" ,", ",")
                text = match[1] + inside + text[match.end() :]
        return " " + text.strip() if text.strip() else ""

    def _string(self, token: str) -> bool:
        """A string with its prefix, if one begins here and ends somewhere."""
        prefix, skipped = "", 0
        while token in self.syntax.prefixes:
            prefix, skipped = prefix + token, skipped + 1
            token = self._next(skipped)
        match = re.match(r"(\w*|[@$]+)", token)
        own = match[1] if match else ""
        if own and own in self.syntax.prefixes and token[len(own) :]:
            prefix, token = prefix + own, token[len(own) :]
        else:
            own = ""
        quote = next((q for q in self.syntax.quotes if token.startswith(q)), None)
        if quote is None or (prefix and prefix not in self.syntax.prefixes and "$" not in prefix):
            return False
        if quote in self.hopeless:
            return False
        read = strings.read_string(
            self.tokens, self.at + skipped, len(own), prefix, quote, self.syntax
        )
        return self._found(read, quote, prefix)

    def _found(self, read: strings.Read | None, opening: str, prefix: str = "") -> bool:
        if read is None:
            self.hopeless.add(opening)
            return False
        self.at = read.at
        if read.rest:  # the token went on behind the end
            self.at -= 1
            self.tokens[self.at] = read.rest
        self.found.append(Piece(STRING, prefix + read.text))
        return True


def _kind(token: str) -> str:
    if re.match(r"\.?\d", token):
        return NUMBER
    return WORD if re.match(r"[\w$#@]*\w|\$", token) and token[0] not in "@" else OPERATOR
