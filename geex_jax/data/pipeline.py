"""Sources to packed rows: the order of the work.

1. **read**: each part of each source through the stages, to documents on disk.
2. **dedup**: exact and near copies, by a banded shuffle over files; a union in this process.
3. **pack**: a split and an order by content, tokens, rows, shards.

Every task of every phase is a pure function of its inputs that writes to a temporary name and
renames, and its small result goes to a journal. So nothing but the content of the sources and the
recipe decides the bytes of the result: not the number of workers or machines, not the order in
which they finish, not kills and restarts in between.
"""

from __future__ import annotations

import collections
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from geex_jax import files
from geex_jax.data import journal as journals
from geex_jax.data import manifest as manifests
from geex_jax.data import storage
from geex_jax.data.config import PrepareConfig, check_output
from geex_jax.data.encode import Encoder
from geex_jax.data.journal import Journal
from geex_jax.data.manifest import Manifest
from geex_jax.data.phases import finish
from geex_jax.data.phases.corpus import Corpus, Listing
from geex_jax.data.phases.layout import Layout
from geex_jax.data.phases.run import Run
from geex_jax.data.recipe import Recipe
from geex_jax.data.report import schema
from geex_jax.data.runners import open_runner
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
    """Makes a folder of prepared data from inputs, without a recipe; see `prepare_recipe`.

    Args:
      inputs: source trees (folders or files), archives, tables.
      output: the folder to make; see the house plan for its layout.
      tokenizer: the tokenizer, or what `tokenizers.load` opens.
      config: all settings.
    """
    config = config or PrepareConfig()
    return prepare_recipe(
        config.recipe(inputs),
        output,
        tokenizer,
        workers=config.workers,
        runner=config.runner,
        overwrite=config.overwrite,
    )


def prepare_recipe(
    recipe: Recipe,
    output: files.Path,
    tokenizer: Tokenizer | files.Path,
    *,
    workers: int | None = None,
    runner: str = "local",
    overwrite: bool = False,
    seconds: collections.Counter[str] | None = None,
) -> Manifest:
    """Makes a folder of prepared data from a recipe.

    Killed and called again with the same arguments, it goes on where it was. An output that is
    whole already is left alone.

    Args:
      recipe: what decides the result.
      output: the folder to make; on a cluster, a path that all machines see. A remote one
        (`gs://bucket/data`) is made in the cache folder and uploaded, the manifest last.
      tokenizer: the tokenizer, or what `tokenizers.load` opens.
      workers: processes or tasks at a time; None for one per core.
      runner: "local", "ray" or "ray://HOST:PORT".
      overwrite: remove an earlier result first.
      seconds: gets the CPU seconds of every stage and phase.

    Raises:
      GeexError: an input is missing, nothing passed the filters, the disk is full, the output
        holds something else or an interrupted run with other settings.
    """
    if storage.is_remote(output):
        return _prepare_remote(
            recipe, os.fspath(output), tokenizer, overwrite,
            workers=workers, runner=runner, seconds=seconds,
        )  # fmt: skip
    check_output(recipe, output)
    target = pathlib.Path(output)
    corpus = Corpus(recipe, target)
    encoder = Encoder(_opened(tokenizer), recipe.tags)
    encoder.check(recipe.seq_len)
    settings = corpus.settings() | {"tokenizer": encoder.tokenizer.fingerprint()}
    try:
        if overwrite:
            _clear(target)
        elif (target / manifests.NAME).exists():
            return _finished(corpus, target, settings)
        elif target.is_dir() and os.listdir(target) and not (target / journals.WORK).is_dir():
            raise GeexError(
                f"{output} is not empty and holds no prepared data", "choose another --output"
            )
        return _prepare(corpus, target, encoder, settings, (runner, workers), seconds)
    except OSError as error:
        where = f" {error.filename}" if error.filename else f" {output}"
        raise GeexError(
            f"cannot write{where}: {error.strerror or error}",
            "free some disk space or check the permissions, then run the same command again: "
            "it resumes",
        ) from error


def _prepare_remote(
    recipe: Recipe, output: str, tokenizer: Tokenizer | files.Path, overwrite: bool, **where: Any
) -> Manifest:
    if where["runner"] != "local":
        raise GeexError(
            f"machines of a cluster cannot share {output}", "name a folder that all of them see"
        )
    if not overwrite and storage.exists(storage.join(output, manifests.NAME)):
        raise GeexError(
            f"{output} holds prepared data already",
            "add --overwrite to replace it, or choose another --output",
        )
    folder = files.cache_folder() / "prepared" / files.fingerprint(output)
    manifest = prepare_recipe(recipe, folder, tokenizer, overwrite=overwrite, **where)
    print(f"uploading {folder} to {output}", file=sys.stderr)
    storage.upload_folder(folder, output, last=manifests.NAME)
    shutil.rmtree(folder)
    return manifest


def _opened(tokenizer: Tokenizer | files.Path) -> Tokenizer:
    if isinstance(tokenizer, str | os.PathLike):
        from geex_jax import tokenizers

        return tokenizers.load(os.fspath(tokenizer))
    return tokenizer


def _finished(corpus: Corpus, output: pathlib.Path, settings: dict[str, Any]) -> Manifest:
    manifest = manifests.load(output)
    changed = [k for k in settings if manifest.settings.get(k) != settings[k]]
    other = f"with other settings ({', '.join(changed)})" if changed else ""
    if not other and manifest.input != corpus.listing().input:
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
    corpus: Corpus,
    output: pathlib.Path,
    encoder: Encoder,
    settings: dict[str, Any],
    where: tuple[str, int | None],
    seconds: collections.Counter[str] | None,
) -> Manifest:
    runner = open_runner(*where)
    journal = Journal(output)
    try:
        listing = Listing()
        Layout(journal.folder).write_parts(corpus.parts(listing))
        if not listing.parts:
            journal.remove()
            raise GeexError(
                f"no source files in {corpus.where()}",
                f"the {len(LANGUAGES)} languages are known by extension and shebang",
            )
        if journal.begin(settings, listing.state):
            print(f"{output}: resuming an interrupted run", file=sys.stderr)
        run = Run(corpus, listing, journal, runner)
        run.read_all()
        run.deduplicate()
        run.pack_all(encoder)
        manifest = _finish(run, output, encoder, settings)
        if seconds is not None:
            seconds.update(run.seconds)
        journal.remove()
    finally:
        journal.close()
        runner.close()
    return manifest


def _finish(run: Run, output: pathlib.Path, encoder: Encoder, settings: dict[str, Any]) -> Manifest:
    """Puts everything in its place; the manifest comes last."""
    finish.publish(run, output)
    finish.write_validation_text(run, output)
    finish.write_duplicates(run, output)
    for leftover in output.rglob(".*.tmp-*"):  # a kill in the middle of an atomic write
        if journals.WORK not in leftover.parts:
            leftover.unlink(missing_ok=True)
    shutil.rmtree(output / "tokenizer", ignore_errors=True)
    encoder.tokenizer.save(output / "tokenizer")
    schema.save(finish.make_report(run), output)
    manifest = finish.make_manifest(run, encoder, settings)
    manifests.save(manifest, output)
    return manifests.load(output)


def slowest(seconds: collections.Counter[str]) -> str:
    """Returns a line that names the stage that took most, or "" if nothing was measured."""
    total = sum(seconds.values())
    if not total:
        return ""
    parts = ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.most_common(6))
    name, value = seconds.most_common(1)[0]
    return f"slowest stage: {name}, {value:.1f} s of {total:.1f} CPU s ({parts})"
