"""The tables of a data report, in the order of the page."""

from __future__ import annotations

from collections.abc import Iterator

from geex_jax.data.manifest import Amount, Manifest
from geex_jax.data.report.schema import ReportData, StageCounts
from geex_jax.pages import NOTHING, Cell, Table

MOST_ROWS = 40
SPLITS = ("train", "validation")


def languages(manifest: Manifest) -> Table:
    """What each language has: files, bytes, tokens, rows."""
    head = ["language", "files", "MB", "share of bytes", "tokens", "tokens per byte",
            "bytes per token", "rows", "validation rows"]  # fmt: skip
    total = _both(manifest, [x.name for x in manifest.languages])
    rows: list[list[Cell | str]] = []
    for language in manifest.languages:
        amount = _both(manifest, [language.name])
        if amount.files:
            rows.append(_amount(manifest, [language.name], amount, total.bytes))
    rows.sort(key=lambda row: -row[3].bar if isinstance(row[3], Cell) else 0)
    if len(rows) != 1:
        names = [x.name for x in manifest.languages]
        rows.append(_amount(manifest, names, total, total.bytes, "all"))
    notes = ["Tokens: all but padding, tag lines and ends of text included."]
    return Table("Languages", head, rows, notes)


def _both(manifest: Manifest, names: list[str]) -> Amount:
    amounts = [manifest.amount(split, name) for split in SPLITS for name in names]
    return Amount(*(sum(getattr(x, f) for x in amounts) for f in Amount.__dataclass_fields__))


def _amount(
    manifest: Manifest, names: list[str], amount: Amount, total: int, title: str = ""
) -> list[Cell | str]:
    train, validation = (
        sum(manifest.amount(split, name).rows for name in names) for split in SPLITS
    )
    share = amount.bytes / max(total, 1)
    tone = "strong" if title else ""
    return [
        Cell(title or names[0], tone=tone),
        f"{amount.files:,}",
        f"{amount.bytes / 1e6:,.2f}",
        Cell(f"{share:.1%}", bar=-1 if title else share),
        f"{amount.tokens:,}",
        f"{amount.tokens / max(amount.bytes, 1):.4f}",
        f"{amount.bytes / max(amount.tokens, 1):.2f}",
        f"{train:,}",
        f"{validation:,}",
    ]


def sources(data: ReportData) -> Table | None:
    """What each source gave."""
    if not data.sources:
        return None
    rows: list[list[Cell | str]] = [
        [
            x.name or "–",
            f"{x.seen:,}",
            f"{x.seen_bytes / 1e6:,.2f}",
            f"{x.kept:,}",
            f"{x.kept_bytes / 1e6:,.2f}",
            Cell(f"{(share := x.kept_bytes / max(x.seen_bytes, 1)):.1%}", bar=share),
        ]
        for x in data.sources[:MOST_ROWS]
    ]
    head = ["source", "documents", "MB", "in the rows", "MB in the rows", "bytes kept"]
    return Table("Sources", head, rows, list(_left_out(len(data.sources), "sources")))


def funnel(manifest: Manifest, data: ReportData) -> Table:
    """The stages in their order, what each dropped and why."""
    stages = data.stages or _without_stages(manifest)
    first = max((stage.seen for stage in stages), default=0)
    rows: list[list[Cell | str]] = []
    for stage in stages:
        left = stage.kept / max(first, 1)
        dropped = sum(stage.dropped.values())
        size = f"{stage.kept_bytes / 1e6:,.1f} MB" if stage.kept_bytes else ""
        rows.append([
            Cell(stage.name, tone="strong"), "", f"{stage.seen:,}",
            f"{dropped:,}" if dropped else NOTHING, Cell(f"{stage.kept:,}", size, bar=left),
        ])  # fmt: skip
        for reason, count in sorted(stage.dropped.items(), key=lambda x: (-x[1], x[0])):
            size = stage.dropped_bytes.get(reason, 0)
            small = f"{size / 1e6:,.2f} MB" if size else ""
            rows.append(["", words(reason), "", Cell(f"{count:,}", small, "muted"), ""])
    notes = [
        "In the order in which the stages ran; a document is dropped once, by the first that does.",
        *_counters(stages),
    ]
    return Table("Filter funnel", ["stage", "reason", "seen", "dropped", "kept"], rows, notes, 2)


def _without_stages(manifest: Manifest) -> list[StageCounts]:
    """The funnel as one step, where report.json is missing."""
    dropped = manifest.dropped_by_reason()
    kept = sum(manifest.total(split).files for split in SPLITS)
    return [StageCounts("all stages", kept + sum(dropped.values()), kept, dropped=dropped)]


def _counters(stages: list[StageCounts]) -> Iterator[str]:
    for stage in stages:
        if stage.counts and stage.name != "secrets":
            counts = ", ".join(f"{words(k)} {v:,}" for k, v in sorted(stage.counts.items()))
            yield f"Counted by {stage.name}: {counts}."


