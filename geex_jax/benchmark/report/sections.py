"""What a report says and in which order; `html` and `markdown` print it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from geex_jax.benchmark.report import plots, published, tables
from geex_jax.benchmark.report.analysis import Analysis, GroupResult
from geex_jax.benchmark.report.reading import title
from geex_jax.benchmark.report.tables import Table
from geex_jax.benchmark.statistics import Interval

MOST_SPOKES = 12


@dataclasses.dataclass(frozen=True)
class Plot:
    """A drawing: SVG text and one line below it."""

    svg: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Row:
    """Drawings side by side, where the page is wide enough."""

    plots: list[Plot]


@dataclasses.dataclass
class Section:
    """One part of a report: its name in links, its heading, and what stands below."""

    id: str
    heading: str
    blocks: list[Table | Row]


def sections(found: Analysis) -> list[Section]:
    """All parts that this run has something to say for, but the failing samples."""
    parts = []
    if found.generation:
        parts.append(Section("pass", "pass@k", list(_pass_at_k(found))))
    if found.translation:
        parts.append(Section("translation", "Translation", list(_translation(found))))
    parts.append(Section("errors", "Error classes", list(_errors(found))))
    if found.comparisons:
        blocks: list[Table | Row] = [tables.compared(found)]
        if any(x.tasks for x in found.comparisons):
            blocks.append(tables.fooled_tasks(found))
        parts.append(Section("tests", "Beyond the given tests", blocks))
    if found.budget:
        parts.append(Section("budget", "Tries split over languages", [tables.budget(found)]))
    if found.findings:
        parts.append(Section("security", "Security findings", [tables.findings(found)]))
    cost: list[Table | Row] = [tables.samples(found)]
    if found.slowest:
        cost.append(tables.slowest(found))
    parts.append(Section("cost", "Cost and slowest problems", cost))
    environment = tables.environment(found)
    if environment:
        parts.append(Section("environment", "Environment", [*environment]))
    return [part for part in parts if part.blocks]


def _pass_at_k(found: Analysis) -> Iterator[Table | Row]:
    yield tables.pass_at_k(found)
    similarity = tables.similarity(found, found.generation)
    if similarity:
        yield similarity
    drawings = [*_radars(found), *_boxes(found.generation)]
    if drawings:
        yield Row(drawings)


def _boxes(every: list[GroupResult]) -> Iterator[Plot]:
    rates = tables.rates(every)
    if rates and len(rates) <= MOST_SPOKES:
        yield Plot(
            plots.boxes(rates),
            "How the tasks differ: share of correct samples of each task. Box: middle half "
            "of the tasks; whiskers: 5th to 95th percentile.",
        )


def _radars(found: Analysis) -> Iterator[Plot]:
    ran = [x for x in found.generation if x.counts]
    if not 3 <= len(ran) <= MOST_SPOKES:
        return
    names = [x.group.language for x in ran]
    spokes = [title(name) for name in names]

    def mine(k: int) -> list[float]:
        return [100 * s.value if isinstance(s := x.scores[k], Interval) else math.nan for x in ran]

    usable = [k for k in found.ks if not all(math.isnan(x) for x in mine(k))]
    if 1 in usable and tables.shows_published(found):
        lines = {tables.THIS: mine(1)}
        for model in published.GENERATION:
            values = [model.scores[1].get(name, math.nan) for name in names]
            if sum(not math.isnan(x) for x in values) >= 3:
                lines[model.name] = values
        yield Plot(
            plots.radar(spokes, lines, "pass@1 per language, radar plot"),
            f"pass@1, percent, beside published models ({published.GENERATION_SOURCE}).",
        )
    if len(usable) > 1 or (usable and not tables.shows_published(found)):
        lines = {f"pass@{k}": mine(k) for k in reversed(usable)}
        yield Plot(
            plots.radar(spokes, lines, "pass@k of this run per language, radar plot"),
            "This run, percent.",
        )


def _translation(found: Analysis) -> Iterator[Table | Row]:
    sources, targets = tables.languages_of(found)
    shown = tables.shows_published(found)
    for k in found.ks:
        yield tables.translation(found, k)
        if max(len(sources), len(targets)) > MOST_SPOKES:
            continue
        mine = {
            (x.group.source, x.group.language): 100 * score.value
            for x in found.translation
            if isinstance(score := x.scores[k], Interval)
        }
        if not mine:
            continue
        maps = {tables.THIS: mine}
        for model, scores in published.translation().items() if shown else ():
            values = {pair: v for pair, v in scores.get(k, {}).items()
                      if pair[0] in sources and pair[1] in targets}  # fmt: skip
            if values:
                maps[model] = values
        rows, columns = ([title(x) for x in side] for side in (sources, targets))
        drawings = []
        for model, values in maps.items():
            table = [[values.get((s, t), math.nan) for t in targets] for s in sources]
            svg = plots.heat_map(rows, columns, table, f"{model}, pass@{k}")
            drawings.append(Plot(svg, ""))
        yield Row(drawings)
    similarity = tables.similarity(found, found.translation)
    if similarity:
        yield similarity
    drawings = list(_boxes(found.translation))
    if drawings:
        yield Row(drawings)


def _errors(found: Analysis) -> Iterator[Table | Row]:
    totals = tables.outcome_totals(found)
    ran = {name: x for name, x in totals.items() if sum(x.values())}
    if ran and len(ran) <= MOST_SPOKES:
        yield Row([Plot(plots.outcome_bars(ran), "")])
    yield tables.outcomes(found)
