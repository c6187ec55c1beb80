"""A report as one page: failing samples with their filters, and what `geex_jax.pages` makes.

Code and messages come from a model, so nothing of a run goes into the page but through `escape`.
"""

from __future__ import annotations

import pathlib

from geex_jax.benchmark.report.analysis import Analysis
from geex_jax.benchmark.report.samples import Sample
from geex_jax.benchmark.report.sections import Plot, Row, Section
from geex_jax.benchmark.report.tables import outcome_title
from geex_jax.pages import assemble, escape, table_html

HERE = pathlib.Path(__file__).parent


def page(found: Analysis, parts: list[Section], failing: list[Sample], heading: str) -> str:
    """The whole page."""
    links = [(part.id, part.heading) for part in parts]
    if failing:
        links.append(("samples", "Failing samples"))
    sections = "".join(_section(part) for part in parts) + _samples(failing)
    script = (HERE / "samples.js").read_text(encoding="utf-8")
    return assemble(heading, links, found.notes, sections, script=script)


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


def _section(part: Section) -> str:
    blocks = "".join(
        _row(x) if isinstance(x, Row) else table_html(x, part.heading) for x in part.blocks
    )
    return f'<section id="{part.id}"><h2>{escape(part.heading)}</h2>{blocks}</section>\n'


def _row(row: Row) -> str:
    kind = "plots" if len(row.plots) > 1 else "plots single"
    return f'<div class="{kind}">{"".join(_plot(x) for x in row.plots)}</div>'


def _plot(plot: Plot) -> str:
    caption = f"<figcaption>{escape(plot.caption)}</figcaption>" if plot.caption else ""
    return f'<figure><div class="scroll">{plot.svg}</div>{caption}</figure>'


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
