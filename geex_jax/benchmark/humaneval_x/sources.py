"""Samples from a model: jobs out of problems and a template, answers into generations.jsonl.

A generator is any callable that takes prompts and Settings and returns a list of texts for each
prompt: a checkpoint of this library, a server (`endpoint.Endpoint`), or the caller's own. Results
are appended as they come; a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from geex_jax import files
from geex_jax.benchmark import languages as registry
from geex_jax.benchmark.humaneval_x import answers, prompts, tasks, truncation
from geex_jax.benchmark.humaneval_x.prompts import Template
from geex_jax.benchmark.humaneval_x.tasks import Problem
from geex_jax.errors import GeexError


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a generator is to draw. Defaults are the paper's for n = 200.

    Attributes:
      samples: texts for each prompt.
      temperature: 0 for the most likely tokens. top_p: 0 or 1 for off.
      max_tokens: most new tokens of a text.
      seed: of everything drawn.
      language: of the programs; decides where a text may end ("" for nowhere).
      opening: end of the prompts that belongs to the answer already, for that decision.
      first_row: number of the first text; one with its own number is the same in every batch, if
        the generator draws by (seed, number).
    """

    samples: int = 1
    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int = 512
    seed: int = 42
    language: str = ""
    opening: str = ""
    first_row: int = 0


Generate = Callable[[list[str], Settings], list[list[str]]]


@dataclasses.dataclass(frozen=True)
class Job:
    """One task to be sampled.

    Attributes:
      language: of the program. problem: the task.
      prompt: what the model is asked.
      pasted: the prompt that a reader of the results puts before the code.
      opening: see Settings. template: says how code is taken from the answer.
    """

    language: str
    problem: Problem
    prompt: str
    pasted: str
    opening: str
    template: Template


def make_jobs(
    template: Template,
    problems: Mapping[str, Sequence[Problem]],
    language: str,
    *,
    source: str | None = None,
    shots: int = 3,
    mixed: bool = False,
    seed: int = 0,
) -> list[Job]:
    """One job for each task of a language.

    Args:
      template: of the prompts.
      problems: by language; all that examples may be drawn from.
      language: of the programs to write.
      source: language to translate from; tasks that it lacks are left out.
      shots: examples in each prompt, where the template has them.
      mixed: draws them from all languages.
      seed: of that drawing.

    Raises:
      GeexError: template and task do not go together, or there are not enough examples.
    """
    language = tasks.names(language).name
    drawing: dict[str, Any] = {"seed": seed, "mixed": mixed}
    others = {}
    if source is not None:
        source = tasks.names(source).name
        others = {tasks.number(p["task_id"]): p for p in problems[source]}
    jobs = []
    for problem in problems[language]:
        task_id = problem["task_id"]
        if source is None:
            drawn = prompts.draw(problems, language, task_id, shots, **drawing) if (
                template.example) else []  # fmt: skip
            prompt = prompts.generation(template, language, problem, drawn)
            pasted = tasks.names(language).tag + "\n" + problem["prompt"]
        else:
            if (other := others.get(tasks.number(task_id))) is None:
                continue
            pairs = prompts.draw_pairs(problems, source, language, task_id, shots, **drawing) if (
                template.example) else []  # fmt: skip
            prompt = prompts.translation(template, (source, other), (language, problem), pairs)
            # Not the reference's translation prompt, which is no beginning of a program.
            pasted = problem["prompt"]
        opening = prompts.opening(template, language, problem)
        jobs.append(Job(language, problem, prompt, pasted, opening, template))
    return jobs


