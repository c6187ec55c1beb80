"""Generations read from files: which task, which sample, which code, in the usual formats.

JSON lines, gzipped or not, with a task id and one sample or a list of them:
`{"task_id", "generation"}` (CodeGeeX), `{"task_id", "completion"}` (HumanEval), `{"task_id",
"solution"}` (EvalPlus: whole programs), or lists under `generations`, `completions`, `samples`,
`solutions`. Or one JSON file: a list that has a list of samples for each task in order (bigcode),
or an object from task ids to lists.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from geex_jax import files
from geex_jax.benchmark.humaneval_x import answers, programs, tasks
from geex_jax.benchmark.humaneval_x.tasks import Problem
from geex_jax.errors import GeexError, did_you_mean

IDS = ("task_id", "name", "id")
ONE = ("generation", "completion")
MANY = ("generations", "completions", "samples")
WHOLE = ("solution", "solutions")
TRANSLATION = "code translation\n"
# Signs that a prompt is a talk with a model, not the beginning of a program.
_TALK = re.compile(r"```|<\|im_start\|>|\[INST\]|^### (?:Instruction|Response)|^问：", re.MULTILINE)
_QUIET = re.compile(r"\s*($|#|//|/?\*|import\b|from\b|using\b|use\b|package\b|[\"')])")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One generation.

    Attributes:
      task_id: of its problem, as in the data.
      index: 0, 1, ... for the samples of a task, in the order of the file.
      code: comes after the prompt.
      prompt: what comes before it in the program; None: the data set's prompt.
      line: of the file, 0 where it has no lines.
    """

    task_id: str
    index: int
    code: str
    prompt: str | None = None
    line: int = 0

    def problem(self, problem: Mapping[str, str]) -> Mapping[str, str]:
        """The problem with this sample's prompt, as a language's `assemble` takes it."""
        return problem if self.prompt is None else {**problem, "prompt": self.prompt}


class Generations:
    """A file of generations; iterating reads it anew and gives Samples.

    Args:
      path: the file.
      problems: by task id: those to be judged.
      language: of tasks whose ids do not say it ("HumanEval/0", "0"), and the target of
        translations.
      translation: ids may have the source language's prefix, as the reference writes them, and
        the samples' own prompts are never pasted.
      form: "completion", "full" or "auto" (see `answers`); by default "full" for `solution`,
        "auto" for a JSON list, else "completion".

    Attributes:
      skipped: rows of languages that `problems` has not, in the last pass.
      replaced: samples whose own prompt is no beginning of a program, so that the data set's is
        taken, in the last pass.

    Raises:
      GeexError: while iterating; names the line, and what was expected.
    """

    def __init__(
        self,
        path: files.Path,
        problems: Mapping[str, Problem],
        *,
        language: str | None = None,
        translation: bool = False,
        form: str | None = None,
    ):
        self.path, self.problems, self.form = pathlib.Path(path), problems, form
        self.language = tasks.names(language) if language else None
        self.translation = translation
        self.skipped = self.replaced = 0
        self._prefixes = {tasks.prefix(t) for t in problems}
        if self.language is None and len(self._prefixes) == 1:
            self.language = tasks.names(*self._prefixes)
        if form is not None and form not in answers.FORMATS:
            raise GeexError(f"unknown format {form!r}", did_you_mean(form, answers.FORMATS))
        if translation and language is None:
            raise GeexError("translations need their target language", "pass --language")

    def __iter__(self) -> Iterator[Sample]:
        self.skipped = self.replaced = 0
        counts: Counter[str] = Counter()
        for line, row in _rows(self.path):
            where = f"{self.path}, line {line}" if line else f"{self.path}"
            task_id, texts, form, prompt = self._parse(row, where)
            if task_id is None:
                self.skipped += 1
                continue
            for text in texts:
                code, pasted = self._take(task_id, text, form, prompt)
                yield Sample(task_id, counts[task_id], code, pasted, line)
                counts[task_id] += 1

    def _parse(self, row: Any, where: str) -> tuple[str | None, list[str], str, str | None]:
        if isinstance(row, _Listed):  # of a bigcode list
            return (
                self._nth(row.place, where),
                _texts(row.samples, where),
                self.form or "auto",
                None,
            )
        key = next((k for k in IDS if row.get(k) is not None), None)
        if key is None:
            raise GeexError(f"{where}: no task_id; it has {_keys(row)}", "see --generations")
        task_id = self._resolve(row[key], where)
        field = next((k for k in (*ONE, *MANY, *WHOLE) if k in row), None)
        if field is None:
            raise GeexError(
                f"{where}: no known field of a generation; it has {_keys(row)}",
                f"use one of: {', '.join((*ONE, *MANY, *WHOLE))}",
            )
        form = self.form or ("full" if field in WHOLE else "completion")
        prompt = row["prompt"] if isinstance(row.get("prompt"), str) else None
        texts = _texts(row[field], where)
        if row.get("paste") is True and prompt is not None:  # `sources` fitted the two already
            form = "fitted"
        return task_id, texts, form, prompt

    def _take(
        self, task_id: str, text: str, form: str, prompt: str | None
    ) -> tuple[str, str | None]:
        # Lone surrogates, which JSON can hold, no compiler's input can.
        text = text.encode("utf-8", "replace").decode("utf-8")
        problem = self.problems[task_id]
        language = tasks.of(task_id).name
        if form == "fitted":
            return text, prompt
        taken = answers.extract(form, language, problem, text, [prompt] if prompt else [])
        if taken.prompt is not None or prompt is None:
            return taken.code, taken.prompt
        if self.translation or not pastes(language, problem, prompt):
            self.replaced += not self.translation
            return taken.code, None
        return taken.code, None if prompt == problem["prompt"] else prompt

    def _nth(self, place: int, where: str) -> str:
        chosen = [t for t in self.problems if self.language is None or tasks.of(t) == self.language]
        if len({tasks.prefix(t) for t in chosen}) != 1:
            raise GeexError(f"{where}: a list does not say its language", "pass --language")
        if place >= len(chosen):
            raise GeexError(f"{where}: more lists than the {len(chosen)} tasks", "wrong file?")
        return chosen[place]

    def _resolve(self, raw: Any, where: str) -> str | None:
        """The task id as in the data; None for a language that is not asked for."""
        said = str(raw).strip()
        if said in self.problems and not self.translation:
            return said
        word, slash, rest = said.partition("/")
        if not slash and (found := re.match(r"([A-Za-z+]+)_(\d+)(?:_|$)", said)):
            word, rest = found[1], found[2]  # HumanEval_0_has_close_elements
        elif not slash:
            word, rest = "", said
        if (
            self.translation
            or not word
            or word.lower().replace("-", "") in ("humaneval", "humanevalx")
        ):
            if self.language is None:
                raise GeexError(f"{where}: task {said!r} does not say its language",
                                "pass --language")  # fmt: skip
            known = self.language
        else:
            try:
                known = tasks.names(word)
            except GeexError:
                close = did_you_mean(said, list(self.problems))
                raise GeexError(f"{where}: unknown task {said!r}", close) from None
        if known.prefix not in self._prefixes:
            return None
        task_id = f"{known.prefix}/{rest.lstrip('0') or '0' if rest.isdecimal() else rest}"
        if task_id not in self.problems:
            close = did_you_mean(task_id, [t for t in self.problems if tasks.of(t) == known])
            raise GeexError(f"{where}: unknown task {said!r}", close)
        return task_id


