"""The problems of HumanEval-X, or of any set in the same format: found, read, checked, fetched."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import json
import os
import pathlib
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

from geex_jax import files
from geex_jax import languages as paper
from geex_jax.benchmark import languages as registry
from geex_jax.benchmark.humaneval_x import fixes as corrections
from geex_jax.errors import GeexError, did_you_mean

Problem = dict[str, str]
TITLE = "HumanEval-X"
COUNT = 164
HUB = "THUDM/humaneval-x"
# The hub has no Rust: it came later, in the repository of CodeGeeX alone.
ORIGIN = "https://raw.githubusercontent.com/THUDM/CodeGeeX/main/codegeex/benchmark/humaneval-x"
FIELDS = ("task_id", "prompt", "declaration", "canonical_solution", "test")


@dataclasses.dataclass(frozen=True)
class Names:
    """What a language is called: here, in prompts, in task ids, in file names.

    Attributes:
      name: "cpp", what `--language` takes. title: "C++", as in prompts. prefix: "CPP", of task
        ids. data: "cpp", as in humaneval_cpp.jsonl.gz.
      fields: beyond FIELDS, what its rows must have.
    """

    name: str
    title: str
    prefix: str
    data: str
    fields: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """The line that tells the model the language."""
        return paper.get(self.title).tag


NAMES = {
    x.name: x
    for x in (
        Names("python", "Python", "Python", "python"),
        Names("cpp", "C++", "CPP", "cpp"),
        Names("java", "Java", "Java", "java"),
        Names("javascript", "JavaScript", "JavaScript", "js"),
        Names("go", "Go", "Go", "go", ("import", "test_setup")),
        Names("rust", "Rust", "Rust", "rust"),
    )
}


@functools.cache
def names(language: str) -> Names:
    """The names of a language, told by any of them, in any case: cpp, C++, CPP, cxx; js, node.

    Raises:
      GeexError: no such language here; the message names the closest one.
    """
    word = language.strip().lower()
    for known in NAMES.values():
        if word in (known.name, known.title.lower(), known.prefix.lower(), known.data):
            return known
    with contextlib.suppress(GeexError, StopIteration):
        title = paper.get(word).name  # knows aliases
        return next(x for x in NAMES.values() if x.title == title)
    if word in registry.LANGUAGES:  # one that was added to the six
        added = registry.get(word)
        return Names(added.name, added.title, added.prefix, added.data)
    raise GeexError(f"no tasks in language {language!r}", did_you_mean(word, registry.LANGUAGES))


def every() -> list[Names]:
    """The names of all languages."""
    return [names(x) for x in registry.LANGUAGES]


def number(task_id: str) -> str:
    """What parallel tasks of all languages share: "7" of "Python/7"."""
    return task_id.partition("/")[2]


def prefix(task_id: str) -> str:
    """What tasks of one language share: "Python" of "Python/7"."""
    return task_id.partition("/")[0]


def of(task_id: str) -> Names:
    """The language of a task."""
    return names(prefix(task_id))


def cache_folder() -> pathlib.Path:
    """Where `download` puts the problems: GEEX_HUMANEVAL_X, else XDG's cache folder."""
    if chosen := os.environ.get("GEEX_HUMANEVAL_X"):
        return pathlib.Path(chosen).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(caches).expanduser() / "geex" / "humaneval-x"


def load(
    language: str, source: files.Path | None = None, *, fixes: bool | str = False
) -> list[Problem]:
    """Reads the problems of one language, in the order of the file.

    Args:
      language: "python", "cpp", ... or another of its names.
      source: a folder with humaneval_{python,cpp,java,js,go,rust}.jsonl.gz or .jsonl, or with
        data/{language}/data/humaneval.jsonl as on the hub; or one file of any number of tasks in
        the same format, whose rows of other languages are left out. Default: the cache folder.
      fixes: corrects data that are known to be wrong: True for the newest corrections, or the
        name of a version, such as "v1".

    Raises:
      GeexError: nothing there, cut short, or not in the format; names file and line.
    """
    known = names(language)
    path = pathlib.Path(source) if source is not None else cache_folder()
    if path.is_dir():
        found = find(known, path)
        problems = read(found, known.name, count=COUNT if _official(found) else None)
    elif path.is_file():
        problems = read(path, known.name, others=True)
    elif source is None:
        raise GeexError("HumanEval-X is not here", _get_it(path))
    else:
        raise GeexError(f"no file or folder {path}", "give the problems' folder, or one file")
    if fixes:
        version = corrections.newest() if fixes is True else fixes
        problems = corrections.apply(problems, version)[0]
    return problems


