"""What a whole run leaves: shards under their names, texts, manifest, report."""

from __future__ import annotations

import collections
import itertools
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from geex_jax import files
from geex_jax.data import manifest as manifests
from geex_jax.data import splits
from geex_jax.data.dedup.shuffle import save
from geex_jax.data.encode import Encoder
from geex_jax.data.journal import DUPLICATES
from geex_jax.data.manifest import Amount, LanguageInfo, Licence, Manifest, TokenizerInfo
from geex_jax.data.phases import dedup
from geex_jax.data.phases.layout import EXACT, KEPT, DocumentReader
from geex_jax.data.phases.run import Run, similarities
from geex_jax.data.report import schema
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES


def publish(run: Run, output: pathlib.Path) -> None:
    """Moves shards to their final names; those moved already stay.

    Raises:
      GeexError: a shard is gone.
    """
    for group in run.groups:
        numbers = run.shards_of(group)
        slug = LANGUAGES[group.language].slug
        for place, number in enumerate(numbers):
            source = run.layout.shard(number)
            target = output / group.split / manifests.shard_name(slug, place, len(numbers))
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.exists():
                os.replace(source, target)
            elif not target.exists():
                raise GeexError(f"{source} is gone", "start anew with --overwrite")


def write_validation_text(run: Run, output: pathlib.Path) -> None:
    """Writes validation_text/LANGUAGE.jsonl: the documents themselves, for peers such as xz."""
    for group in run.groups:
        path = output / "validation_text" / f"{LANGUAGES[group.language].slug}.jsonl"
        if group.split != splits.VALIDATION or path.exists():  # whole, by an earlier run
            continue
        with files.atomic_write(path, "wb") as file:
            for number in run.shards_of(group):
                with open(run.layout.validation(number), "rb") as texts:
                    shutil.copyfileobj(texts, file)


def write_duplicates(run: Run, output: pathlib.Path) -> None:
    """Writes duplicates.npy: the hash and the fate of each copy, for `--explain`."""
    save(output / DUPLICATES, dedup.duplicates(run.layout, len(run.read)))


def make_manifest(run: Run, encoder: Encoder, settings: dict[str, Any]) -> Manifest:
    """Returns the manifest of a run."""
    recipe, tokenizer = run.corpus.recipe, encoder.tokenizer
    amounts = _amounts(run)
    seen = np.array([result["seen"] for result in run.read]).sum(0)
    dropped: dict[str, dict[str, int]] = {}
    passed_by = run.passed()
    for language, reasons in _all_dropped(run).items():
        if language < 0:
            for reason, count in reasons.items():
                passed_by[reason] = passed_by.get(reason, 0) + count
        else:
            dropped[LANGUAGES[language].name] = dict(sorted(reasons.items()))
    documents = sum(result["files"] for result in run.packed)
    contents = [result["contents"] for result in run.packed]
    return Manifest(
        format=manifests.FORMAT,
        fingerprint=files.fingerprint(repr(sorted(settings.items())), *contents),
        seq_len=recipe.seq_len,
        seed=recipe.seed,
        tags=recipe.tags,
        recipe=recipe.name,
        settings=settings,
        input=run.listing.input,
        tokenizer=TokenizerInfo(
            tokenizer.kind,
            tokenizer.fingerprint(),
            tokenizer.vocab_size,
            tokenizer.eos_id,
            tokenizer.pad_id,
        ),
        languages=tuple(
            LanguageInfo(x.name, x.slug, x.tag, encoder.tag_tokens(i))
            for i, x in enumerate(LANGUAGES)
        ),
        splits=amounts,
        fill={split: _fill(some, recipe.seq_len + 1) for split, some in amounts.items()},
        whole=round(sum(result["whole"] for result in run.packed) / max(documents, 1), 6),
        seen={"documents": int(seen[0]), "bytes": int(seen[1])},
        dropped=dropped,
        passed_by=dict(sorted(passed_by.items())),
        stages=_stage_counts(run),
        licences={k: Licence(*v) for k, v in sorted(run.amounts.licences.items()) if v[0]},
        mixture=dict(recipe.mixture),
        warnings=_warnings(amounts, run),
    )