def collect(
    generate: Generate,
    jobs: Sequence[Job],
    path: files.Path,
    settings: Settings,
    *,
    model: str = "",
    batch: int = 16,
    overwrite: bool = False,
) -> pathlib.Path:
    """Samples all jobs into a file of generations, in the reference's format.

    Rows have `task_id`, `prompt` (what stands before the code in the program), `generation`,
    `completion_id` (0, 1, ...) and `finish` (1: the language's stop rule ended it, 0: not).

    Args:
      generate: the generator; not called for what is done already.
      jobs: from `make_jobs`.
      path: the file; beside it lie its settings.
      settings: language, opening and first_row are set here.
      model: its name, for the settings.
      batch: most texts asked for in one call.
      overwrite: begins anew, whatever is there.

    Raises:
      GeexError: the file has results of other settings, or is being written by another run; the
        generator returned something else than what it was asked for.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise GeexError(f"another run is writing {path}", "wait, or use another file") from None
        if overwrite:
            file.truncate(0)
        done = _resume(path, file, _about(jobs, settings, model))
        total = len(jobs) * settings.samples
        progress = files.Progress("generating", total, "samples", start=sum(done.values()))
        for group, asked in _batches(jobs, done, settings, batch):
            texts = generate([job.prompt for job in group], asked)
            _check(texts, len(group), asked.samples)
            chat = bool(getattr(generate, "chat", False))
            for job, written in zip(group, texts, strict=True):
                first = done[job.problem["task_id"]]
                for i, text in enumerate(written):
                    row = _row(job, text, chat) | {"completion_id": first + i}
                    file.write(
                        json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
                    )
                done[job.problem["task_id"]] += len(written)
            file.flush()
            progress.update(len(group) * asked.samples, group[-1].problem["task_id"])
        os.fsync(file.fileno())
        progress.close()
    return path


def settings_path(path: files.Path) -> pathlib.Path:
    """Where the settings of a file of generations lie."""
    path = pathlib.Path(path)
    return path.with_name(path.name.removesuffix(".jsonl") + ".settings.json")


def _about(jobs: Sequence[Job], settings: Settings, model: str) -> dict[str, Any]:
    about = dataclasses.asdict(settings)
    for name in ("language", "opening", "first_row"):
        del about[name]
    templates = sorted({job.template.title for job in jobs})
    every = [
        part for j in jobs for part in (j.problem["task_id"], j.prompt, j.template.fingerprint)
    ]
    return {**about, "model": model, "templates": templates, "prompts": files.fingerprint(*every)}


def _resume(path: pathlib.Path, file: IO[bytes], about: dict[str, Any]) -> Counter[str]:
    """Checks that what is there belongs to this run; returns how many samples each task has."""
    done: Counter[str] = Counter()
    file.seek(0)
    whole = 0
    for line in file:
        if not line.endswith(b"\n"):
            break  # cut short by a kill
        try:
            done[json.loads(line)["task_id"]] += 1
        except (ValueError, KeyError, TypeError):
            raise GeexError(
                f"{path} holds something else", "use another file, or --overwrite"
            ) from None
        whole += len(line)
    file.truncate(whole)
    beside = settings_path(path)
    if not done:
        files.write_json(beside, about)
        return done
    try:
        before = json.loads(beside.read_text("utf-8"))
    except (OSError, ValueError):
        before = {}
    if before != about:
        changed = ", ".join(k for k in about if before.get(k) != about[k])
        raise GeexError(
            f"{path} holds samples made with other settings ({changed})",
            "repeat that run's command to go on with it, use another file, or --overwrite",
        )
    return done


def _batches(
    jobs: Sequence[Job], done: Mapping[str, int], settings: Settings, batch: int
) -> Iterator[tuple[list[Job], Settings]]:
    """Yields jobs to ask together: neighbours, all samples of each; or one, some of its samples."""
    samples, place = settings.samples, 0

    def ask(first: int, count: int, skipped: int = 0) -> tuple[list[Job], Settings]:
        group = list(jobs[first : first + count])
        return group, dataclasses.replace(
            settings,
            samples=min(samples - skipped, max(batch, 1)) if count == 1 else samples,
            language=group[0].language,
            opening=group[0].opening,
            first_row=first * samples + skipped,
        )

    def alike(a: Job, b: Job) -> bool:
        return (a.language, a.opening) == (b.language, b.opening)

    while place < len(jobs):
        # `done` grows while this runs: a task's samples are counted before the next are asked for.
        count, skipped = 1, done[jobs[place].problem["task_id"]]
        if skipped >= samples:
            place += 1
            continue
        if skipped == 0:
            while (
                place + count < len(jobs)
                and (count + 1) * samples <= batch
                and not done[jobs[place + count].problem["task_id"]]
                and alike(jobs[place], jobs[place + count])
            ):
                count += 1
        yield ask(place, count, skipped)


def _check(texts: Any, prompts_asked: int, samples: int) -> None:
    good = isinstance(texts, list) and len(texts) == prompts_asked and all(
        isinstance(t, list) and len(t) == samples and all(isinstance(x, str) for x in t)
        for t in texts
    )  # fmt: skip
    if not good:
        raise GeexError(
            f"generate() did not return {samples} texts for each of {prompts_asked} prompts",
            "return a list of lists of strings",
        )


def _row(job: Job, text: str, chat: bool) -> dict[str, Any]:
    """One answer as a row of the file."""
    template, task_id = job.template, job.problem["task_id"]
    row: dict[str, Any] = {"task_id": task_id, "prompt": job.pasted}
    if template.answer == "completion" and not chat:
        code, finished = shorten(job.language, job.opening + text)
        return row | {"generation": code, "finish": int(finished)}
    if template.answer == "after":
        text = text.rpartition(template.marker)[2]
    form = "full" if template.answer == "fenced" else "auto"
    taken = answers.extract(form, job.language, job.problem, text, [job.prompt])
    row |= {"generation": taken.code, "finish": 1}
    return row if taken.prompt is None else row | {"prompt": taken.prompt, "paste": True}


def shorten(language: str, code: str) -> tuple[str, bool]:
    """Ends a completion by the language's rules; see `truncation.shorten`."""
    if language in truncation.FINISHED:
        return truncation.shorten(language, code)
    rules = registry.get(language)  # one that was added to the six
    return (rules.clean(code), True) if rules.is_finished(code) else (code, False)


