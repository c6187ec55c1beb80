"""Pieces of Python to lines."""

from __future__ import annotations

from geex_jax.data.detokenize import lexing
from geex_jax.data.detokenize.lexing import Piece, ends_value
from geex_jax.data.detokenize.syntax import Syntax, words

_MERGES = words(
    "** // << >> <= >= == != -> := += -= *= /= %= &= |= ^= @= ... <>"
)  # what two signs must not become
_INDENT = "    "


def layout(pieces: list[Piece], syntax: Syntax) -> str:
    """Returns the program; INDENT and DEDENT decide how deep a line stands."""
    lines: list[str] = []
    current: list[Piece] = []
    depth = 0
    for piece in [*pieces, Piece(lexing.NEWLINE, "")]:
        if piece.kind in (lexing.NEWLINE, lexing.INDENT, lexing.DEDENT):
            if current:
                lines.append(_INDENT * depth + _Line(syntax).join(current))
            current = []
            depth = max(0, depth + (piece.kind == lexing.INDENT) - (piece.kind == lexing.DEDENT))
        else:
            current.append(piece)
    return "\n".join(lines)


class _Line:
    """Puts the spaces of one line. `open` holds brackets, with what decides about "=" and ":"."""

    def __init__(self, syntax: Syntax):
        self.syntax = syntax
        self.open: list[str] = []
        self.annotated = False
        self.unary = False  # the last piece is a sign that belongs to the next one

    def join(self, pieces: list[Piece]) -> str:
        text, last = "", None
        for piece in pieces:
            if last is not None and self._space(last, piece):
                text += " "
            text += piece.text
            self._note(last, piece)
            last = piece
        return text

    def _note(self, last: Piece | None, piece: Piece) -> None:
        sign = piece.text
        self.unary = sign in ("-", "+", "~", "*", "**", "@") and not ends_value(last, self.syntax)
        if piece.kind != lexing.OPERATOR:
            return
        if sign in ("(", "[", "{"):
            self.open.append(sign)
        elif sign in (")", "]", "}"):
            del self.open[-1:]
        if sign in ("(", ","):
            self.annotated = False
        elif sign == ":":
            self.annotated = True

    def _space(self, last: Piece, piece: Piece) -> bool:
        if not self._wants_space(last, piece):
            if last.kind != lexing.OPERATOR or piece.kind != lexing.OPERATOR:
                words = (lexing.WORD, lexing.NUMBER, lexing.STRING)
                return last.kind in words and piece.kind in words
            return any((last.text + piece.text)[i : i + 2] in _MERGES
                       for i in range(len(last.text) - 1, len(last.text)))  # fmt: skip
        return True

    def _wants_space(self, last: Piece, piece: Piece) -> bool:
        before, sign = last.text, piece.text
        inside = self.open[-1] if self.open else ""
        if before in ("(", "[", "{") or sign in (")", "]", "}", ",", ";"):
            return False
        if self.unary:
            return False
        if sign == ".":
            return last.kind == lexing.NUMBER or before in self.syntax.keywords
        if before in (".", ".."):
            return piece.text in self.syntax.keywords and piece.text != "await"
        if sign in ("(", "["):
            return not ends_value(last, self.syntax)
        if sign == ":":
            return False
        if before == ":" and inside == "[":
            return False
        keyword = inside == "(" and not self.annotated
        return not (keyword and "=" in (sign, before))