def _amounts(run: Run) -> dict[str, dict[str, Amount]]:
    found: dict[str, dict[str, Amount]] = {split: {} for split in splits.SPLITS}
    for group in run.groups:
        numbers = run.shards_of(group)
        some = [run.packed[number] for number in numbers]
        found[group.split][LANGUAGES[group.language].name] = Amount(
            shards=len(numbers),
            **{key: sum(x[key] for x in some) for key in ("files", "bytes", "tokens", "rows")},
        )
    return found


def _all_dropped(run: Run) -> dict[int, dict[str, int]]:
    """Returns what stages and deduplication dropped, by language and reason."""
    dropped = run.dropped()
    for part in range(len(run.read)):
        fate = dedup.fate_of(run.layout, part)
        languages = run.layout.index(part)["language"]
        for kind, reason in ((EXACT, "duplicate"), (dedup.NEAR, "near_duplicate")):
            found, counts = np.unique(languages[fate == kind], return_counts=True)
            for language, count in zip(found.tolist(), counts.tolist(), strict=True):
                mine = dropped.setdefault(language, {})
                mine[reason] = mine.get(reason, 0) + count
    return dict(sorted(dropped.items()))


def _stage_counts(run: Run) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for stage in run.corpus.stages:
        sums: collections.Counter[str] = collections.Counter()
        for result in run.read:
            sums.update(result["stages"][stage.name]["counts"])
        if sums:
            found[stage.name] = dict(sorted(sums.items()))
    return found


def _fill(amounts: Mapping[str, Amount], row_length: int) -> float:
    rows = sum(amount.rows for amount in amounts.values())
    tokens = sum(amount.tokens for amount in amounts.values())
    return round(tokens / (rows * row_length), 6) if rows else 0.0


def _warnings(found: Mapping[str, Mapping[str, Amount]], run: Run) -> tuple[str, ...]:
    warnings = []
    train, validation = found[splits.TRAIN], found[splits.VALIDATION]
    if run.corpus.recipe.validation_fraction:
        missing = [name for name in train if name not in validation]
        if missing:
            warnings.append("no validation file for " + ", ".join(missing))
    missing = [name for name in validation if name not in train]
    if missing:
        warnings.append("no training file for " + ", ".join(missing))
    failed = sum(reasons.get("stage_failed", 0) for reasons in run.dropped().values())
    if failed:
        warnings.append(f"a stage failed on {failed} documents; report.json has examples")
    return tuple(warnings)


# --- report.json -----------------------------------------------------------------------------


def make_report(run: Run) -> schema.ReportData:
    """Returns what the report page shows."""
    data = schema.ReportData(passed=run.passed())
    names = run.corpus.recipe.names()
    for number, name in enumerate(names):
        seen = np.array([r["seen"] for r in run.read if r["source"] == number] or [[0, 0]]).sum(0)
        kept = run.amounts.sources[number]
        data.sources.append(schema.SourceCounts(name, *map(int, (*seen, *kept))))
    reader = DocumentReader(run.layout)
    data.stages = _funnel(run)
    data.duplicates = _duplicates(run, reader)
    reader.close()
    data.licences = {
        name: schema.Licence(*v) for name, v in sorted(run.amounts.licences.items()) if v[0]
    }
    counts = _stage_counts(run)
    stages = {stage.name: stage for stage in run.corpus.stages}
    if "secrets" in stages:
        data.secrets = counts.get("secrets", {})
    if "contamination" in stages:
        data.contamination = _contamination(run, stages["contamination"])
    data.lengths = _lengths(run)
    return data


