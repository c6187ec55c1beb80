"""Tables, independent of how they are printed."""

from __future__ import annotations

import dataclasses
import re

# What a browser or a terminal would hide or obey: control characters, and marks that turn text
# around.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One field of a table.

    Attributes:
      text: what it says. small: a second, smaller line. tone: "", "muted" or "strong".
      bar: a share from 0 to 1, drawn behind the text where the page can; below 0: none.
    """

    text: str
    small: str = ""
    tone: str = ""
    bar: float = -1.0


@dataclasses.dataclass
class Table:
    """A table.

    Attributes:
      caption: one line above it. head: names of the columns. rows: fields. notes: lines below.
      labels: how many columns from the left are words; the others are numbers.
    """

    caption: str
    head: list[str]
    rows: list[list[Cell | str]]
    notes: list[str] = dataclasses.field(default_factory=list)
    labels: int = 1


NOTHING = Cell("–", tone="muted")


def clean(text: str) -> str:
    """Text with invisible characters spelled out; lone surrogates become question marks."""
    text = text.replace("\r\n", "\n")
    text = _INVISIBLE.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)
    return text.encode("utf-8", "replace").decode()


def text_table(table: Table) -> str:
    """A table for a terminal, small lines in brackets behind their values."""
    rows = [[_joined(cell) for cell in row] for row in table.rows]
    rows = [[" ".join(clean(cell).split()) for cell in row] for row in [table.head, *rows]]
    rows = rows if any(table.head) else rows[1:]
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(len(table.head))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if at < table.labels else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _joined(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return cell
    return f"{cell.text} ({cell.small})" if cell.small else cell.text