def passed(data: ReportData) -> Table | None:
    """What sources met and did not read; how much they saw in all is a note."""
    counts = {reason: count for reason, count in sorted(data.passed.items()) if count}
    seen = {name: counts.pop(name, 0) for name in ("files", "folders", "bytes")}
    notes = []
    if seen["files"]:
        notes.append(
            f"Seen in all: {seen['files']:,} files in {seen['folders']:,} folders, "
            f"{seen['bytes'] / 1e6:,.1f} MB."
        )
    rows: list[list[Cell | str]] = [[words(x), f"{count:,}"] for x, count in counts.items()]
    if not rows and not notes:
        return None
    rows = rows or [["nothing", "0"]]
    return Table("Passed by, before any stage", ["what", "number"], rows, notes)


def duplicates(data: ReportData) -> list[Table]:
    """Sums of copies, and how large their clusters are."""
    found = data.duplicates
    if found is None:
        return []
    rows: list[list[Cell | str]] = [
        ["exact", f"{found.exact_clusters:,}", f"{found.exact_dropped:,}"],
        ["near", f"{found.near_clusters:,}", f"{found.near_dropped:,}"],
    ]
    notes = ["Of each cluster the first document stays."]
    tables = [Table("Copies", ["kind", "clusters", "documents dropped"], rows, notes)]
    sizes = sorted(((_number(k), k, v) for k, v in found.sizes.items()), key=lambda x: x[:2])
    if sizes:
        most = max(v for _, _, v in sizes)
        body: list[list[Cell | str]] = [
            [k, Cell(f"{v:,}", bar=v / max(most, 1))] for _, k, v in sizes[:MOST_ROWS]
        ]
        tables.append(
            Table("Sizes of clusters", ["documents", "clusters"], body,
                  list(_left_out(len(sizes), "sizes")))
        )  # fmt: skip
    return tables


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 1 << 60


def licences(data: ReportData, manifest: Manifest) -> Table | None:
    """Files and bytes under each licence, the largest first."""
    found = data.licences or manifest.licences
    if not found:
        return None
    total = sum(x.bytes for x in found.values())
    ranked = sorted(found.items(), key=lambda x: (-x[1].bytes, x[0]))
    rows: list[list[Cell | str]] = [
        [
            name or Cell("unknown", tone="muted"),
            f"{x.files:,}",
            f"{x.bytes / 1e6:,.2f}",
            Cell(f"{(share := x.bytes / max(total, 1)):.1%}", bar=share),
        ]
        for name, x in ranked[:MOST_ROWS]
    ]
    notes = list(_left_out(len(ranked), "licences"))
    return Table("Licences", ["SPDX expression", "files", "MB", "share of bytes"], rows, notes)


def secrets(data: ReportData) -> Table | None:
    """How many secrets of each kind were replaced."""
    if data.secrets is None:
        return None
    ranked = sorted(data.secrets.items(), key=lambda x: (-x[1], x[0]))
    most = max(data.secrets.values(), default=0)
    rows: list[list[Cell | str]] = [
        [words(kind), Cell(f"{count:,}", bar=count / max(most, 1))] for kind, count in ranked
    ]
    rows = rows or [["none", "0"]]
    notes = ["Replaced by placeholders in the rows; none of them is written down anywhere."]
    return Table("Secrets and personal data", ["kind", "found"], rows, notes)


def contamination(data: ReportData) -> Table | None:
    """Documents that hold a benchmark's text."""
    found = data.contamination
    if found is None:
        return None
    hits = sorted(found.hits, key=lambda x: (not x.dropped, -x.ngrams, x.task, x.path))
    rows: list[list[Cell | str]] = [
        [x.benchmark, x.task, x.path, f"{x.ngrams:,}", "dropped" if x.dropped else "kept"]
        for x in hits[:MOST_ROWS]
    ]
    tasks = f" against {found.tasks:,} tasks" if found.tasks else ""
    notes = [
        f"Checked{tasks}: {found.documents:,} documents dropped.",
        *_left_out(len(hits), "hits in report.json"),
    ]
    rows = rows or [["none", "", "", "0", ""]]
    head = ["benchmark", "task", "document", "n-grams", "what became of it"]
    return Table("Benchmark contamination", head, rows, notes, 3)


def facts(manifest: Manifest) -> Table:
    """How the data was made."""
    rows: list[list[Cell | str]] = [
        ["recipe", manifest.recipe or "inputs named on the command line"],
        ["fingerprint", manifest.fingerprint],
        ["tokens in a row", f"{manifest.seq_len:,}"],
        *([f"{split} rows filled", f"{share:.2%}"] for split, share in manifest.fill.items()),
        ["documents whole in one row", f"{manifest.whole:.2%}"],
        ["language tags", "yes" if manifest.tags else "no"],
        ["seed", str(manifest.seed)],
        ["tokenizer", f"{manifest.tokenizer.kind}, {manifest.tokenizer.vocab_size:,} ids,"
                      f" {manifest.tokenizer.fingerprint}"],
    ]  # fmt: skip
    return Table("How it was made", ["", ""], rows, labels=2)


def words(name: str) -> str:
    """A name of the counts as words."""
    return name.replace("_", " ")


def _left_out(count: int, what: str) -> Iterator[str]:
    if count > MOST_ROWS:
        yield f"The first {MOST_ROWS} of {count:,} {what}."
