"""The part that shows that it works: a model learns small tasks and is judged by running programs.

It trains on the train split of the embedded tasks and answers held-out ones, whose compositions
it has never seen, in several languages; then the same after int8.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

from geex_jax.data import load_manifest
from geex_jax.quickstart.stages import Stages, planned_steps

SEQ_LEN = 160  # the longest task fits
VOCAB_SIZE = 1024
TASKS, HELD_OUT, LEVEL = 6000, 100, 2
MOST_LANGUAGES = 3  # the same minutes, over more languages, teach each of them less
# Files of one task each are far below the paper's 1 KB, and their share of letters is lower.
_SMALL = ("--min-bytes", 0, "--min-alpha", 0)


@dataclasses.dataclass
class Judged:
    """What became of the held-out tasks.

    Attributes:
      languages: names, as `--language` takes them.
      before: language to (share of tasks solved, lower end, upper end of its 95 % interval) in
        float; "mean" as well. Empty if nothing could be judged.
      after: the same after int8.
      solved: language to (prompt, solution) of a task that the int8 model solved.
      steps: of training.
      tokens: seen in training.
    """

    languages: list[str]
    before: dict[str, tuple[float, float, float]]
    after: dict[str, tuple[float, float, float]]
    solved: dict[str, tuple[str, str]]
    steps: int
    tokens: int


def languages_here(most: int = MOST_LANGUAGES) -> list[str]:
    """Languages whose programs can be run on this machine, Python first."""
    from geex_jax.benchmark import languages

    order = ("python", "javascript", "go", "java", "cpp", "rust")
    return [x for x in order if not languages.get(x).toolchain().missing][:most]


def learn(
    stages: Stages, folder: pathlib.Path, experiment: pathlib.Path, other_seconds: float
) -> Judged:
    """Trains on tasks and judges held-out ones.

    Args:
      stages: runs the verbs.
      folder: to be made.
      experiment: experiments/embedded.py.
      other_seconds: what the rest of the quickstart needs at the least.

    Returns:
      What the judge said. Where it cannot run programs, why is printed, and nothing is claimed.
    """
    from geex_jax.benchmark.humaneval_x.tasks import names

    chosen = languages_here()
    titles = [names(x).title for x in chosen]
    tasks, tokenizer, data = folder / "tasks", folder / "tokenizer", folder / "data"
    run, int8 = folder / "run", folder / "int8"
    if not tasks.is_dir():
        stages.run("embedded", "--output", tasks, "--train", TASKS, "--held-out", HELD_OUT,
                   "--level", LEVEL, "--no-examples", "--languages", *chosen)  # fmt: skip
    if not tokenizer.is_dir():
        stages.run("tokenizer", "train", "--input", tasks / "train", "--output", tokenizer,
                   "--vocab-size", VOCAB_SIZE, *_SMALL)  # fmt: skip
    # Tasks resemble each other on purpose: only exact copies go.
    stages.run("prepare", "--input", tasks / "train", "--output", data, "--tokenizer", tokenizer,
               "--seq-len", SEQ_LEN, "--languages", *titles, *_SMALL,
               "--near-dup-threshold", 0)  # fmt: skip
    manifest = load_manifest(data)
    vocab_size = manifest.tokenizer.vocab_size
    # Compiling, judging twice and quantizing take about 40 s on two cores. Most of the time goes
    # here: tasks are learned late and suddenly, bits per byte fall slowly from the start.
    seconds = 0.85 * (stages.left - 40 - other_seconds)
    steps = planned_steps(run, seconds, experiment, vocab_size, SEQ_LEN)
    stages.run("train", f"--config={experiment}", f"--workdir={run}",
               f"--config.data.folder={data}", f"--config.steps={steps}")  # fmt: skip
    before = _judge(stages, run, tasks / "held-out", chosen, folder / "judged-float")
    stages.run("quantize", run, "--bits", 8, "--output", int8, "--overwrite")
    after, solved = {}, {}
    if before:
        after = _judge(stages, int8, tasks / "held-out", chosen, folder / "judged-int8")
        solved = _solved(folder / "judged-int8", tasks / "held-out", chosen)
    saved = json.loads((run / "experiment.json").read_text())
    tokens = steps * saved["batch_size"] * SEQ_LEN
    return Judged(chosen, before, after, solved, steps, tokens)


def _judge(
    stages: Stages, checkpoint: pathlib.Path, data: pathlib.Path, chosen: list[str],
    output: pathlib.Path,
) -> dict[str, tuple[float, float, float]]:  # fmt: skip
    failed = stages.attempt(
        "bench", "humaneval-x", "--checkpoint", checkpoint, "--data", data,
        "--language", ",".join(chosen), "--n", 1, "--temperature", 0, "--max-tokens", 128,
        "--sample-batch", 50, "--output", output,
    )  # fmt: skip
    if failed or not (output / "summary.json").is_file():
        return {}
    summary = json.loads((output / "summary.json").read_text())
    scores = {x["language"]: x["pass_at_k"]["1"] for x in summary["generation"]}
    if average := summary["average"].get("1"):  # of several languages
        scores["mean"] = average
    return {name: (x["value"], x["low"], x["high"]) for name, x in scores.items() if "value" in x}


def _solved(
    output: pathlib.Path, data: pathlib.Path, chosen: list[str]
) -> dict[str, tuple[str, str]]:
    """The longest solution that passed, in each language."""
    from geex_jax.benchmark.humaneval_x import tasks

    rows = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    found = {}
    for name in chosen:
        passed = [r for r in rows if r["language"] == name and r["outcome"] == "passed"]
        if passed:
            best = max(passed, key=lambda r: len(r["code"]))
            prompts = {p["task_id"]: p["prompt"] for p in tasks.load(name, data)}
            found[name] = prompts[best["task_id"]], best["code"]
    return found
