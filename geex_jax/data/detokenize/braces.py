"""Pieces of languages with braces to lines.

Line ends mean nothing to them but after preprocessor lines, in JavaScript without semicolons, and
after some of JavaScript's words: so they go where people put them.
"""

from __future__ import annotations

import dataclasses
import re

from geex_jax.data.detokenize import lexing
from geex_jax.data.detokenize.lexing import Piece, ends_value
from geex_jax.data.detokenize.syntax import Syntax, words

_INDENT = "    "
_SHORT = 60  # characters of braces that stay on their line
_WIDE = 80
_DEEPEST = 40  # so that lines do not grow with the square of what is open
_NAMES = (lexing.WORD, lexing.NAME)
_SIGNS = frozenset("+-*/%&|^!<>=?:.~@$#")
_UNARY = frozenset(("-", "+", "!", "~", "&", "*", "++", "--", "@", "&&"))
_CONTINUES = words("else catch finally while")
_LABELS = words("case default public private protected signals slots")
_CALLED = words("super this sizeof typeof function")  # no space before their "("
# Words of JavaScript behind which a line end would end a statement, or that are names elsewhere.
_HOLDS = words("async get set static of from as let await yield type accessor using")
_JOINS = words("in of instanceof from as extends")
# Words of JavaScript before an object, and words that begin a statement, so that nothing but a
# line end can stand between a "return" and them.
_OBJECTS = words("return const let var import export default in of typeof yield await")
_BEGINS = words("case default if for while do switch const let var return break continue throw try")
_TYPE = re.compile(r"[A-Za-z_$][\w$]*|::|\.|,|\*|&|\[|\]|\?|\d+|&&")


@dataclasses.dataclass
class _Open:
    """An open bracket; a block has its own lines, a list breaks only where a line gets wide."""

    sign: str
    block: bool = False
    items: bool = False
    questions: int = 0
    after_do: bool = False


def layout(pieces: list[Piece], syntax: Syntax) -> str:
    """Returns the program."""
    return _Layout(pieces, syntax).run()


