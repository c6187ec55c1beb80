"""Tokens of a string back to the string."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from geex_jax.data.detokenize.syntax import Syntax

STRUCTURE = {"NEW_LINE": "newline", "INDENT": "indent", "DEDENT": "dedent"}
_MARKS = re.compile(r"▁|(\\?)STRNEWLINE|TABSYMBOL|SPACETOKEN")
_FLAGS = re.compile("[dgimsuvy]+")
_HEREDOC = re.compile(r"<<<[ \t]*(['\"]?)(\w+)\1\n")


class Read(NamedTuple):
    """A string that was read.

    `text` of it; `at`: the token behind it; `rest`: what its last token had behind its end.
    """

    text: str
    at: int
    rest: str = ""


def unmark(token: str, real: bool, escaped: bool = False) -> str:
    """Returns a token of a string as text.

    Args:
      token: as it stands in the line.
      real: line ends and tabs become themselves, not escapes.
      escaped: a backslash stands before it, so that a line end is a real one.
    """

    def one(match: re.Match[str]) -> str:
        kept = real or match[1] == "\\" or (escaped and match.start() == 0)
        if match[0].endswith("STRNEWLINE"):
            return (match[1] or "") + ("\n" if kept else "\\n")
        if match[0] == "TABSYMBOL":
            return "\t" if kept else "\\t"
        return " " if match[0] == "▁" else "▁"

    return _MARKS.sub(one, token)


class _Chars:
    """The characters of a string's tokens, one at a time; `take` gives "" at the end."""

    def __init__(self, tokens: Sequence[str], at: int, skip: int, real: bool):
        self.tokens, self.at, self.real = tokens, at, real
        self.escaped = False
        self.text = self._text(at)
        self.place = skip

    def _text(self, at: int) -> str:
        if at >= len(self.tokens) or (self.tokens[at] in STRUCTURE and not self.real):
            return ""
        return unmark(self.tokens[at], self.real, self.escaped)

    def take(self) -> str:
        while self.place >= len(self.text):
            if self.at >= len(self.tokens) or (self.text == "" and self.tokens[self.at]):
                return ""
            self.at, self.place = self.at + 1, 0
            self.text = self._text(self.at)
        self.place += 1
        return self.text[self.place - 1]

    def peek(self, count: int) -> str:
        text, at = self.text[self.place : self.place + count], self.at
        while len(text) < count and at + 1 < len(self.tokens):
            at += 1
            text += self._text(at)
        return text[:count]

    def end(self, text: str) -> Read:
        return Read(text, self.at + 1, self.text[self.place :])


def read_string(
    tokens: Sequence[str], at: int, skip: int, prefix: str, quote: str, syntax: Syntax
) -> Read | None:
    """Reads a string from its opening quote on, or returns None if it never closes.

    Args:
      tokens: of the line.
      at: the token with the opening quote. skip: characters of it before the quote.
      prefix: letters or signs before the quote. quote: what opens and closes it.
      syntax: the language.
    """
    verbatim = syntax.name == "C#" and "@" in prefix
    raw = syntax.name == "C++" and prefix.endswith("R")
    chars = _Chars(tokens, at, skip, quote in syntax.multiline or verbatim or raw)
    text = "".join(chars.take() for _ in quote)
    if raw:
        return _read_raw(chars, text)
    opening = _interpolation(prefix, quote, syntax)
    stack = [quote]
    while char := chars.take():
        top = stack[-1]
        text += char
        if top == "{":  # code within an interpolation
            if char == "}":
                stack.pop()
            elif char in syntax.quotes or char == "{":
                stack.append(char)
        elif char == "\\" and not verbatim:
            chars.escaped = True
            text += chars.take()
            chars.escaped = False
        elif char + chars.peek(len(top) - 1) == top:
            text += "".join(chars.take() for _ in top[1:])
            if verbatim and chars.peek(1) == top:
                text += chars.take()
                continue
            stack.pop()
            if not stack:
                return chars.end(text)
        elif opening and top == quote and char + chars.peek(len(opening) - 1) == opening:
            text += "".join(chars.take() for _ in opening[1:])
            if opening == "{" and chars.peek(1) == "{":
                text += chars.take()
            else:
                stack.append("{")
    return None


def _read_raw(chars: _Chars, text: str) -> Read | None:
    mark = ""
    while (char := chars.take()) and char not in '()\\" \n' and len(mark) < 16:
        mark += char
    if char != "(":
        return None
    text += mark + char
    closing = f'){mark}"'
    while char := chars.take():
        text += char
        if char == '"' and text.endswith(closing):
            return chars.end(text)
    return None


def _interpolation(prefix: str, quote: str, syntax: Syntax) -> str:
    """What opens code within a string; "" for nothing."""
    if quote == "`" and syntax.name == "JavaScript":
        return "${"
    if quote == '"' and syntax.name == "PHP":
        return "{$"
    return "{" if syntax.name == "C#" and "$" in prefix else ""


def read_regex(tokens: Sequence[str], at: int) -> Read | None:
    """Reads a regular expression of JavaScript with its flags, or returns None."""
    chars = _Chars(tokens, at, 0, False)
    text, inside = chars.take(), False
    while char := chars.take():
        text += char
        if char == "/" and not inside:
            read = chars.end(text)
            flags = tokens[read.at] if read.at < len(tokens) and not read.rest else ""
            if _FLAGS.fullmatch(flags):
                return Read(text + flags, read.at + 1)
            return read
        if char == "\\":
            text += chars.take()
        inside = char == "[" or (inside and char != "]")
    return None


def read_heredoc(tokens: Sequence[str], at: int) -> Read | None:
    """Reads a heredoc or nowdoc of PHP, or returns None."""
    text, place = "", at
    while (opening := _HEREDOC.match(text)) is None:
        if place == len(tokens) or place > at + 12:
            return None
        text, place = text + unmark(tokens[place], True), place + 1
    label, read, fresh = opening[2], [text], True
    for end in range(place, len(tokens)):
        token = unmark(tokens[end], True)
        read.append(token)
        following = tokens[end + 1] if end + 1 < len(tokens) else ""
        if fresh and token == label and not re.match(r"\w", following):
            return Read("".join(read), end + 1)
        fresh = token.endswith("\n") or (fresh and not token.strip(" \t"))
    return None
