"""A report as Markdown."""

from __future__ import annotations

import re

from geex_jax.benchmark.report.analysis import Analysis
from geex_jax.benchmark.report.sections import Row, Section
from geex_jax.pages import Cell, Table, clean

LONGEST = 300  # characters of a field


def document(found: Analysis, parts: list[Section], heading: str) -> str:
    """The whole report; plots and failing samples are in report.html alone."""
    lines = [f"# {escape(heading)}", ""]
    lines += [f"- {escape(note)}" for note in found.notes]
    lines += ["", "Plots and failing samples: report.html."]
    for part in parts:
        lines += ["", f"## {escape(part.heading)}"]
        for block in part.blocks:
            if not isinstance(block, Row):
                lines += ["", *_table(block, part.heading)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text as one line of Markdown: no tags, links, code or table bars in it."""
    text = " ".join(clean(str(text)).split())
    text = text if len(text) <= LONGEST else text[:LONGEST] + " …"
    text = re.sub(r"([\\`*_\[\]|~])", r"\\\1", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Addresses and @names would become links by themselves.
    return re.sub(r"(?<=:)//|(?<!\w)@", lambda match: "&#8203;" + match[0], text)


def _joined(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return cell
    return f"{cell.text} ({cell.small})" if cell.small else cell.text


def _table(table: Table, above: str) -> list[str]:
    lines = [f"**{escape(table.caption)}**", ""] if table.caption != above else []
    lines.append("| " + " | ".join(escape(name) for name in table.head) + " |")
    rules = ["---" if at < table.labels else "---:" for at in range(len(table.head))]
    lines.append("| " + " | ".join(rules) + " |")
    for row in table.rows:
        lines.append("| " + " | ".join(escape(_joined(cell)) for cell in row) + " |")
    lines += [line for note in table.notes for line in ("", escape(note))]
    return lines
