"""The report of `geex quantize --report`: every format of one model, side by side."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from geex_jax import files
from geex_jax.pages import Cell, Table, assemble, table_html, text_table
from geex_jax.quantize.pictures import draw, save

NOT_JUDGED = "–"


def tables(report: Mapping[str, Any]) -> list[Table]:
    """The report's tables: formats, and what quantizing a single part costs."""
    return [_formats(report), *(_parts(report, key) for key in ("layers", "linears"))]


def _formats(report: Mapping[str, Any]) -> Table:
    judged = any(row.get("pass_at_1") for row in (report["float"], *report["rows"]))
    head = ["format", "MB", "of float", "bits per byte", "change", "KL, nats", "same top token"]
    before = report["float"]
    first: list[Cell | str] = [
        "float", f"{before['bytes'] / 1e6:,.2f}", "100 %", f"{before['bits_per_byte']:.4f}",
        "", "", "",
    ]  # fmt: skip
    rows = [first + ([_passed(before)] if judged else [])]
    for row in report["rows"]:
        cells: list[Cell | str] = [
            row["name"],
            f"{row['bytes'] / 1e6:,.2f}",
            f"{row['ratio']:.1%}",
            f"{row['bits_per_byte']:.4f}",
            f"{row['bits_per_byte_change']:+.4f}",
            f"{row['kl']:.3g}",
            f"{row['top1_agreement']:.2%}",
        ]
        rows.append(cells + ([_passed(row)] if judged else []))
    notes = [
        f"{before['tokens']:,} tokens, {before['text_bytes']:,} bytes of held-out text.",
        *report["notes"],
    ]
    return Table("Formats", head + (["pass@1"] if judged else []), rows, notes)


def _passed(row: Mapping[str, Any]) -> str:
    found = row.get("pass_at_1")
    if not found:
        return NOT_JUDGED
    return f"{100 * found['value']:.0f} % ({100 * found['low']:.0f}-{100 * found['high']:.0f})"


def _parts(report: Mapping[str, Any], key: str) -> Table:
    found = report[key]
    most = max((row["kl"] for row in found), default=0.0) or 1.0
    rows: list[list[Cell | str]] = [
        [row["name"], Cell(f"{row['kl']:.3g}", bar=row["kl"] / most),
         f"{row['bits_per_byte_change']:+.5f}", f"{row['top1_agreement']:.2%}"]
        for row in found
    ]  # fmt: skip
    what = "layer" if key == "layers" else "kind of weight"
    caption = f"Only this {what} in {report['sensitivity']}, all else float"
    return Table(caption, [what, "KL, nats", "bits per byte", "same top token"], rows)


def render(report: Mapping[str, Any]) -> str:
    """The tables as text."""
    return "\n\n".join(f"{table.caption}\n{text_table(table)}" for table in tables(report))


def write(folder: files.Path, report: Mapping[str, Any]) -> pathlib.Path:
    """Writes report.json, report.html and quality.png and .svg; returns the path of the page."""
    folder = pathlib.Path(folder)
    files.write_json(folder / "report.json", report)
    svg = save(folder, draw(report["rows"], report["float"]))
    formats, *parts = tables(report)
    sections = (
        f'<section id="formats"><h2>Formats</h2>{table_html(formats, "Formats")}</section>'
        f'<section id="picture"><h2>Quality against bytes</h2>{svg}</section>'
        f'<section id="parts"><h2>What is sensitive</h2>{"".join(map(table_html, parts))}</section>'
    )
    links = [("formats", "formats"), ("picture", "quality against bytes"), ("parts", "sensitive")]
    notes = [f"checkpoint: {report['checkpoint']}", f"data: {report['data']}", report["command"]]
    style = "svg { max-width: 100%; height: auto; background: #fff; }"
    page = assemble("Quantization, compared", links, notes, sections, style=style)
    with files.atomic_write(folder / "report.html") as file:
        file.write(page)
    return folder / "report.html"