def find(known: Names, folder: pathlib.Path) -> pathlib.Path:
    """The file of a language in a folder.

    Raises:
      GeexError: none is there, or several that could be meant.
    """
    stems = [f"humaneval_{known.data}", f"humanevalx_{known.data}", f"{known.data}/data/humaneval"]
    stems += [f"data/{stems[-1]}", f"{known.data}/data/{stems[0]}", known.data, known.name]
    for stem in stems:
        for ending in (".jsonl.gz", ".jsonl"):
            if (path := folder / (stem + ending)).is_file():
                return path
    others = sorted(p for p in folder.glob(f"*_{known.data}.jsonl*") if p.is_file())
    if len(others) == 1:
        return others[0]
    if others:
        listed = ", ".join(p.name for p in others)
        raise GeexError(f"several files of {known.title} tasks in {folder}: {listed}", "give one")
    raise GeexError(f"no humaneval_{known.data}.jsonl.gz in {folder}", _get_it(folder))


def benchmark(language: str, source: files.Path | None = None) -> str:
    """What the set that `load` reads is called: HumanEval-X, or the beginning of its file's name.

    Raises:
      GeexError: see `find`.
    """
    path = pathlib.Path(source) if source is not None else cache_folder()
    known = names(language)
    found = find(known, path) if path.is_dir() else path
    if _official(found) or source is None:
        return TITLE
    stem = found.name.partition(".")[0].removesuffix(f"_{known.data}")
    return TITLE if stem in (known.data, known.name) else stem


def _official(path: pathlib.Path) -> bool:
    return path.name.startswith(("humaneval_", "humanevalx_", "humaneval."))


def _get_it(folder: pathlib.Path) -> str:
    where = "" if folder == cache_folder() else f" --data {folder}"
    return f"fetch it with geex bench humaneval-x --download{where}, or give its folder"


def read(
    path: files.Path, language: str, *, count: int | None = None, others: bool = False
) -> list[Problem]:
    """Reads and checks one file of problems.

    Args:
      path: JSON lines, gzipped or not.
      language: whose prefix the task ids must have.
      count: how many there must be; None for any number.
      others: leave tasks of other languages out, where they are an error otherwise.

    Raises:
      GeexError: cut short, broken, a field missing, an id twice; names the line.
    """
    known, path = names(language), pathlib.Path(path)
    problems: dict[str, Problem] = {}
    for line, row in json_lines(path):
        where = f"{path}, line {line}"
        task_id = row.get("task_id")
        if not isinstance(task_id, str) or not number(task_id):
            raise GeexError(f"{where}: no task_id as in {known.prefix}/0", "not a file of problems")
        if prefix(task_id) != known.prefix:
            if others and any(prefix(task_id) == x.prefix for x in every()):
                continue
            raise GeexError(f"{where}: task {task_id} is not of {known.title}", "wrong file?")
        if task_id in problems:
            raise GeexError(f"{where}: task {task_id} appears twice", "download the file again")
        for field in (*FIELDS, *known.fields):
            if not isinstance(row.get(field), str):
                raise GeexError(
                    f"{where}: task {task_id} has no text {field!r}",
                    f"needed: {', '.join((*FIELDS, *known.fields))}",
                )
        problems[task_id] = _as_published(known, row)
    if not problems:
        raise GeexError(f"no tasks of {known.title} in {path}", "wrong file?")
    if count is not None and len(problems) != count:
        raise GeexError(
            f"{path} has {len(problems)} tasks, HumanEval-X has {count}", "download it again"
        )
    return list(problems.values())