class _Layout:
    """State while the pieces are put down one by one. `line` is the one being written."""

    def __init__(self, pieces: list[Piece], syntax: Syntax):
        skip = (lexing.INDENT, lexing.DEDENT)
        self.pieces = [p for p in pieces if p.kind not in skip]
        self.syntax = syntax
        self.lines: list[str] = []
        self.line = ""
        self.start = ""  # first word of the line
        self.open: list[_Open] = []
        self.last: Piece | None = None
        self.before: Piece | None = None  # what stood before a sign: tells unary from binary
        self.partners, self.statements = _partners(self.pieces)
        self.depth = 0  # of blocks
        self.angles = _angles(self.pieces) if syntax.angles else {}
        self.closed = _Open("")

    def run(self) -> str:
        for at, piece in enumerate(self.pieces):
            if piece.kind == lexing.NEWLINE:
                self._end_line()
            elif piece.kind == lexing.DIRECTIVE:
                self._end_line()
                self.lines.append(piece.text)
                self.last = self.before = None
            else:
                self._put(at, piece)
        self._end_line()
        return "\n".join(self.lines)

    @property
    def _block(self) -> bool:
        return not self.open or self.open[-1].block

    def _end_line(self) -> None:
        if self.line:
            self.lines.append(_INDENT * min(self.depth, _DEEPEST) + self.line)
        self.line = self.start = ""

    def _put(self, at: int, piece: Piece) -> None:
        sign = piece.text if piece.kind == lexing.OPERATOR else ""
        if sign in ("}", ")", "]"):
            self._close(piece)
            return
        if self.last is not None and self._ends_statement(self.last, piece):
            self._end_line()
        self._write(at, piece)
        if sign in ("(", "[", "{"):
            block = sign == "{" and not self._short(at)
            items = block and at not in self.statements
            do = self.before is not None and self.before.text == "do"
            self.open.append(_Open(sign, block, items, after_do=do))
            if block:
                self._end_line()
                self.depth += 1
        elif self._breaks(sign) or (self.syntax.name == "PHP" and piece.text.startswith("<?")):
            self._end_line()

    def _breaks(self, sign: str) -> bool:
        if self._block and (sign == ";" or (sign == ":" and self.start in _LABELS)):
            return True
        return sign == "," and self._items and len(self.line) > _WIDE

    @property
    def _items(self) -> bool:
        return bool(self.open) and self.open[-1].items

    def _close(self, piece: Piece) -> None:
        bracket = self.open[-1] if self.open else _Open("")
        if bracket.block:
            self._end_line()
            self.depth -= 1
        del self.open[-1:]
        at = -1
        self._write(at, piece, closes=bracket)
        self.closed = bracket

    def _write(self, at: int, piece: Piece, closes: _Open | None = None) -> None:
        if self.line and self.last is not None:
            glue = closes is not None and piece.text == "}" and self.last.text != "{"
            if closes is not None and piece.text == "}":
                space = glue and self.syntax.name not in ("C", "C++", "Java")
            else:
                space = self._space(at, self.last, piece)
            self.line += " " if space else ""
        self.line += piece.text
        if not self.start:
            self.start = piece.text
        if self.open:
            self.open[-1].questions += (piece.text == "?") - (
                piece.text == ":" and self.open[-1].questions > 0
            )
        self.before, self.last = self.last, piece

    def _ends_statement(self, last: Piece, piece: Piece) -> bool:
        """Whether a line end comes between the two."""
        if not self._block or not self.line:
            return False
        if last.text == "}" and last.kind == lexing.OPERATOR and self.closed.block:
            if piece.kind == lexing.OPERATOR:
                return piece.text in ("{", "@", "#[", "?>") or (
                    piece.text in ("~", "[") and self.syntax.name in ("C", "C++", "C#")
                )
            if self.syntax.name == "JavaScript" and piece.text in _JOINS:
                return False
            return piece.text not in _CONTINUES or (
                piece.text == "while" and not self.closed.after_do
            )
        if piece.text == "?>":
            return True
        if self.syntax.semicolons:
            return False
        if last.kind == lexing.WORD and last.text in ("return", "break", "continue"):
            return piece.kind == lexing.WORD and piece.text in _BEGINS
        increased = last.text in ("++", "--") and ends_value(self.before, self.syntax)
        if not (ends_value(last, self.syntax) or increased):
            return False
        if last.kind == lexing.WORD and last.text in _HOLDS:
            return False
        # In JavaScript nothing but a line end can stand between two values.
        if piece.kind == lexing.OPERATOR:
            return piece.text in ("!", "~", "#") or (
                piece.text == "{" and last.kind in (lexing.NUMBER, lexing.STRING)
            )
        return piece.text not in _JOINS and not (
            piece.kind == lexing.STRING and piece.text[0] == "`"
        )

    def _short(self, at: int) -> bool:
        """Whether braces stay on their line."""
        end = self.partners.get(at, len(self.pieces))
        if end - at > _SHORT // 2:
            return False
        inside = self.pieces[at + 1 : end]
        if sum(len(p.text) + 1 for p in inside) > _SHORT:
            return False
        if not inside:
            return self.before is None or self.before.text not in ("do", "else", "try")
        if any(p.kind in (lexing.NEWLINE, lexing.DIRECTIVE) for p in inside):
            return False
        if any(p.text in (";", "{") for p in inside) and self.syntax.semicolons:
            return bool(self.open) and not self._block and inside[0].text != "{"
        before = self.before
        if before is None or self.syntax.semicolons:
            return before is None or before.text not in (")", "else", "do", "try", "finally")
        # In JavaScript what follows these is a block, whose line ends may stand for semicolons.
        return before.text not in (")", "=>") and (
            before.kind == lexing.OPERATOR or before.text in _OBJECTS
        )

    def _space(self, at: int, last: Piece, piece: Piece) -> bool:
        if self._wants_space(at, last, piece):
            return True
        if last.kind != lexing.OPERATOR and piece.kind != lexing.OPERATOR:
            return True
        one, other = last.text[-1], piece.text[0]
        if at in self.angles or at - 1 in self.angles:
            return (one in "<:" and other in "<:") or one == "&" == other
        if one in _SIGNS and other in _SIGNS:
            return not (last.text in ("::", ".", "->") and other == "~")
        if last.text == "." and piece.kind == lexing.NUMBER:
            return True
        return last.kind == lexing.NUMBER and other == "."

    def _wants_space(self, at: int, last: Piece, piece: Piece) -> bool:
        before, sign, syntax = last.text, piece.text, self.syntax
        if last.kind == lexing.STRING or piece.kind == lexing.STRING:
            before = before if last.kind != lexing.STRING else '"'
            sign = sign if piece.kind != lexing.STRING else '"'
        if before in ("(", "[") or sign in (",", ";", ")", "]"):
            return False
        if before == "{":
            return syntax.name not in ("C", "C++", "Java") and sign != "}"
        if at in self.angles:
            return self.angles[at] == "<" and before in syntax.keywords
        if at - 1 in self.angles:
            opens = self.angles[at - 1] == "<"
            return not opens and sign not in ("(", "[", "::", ".", ">", "&", "*", "...", "{")
        if sign in syntax.tight:
            return before in syntax.keywords and before not in _CALLED and sign != "."
        if before in syntax.tight or before in ("#[", "..."):
            return False
        alone = self.line == before  # it begins a line: no value stands before it
        if before in _UNARY and (alone or not ends_value(self.before, syntax)):
            return False
        if sign in ("++", "--") and ends_value(last, syntax):
            return False
        if before in ("++", "--") and sign in ("[", "("):
            return False
        if sign == "(":
            return not (ends_value(last, syntax) or before in _CALLED)
        if sign == "[":
            return not ends_value(last, syntax)
        if sign == ":":
            asked = self.open and self.open[-1].questions > 0
            return bool(asked) or not (self.start in _LABELS or syntax.name == "JavaScript")
        return True


def _partners(pieces: list[Piece]) -> tuple[dict[int, int], set[int]]:
    """Returns where the bracket closes that each place opens, and which hold a ";" themselves."""
    found: dict[int, int] = {}
    statements: set[int] = set()
    stack: list[int] = []
    for at, piece in enumerate(pieces):
        if piece.kind == lexing.OPERATOR:
            if piece.text in ("(", "[", "{"):
                stack.append(at)
            elif piece.text in (")", "]", "}") and stack:
                found[stack.pop()] = at
            elif piece.text == ";" and stack:
                statements.add(stack[-1])
    return found, statements


def _angles(pieces: list[Piece]) -> dict[int, str]:
    """Returns the places of < and > that hold types between them, as far as one can tell.

    A mistake moves spaces and nothing else.
    """
    found: dict[int, str] = {}
    stack: list[int] = []
    for at, piece in enumerate(pieces):
        text = piece.text
        if text == "<" and at and pieces[at - 1].kind in _NAMES:
            stack.append(at)
        elif text == ">" and stack:
            found[stack.pop()] = "<"
            found[at] = ">"
        elif stack and not (_TYPE.fullmatch(text) or piece.kind in _NAMES):
            stack.clear()
    return found
