"""`geex quickstart`: the main job on real input, as a row of commands that a user can repeat.

Every stage is a verb of the command line, printed before it runs. What is computed here is only
which folders to read, how many steps fit into the time, what `xz -9` reaches on the validation
files, and the report.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import io
import json
import lzma
import os
import pathlib
import shlex
import sysconfig
import time
from collections.abc import Callable, Sequence

from geex_jax import files
from geex_jax.data import load_manifest
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES

MAX_MEGABYTES = 64  # more would take longer to prepare than a few minutes of training can read
EXCLUDED = ("site-packages", "dist-packages")  # taken one by one instead
MAX_PACKAGES = 6  # more make the commands hard to read
SEQ_LEN = 256
VOCAB_SIZE = 4096

# Where source code lies on usual machines, after Python's own.
PLACES = (
    "/usr/lib/node_modules",
    "/usr/local/lib/node_modules",
    "/usr/share/nodejs",
    "/usr/share/javascript",
    "/usr/lib/go*/src",
    "/usr/local/go/src",
    "/usr/share/go*/src",
    "/usr/lib/jvm/*/lib/src",
    "/usr/share/perl*",
    "/usr/share/php*",
    "/usr/include/c++",
    "/usr/include/*-linux-gnu",
    "/usr/include/linux",
    "/usr/include/node",
    "/usr/local/include",
    "/usr/lib/R/library",
)
PROMPTS = {
    "Python": "import os\n\n\ndef read_lines(path):\n",
    "C": "#include <stdio.h>\n\nint main(int argc, char **argv)\n{\n",
    "C++": "#include <vector>\n\ntemplate <typename T>\nclass Stack\n{\npublic:\n",
    "JavaScript": "'use strict'\n\nconst fs = require('fs')\n\nfunction ",
    "Java": "public class Main {\n    public static void main(String[] args) {\n",
    "Go": "package main\n\nimport (\n",
    "TypeScript": "export interface Options {\n",
    "Rust": "use std::collections::HashMap;\n\nfn main() {\n",
    "Shell": "#!/bin/sh\nset -e\n\n",
    "CSS": "body {\n",
    "HTML": "<!DOCTYPE html>\n<html>\n",
}
Verb = Callable[[Sequence[str]], int]


@dataclasses.dataclass
class Stage:
    """One command and the seconds that it took."""

    command: str
    seconds: float


def find_sources(limit: float = MAX_MEGABYTES) -> list[str]:
    """Folders with source code on this machine, about `limit` MB of it in all.

    Python's standard library comes first, then other languages, then installed packages, which
    are taken one by one, the largest that fit first. Folders named in
    `EXCLUDED` do not count: the stages leave them out.
    """
    packages = pathlib.Path(sysconfig.get_path("purelib"))
    found = [sysconfig.get_path("stdlib")]
    for pattern in PLACES:
        found += [p for p in sorted(glob.glob(pattern)) if os.path.isdir(p)]
    found = [p for p in found if not any(p != q and p.startswith(q + "/") for q in found)]
    total, chosen = 0.0, []
    for path in found:
        size = _source_megabytes(path)
        if size and (total + size <= limit or not chosen):
            total += size
            chosen.append(path)
    sizes = [(_source_megabytes(str(p)), str(p)) for p in packages.glob("[a-z]*") if p.is_dir()]
    taken = 0
    for size, path in sorted(sizes, reverse=True):
        if size >= 0.5 and total + size <= limit and taken < MAX_PACKAGES:
            total, taken = total + size, taken + 1
            chosen.append(path)
    return chosen


def _source_megabytes(folder: str) -> float:
    known = {extension for language in LANGUAGES for extension in language.extensions}
    size = 0
    for top, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f not in EXCLUDED]
        for name in names:
            if os.path.splitext(name)[1].lower() in known:
                path = os.path.join(top, name)
                size += os.stat(path).st_size if os.path.exists(path) else 0
    return size / 1e6


def steps_that_fit(seconds: float, experiment: pathlib.Path, vocab_size: int) -> int:
    """Steps of the experiment that this machine does in that time: a few are tried."""
    import jax
    import numpy as np

    from geex_jax.models import Transformer
    from geex_jax.training import config as configs
    from geex_jax.training import init_state, make_optimizer, train_step

    config = configs.load_config(experiment)
    model = Transformer(configs.model_config(config, vocab_size, SEQ_LEN))
    optimizer = make_optimizer(configs.optimizer_config(config))
    shape = (config.batch_size, SEQ_LEN)
    ids = np.random.default_rng(0).integers(0, vocab_size, shape, np.int32)
    ones = np.ones(shape, np.int32)
    batch = {"tokens": ids, "targets": ids, "segment_ids": ones, "loss_mask": ones.astype("f4")}
    batch["positions"] = np.broadcast_to(np.arange(SEQ_LEN, dtype=np.int32), shape)
    step = jax.jit(train_step, donate_argnums=0)
    state, _ = step(init_state(model, optimizer, config=configs.step_config(config)), batch)
    times = []
    for _ in range(7):
        began = time.monotonic()
        state, _ = jax.block_until_ready(step(state, batch))
        times.append(time.monotonic() - began)
    # The loop also reads data, writes metrics and shares the cores with its loader.
    return max(60, int(0.85 * seconds / float(np.median(times))))


@dataclasses.dataclass
class Compressed:
    """What `xz -9` makes of a language's validation files.

    Attributes:
      size: bytes of the files.
      together: bits per byte with all files as one stream, in which xz learns from each for the
        next: its best case.
      alone: bits per byte file by file, as the model sees them.
    """

    size: int
    together: float
    alone: float


def xz_bits_per_byte(data: pathlib.Path) -> dict[str, Compressed]:
    """Compresses the validation files, per language; "all" sums over the languages."""
    out: dict[str, Compressed] = {}
    sums = [0, 0.0, 0.0]
    for language in LANGUAGES:
        path = data / "validation_text" / f"{language.slug}.jsonl"
        if not path.is_file():
            continue
        texts = [json.loads(line)["text"].encode() for line in path.read_text().splitlines()]
        size = sum(map(len, texts))
        together = 8 * len(lzma.compress(b"".join(texts), preset=9))
        alone = 8 * sum(len(lzma.compress(text, preset=9)) for text in texts)
        out[language.name] = Compressed(size, together / size, alone / size)
        sums = [x + y for x, y in zip(sums, (size, together, alone), strict=True)]
    if sums[0]:
        out["all"] = Compressed(int(sums[0]), sums[1] / sums[0], sums[2] / sums[0])
    return out


def run(
    output: files.Path, inputs: Sequence[str], minutes: float, verb: Verb, keep_going: bool = False
) -> pathlib.Path:
    """Runs all stages and writes `report.md`.

    Args:
      output: folder for everything; must be new or empty, unless `keep_going`.
      inputs: source folders; found on this machine if empty.
      minutes: time for all stages together.
      verb: runs one command line of words, returns its exit status.
      keep_going: go on with what an interrupted run left in `output`.

    Returns:
      The path of the report.

    Raises:
      GeexError: no source code found, the folder is not empty, a stage failed.
    """
    started = time.monotonic()
    output = pathlib.Path(output)
    if output.is_dir() and any(output.iterdir()) and not keep_going:
        raise GeexError(f"{output} is not empty", "choose another --output, or pass --resume")
    if minutes < 2:
        raise GeexError(f"--minutes {minutes:g} is too short", "give at least 2")
    sources = list(inputs) or find_sources()
    if not sources:
        raise GeexError("no source code found on this machine", "name folders with --input")
    output.mkdir(parents=True, exist_ok=True)
    stages: list[Stage] = []

    def stage(*words: object, capture: bool = False) -> str:
        line = ["geex", *map(str, words)]
        print(f"\n$ {shlex.join(line)}", flush=True)
        began, printed = time.monotonic(), io.StringIO()
        with contextlib.redirect_stdout(printed) if capture else contextlib.nullcontext():
            status = verb(line[1:])
        if status:
            raise GeexError(f"'{shlex.join(line)}' ended with status {status}", "see above")
        stages.append(Stage(shlex.join(line), time.monotonic() - began))
        return printed.getvalue()

    from geex_jax.training.config import experiments_folder

    folder = experiments_folder()
    if folder is None:
        raise GeexError("no experiments folder found", "run from a clone, or reinstall")
    experiment = folder / "quickstart.py"
    tokenizer, data, workdir, int8 = (output / n for n in ("tokenizer", "data", "run", "int8"))
    if not tokenizer.is_dir():
        stage("tokenizer", "train", "--input", *sources, "--output", tokenizer,
              "--exclude", *EXCLUDED, "--vocab-size", VOCAB_SIZE,
              "--max-megabytes", 8)  # fmt: skip
    stage("prepare", "--input", *sources, "--output", data, "--tokenizer", tokenizer,
          "--exclude", *EXCLUDED, "--seq-len", SEQ_LEN,
          "--validation-fraction", 0.01)  # fmt: skip
    manifest = load_manifest(data)
    steps = _steps(workdir, minutes * 60 - (time.monotonic() - started), experiment, manifest)
    stage("train", f"--config={experiment}", f"--workdir={workdir}",
          f"--config.data.folder={data}", f"--config.steps={steps}")  # fmt: skip
    stage("quantize", workdir, "--bits", 8, "--output", int8, "--data", data, "--overwrite")
    train = manifest.splits.get("train", {})
    ranked = sorted(train, key=lambda name: -train[name].tokens)
    completions = {}
    for name in [n for n in ranked if n in PROMPTS][:3]:
        printed = stage("generate", "--checkpoint", int8, "--language", name,
                        "--prompt", PROMPTS[name], "--max-new-tokens", 64,
                        "--temperature", 0.4, "--top-p", 0.95, "--json",
                        capture=True)  # fmt: skip
        completions[name] = json.loads(printed)["text"]
        print(f"{PROMPTS[name]}{completions[name]}")
    report = write_report(output, manifest, stages, completions, time.monotonic() - started)
    print(f"\n{report.read_text()}")
    print(f"report: {report}")
    return report


def _steps(workdir: pathlib.Path, left: float, experiment: pathlib.Path, manifest) -> int:
    saved = workdir / "experiment.json"
    if saved.is_file():  # a run taken up again keeps its schedule
        return json.loads(saved.read_text())["steps"]
    # Compiling, the last evaluation, quantizing and generating take about 50 s on two cores.
    print("\ntrying a few steps to see how many fit", flush=True)
    return steps_that_fit(left - 65, experiment, manifest.tokenizer.vocab_size)


def write_report(output, manifest, stages, completions, seconds: float) -> pathlib.Path:
    """Writes report.md and copies the loss curve beside it."""
    from geex_jax.training.metrics import read_metrics

    rows = read_metrics(output / "run")
    ours = [r for r in rows if r["kind"] == "validation"][-1]["bits_per_byte"]
    steps = max(r["step"] for r in rows)
    batch_size = json.loads((output / "run" / "experiment.json").read_text())["batch_size"]
    quantized = json.loads((output / "int8" / "report.json").read_text())
    peer = xz_bits_per_byte(output / "data")
    (output / "loss.png").write_bytes((output / "run" / "loss.png").read_bytes())
    train, seen = manifest.total("train"), steps * batch_size * manifest.seq_len
    lines = [
        "# Quickstart report",
        "",
        f"{train.files:,} files, {train.bytes / 1e6:.1f} MB, {train.tokens:,} tokens of source in "
        f"{len(manifest.splits['train'])} languages; trained for {steps} steps = {seen:,} tokens "
        f"({seen / train.tokens:.2f} epochs); {files.seconds(seconds)} in all.",
        "",
        "## Held-out files: bits per byte (lower is better)",
        "",
        "| language | train MB | validation KB | model | xz -9 per file | xz -9 of all as one |",
        "|---|---|---|---|---|---|",
    ]
    for name, xz in peer.items():
        if name not in ours:
            continue
        amount = train if name == "all" else manifest.amount("train", name)
        lines.append(
            f"| {name} | {amount.bytes / 1e6:.1f} | {xz.size / 1e3:.0f} | {ours[name]:.3f} "
            f"| {xz.alone:.3f} | {xz.together:.3f} |"
        )
    lines += ["", _verdict(ours, peer), "", "![loss](loss.png)", "", "## int8", ""]
    lines += _quantized_lines(quantized)
    lines += ["", "## Completions by the int8 model (temperature 0.4, top-p 0.95)", ""]
    for name, text in completions.items():
        lines += [f"{name}:", "", "```", f"{PROMPTS[name]}{text}", "```", ""]
    lines += ["## Commands", "", "```"]
    lines += [f"{s.command}   # {files.seconds(s.seconds)}" for s in stages]
    lines += ["```", ""]
    path = output / "report.md"
    with files.atomic_write(path) as file:
        file.write("\n".join(lines))
    return path


def _verdict(ours: dict[str, float], peer: dict[str, Compressed]) -> str:
    if "all" not in ours or "all" not in peer:
        return "No validation files: give more input."
    sentences = []
    for how, xz in (("file by file", peer["all"].alone), ("as one stream", peer["all"].together)):
        change = ours["all"] / xz - 1
        does = (
            f"needs {-change:.0%} fewer" if change < 0 else f"misses by needing {change:.0%} more"
        )
        sentences.append(f"Against xz -9 {how} the model {does} bits.")
    if ours["all"] >= peer["all"].together:
        sentences.append("More time (`--minutes`) or more cores bring it down.")
    return " ".join(sentences)


def _quantized_lines(report: dict) -> list[str]:
    size = f"{report['bytes_before']:,} bytes before, {report['bytes_after']:,} after"
    lines = [f"- size: {size} ({report['ratio']:.1%}; embeddings, norms and biases stay float)"]
    cost = report["validation"]
    if isinstance(cost, str):
        return [*lines, f"- drift: {cost}"]
    return [
        *lines,
        f"- on {cost['tokens']:,} validation tokens: "
        f"{cost['bits_per_byte_before']:.4f} bits per byte before, "
        f"{cost['bits_per_byte_after']:.4f} after ({cost['bits_per_byte_change']:+.5f}); "
        f"KL {cost['kl']:.2g} nats, same most likely token {cost['top1_agreement']:.2%}",
    ]
