"""Source trees to packed rows: the order of the work.

Walk, scan (read, filter, hash), split and order by content, tokenize, pack, write. Nothing but
the content of the files and the settings decides the bytes of the result: not the number of
workers, not the order in which they finish, not kills and restarts in between.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geex_jax import files
from geex_jax.data import journal as journals
from geex_jax.data import manifest as manifests
from geex_jax.data import scan as scans
from geex_jax.data import shards, sources
from geex_jax.data.config import PrepareConfig, check_inputs
from geex_jax.data.encode import Encoder
from geex_jax.data.journal import Journal, ShardDone
from geex_jax.data.manifest import Amount, LanguageInfo, Manifest, TokenizerInfo
from geex_jax.data.scan import Kept
from geex_jax.data.shards import Group
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES

if TYPE_CHECKING:
    from geex_jax.tokenizers.base import Tokenizer


def prepare(
    inputs: files.Path | Sequence[files.Path],
    output: files.Path,
    tokenizer: Tokenizer | files.Path,
    config: PrepareConfig | None = None,
) -> Manifest:
    """Makes a folder of prepared data from source trees.

    Killed and called again with the same arguments, it goes on where it was. An output that is
    whole already is left alone.

    Args:
      inputs: source trees (folders or files).
      output: the folder to make; see the house plan for its layout.
      tokenizer: the tokenizer, or what `tokenizers.load` opens.
      config: all settings.

    Raises:
      GeexError: an input is missing, nothing passed the filters, the disk is full, the output
        holds something else or an interrupted run with other settings.
    """
    config = config or PrepareConfig()
    config.check()
    target = pathlib.Path(output)
    roots = check_inputs(inputs, target)
    encoder = Encoder(_opened(tokenizer), config.tags)
    encoder.check(config.seq_len)
    settings = config.settings() | {"tokenizer": encoder.tokenizer.fingerprint()}
    try:
        if config.overwrite:
            _clear(target)
        elif (target / manifests.NAME).exists():
            return _finished(roots, target, config, settings)
        elif target.is_dir() and os.listdir(target) and not (target / journals.WORK).is_dir():
            raise GeexError(
                f"{output} is not empty and holds no prepared data", "choose another --output"
            )
        return _prepare(roots, target, encoder, config, settings)
    except OSError as error:
        where = f" {error.filename}" if error.filename else f" {output}"
        raise GeexError(
            f"cannot write{where}: {error.strerror or error}",
            "free some disk space or check the permissions, then run the same command again: "
            "it resumes",
        ) from error


def _opened(tokenizer: Tokenizer | files.Path) -> Tokenizer:
    if isinstance(tokenizer, str | os.PathLike):
        from geex_jax import tokenizers

        return tokenizers.load(os.fspath(tokenizer))
    return tokenizer


def _finished(
    roots: list[str], output: pathlib.Path, config: PrepareConfig, settings: dict[str, Any]
) -> Manifest:
    manifest = manifests.load(output)
    changed = [k for k in settings if manifest.settings.get(k) != settings[k]]
    other = f"with other settings ({', '.join(changed)})" if changed else ""
    if not other and manifest.input != _input(roots, _walk(roots, output, config).found):
        other = "from other input"
    if other:
        raise GeexError(
            f"{output} holds data prepared {other}",
            "add --overwrite to prepare anew, or choose another --output",
        )
    shutil.rmtree(output / journals.WORK, ignore_errors=True)  # a kill at the very end
    print(f"{output} is prepared already; --overwrite prepares it anew", file=sys.stderr)
    return manifest


def _clear(output: pathlib.Path) -> None:
    if not output.is_dir() or not os.listdir(output):
        return
    if not any((output / name).exists() for name in (manifests.NAME, journals.WORK)):
        raise GeexError(
            f"{output} is not empty and holds no prepared data", "choose another --output"
        )
    Journal(output).close()  # nobody is at work there
    journals.clear(output)


def _prepare(
    roots: list[str],
    output: pathlib.Path,
    encoder: Encoder,
    config: PrepareConfig,
    settings: dict[str, Any],
) -> Manifest:
    walked = _walk(roots, output, config)
    if not walked.found:
        raise GeexError(
            f"no source files in {', '.join(roots)}",
            f"the {len(LANGUAGES)} languages are known by extension and shebang",
        )
    journal = Journal(output)
    try:
        resumed = journal.begin(settings, _listing(walked.found))
        if resumed:
            print(f"{output}: resuming an interrupted run", file=sys.stderr)
        scanned = _scan(walked.found, config, journal)
        groups = scans.group(scanned.kept, config.validation_fraction, config.seed)
        if not groups:
            raise _nothing_left(scanned)
        done = _write(groups, encoder, config, journal)
        for group, finished in done.items():
            shards.publish(journal.folder, output, group, len(finished))
        for leftover in output.rglob(".*.tmp-*"):  # a kill in the middle of an atomic write
            leftover.unlink(missing_ok=True)
        _write_validation_text(output, groups)
        shutil.rmtree(output / "tokenizer", ignore_errors=True)
        encoder.tokenizer.save(output / "tokenizer")
        source = _input(roots, walked.found)
        manifest = _manifest(walked, scanned, groups, done, encoder, config, settings, source)
        manifests.save(manifest, output)
        journal.remove()
    finally:
        journal.close()
    return manifest


def _walk(roots: list[str], output: pathlib.Path, config: PrepareConfig) -> sources.Walk:
    return sources.walk(
        roots, exclude=str(output), names=config.exclude, follow_links=config.follow_links
    )


def _input(roots: Sequence[str], found: Sequence[sources.Found]) -> str:
    """Returns a fingerprint of the walk's file names below their roots, and sizes."""
    heads = tuple(os.path.join(root, "") for root in roots)

    def below(path: str) -> str:
        head = next((h for h in heads if path.startswith(h)), os.path.dirname(path))
        return os.path.relpath(path, head)

    return files.fingerprint(*(b"%s %d" % (os.fsencode(below(f.path)), f.size) for f in found))


