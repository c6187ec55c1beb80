"""The report of prepared data as one page, and its tables for a terminal."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from geex_jax import files, tokenizers
from geex_jax.data import manifest as manifests
from geex_jax.data import show
from geex_jax.data.manifest import Manifest
from geex_jax.data.report import schema, tables
from geex_jax.data.report.schema import Cluster, Example, ReportData
from geex_jax.errors import GeexError
from geex_jax.pages import Table, assemble, escape, table_html, text_table

if TYPE_CHECKING:
    from geex_jax.tokenizers.base import Tokenizer

STYLE = pathlib.Path(__file__).parent / "page.css"
MOST_ROWS = 40  # sample rows on a page
MOST_TOKENS = 2_048  # of a sample row


@dataclasses.dataclass(frozen=True)
class Found:
    """What a report is made of: manifest, report.json (empty if missing), rows, notes."""

    manifest: Manifest
    data: ReportData
    rows: tuple[show.Shown, ...]
    notes: tuple[str, ...]
    title: str


def write_page(
    folder: files.Path, output: files.Path, rows: int = 2, tokenizer: Tokenizer | None = None
) -> Found:
    """Writes the page, whole or not at all.

    Args:
      folder: prepared data. output: the file. rows: sample rows of each language.
      tokenizer: the one that made the data; None opens the folder's own.

    Raises:
      GeexError: no prepared data, damaged files, or the page cannot be written.
    """
    found = gather(folder, rows, tokenizer)
    try:
        with files.atomic_write(output) as file:
            file.write(page(found))
    except OSError as error:
        raise GeexError(
            f"cannot write {output}: {error.strerror}", "give another place with --output"
        ) from None
    return found


def gather(folder: files.Path, rows: int = 2, tokenizer: Tokenizer | None = None) -> Found:
    """Reads all that the report needs."""
    if rows < 0:
        raise GeexError(f"--rows {rows} is negative", "use 0 for none")
    manifest = manifests.load(folder)
    data = schema.load(folder)
    notes = [f"Warning: {warning}" for warning in manifest.warnings]
    if data is None:
        notes.append("There is no report.json here: only what manifest.json says is shown.")
    samples, why = _sample_rows(manifest, folder, rows, tokenizer)
    notes += why
    name = manifest.recipe or pathlib.Path(folder).resolve().name
    return Found(manifest, data or ReportData(), samples, tuple(notes), f"Prepared data · {name}")


def _sample_rows(
    manifest: Manifest, folder: files.Path, count: int, tokenizer: Tokenizer | None
) -> tuple[tuple[show.Shown, ...], list[str]]:
    """Rows of every language, spread over its shards; and why there are none, if so."""
    found: list[show.Shown] = []
    try:
        tokenizer = tokenizer or tokenizers.load(str(pathlib.Path(folder) / "tokenizer"))
        amounts = manifest.splits.get("train", {})
        names = [x.name for x in manifest.languages if x.name in amounts and amounts[x.name].rows]
        for name in names:
            rows = amounts[name].rows
            for number in range(min(count, rows)):
                at = (2 * number + 1) * rows // (2 * min(count, rows))
                if len(found) < MOST_ROWS:
                    found.append(show.show(folder, at, "train", name, tokenizer))
    except GeexError as error:
        return tuple(found), [f"No more sample rows: {error}."]
    return tuple(found), []


def printed(found: Found) -> str:
    """Returns the tables as text."""
    blocks = [x for _, _, blocks in _sections(found) for x in blocks if isinstance(x, Table)]
    texts = [f"{table.caption}\n{text_table(table)}" for table in blocks]
    return "\n\n".join([found.title, *texts, *(f"note: {note}" for note in found.notes)])


def page(found: Found) -> str:
    """Returns the page."""
    sections = _sections(found)
    links = [(name, heading) for name, heading, _ in sections]
    html = ""
    for name, heading, blocks in sections:
        parts = [x if isinstance(x, str) else table_html(x, heading) for x in blocks]
        html += f'<section id="{name}"><h2>{escape(heading)}</h2>{"".join(parts)}</section>\n'
    style = STYLE.read_text(encoding="utf-8")
    return assemble(found.title, links, found.notes, html, style=style)


def _sections(found: Found) -> list[tuple[str, str, list[Table | str]]]:
    """Returns (id, heading, tables and HTML) of all that there is something to say about."""
    manifest, data = found.manifest, found.data
    every: list[tuple[str, str, Sequence[Table | str | None]]] = [
        ("languages", "Languages", [tables.languages(manifest)]),
        ("sources", "Sources", [tables.sources(data), tables.passed(data)]),
        ("funnel", "Filter funnel", [tables.funnel(manifest, data), _dropped(data)]),
        ("lengths", "Lengths", [_lengths(data)]),
        ("copies", "Copies", [*tables.duplicates(data), _clusters(data)]),
        ("licences", "Licences", [tables.licences(data, manifest)]),
        ("secrets", "Secrets and personal data", [tables.secrets(data)]),
        ("contamination", "Benchmark contamination", [tables.contamination(data)]),
        ("made", "How it was made", [tables.facts(manifest)]),
        ("rows", "Sample rows", [_rows(found.rows)]),
    ]
    kept = [(name, heading, [x for x in blocks if x]) for name, heading, blocks in every]
    return [part for part in kept if part[2]]


def _more(title: str, inside: str) -> str:
    return f'<details class="more"><summary>{title}</summary>{inside}</details>\n'


def _example(example: Example, note: str = "") -> str:
    about = " · ".join(
        escape(x)
        for x in (example.path, example.language, f"{example.bytes:,} bytes", example.note, note)
        if x and x != "0 bytes"
    )
    text = f"<pre>{escape(example.text)}</pre>" if example.text else ""
    return f"<h4>{about}</h4>{text}"


def _dropped(data: ReportData) -> str:
    """Examples of what was dropped, folded.

    What never reached the stage that replaces secrets may hold some: its text is not shown.
    """
    html = ""
    names = [stage.name for stage in data.stages]
    safe = names.index("secrets") if data.secrets is not None and "secrets" in names else 0
    for at, stage in enumerate(data.stages):
        for reason, examples in sorted(stage.examples.items()):
            title = f"{escape(stage.name)} · {escape(tables.words(reason))}"
            if at < safe:
                examples = [dataclasses.replace(x, text="") for x in examples]
            if examples:
                html += _more(title, "".join(map(_example, examples)))
    return f"<h3>Examples of what was dropped</h3>{html}" if html else ""


def _clusters(data: ReportData) -> str:
    """The largest clusters of copies, folded."""
    clusters = data.duplicates.clusters if data.duplicates else []
    html = "".join(map(_cluster, clusters))
    return f"<h3>Largest clusters</h3>{html}" if html else ""


def _cluster(cluster: Cluster) -> str:
    title = f"{cluster.size:,} documents, {escape(cluster.kind)} · {escape(cluster.kept.path)}"
    inside = _example(cluster.kept, "stays")
    for at, copy in enumerate(cluster.copies):
        near = at < len(cluster.similarities)
        note = f"similarity {cluster.similarities[at]:.2f}" if near else "dropped"
        if cluster.kind == "exact":
            copy = dataclasses.replace(copy, text="")
        inside += _example(copy, note)
    shown = 1 + len(cluster.copies)
    if cluster.size > shown:
        inside += f"<h4>and {cluster.size - shown:,} more</h4>"
    return _more(title, inside)


def _lengths(data: ReportData) -> str:
    """Histograms of each language, bytes and tokens side by side."""
    figures = ""
    for name, lengths in data.lengths.items():
        for unit, bins in (("bytes", lengths.bytes), ("tokens", lengths.tokens)):
            if any(bins):
                caption = f"<figcaption>{escape(name)}, {unit}</figcaption>"
                figures += f"<figure>{caption}{_histogram(bins, f'{name}, {unit}')}</figure>"
    if not figures:
        return ""
    about = "Documents in the rows by their length; each bar covers a doubling."
    return f'<p class="small">{about}</p><div class="lengths">{figures}</div>'


def _histogram(bins: Sequence[int], label: str) -> str:
    first = next(at for at, count in enumerate(bins) if count)
    shown = list(bins[first:])
    while shown and not shown[-1]:
        shown.pop()
    width, height, most = 240, 80, max(shown)
    step = width / max(len(shown), 6)
    parts = []
    for at, count in enumerate(shown):
        tall = height * count / most
        low, high = 1 << (first + at), (1 << (first + at + 1)) - 1
        tip = f"<title>{low:,} to {high:,}: {count:,}</title>"
        parts.append(
            f'<rect x="{at * step + 1:.1f}" y="{height - tall + 10:.1f}" '
            f'width="{step - 2:.1f}" height="{tall:.1f}">{tip}</rect>'
        )
        if at % (1 + len(shown) // 8) == 0:
            parts.append(f'<text x="{at * step + 1:.1f}" y="{height + 21}">{_short(low)}</text>')
    top = f'<text x="{width}" y="7" text-anchor="end">most: {most:,}</text>'
    return (
        f'<svg viewBox="0 0 {width} {height + 25}" role="img" aria-label="{escape(label)}">'
        f"{top}{''.join(parts)}</svg>"
    )


def _short(value: int) -> str:
    for sign, size in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if value >= size:
            return f"{value // size}{sign}"
    return str(value)


def _rows(rows: Sequence[show.Shown]) -> str:
    """Decoded rows; neighbouring tokens differ in their background."""
    if not rows:
        return ""
    about = (
        'Every other token is shaded. <span class="row"><span class="tag">Tag lines</span>, '
        '<span class="prompt">prompts, which carry no loss</span>, <span class="end">ends of '
        "text</span></span>. A segment is a document, or a piece of one that did not fit."
    )
    return f'<p class="small">{about}</p>' + "".join(map(_row, rows))


def _row(row: show.Shown) -> str:
    title = (
        f"{escape(row.language)} · {escape(row.split)} row {row.index:,} of {row.count:,} · "
        f"{row.used:,} of {row.length:,} tokens · " + show.counted_segments(row)
    )
    inside, left = "", MOST_TOKENS
    for number, segment in enumerate(row.segments, 1):
        tokens = segment.tokens[:left]
        left -= len(tokens)
        if not tokens:
            break
        spans = "".join(
            f'<i class="{x.kind}">{escape(x.text)}</i>'
            if x.kind != show.TEXT
            else f"<i>{escape(x.text)}</i>"
            for x in tokens
        )
        prompt = f", prompt {segment.prompt:,}" if segment.prompt else ""
        inside += (
            f"<h4>segment {number}: tokens {segment.start:,} to "
            f"{segment.start + len(segment.tokens) - 1:,}, {segment.learned:,} with loss"
            f"{prompt}</h4><pre>{spans}</pre>"
        )
    return f'<div class="row">{_more(title, inside)}</div>'
