"""A report as one page that needs nothing else: no network, no library.

Nothing of what a report is about goes into a page but through `escape`, and a policy in its head
lets no script run but the page's own, by hash, and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import html
import pathlib
import re
from collections.abc import Sequence

from geex_jax.pages.tables import Cell, Table, clean

HERE = pathlib.Path(__file__).parent


def assemble(
    title: str,
    links: Sequence[tuple[str, str]],
    notes: Sequence[str],
    sections: str,
    *,
    script: str = "",
    style: str = "",
) -> str:
    """Returns the whole page.

    Args:
      title: its heading. links: (id of a section, name). notes: sentences above everything.
      sections: HTML, escaped already.
      script: JavaScript that runs at the end. style: more CSS.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{digest}'; " if script else ""
    fields = {
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; {allowed}"
        "base-uri 'none'; form-action 'none'",
        "title": escape(title),
        "style": (HERE / "page.css").read_text(encoding="utf-8") + style,
        "links": "".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in links),
        "notes": _notes(notes),
        "sections": sections,
        "script": f"<script>{script}</script>" if script else "",
    }
    template = (HERE / "page.html").read_text(encoding="utf-8")
    # In one pass, so that a value which looks like a field is not filled in again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], template)


def escape(text: str) -> str:
    """Text as HTML: nothing in it can be a tag, an attribute or invisible."""
    return html.escape(clean(str(text)), quote=True)


def _notes(notes: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{lines}</ul>' if lines else ""


def table_html(table: Table, above: str = "") -> str:
    """A table; its caption is left away where it is the heading `above`."""
    caption = f"<h3>{escape(table.caption)}</h3>" if table.caption != above else ""
    head = "".join(
        f"<th{_left(at, table)}>{escape(name)}</th>" for at, name in enumerate(table.head)
    )
    head = f"<thead><tr>{head}</tr></thead>" if any(table.head) else ""
    rows = []
    for row in table.rows:
        cells = "".join(_cell(cell, at, table) for at, cell in enumerate(row))
        rows.append(f"<tr>{cells}</tr>")
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    return (
        f'{caption}<div class="scroll"><table>{head}<tbody>'
        f'{"".join(rows)}</tbody></table></div><div class="small">{notes}</div>'
    )


def _cell(cell: Cell | str, at: int, table: Table) -> str:
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    small = f"<small>{escape(cell.small)}</small>" if cell.small else ""
    tone = f' data-tone="{cell.tone}"' if cell.tone else ""
    bar = f' style="--bar:{100 * min(cell.bar, 1):.1f}%"' if cell.bar >= 0 else ""
    tag = "th" if at == 0 else "td"
    return f"<{tag}{_left(at, table)}{tone}{bar}>{escape(cell.text)}{small}</{tag}>"


def _left(at: int, table: Table) -> str:
    # Words stand on the left, numbers on the right; long words may break.
    return ' class="words"' if at < table.labels or table.head[at] == "example" else ""
