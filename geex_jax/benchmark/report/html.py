"""A report as one page that needs nothing else: no network, no library.

Code and messages come from a model, so nothing of a run goes into the page but through `escape`,
and a policy in its head lets no script run but the page's own, by hash, and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import html
import pathlib
import re

from geex_jax.benchmark.report.analysis import Analysis
from geex_jax.benchmark.report.samples import Sample, clean
from geex_jax.benchmark.report.sections import Plot, Row, Section
from geex_jax.benchmark.report.tables import Cell, Table, outcome_title

HERE = pathlib.Path(__file__).parent


def page(found: Analysis, parts: list[Section], failing: list[Sample], heading: str) -> str:
    """The whole page."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    links = [(part.id, part.heading) for part in parts]
    if failing:
        links.append(("samples", "Failing samples"))
    fields = {
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'",
        "title": escape(heading),
        "style": (HERE / "page.css").read_text(encoding="utf-8"),
        "links": "".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in links),
        "notes": _notes(found.notes),
        "sections": "".join(_section(part) for part in parts),
        "samples": _samples(failing),
        "script": script,
    }
    template = (HERE / "page.html").read_text(encoding="utf-8")
    # In one pass, so that a value which looks like a field is not filled in again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], template)


def escape(text: str) -> str:
    """Text as HTML: nothing in it can be a tag, an attribute or invisible."""
    return html.escape(clean(str(text)), quote=True)


def sample(one: Sample) -> str:
    """A failing sample, folded: code beside message."""
    copies = f" · {one.copies} times the same program" if one.copies > 1 else ""
    return (
        f'<details class="sample" data-language="{escape(one.label)}" '
        f'data-class="{escape(one.outcome)}" data-task="{escape(one.task)}"><summary>'
        f"<b>{escape(one.task)}</b> {escape(one.label)} · sample {one.sample} · "
        f"<i>{escape(outcome_title(one.outcome))}</i> · {one.seconds:.2f} s{copies}</summary>"
        f'<div class="sides"><pre>{escape(one.code)}</pre>'
        f"<pre>{escape(one.message) or '(no message)'}</pre></div></details>\n"
    )


def _notes(notes: list[str]) -> str:
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{lines}</ul>' if lines else ""


def _section(part: Section) -> str:
    blocks = "".join(
        _row(x) if isinstance(x, Row) else _table(x, part.heading) for x in part.blocks
    )
    return f'<section id="{part.id}"><h2>{escape(part.heading)}</h2>{blocks}</section>\n'


def _row(row: Row) -> str:
    kind = "plots" if len(row.plots) > 1 else "plots single"
    return f'<div class="{kind}">{"".join(_plot(x) for x in row.plots)}</div>'


def _plot(plot: Plot) -> str:
    caption = f"<figcaption>{escape(plot.caption)}</figcaption>" if plot.caption else ""
    return f'<figure><div class="scroll">{plot.svg}</div>{caption}</figure>'


def _table(table: Table, above: str) -> str:
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
    tag = "th" if at == 0 else "td"
    return f"<{tag}{_left(at, table)}{tone}>{escape(cell.text)}{small}</{tag}>"


def _left(at: int, table: Table) -> str:
    # Words stand on the left, numbers on the right; long words may break.
    return ' class="words"' if at < table.labels or table.head[at] == "example" else ""


def _samples(failing: list[Sample]) -> str:
    if not failing:
        return ""
    choices = []
    for name, what in (("language", "label"), ("class", "outcome")):
        values = sorted({getattr(x, what) for x in failing})
        options = "".join(
            f'<option value="{escape(x)}">{escape(outcome_title(x))}</option>' for x in values
        )
        choices.append(
            f'<label>{name} <select data-filter="{name}"><option value="">all</option>'
            f"{options}</select></label>"
        )
    return (
        '<section id="samples"><h2>Failing samples</h2><p class="small">A choice: every language '
        "and class, different programs first; all of them are in results.jsonl. Code on the left, "
        'what it or its compiler said on the right.</p><form class="filters">'
        f'{"".join(choices)}<label>problem <input data-filter="task" type="search" '
        'placeholder="Python/3"></label><output></output></form>'
        f"{''.join(sample(x) for x in failing)}</section>"
    )