def _funnel(run: Run) -> list[schema.StageCounts]:
    found = []
    for stage in run.corpus.stages:
        counts = schema.StageCounts(stage.name)
        for result in run.read:
            mine = result["stages"][stage.name]
            counts.seen += mine["seen"][0]
            counts.seen_bytes += mine["seen"][1]
            for reasons in mine["dropped"].values():
                for reason, (number, size) in reasons.items():
                    counts.dropped[reason] = counts.dropped.get(reason, 0) + number
                    counts.dropped_bytes[reason] = counts.dropped_bytes.get(reason, 0) + size
            for name, number in mine["counts"].items():
                counts.counts[name] = counts.counts.get(name, 0) + number
            for reason, examples in mine["examples"].items():
                kept = counts.examples.setdefault(reason, [])
                room = schema.MOST_EXAMPLES - len(kept)
                kept += [_dropped_example(*example) for example in examples[:room]]
        counts.kept = counts.seen - sum(counts.dropped.values())
        counts.kept_bytes = counts.seen_bytes - sum(counts.dropped_bytes.values())
        found.append(counts)
    seen = sum(result["kept"][0] for result in run.read)
    for name, reason, number in zip(
        ("exact", "near"), ("duplicate", "near_duplicate"), run.resolved.dropped, strict=True
    ):
        dropped = {reason: number} if number else {}
        found.append(schema.StageCounts(name, seen, seen - number, dropped=dropped))
        seen -= number
    return found


def _dropped_example(path: str, language: int, size: int, note: str, text: str) -> schema.Example:
    name = LANGUAGES[language].name if language >= 0 else ""
    return schema.Example(schema.clip(path), name, size, schema.clip(text), note)


def _example(reader: DocumentReader, part: int, row: int) -> schema.Example:
    stored, entry = reader.read(part, row), reader.entry(part, row)
    name = LANGUAGES[int(entry["language"])].name
    return schema.Example(
        schema.clip(stored.path), name, int(entry["bytes"]), schema.clip(stored.text)
    )


def _duplicates(run: Run, reader: DocumentReader) -> schema.Duplicates:
    resolved = run.resolved
    data = schema.Duplicates(
        resolved.clusters[0], resolved.dropped[0], resolved.clusters[1], resolved.dropped[1],
        {str(size): number for size, number in resolved.sizes.items()},
    )  # fmt: skip
    for cluster in resolved.largest:
        near = [] if cluster.exact else similarities(run, cluster.first, cluster.copies)
        data.clusters.append(
            schema.Cluster(
                "exact" if cluster.exact else "near",
                cluster.size,
                _example(reader, *cluster.first),
                [_example(reader, *copy) for copy in cluster.copies],
                near,
            )
        )
    return data


def _contamination(run: Run, stage: Any) -> schema.Contamination:
    data = schema.Contamination(len(getattr(stage, "tasks", ())))
    for result in run.read:
        for reasons in result["stages"][stage.name]["dropped"].values():
            data.documents += reasons.get("contaminated", [0])[0]
        for task, ngrams, path, dropped in result["hits"]:
            if len(data.hits) < schema.MOST_HITS:
                benchmark = task.split(":" if ":" in task else "/")[0]
                data.hits.append(schema.Hit(benchmark, task, schema.clip(path), ngrams, dropped))
    return data


def _lengths(run: Run) -> dict[str, schema.Lengths]:
    found: dict[str, schema.Lengths] = {}
    for part in range(len(run.read)):
        index = run.layout.index(part)[dedup.fate_of(run.layout, part) == KEPT]
        for language in np.unique(index["language"]).tolist():
            bins = schema.histogram(index["bytes"][index["language"] == language])
            lengths = found.setdefault(LANGUAGES[language].name, schema.Lengths())
            lengths.bytes = _added(lengths.bytes, bins)
    for group in run.groups:
        lengths = found.setdefault(LANGUAGES[group.language].name, schema.Lengths())
        for number in range(group.first, group.first + group.shards):
            lengths.tokens = _added(lengths.tokens, run.packed[number]["document_tokens"])
    return dict(sorted(found.items()))


def _added(one: list[int], other: list[int]) -> list[int]:
    return [a + b for a, b in itertools.zip_longest(one, other, fillvalue=0)]
