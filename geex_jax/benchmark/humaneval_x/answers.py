"""Code out of what a model said: fenced blocks, repeated prompts, whole programs.

The reference takes every answer as the text that goes on where the prompt ends; so does the
format "completion", the default. "full" takes it as a whole program, in a fenced block or not.
"auto" finds out: a fenced block is taken out of its prose, a repeated prompt is taken off, and
what then defines the function asked for is a whole program, the rest a completion.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from geex_jax.benchmark.humaneval_x import programs
from geex_jax.benchmark.humaneval_x.tasks import Problem, names
from geex_jax.errors import GeexError, did_you_mean

FORMATS = ("completion", "full", "auto")
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\n`]*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What goes into the program.

    Attributes:
      code: comes after the prompt.
      prompt: comes before it; None: the data set's.
    """

    code: str
    prompt: str | None = None


def extract(
    form: str, language: str, problem: Problem, text: str, prompts: Sequence[str] = ()
) -> Answer:
    """Takes the code out of an answer.

    Args:
      form: "completion", "full" or "auto".
      language: of the program.
      problem: the task.
      text: what the model said.
      prompts: what it was asked, if known: it may have repeated that.

    Raises:
      GeexError: an unknown format.
    """
    if form not in FORMATS:
        raise GeexError(f"unknown format {form!r} of generations", did_you_mean(form, FORMATS))
    if form == "completion":
        return Answer(text)
    language = names(language).name
    entry = programs.entry(language, problem)
    text = fenced(text, lambda block: programs.defines(language, entry, block))
    declared = problem["prompt"] + (problem["declaration"] if language == "rust" else "")
    for prompt in (*prompts, declared, problem["prompt"]):
        rest = _without(prompt, text)
        if rest is not None:
            return Answer(rest)
    if form == "full" or programs.is_whole(language, entry, text):
        return Answer(*programs.fit(language, problem, text))
    return Answer(text)


def _without(prompt: str, text: str) -> str | None:
    """What follows the prompt, where the text repeats it at its beginning."""
    for begin in (prompt, prompt.strip("\n"), prompt.strip()):
        for body in (text, text.lstrip("\n")):
            if begin and body.startswith(begin):
                return body[len(begin) :]
    return None


def fenced(text: str, is_it=lambda block: True) -> str:
    """The last fenced block for which `is_it` holds, else the last block, else the text.

    A last block that is never closed counts; after a lone closing fence comes only prose.
    """
    blocks, opened = [], None
    fences = list(_FENCE.finditer(text))
    if len(fences) % 2 and fences and not fences[0][2].strip() and _is_code(text, fences[0]):
        return text[: fences[0].start()]  # the fence was opened in the prompt
    for fence in fences:
        if opened is None:
            opened = fence
        elif fence[1][0] == opened[1][0] and len(fence[1]) >= len(opened[1]) and not fence[2]:
            blocks.append(text[opened.end() + 1 : fence.start()])
            opened = None
    if opened is not None:
        blocks.append(text[opened.end() + 1 :])
    blocks = [b for b in blocks if b.strip()]
    wanted = [b for b in blocks if is_it(b)] or blocks
    return wanted[-1] if wanted else text


def _is_code(text: str, fence: re.Match[str]) -> bool:
    """Whether what stands before the first fence looks like the code that it closes."""
    before = text[: fence.start()]
    return bool(before.strip()) and (before.lstrip("\n")[:1] in " \t" or "}" in before)
