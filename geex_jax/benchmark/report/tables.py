"""Tables of a report, independent of how they are printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from geex_jax.benchmark.report import published, reading
from geex_jax.benchmark.report.analysis import (
    FAILURES,
    Analysis,
    Comparison,
    GroupResult,
    by_problem,
)
from geex_jax.benchmark.report.reading import title
from geex_jax.benchmark.statistics import Interval, mean_pass_at_k
from geex_jax.pages import NOTHING, Cell, Table

MOST_ROWS = 20
THIS = "this run"


NOT_RUN = Cell("not run", tone="muted")


def percent(value: float, digits: int = 1) -> str:
    """0.4321 as "43.2"."""
    return f"{100 * value:.{digits}f}"


def score(value: Interval | str | None, tone: str = "") -> Cell:
    """pass@k in percent with its interval; or why there is none."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return NOT_RUN if value == "not run" else Cell("–", value, "muted")
    return Cell(percent(value.value), f"{percent(value.low)} – {percent(value.high)}", tone)


def pass_at_k(found: Analysis) -> Table:
    """pass@k per language, this run above the published rows of the same k."""
    names = [x.group.language for x in found.generation]
    rows: list[list[Cell | str]] = []
    for k in found.ks:
        mine = [score(x.scores[k], "strong") for x in found.generation]
        mean = score(found.averages.get(k), "strong")
        rows.append([f"pass@{k}", Cell(THIS, tone="strong"), *mine, mean])
        for model in published.GENERATION if shows_published(found) else ():
            values = model.scores.get(k, {})
            if any(name in values for name in names):
                cells = [f"{values[x]:.1f}" if x in values else NOTHING for x in names]
                rows.append(["", model.name, *cells, NOTHING])
    interval = f"{100 * found.how.level:g} % intervals: bootstrap over tasks"
    notes = [
        f"Percent. {interval} ({found.how.method}, {found.how.resamples:,} resamples, seed "
        f"{found.how.seed}).",
        *_source(found, found.generation, published.GENERATION_SOURCE),
        *_too_few(found.generation),
        *(["Mean: over the languages that ran."] if found.averages else []),
        *_five_languages(found),
    ]
    head = ["", "model", *(x.group.title for x in found.generation), "mean"]
    if len(names) < 2:
        head, rows = head[:-1], [row[:-1] for row in rows]
    return Table("pass@k", head, rows, notes, labels=2)


def shows_published(found: Analysis) -> bool:
    """Whether published results are about the same problems."""
    return reading.benchmark(found.results.run) == reading.HUMANEVAL_X


def _source(found: Analysis, every: list[GroupResult], source: str) -> Iterator[str]:
    if shows_published(found):
        sizes = {len(x.counts) for x in every if x.counts}
        few = (
            f", and this run has {min(sizes)}" if sizes and min(sizes) < published.PROBLEMS else ""
        )
        yield (
            f"Published rows: read from {source}. They are over {published.PROBLEMS} problems"
            f"{few}; other sampling settings than this run's may lie behind them."
        )


def _too_few(every: list[GroupResult]) -> Iterator[str]:
    if any(isinstance(s, str) and s != "not run" for x in every for s in x.scores.values()):
        yield "–: a task has fewer than k samples (n is the smallest number of them)."


def _five_languages(found: Analysis) -> Iterator[str]:
    if 100 not in found.ks or not shows_published(found):
        return
    there = {x.group.language: x for x in found.generation if x.counts}
    five = [there.get(name) for name in published.AVERAGE_LANGUAGES]
    if any(x is None or isinstance(x.scores[100], str) for x in five):
        return
    mine = sum(mean_pass_at_k(x.counts, 100) for x in five if x) / len(five)
    others = ", ".join(f"{name} {value}" for name, value in published.AVERAGES_AT_100.items())
    yield (
        f"Mean pass@100 over Python, C++, Java, JavaScript and Go: this run {percent(mine, 2)}; "
        f"{others} (read from {published.AVERAGES_SOURCE})."
    )


def samples(found: Analysis) -> Table:
    """What was run in each language, and what it cost."""
    rows: list[list[Cell | str]] = []
    for x in (*found.generation, *found.translation):
        left_out = f"{x.not_run:,}" if x.not_run else NOTHING
        if not x.counts:
            rows.append([x.group.title, NOT_RUN, *[NOTHING] * 2, left_out, *[NOTHING] * 4])
            continue
        least, most = (f(n for n, _ in x.counts.values()) for f in (min, max))
        rows.append([
            x.group.title, f"{len(x.counts)}", f"{x.samples:,}",
            f"{most}" if least == most else f"{least}–{most}", left_out,
            f"{1000 * x.cpu_seconds:,.1f}", f"{1000 * x.compile_seconds:,.1f}",
            f"{x.memory_bytes / 2**20:,.0f}", percent(x.cached),
        ])  # fmt: skip
    head = ["language", "tasks", "samples", "per task", "not run", "run, CPU ms",
            "compile, CPU ms", "peak MiB", "cached %"]  # fmt: skip
    return Table("Samples and their cost (means)", head, rows)


