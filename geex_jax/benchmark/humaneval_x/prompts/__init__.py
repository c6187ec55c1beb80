"""What a model is asked: the paper's prompts, few-shot and chain-of-thought templates by name.

A template is a text file. Above its first section stand `name:`, `version:`, `task:` (generation
or translation), `answer:` (how the code is taken from what the model says) and `description:`.
Then come sections, each under a line like `=== prompt ===`: `prompt`, with {{fields}} (or
{{field|trim}}, without the newlines around it); `example`, repeated for each shot to make
{{examples}}; `opening`, the end of the prompt that already belongs to the answer. What changes
a prompt gets a new version.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Mapping, Sequence

from geex_jax import files
from geex_jax import languages as paper
from geex_jax.benchmark.humaneval_x.tasks import Names, Problem, names, number
from geex_jax.errors import GeexError, did_you_mean

FOLDER = pathlib.Path(__file__).parent
ANSWERS = ("completion", "fenced", "after")
TASKS = ("generation", "translation")
_SECTION = re.compile(r"^=== (\w+) ===\n", re.MULTILINE)
_FIELD = re.compile(r"\{\{(\w+)(\|trim)?\}\}")
_OWN = ("tag", "title", "fence", "comment", "indent", "prompt", "declaration", "solution", "whole")
_SOURCE = ("source_title", "source_fence", "source_prompt", "source_declaration", "source_solution")


@dataclasses.dataclass(frozen=True)
class Template:
    """How prompts are made, and how code is taken from the answers.

    Attributes:
      name: what `--prompt` takes. version: whole number. description: one line.
      task: "generation" or "translation".
      answer: "completion": the answer goes on where the prompt ends; "fenced": the whole program
        is in the last fenced block; "after": it comes after the last `marker`.
      prompt, example, opening: texts with {{fields}}.
      marker: for "after".
    """

    name: str
    version: int
    description: str
    task: str
    answer: str
    prompt: str
    example: str = ""
    opening: str = ""
    marker: str = ""

    @property
    def title(self) -> str:
        """Name and version, for results: "few-shot v1"."""
        return f"{self.name} v{self.version}"

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all that decides prompts and answers."""
        return files.fingerprint(*(str(v) for v in dataclasses.astuple(self)))


def listing() -> list[Template]:
    """The templates that come along, by name."""
    return [read(p) for p in sorted(FOLDER.glob("*.txt"))]


def get(name: str) -> Template:
    """The template of that name, or in that file.

    Raises:
      GeexError: neither a name nor a file, or a file that is not a template.
    """
    if (path := FOLDER / f"{name}.txt").is_file() and re.fullmatch(r"[\w-]+", name):
        return read(path)
    if pathlib.Path(name).is_file():
        return read(name)
    known = [t.name for t in listing()]
    raise GeexError(f"no prompt template {name!r}", did_you_mean(name, known) + ", or give a file")