def _listing(found: Sequence[sources.Found]) -> str:
    """Returns a fingerprint of the walk, which tells whether the input changed since a kill."""
    return files.fingerprint(
        *(b"%s %d %d" % (os.fsencode(f.path), f.size, f.mtime_ns) for f in found)
    )


def _scan(found: list[sources.Found], config: PrepareConfig, journal: Journal) -> scans.Scanned:
    done = journal.blocks()
    start = min(len(done) * scans.BLOCK_FILES, len(found))
    progress = files.Progress("scan", len(found), "files", start=start)
    sizes = iter([len(block) for block in scans.blocks(found)][len(done) :])

    def on_block(block: scans.Block) -> None:
        journal.add_block(block)
        progress.update(next(sizes))

    scanned = scans.scan(
        found, config.scanner(), worker_count=config.workers, done=done, on_block=on_block
    )
    progress.close()
    return scanned


def _nothing_left(scanned: scans.Scanned) -> GeexError:
    sums: collections.Counter[str] = collections.Counter()
    for (_, reason), count in scanned.dropped.items():
        sums[reason] += count
    counts = ", ".join(f"{reason} {count}" for reason, count in sums.most_common())
    return GeexError(f"no file passed the filters ({counts})", "give more --input or relax them")


def _write(
    groups: Mapping[Group, list[Kept]], encoder: Encoder, config: PrepareConfig, journal: Journal
) -> dict[Group, list[ShardDone]]:
    row_length = config.seq_len + 1
    total = sum(file.size for kept in groups.values() for file in kept)
    progress = files.Progress("tokenize and pack", total / 1e6, "MB")

    def on_start(done: int) -> None:
        progress.done = progress.first = done / 1e6

    done = shards.write_shards(
        groups,
        encoder,
        journal,
        row_length=row_length,
        rows_per_shard=config.rows_per_shard or shards.default_rows(row_length, encoder.dtype),
        worker_count=config.workers,
        on_start=on_start,
        on_bytes=lambda count: progress.update(count / 1e6),
    )
    progress.close()
    return done


def _write_validation_text(output: pathlib.Path, groups: Mapping[Group, list[Kept]]) -> None:
    """Writes validation_text/LANGUAGE.jsonl: the files themselves, for peers such as xz."""
    for (split, language), kept in groups.items():
        if split != scans.VALIDATION:
            continue
        path = output / "validation_text" / f"{LANGUAGES[language].slug}.jsonl"
        if path.exists():  # whole, by an earlier run
            continue
        with files.atomic_write(path) as file:
            for source in kept:
                line = {"sha256": source.sha256, "text": scans.read_kept(source)}
                file.write(json.dumps(line) + "\n")


def _manifest(
    walked: sources.Walk,
    scanned: scans.Scanned,
    groups: Mapping[Group, list[Kept]],
    done: Mapping[Group, list[ShardDone]],
    encoder: Encoder,
    config: PrepareConfig,
    settings: dict[str, Any],
    source: str,
) -> Manifest:
    tokenizer = encoder.tokenizer
    splits: dict[str, dict[str, Amount]] = {split: {} for split in scans.SPLITS}
    for (split, language), kept in groups.items():
        finished = done[split, language]
        splits[split][LANGUAGES[language].name] = Amount(
            files=len(kept),
            bytes=sum(file.size for file in kept),
            tokens=sum(shard.tokens for shard in finished),
            rows=sum(shard.rows for shard in finished),
            shards=len(finished),
        )
    dropped: dict[str, dict[str, int]] = {}
    passed_by = dict(walked.counts)
    for (language, reason), count in sorted(scanned.dropped.items()):
        if language < 0:
            passed_by[reason] = passed_by.get(reason, 0) + count
        else:
            dropped.setdefault(LANGUAGES[language].name, {})[reason] = count
    contents = [f.sha256 for kept in groups.values() for f in kept]
    return Manifest(
        format=manifests.FORMAT,
        fingerprint=files.fingerprint(json.dumps(settings, sort_keys=True), *contents),
        seq_len=config.seq_len,
        seed=config.seed,
        tags=config.tags,
        settings=settings,
        input=source,
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
        splits=splits,
        fill={split: _fill(amounts, config.seq_len + 1) for split, amounts in splits.items()},
        dropped=dropped,
        passed_by=passed_by,
        warnings=_warnings(splits, config),
    )


def _fill(amounts: Mapping[str, Amount], row_length: int) -> float:
    rows = sum(amount.rows for amount in amounts.values())
    tokens = sum(amount.tokens for amount in amounts.values())
    return round(tokens / (rows * row_length), 6) if rows else 0.0


def _warnings(splits: Mapping[str, Mapping[str, Amount]], config: PrepareConfig) -> tuple[str, ...]:
    warnings = []
    train, validation = splits[scans.TRAIN], splits[scans.VALIDATION]
    if config.validation_fraction:
        missing = [name for name in train if name not in validation]
        if missing:
            warnings.append("no validation file for " + ", ".join(missing))
    missing = [name for name in validation if name not in train]
    if missing:
        warnings.append("no training file for " + ", ".join(missing))
    return tuple(warnings)