def outcomes(found: Analysis) -> Table:
    """How samples ended, per language; translations by target."""
    rows: list[list[Cell | str]] = []
    for name, totals in outcome_totals(found).items():
        total = sum(totals.values())
        if not total:
            rows.append([name, NOT_RUN, *[NOTHING] * len(FAILURES)])
            continue
        cells = [Cell(percent(n / total), f"{n:,}") if n else NOTHING for n in totals.values()]
        rows.append([name, *cells])
    heads = ["passed", *(outcome_title(x.value) for x in FAILURES)]
    notes = ["Percent of the samples that were run, and how many."]
    return Table("Error classes", ["language", *heads], rows, notes)


def outcome_title(outcome: str) -> str:
    """Names of classes for people: interpreted languages have no compiler, but syntax errors."""
    return "compile/syntax error" if outcome == "compile error" else outcome


def outcome_totals(found: Analysis) -> dict[str, dict[str, int]]:
    """Title of a language -> class -> samples; the sources of translations are added up."""
    totals: dict[str, dict[str, int]] = {}
    translated = sorted(found.translation, key=lambda x: x.group.target_order)
    for x in (*found.generation, *translated):
        into = totals.setdefault(_row_title(x, found), dict.fromkeys(("passed", *FAILURES), 0))
        for outcome, n in x.outcomes.items():
            into[outcome] += n
    return totals


def _row_title(x: GroupResult, found: Analysis) -> str:
    both = bool(found.generation) and bool(found.translation)
    prefix = "into " if x.group.source and both else ""
    return prefix + title(x.group.language)


def rates(every: list[GroupResult]) -> dict[str, list[float]]:
    """Title of a language -> share of correct samples of each task; sources are put together."""
    table: dict[str, list[float]] = {}
    for x in sorted(every, key=lambda x: x.group.target_order):
        if x.counts:
            into = table.setdefault(title(x.group.language), [])
            into += [c / n for n, c in x.counts.values()]
    return table


def translation(found: Analysis, k: int) -> Table:
    """pass@k of translation, source by target, this run above the published models."""
    sources, targets = languages_of(found)
    mine = {(x.group.source, x.group.language): x for x in found.translation}
    rows: list[list[Cell | str]] = []
    for source in sources:
        cells = [
            score(mine[source, t].scores[k], "strong") if (source, t) in mine
            else NOTHING if t == source else NOT_RUN
            for t in targets
        ]  # fmt: skip
        rows.append([title(source), Cell(THIS, tone="strong"), *cells])
        for model, tables in published.translation().items() if shows_published(found) else ():
            values = tables.get(k, {})
            if any((source, t) in values for t in targets):
                numbers = [f"{values[source, t]:.2f}" if (source, t) in values else NOTHING
                           for t in targets]  # fmt: skip
                rows.append(["", model, *numbers])
    notes = [
        "Percent, from the language of the row into that of the column, with "
        f"{100 * found.how.level:g} % intervals.",
        *_source(found, found.translation, published.TRANSLATION_SOURCE),
        *_too_few(found.translation),
    ]
    head = ["from", "model", *(f"into {title(t)}" for t in targets)]
    return Table(f"Translation, pass@{k}", head, rows, notes, labels=2)


def languages_of(found: Analysis) -> tuple[list[str], list[str]]:
    """Sources and targets of the translation, in the benchmark's order."""
    sources = {x.group.source for x in found.translation}
    targets = {x.group.language for x in found.translation} | set(reading.asked(found.results.run))
    return sorted(sources, key=reading.place), sorted(targets, key=reading.place)


def similarity(found: Analysis, every: list[GroupResult]) -> Table | None:
    """BLEU and CodeBLEU beside pass@1, where the rows have them."""
    every = [x for x in every if x.bleu is not None or x.codebleu is not None]
    if not every:
        return None
    rows: list[list[Cell | str]] = [
        [
            x.group.title,
            *(NOTHING if value is None else percent(value, 2) for value in (x.bleu, x.codebleu)),
            *(score(x.scores[k]) for k in found.ks),
        ]
        for x in every
    ]
    head = ["", "BLEU", "CodeBLEU", *(f"pass@{k}" for k in found.ks)]
    notes = ["Percent. BLEU and CodeBLEU against the canonical solutions, mean over samples."]
    return Table("Similarity to the canonical solutions", head, rows, notes)


def compared(found: Analysis) -> Table:
    """The given tests and others, side by side."""
    head = ["language", "tests"]
    for k in found.ks:
        head += [f"pass@{k}, given", f"pass@{k}", "difference"]
    head += ["passed given", "of these not correct", "%"]
    rows: list[list[Cell | str]] = []
    for x in found.comparisons:
        cells: list[Cell | str] = [x.first.group.title, x.set]
        for k in found.ks:
            cells += [score(x.first.scores[k]), score(x.second.scores[k]), _drop(x, k)]
        share = percent(x.fooled.size / x.passed) if x.passed else NOTHING
        rows.append([*cells, f"{x.passed:,}", f"{x.fooled.size:,}", share])
    notes = ["Difference: other tests minus given ones, in points, paired by task. "
             "Not correct: passes the given tests and fails the others."]  # fmt: skip
    return Table("Given tests and others", head, rows, notes, labels=2)


