"""Tasks on disk: source files to train on, and files of problems to be judged by."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence

from geex_jax import files
from geex_jax import languages as paper
from geex_jax.benchmark.embedded.emit import BACKENDS
from geex_jax.benchmark.embedded.tasks import Task, mixture
from geex_jax.benchmark.humaneval_x import prompts, tasks
from geex_jax.errors import GeexError


def parse_languages(words: Sequence[str]) -> list[str]:
    """Names of languages in any form, or "all", to those of BACKENDS, in their order.

    Raises:
      GeexError: one that tasks are not written in.
    """
    wanted = set()
    for word in (w for words_ in words for w in words_.split(",") if w):
        wanted |= set(BACKENDS) if word == "all" else {tasks.names(word).name}
    if unknown := wanted - set(BACKENDS):
        raise GeexError(f"no embedded tasks in {unknown.pop()}", f"in {', '.join(BACKENDS)} only")
    return [name for name in BACKENDS if name in wanted]


def training_text(task: Task, language: str, *, examples: bool = True) -> str:
    """What a model is to learn: the prompt that it will be asked with, and the solution.

    The language's tag line is not part of it: `geex prepare` puts it in front.

    Args:
      task: what is asked.
      language: to be answered in.
      examples: False leaves them out of the description.
    """
    row = (task if examples else _bare(task)).row(language)
    return prompts.of_problem(tasks.names(language), row) + row["canonical_solution"]


def _bare(task: Task) -> Task:
    return dataclasses.replace(task, problem=dataclasses.replace(task.problem, examples=()))


def _row(task: Task, language: str, examples: bool) -> dict[str, str]:
    row = task.row(language)
    if examples:
        return row
    bare = _bare(task).row(language)
    return {**bare, "example_test": row["example_test"]}  # all else is the same in both


def write_corpus(
    folder: files.Path,
    seed: int,
    count: int,
    level: int,
    languages: Sequence[str] = ("all",),
    *,
    bytes_per_file: int = 0,
    examples: bool = True,
) -> dict[str, int]:
    """Writes source files of the train split, for `geex prepare`.

    One file for each task and language by default: every task is then read as it will be asked,
    after the tag line at the beginning of a context. Files that small pass `geex prepare` with
    `--min-bytes 0 --min-alpha 0 --near-dup-threshold 0`.

    Args:
      folder: to be made; it appears when it is whole.
      seed: of the tasks.
      count: tasks, in each language.
      level: the highest; see `mixture`.
      languages: names, or "all".
      bytes_per_file: tasks go together into files of about that size; 0: one file for each.
      examples: False leaves them out of the descriptions. Tasks of one composition then read
        alike, and `geex prepare` drops all but one of them.

    Returns:
      Language to number of files.

    Raises:
      GeexError: the folder is there already, a bad level or language.
    """
    wanted = parse_languages(languages)
    numbers = dict.fromkeys(wanted, 0)
    texts: dict[str, list[str]] = {name: [] for name in wanted}
    progress = files.Progress("embedded tasks", count)
    with whole_folder(folder) as made:
        for name in wanted:
            (made / name).mkdir()

        def flush(name: str) -> None:
            extension = paper.get(tasks.names(name).title).extensions[0]
            path = made / name / f"{numbers[name]:06d}{extension}"
            path.write_text("\n".join(texts[name]), "utf-8", newline="\n")
            numbers[name] += 1
            texts[name] = []

        for task in mixture(seed, count, level):
            for name in wanted:
                texts[name].append(training_text(task, name, examples=examples))
                if sum(map(len, texts[name])) >= bytes_per_file:
                    flush(name)
            progress.update()
        for name in wanted:
            if texts[name]:
                flush(name)
    progress.close()
    return numbers


def write_benchmark(
    folder: files.Path,
    seed: int,
    count: int,
    level: int,
    languages: Sequence[str] = ("all",),
    *,
    split: str = "held-out",
    examples: bool = True,
) -> list[pathlib.Path]:
    """Writes embedded_{python,cpp,java,js,go,rust}.jsonl.gz: `--data FOLDER` of the judge.

    Args:
      folder: to be made; it appears when it is whole.
      seed, count, level, languages, examples: as for `write_corpus`; the tests stay the same.
      split: "held-out" or "train".

    Returns:
      The files.

    Raises:
      GeexError: the folder is there already, a bad level, split or language.
    """
    wanted = parse_languages(languages)
    drawn = list(mixture(seed, count, level, split))
    with whole_folder(folder) as made:
        for name in wanted:
            path = made / f"embedded_{BACKENDS[name].data}.jsonl.gz"
            path.write_bytes(_packed(_row(task, name, examples) for task in drawn))
    return [pathlib.Path(folder) / f"embedded_{BACKENDS[name].data}.jsonl.gz" for name in wanted]


def _packed(rows: Iterable[dict[str, str]]) -> bytes:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return gzip.compress(text.encode(), mtime=0)  # the same bytes at any hour


@contextlib.contextmanager
def whole_folder(folder: files.Path) -> Iterator[pathlib.Path]:
    """A neighbour to fill, which takes the folder's name if the block ends well.

    Raises:
      GeexError: the folder is there and not empty, or cannot be written.
    """
    target = pathlib.Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise GeexError(f"{target} is there already", "choose another folder, or remove it")
    made = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        made.mkdir(parents=True)
        yield made
        if target.is_dir():
            target.rmdir()
        os.replace(made, target)
    except OSError as error:
        raise GeexError(
            f"cannot write {target}: {error.strerror}", "check disk and rights"
        ) from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
