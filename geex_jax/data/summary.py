"""A manifest as a table for people."""

from __future__ import annotations

from geex_jax.data.manifest import Amount, Manifest

_LINE = "{:<15} {:>8} {:>9} {:>13} {:>8} {:>9} {:>11}"
_LICENCES = 8  # listed


def summary(manifest: Manifest) -> str:
    """Returns the amounts per language, then what each stage dropped."""
    lines = [_LINE.format("language", "files", "MB", "tokens", "rows", "val.rows", "bytes/token")]
    for language in manifest.languages:
        amounts = [manifest.amount(split, language.name) for split in ("train", "validation")]
        if any(a.files for a in amounts):
            lines.append(_row(language.name, *amounts))
    lines.append(_row("all", manifest.total("train"), manifest.total("validation")))
    lines += ["", *_funnel(manifest)]
    lines += [f"{name}: {counts}" for name, counts in _counts(manifest)]
    fill = ", ".join(f"{k} {v:.2%}" for k, v in manifest.fill.items() if v)
    lines.append(
        f"rows filled: {fill}; {manifest.whole:.1%} of the files whole; "
        f"data fingerprint {manifest.fingerprint}"
    )
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
    passed_by = dict(manifest.passed_by)
    where = [f"{passed_by.pop(k):,} {k}" for k in ("files", "folders") if k in passed_by]
    passed_by.pop("bytes", None)
    seen = manifest.seen["documents"]
    of = f" (of {' in '.join(where)})" if where else ""
    lines = [f"{seen:>9,} documents read{of}, {manifest.seen['bytes'] / 1e6:,.1f} MB"]
    dropped = manifest.dropped_by_reason()
    for reason, count in sorted(dropped.items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"{-count:>9,} {reason}")
    kept = sum(licence.files for licence in manifest.licences.values())
    other = seen - sum(dropped.values()) - kept
    if other:
        lines.append(f"{-other:>9,} of no language asked for, or of a source with a weight below 1")
    lines.append(f"{kept:>9,} documents kept")
    if passed_by:
        others = ", ".join(f"{reason} {count:,}" for reason, count in sorted(passed_by.items()))
        lines.append(f"passed by: {others}")
    return lines


def _counts(manifest: Manifest) -> list[tuple[str, str]]:
    found = []
    ranked = sorted(manifest.licences.items(), key=lambda item: (-item[1].bytes, item[0]))
    if any(name for name, _ in ranked):
        shown = [f"{name or 'unknown'} {x.bytes / 1e6:,.1f} MB" for name, x in ranked[:_LICENCES]]
        more = len(ranked) - _LICENCES
        found.append(("licences", ", ".join(shown) + (f", {more} more" if more > 0 else "")))
    for stage in ("secrets", "contamination"):
        counts = {k: v for k, v in manifest.stages.get(stage, {}).items() if "task " not in k}
        if counts:
            found.append((stage, ", ".join(f"{k} {v:,}" for k, v in counts.items())))
    return found