def pastes(language: str, problem: Problem, prompt: str) -> bool:
    """Whether a sample's own prompt can begin its program, as the reference has it.

    It can where it holds the data set's prompt with nothing but comments and imports before it (a
    tag line, say), or at least the function's declaration. It cannot where it is a translation
    prompt, or speaks to a chat model; nor in Rust with the declaration, which always stands
    before it.
    """
    if prompt.startswith(TRANSLATION) or _TALK.search(prompt):
        return False
    if language == "rust" and problem["declaration"].strip() in prompt:
        return False
    whole = problem["prompt"].strip()
    if whole in prompt:
        before, _, after = prompt.rpartition(whole)
        return not after.strip() and all(_QUIET.match(line) for line in before.split("\n"))
    return programs.defines(language, programs.entry(language, problem), prompt)


@dataclasses.dataclass(frozen=True)
class _Listed:
    """The samples of the task at a place in the list."""

    place: int
    samples: Any


def _rows(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
    """Yields (line, row); JSON lines are streamed, a JSON document is read as a whole."""
    if not path.is_file():
        raise GeexError(f"no file {path}", "give generations as JSON lines")
    if not _is_document(path):
        yield from tasks.json_lines(path)
        return
    try:
        with tasks.open_file(path) as file:
            value = json.loads(file.read().decode("utf-8"))
    except (ValueError, EOFError, zlib.error, OSError) as error:
        raise GeexError(f"{path} is not readable JSON ({error})", "it may be cut short") from None
    if isinstance(value, dict) and not any(k in value for k in IDS):
        value = [{"task_id": k, "samples": v} for k, v in value.items()]
    for place, row in enumerate(value if isinstance(value, list) else [value]):
        yield 0, row if isinstance(row, dict) else _Listed(place, row)


def _is_document(path: pathlib.Path) -> bool:
    """Whether the file is one JSON value: begins with a list, or spans lines, or says so."""
    try:
        with tasks.open_file(path) as file:
            lines = (line.strip() for line in file if line.strip())
            first, second = next(lines, b""), next(lines, b"")
    except (EOFError, zlib.error, OSError):
        return False  # the reader says what is wrong, and where
    name = path.name.removesuffix(".gz")
    return first[:1] == b"[" or (name.endswith(".json") and not second.startswith(b'{"'))


def _texts(value: Any, where: str) -> list[str]:
    """Samples as texts; null, which some servers give for nothing, is the empty text."""
    values = value if isinstance(value, list) else [value]
    texts = []
    for each in values:
        if isinstance(each, dict):
            each = next((each[k] for k in (*ONE, *WHOLE, "text") if k in each), each)
        if each is not None and not isinstance(each, str):
            raise GeexError(
                f"{where}: a generation is {type(each).__name__}, not text", "give text"
            )
        texts.append(each or "")
    return texts


def _keys(row: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, row))[:12]) or "no keys"