def read(path: files.Path) -> Template:
    """Reads a template file.

    Raises:
      GeexError: not a template; says what is missing or unknown.
    """
    try:
        text = pathlib.Path(path).read_text("utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise GeexError(f"{path} is not readable text ({error})", "give a template") from None
    head, *parts = _SECTION.split(text)
    about = {}
    for line in head.splitlines():
        key, colon, value = line.partition(":")
        if line.strip() and not colon:
            raise GeexError(f"{path}: {line!r} is not a line of the head", "write key: value")
        about[key.strip()] = value.strip()
    about.pop("", None)
    # The newline before the next section, or before the end of the file, is not part of the text.
    sections = dict(zip(parts[::2], (p.removesuffix("\n") for p in parts[1::2]), strict=True))
    _check(path, about, sections)
    about["marker"] = about.get("marker", "")
    return Template(**{**about, "version": int(about["version"]), **sections})


def _check(path: files.Path, about: Mapping[str, str], sections: Mapping[str, str]) -> None:
    """Raises a GeexError for what is missing, unknown or of no use."""
    fields = ("name", "version", "task", "answer", "description")
    for key in fields:
        if not about.get(key):
            raise GeexError(f"{path}: no {key!r} in its head", f"needed: {', '.join(fields)}")
    for key in about:
        if key not in (*fields, "marker"):
            raise GeexError(f"{path}: unknown {key!r} in its head", did_you_mean(key, fields))
    for key, choices in (("answer", ANSWERS), ("task", TASKS)):
        if about[key] not in choices:
            raise GeexError(f"{path}: {key} {about[key]!r}", did_you_mean(about[key], choices))
    if not about["version"].isdecimal():
        raise GeexError(f"{path}: version {about['version']!r}", "give a whole number")
    if (about["answer"] == "after") != bool(about.get("marker")):
        raise GeexError(f"{path}: a marker belongs to answer: after", "give both, or neither")
    if "prompt" not in sections:
        raise GeexError(f"{path}: no section prompt", "write === prompt === above it")
    for section, text in sections.items():
        if section not in ("prompt", "example", "opening"):
            what = did_you_mean(section, ("prompt", "example", "opening"))
            raise GeexError(f"{path}: unknown section {section!r}", what)
        allowed = _OWN + (_SOURCE if about["task"] == "translation" else ())
        allowed += ("examples",) if section == "prompt" else ()
        for field, _ in _FIELD.findall(text):
            if field not in allowed:
                raise GeexError(
                    f"{path}: unknown field {{{{{field}}}}} in {section}",
                    did_you_mean(field, allowed),
                )
    if ("{{examples}}" in sections["prompt"]) != ("example" in sections):
        raise GeexError(f"{path}: {{{{examples}}}} and a section example", "give both, or neither")


def of_problem(known: Names, problem: Problem) -> str:
    """The prompt of a problem, as a model can go on with it.

    It is the data set's, but for Rust: there the published prompt is the comment alone, and the
    declaration follows it here, as in CodeGeeX2's copy of the data.
    """
    bare = known.name == "rust" and problem["declaration"].strip() not in problem["prompt"]
    return problem["prompt"] + (problem["declaration"] if bare else "")


def fence(known: Names) -> str:
    """The word after ``` that opens a block of that language."""
    return "cpp" if known.title == "C++" else known.name


def _own(language: str, problem: Problem) -> dict[str, str]:
    known = names(language)
    comment = paper.get(known.title).comment[0]
    prompt = of_problem(known, problem)
    return {
        "tag": known.tag,
        "title": known.title,
        "fence": fence(known),
        "comment": comment,
        "indent": "        " if known.name == "java" else "    ",
        "prompt": prompt,
        "declaration": problem["declaration"],
        "solution": problem["canonical_solution"],
        "whole": prompt + problem["canonical_solution"],
    }


def _source(language: str, problem: Problem) -> dict[str, str]:
    own = _own(language, problem)
    own["solution"] = own["solution"].rstrip()  # as the reference
    return {name: own[name.removeprefix("source_")] for name in _SOURCE}


def _fill(text: str, fields: Mapping[str, str]) -> str:
    # In one pass: code may hold {{x}} itself.
    return _FIELD.sub(lambda m: fields[m[1]].strip("\n") if m[2] else fields[m[1]], text)


def generation(
    template: Template,
    language: str,
    problem: Problem,
    shots: Sequence[tuple[str, Problem]] = (),
) -> str:
    """The prompt that asks for a solution.

    Args:
      template: of task "generation".
      language: of the problem.
      problem: a row of the data.
      shots: (language, problem) of the examples, from `draw`.
    """
    _needs(template, "generation", shots)
    examples = "".join(_fill(template.example, _own(*shot)) + "\n" for shot in shots)
    return _fill(template.prompt, _own(language, problem) | {"examples": examples})


def translation(
    template: Template,
    source: tuple[str, Problem],
    target: tuple[str, Problem],
    shots: Sequence[tuple[tuple[str, Problem], tuple[str, Problem]]] = (),
) -> str:
    """The prompt that asks for a translation.

    Args:
      template: of task "translation".
      source: language and problem to translate from. target: to translate to, of the same number.
      shots: (source, target) of the examples, from `draw_pairs`.

    Raises:
      GeexError: the two are not the same problem, or in the same language.
    """
    _needs(template, "translation", shots)
    ids = source[1]["task_id"], target[1]["task_id"]
    if number(ids[0]) != number(ids[1]) or ids[0] == ids[1]:
        raise GeexError(f"{ids[0]} is not translated to {ids[1]}", "take one number, two languages")
    examples = "".join(
        _fill(template.example, _own(*there) | _source(*here)) + "\n" for here, there in shots
    )
    fields = _own(*target) | _source(*source) | {"examples": examples}
    return _fill(template.prompt, fields)


def opening(template: Template, language: str, problem: Problem) -> str:
    """The end of the prompt that the program needs too, before what the model wrote."""
    return _fill(template.opening, _own(language, problem))


def _needs(template: Template, task: str, shots: Sequence[object]) -> None:
    if template.task != task:
        wanted = [t.name for t in listing() if t.task == task]
        raise GeexError(f"template {template.name} is for {template.task}",
                        f"for {task} take one of: {', '.join(wanted)}")  # fmt: skip
    if bool(template.example) != bool(shots):
        what = "needs examples" if template.example else "takes no examples"
        raise GeexError(f"template {template.name} {what}", "see --shots")


def _order(*words: str | int) -> bytes:
    return hashlib.sha256("\0".join(str(w) for w in words).encode()).digest()


def draw(
    problems: Mapping[str, Sequence[Problem]],
    language: str,
    task_id: str,
    shots: int,
    *,
    seed: int = 0,
    mixed: bool = False,
) -> list[tuple[str, Problem]]:
    """Draws the examples of a task: never itself, nor the same problem in another language.

    What is drawn depends on seed, task and the problems alone, not on the order of calls.

    Args:
      problems: by language.
      language: of the task.
      task_id: the task's.
      shots: how many examples, of different numbers.
      seed: another one draws others.
      mixed: in all languages of `problems` by turns, in an order of their own for each task;
        without it in the task's language.

    Raises:
      GeexError: there are not that many other problems.
    """
    home = names(language).name
    by = {names(k).name: {number(p["task_id"]): p for p in v} for k, v in problems.items()}
    tongues = sorted(by) if mixed else [home]
    tongues.sort(key=lambda t: _order(seed, task_id, "language", t))
    numbers = _numbers(by, tongues, task_id, seed)
    _enough(numbers, shots)
    return [(t := tongues[i % len(tongues)], by[t][n]) for i, n in enumerate(numbers[:shots])]


def draw_pairs(
    problems: Mapping[str, Sequence[Problem]],
    source: str,
    target: str,
    task_id: str,
    shots: int,
    *,
    seed: int = 0,
    mixed: bool = False,
) -> list[tuple[tuple[str, Problem], tuple[str, Problem]]]:
    """Draws examples of a translation, as `draw` does.

    Args:
      problems: by language.
      source: language to translate from. target: language to translate to.
      task_id: of the task in either.
      shots: how many.
      seed: another one draws others.
      mixed: from other languages than `source`, by turns; the target stays.

    Raises:
      GeexError: there are not that many other problems, or no other language.
    """
    here, there = names(source).name, names(target).name
    by = {names(k).name: {number(p["task_id"]): p for p in v} for k, v in problems.items()}
    tongues = sorted(set(by) - {here, there}) if mixed else [here]
    if not tongues:
        raise GeexError("no third language to draw examples from", "give more languages")
    tongues.sort(key=lambda t: _order(seed, number(task_id), there, "language", t))
    numbers = _numbers(by, [*tongues, there], f"{there}/{number(task_id)}", seed)
    _enough(numbers, shots)
    return [
        ((t := tongues[i % len(tongues)], by[t][n]), (there, by[there][n]))
        for i, n in enumerate(numbers[:shots])
    ]


def _numbers(
    by: Mapping[str, Mapping[str, Problem]], tongues: Sequence[str], task_id: str, seed: int
) -> list[str]:
    """Numbers that all these languages have, but the task's, in drawn order."""
    common = set.intersection(*(set(by[t]) for t in tongues)) - {number(task_id)}
    return sorted(common, key=lambda n: _order(seed, task_id, n))


def _enough(numbers: Sequence[str], shots: int) -> None:
    if not 0 < shots <= len(numbers):
        raise GeexError(f"{shots} examples", f"give 1 to {len(numbers)}")