def _drop(x: Comparison, k: int) -> Cell:
    if k not in x.drop:
        return NOTHING
    drop = x.drop[k]
    return Cell(f"{-100 * drop.value:+.1f}", f"{-100 * drop.high:+.1f} … {-100 * drop.low:+.1f}")


def fooled_tasks(found: Analysis) -> Table:
    """Problems whose "correct" programs were not, most first."""
    every = [(n, x.first.group.title, task, x.set, x.first.counts.get(task, (0, 0))[1])
             for x in found.comparisons for task, n in x.tasks.items()]  # fmt: skip
    every.sort(key=lambda row: -row[0])
    rows: list[list[Cell | str]] = [
        [task, language, name, f"{n:,}", f"{passed:,}"]
        for n, language, task, name, passed in every[:MOST_ROWS]
    ]
    head = ["problem", "language", "tests", "not correct", "passed given"]
    notes = [f"The first {MOST_ROWS} of {len(every):,}."] if len(every) > MOST_ROWS else []
    return Table("Which correct programs were not", head, rows, notes, labels=3)


def budget(found: Analysis) -> Table:
    """Tries split over languages."""
    ran = [x for x in found.generation if x.counts]
    names = [x.group.language for x in ran]
    rows: list[list[Cell | str]] = []
    before = None
    for row in found.budget:
        label = f"k = {row.k}" if row.k != before else ""
        before = row.k
        tries = [str(row.tries[x]) if row.tries.get(x) else NOTHING for x in names]
        rows.append([label, row.strategy, *tries, score(row.solved), score(row.held_out)])
    shared = set.intersection(*(set(by_problem(x.counts)) for x in ran)) if ran else set()
    notes = [
        f"Percent of {len(shared)} problems; one counts as solved if any language solves it. "
        "Exact expectation over the samples at hand, no tries are drawn.",
        "Held in: the split is chosen on one half of the problems, and its result on the other "
        "half is in the last column. By corpus share: tokens of each language in the paper's "
        "corpus.",
    ]
    head = ["", "split of the tries", *(title(x) for x in names), "solved, all",
            "solved, held out"]  # fmt: skip
    return Table("Tries split over languages", head, rows, notes, labels=2)


def findings(found: Analysis) -> Table:
    """What the static security check said."""
    rows: list[list[Cell | str]] = [
        [x.rule, x.severity, title(x.language), f"{x.samples:,}", f"{x.passed:,}", x.example[:200]]
        for x in found.findings[:MOST_ROWS]
    ]
    head = ["rule", "severity", "language", "samples", "of these passed", "example"]
    rest = len(found.findings) - MOST_ROWS
    notes = [f"{rest} more rules are in summary.json."] if rest > 0 else []
    return Table("Security findings", head, rows, notes, labels=3)


def slowest(found: Analysis) -> Table:
    """Problems that took the most CPU time."""
    rows: list[list[Cell | str]] = [
        [
            x.task, x.group.title, f"{x.samples:,}",
            f"{x.mean_seconds:.3f}", f"{x.worst_seconds:.3f}", f"{x.compile_seconds:.3f}",
            f"{x.timeouts:,}" if x.timeouts else NOTHING, f"{x.memory_bytes / 2**20:,.0f}",
        ]
        for x in found.slowest
    ]  # fmt: skip
    head = ["problem", "language", "samples", "run, mean CPU s", "worst", "compile", "timeouts",
            "peak MiB"]  # fmt: skip
    return Table("Slowest problems", head, rows, labels=2)


def environment(found: Analysis) -> list[Table]:
    """Command, versions, sandbox and limits, as run.json has them."""
    run = dict(found.results.run)
    tables = []
    for name, caption in (("versions", "Versions"), ("sandbox", "Sandbox"), ("limits", "Limits")):
        value = run.pop(name, None)
        if value:
            tables.append(Table(caption, ["", ""], list(_flat(value)), labels=2))
    if run:
        tables.insert(0, Table("Run", ["", ""], list(_flat(run)), labels=2))
    return tables


def _flat(value: Any, prefix: str = "") -> Iterator[list[Cell | str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{prefix} / {key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(x, dict | list) for x in value):
        for at, item in enumerate(value, 1):
            yield from _flat(item, f"{prefix} {at}".strip())
    elif isinstance(value, list):
        joined = " ".join if prefix == "command" else ", ".join
        yield [prefix, joined(str(x) for x in value)]
    else:
        yield [prefix, {True: "yes", False: "no", None: "–"}.get(value, str(value))
               if value is None or isinstance(value, bool) else str(value)]  # fmt: skip