def _as_published(known: Names, row: Problem) -> Problem:
    """CodeGeeX2's copy of Rust repeats the declaration in the prompt; the published has it not."""
    bare = row["declaration"].strip()
    if known.name == "rust" and bare and bare in row["prompt"]:
        return row | {"prompt": row["prompt"].replace(bare, "").rstrip() + "\n"}
    return row


def json_lines(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, object) of a file of JSON lines, gzipped or not, without blank lines.

    Raises:
      GeexError: not there, not UTF-8, a broken line, a gzip file that is cut short.
    """
    line = 0
    try:
        with open_file(path) as file:
            for line, data in enumerate(file, 1):
                if not data.strip():
                    continue
                row = json.loads(data.decode("utf-8"))
                if not isinstance(row, dict):
                    raise GeexError(
                        f"{path}, line {line}: {type(row).__name__}, not an object",
                        "one JSON object a line",
                    )
                yield line, row
    except json.JSONDecodeError as error:
        raise GeexError(
            f"{path}, line {line}: not JSON ({error.msg}, column {error.colno})",
            "the file may be cut short there",
        ) from None
    except UnicodeDecodeError as error:
        where = f"{path}, line {line}, byte {error.start}"
        raise GeexError(f"{where}: not UTF-8", "convert the file") from None
    except (EOFError, zlib.error, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        after = f" after line {line}" if line else ""
        raise GeexError(f"{path} is not readable{after} ({reason})", "fetch it again") from None


@contextlib.contextmanager
def open_file(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Opens a file for reading; gzip is told by its first bytes, whatever the name."""
    with open(path, "rb") as raw:
        if raw.peek(2)[:2] == b"\x1f\x8b":
            with gzip.open(raw, "rb") as file:
                yield file  # type: ignore[misc]
        else:
            yield raw


def download(folder: files.Path | None = None, languages: Sequence[str] = ()) -> list[pathlib.Path]:
    """Fetches the problems; each file appears whole and checked, or not at all.

    Python, C++, Java, JavaScript and Go come from the Hugging Face hub, Rust, which is not
    there, from the repository of CodeGeeX.

    Args:
      folder: where to; the cache folder by default.
      languages: all by default.

    Returns:
      The files, one for each language.

    Raises:
      GeexError: a file cannot be had; names its language, and what to bring instead.
    """
    folder = cache_folder() if folder is None else pathlib.Path(folder)
    written = []
    for known in [names(x) for x in languages] or list(NAMES.values()):
        failures = []
        for fetch in (_from_hub, _from_origin):
            path = folder / f"humaneval_{known.data}.jsonl.gz"
            try:
                _put(fetch(known), path, known)
                written.append(path)
                break
            except Exception as error:  # the hub's errors, httpx's, OSError, wrong content
                failures.append(
                    str(error) if isinstance(error, GeexError) else type(error).__name__
                )
        else:
            raise GeexError(
                f"neither the hub ({HUB}) nor CodeGeeX's repository gives HumanEval-X in "
                f"{known.title} ({'; '.join(failures)})",
                f"put humaneval_{known.data}.jsonl.gz into {folder}",
            )
    return written


def _from_hub(known: Names) -> bytes:
    import huggingface_hub

    name = f"data/{known.data}/data/humaneval.jsonl"
    path = huggingface_hub.hf_hub_download(HUB, name, repo_type="dataset")
    return pathlib.Path(path).read_bytes()


def _from_origin(known: Names) -> bytes:
    name = f"{known.data}/data/humaneval_{known.data}.jsonl.gz"
    with urllib.request.urlopen(f"{ORIGIN}/{name}", timeout=60) as answer:
        return answer.read()


def _put(data: bytes, path: pathlib.Path, known: Names) -> None:
    if data[:2] != b"\x1f\x8b":
        data = gzip.compress(data, mtime=0)
    arrived = path.with_name(f".{path.name}.arrived-{os.getpid()}")
    with files.atomic_write(arrived, "wb") as file:
        file.write(data)
    try:
        read(arrived, known.name, count=COUNT)
        os.replace(arrived, path)
    finally:
        arrived.unlink(missing_ok=True)