def _before_joint(tokenizer: Any, prompt: str) -> str:
    """The prompt up to where its tokens stay the same when code follows.

    A vocabulary trained here has pieces of a line end with the indentation after it. Where a
    prompt ends with the line end alone, its last token never has indentation behind it in
    training, and the model takes it for the end of the text. So the model is to write that line
    end itself. Vocabularies without such pieces, the official one among them, get the whole
    prompt, as in the reference.
    """
    bare = prompt.rstrip("\n")
    ids = tokenizer.encode(prompt)
    joined = any(tokenizer.encode(f"{prompt}{by}x")[: len(ids)] != ids for by in ("  ", "    "))
    return bare if bare and joined else prompt


class Checkpoint:
    """A model of this library as a generator; it is opened when the first text is asked for.

    Args:
      path: what `checkpoints.load_model` opens.
      **changes: fields of its config, such as `dtype="bfloat16"`.
    """

    STEPS = 32  # tokens drawn between two looks at the text

    def __init__(self, path: files.Path, **changes: Any):
        self.path, self.changes = path, changes
        self._loaded: Any = None

    def __call__(self, prompts: list[str], settings: Settings) -> list[list[str]]:
        """Texts for each prompt; one for a prompt that leaves no room in the context is empty."""
        model, _, tokenizer = self._load()
        room = model.config.context_length
        asked = [_before_joint(tokenizer, p) for p in prompts]
        encoded = [tokenizer.encode(p) or [tokenizer.eos_id] for p in asked]
        fits = [len(e) < room for e in encoded for _ in range(settings.samples)]
        # A place is kept for those that do not fit: the numbers of the others decide their draws.
        rows = [e if len(e) < room else [tokenizer.eos_id] for e in encoded]
        texts = self._draw([e for e in rows for _ in range(settings.samples)], fits, settings)
        n = settings.samples
        cut = [p[len(a) :] for p, a in zip(prompts, asked, strict=True)]
        texts = [text.removeprefix(cut[i // n]) for i, text in enumerate(texts)]
        return [texts[i * n : (i + 1) * n] for i in range(len(prompts))]

    def _load(self) -> Any:
        if self._loaded is None:
            from geex_jax import checkpoints

            self._loaded = checkpoints.load_model(self.path, **self.changes)
            if self._loaded.tokenizer is None:
                raise GeexError(f"{self.path} has no tokenizer", "save the model with one")
        return self._loaded

    def _draw(self, rows: list[list[int]], fits: list[bool], settings: Settings) -> list[str]:
        import numpy as np

        from geex_jax.inference import Decoding
        from geex_jax.tokenizers import StreamDecoder

        model, params, tokenizer = self._loaded
        decoding = Decoding(
            model, params, rows, max_new_tokens=settings.max_tokens,
            temperature=settings.temperature, top_p=settings.top_p, seed=settings.seed,
            eos_id=tokenizer.eos_id, vocab_limit=tokenizer.vocab_size, first_row=settings.first_row,
        )  # fmt: skip
        decoders = [StreamDecoder(tokenizer) for _ in rows]
        for decoder, row in zip(decoders, rows, strict=True):
            for token in row:  # the text of an id may depend on whether text stands before it
                decoder.push(token)
        texts, seen = [""] * len(rows), [0] * len(rows)
        ended = np.array([not fit for fit in fits])
        while True:
            finished = np.asarray(decoding.finished())
            for i, tokens in enumerate(decoding.tokens()):
                for token in tokens[seen[i] :] if not ended[i] else ():
                    texts[i] += "" if token == tokenizer.eos_id else decoders[i].push(token)
                seen[i] = len(tokens)
                if finished[i] and not ended[i]:
                    texts[i] += decoders[i].flush()
                whole = settings.opening + texts[i]
                ended[i] |= finished[i] or self._over(settings.language, whole)
            if ended.all():
                return texts
            decoding.advance(self.STEPS, ended)

    @staticmethod
    def _over(language: str, text: str) -> bool:
        if language in truncation.FINISHED:
            return truncation.end(language, text) is not None
        return bool(language) and registry.get(language).is_finished(text)
