"""A manifest as a table for people."""

from __future__ import annotations

from geex_jax.data.filters import REASONS
from geex_jax.data.manifest import Amount, Manifest

_LINE = "{:<15} {:>8} {:>9} {:>13} {:>8} {:>9} {:>11}"


def summary(manifest: Manifest) -> str:
    """Returns the amounts per language, then what each filter dropped."""
    lines = [_LINE.format("language", "files", "MB", "tokens", "rows", "val.rows", "bytes/token")]
    for language in manifest.languages:
        amounts = [manifest.amount(split, language.name) for split in ("train", "validation")]
        if any(a.files for a in amounts):
            lines.append(_row(language.name, *amounts))
    lines.append(_row("all", manifest.total("train"), manifest.total("validation")))
    lines += ["", *_funnel(manifest)]
    fill = ", ".join(f"{k} {v:.2%}" for k, v in manifest.fill.items() if v)
    lines.append(f"rows filled: {fill}; data fingerprint {manifest.fingerprint}")
    lines += [f"warning: {warning}" for warning in manifest.warnings]
    return "\n".join(lines)


def _row(name: str, train: Amount, validation: Amount) -> str:
    size, tokens = train.bytes + validation.bytes, train.tokens + validation.tokens
    return _LINE.format(
        name,
        f"{train.files + validation.files:,}",
        f"{size / 1e6:,.2f}",
        f"{tokens:,}",
        f"{train.rows:,}",
        f"{validation.rows:,}",
        f"{size / max(tokens, 1):.2f}",
    )


def _funnel(manifest: Manifest) -> list[str]:
    dropped, passed_by = manifest.dropped_by_reason(), dict(manifest.passed_by)
    seen, folders = passed_by.pop("files", 0), passed_by.pop("folders", 0)
    size = passed_by.pop("bytes", 0)
    special = passed_by.pop("special_file", 0)
    lines = [f"{seen:>9,} files seen in {folders:,} folders, {size / 1e6:,.1f} MB"]
    for reason in REASONS:
        count = dropped.get(reason, 0) + passed_by.pop(reason, 0)
        if count:
            lines.append(f"{-count:>9,} {reason}")
    kept = manifest.total("train").files + manifest.total("validation").files
    if special:
        lines.append(f"{-special:>9,} special_file")
    lines.append(f"{kept:>9,} files kept")
    if passed_by:
        others = ", ".join(f"{reason} {count:,}" for reason, count in sorted(passed_by.items()))
        lines.append(f"passed by: {others}")
    return lines
