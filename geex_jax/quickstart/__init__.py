"""`geex quickstart`: the main job on real input, as a row of commands that a user can repeat.

Every stage is a verb of the command line, printed before it runs. First a model learns small
tasks and is judged by running its programs (`programs.py`), then one is trained on the source
code of this machine (below). What is computed here is only which folders to read, how many steps
fit into the time, what `xz -9` reaches on the validation files, and the report.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from geex_jax import files
from geex_jax.data import Manifest, load_manifest
from geex_jax.errors import GeexError
from geex_jax.quickstart import programs
from geex_jax.quickstart.report import write_report
from geex_jax.quickstart.sources import EXCLUDED, find_sources
from geex_jax.quickstart.stages import Stages, Verb, planned_steps

SEQ_LEN = 256
VOCAB_SIZE = 4096
# What the second part needs on two cores beside its training: vocabulary and rows; compiling, the
# last evaluation, quantizing and generating; and the least time in which training shows something.
_PREPARING, _AFTER, _LEAST_TRAINING = 30, 45, 20
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


@dataclasses.dataclass
class SourceCode:
    """What the model of this machine's source code came to.

    Attributes:
      manifest: of its data.
      folder: with data/, run/ and int8/.
      completions: language to (prompt, what the int8 model wrote).
    """

    manifest: Manifest
    folder: pathlib.Path
    completions: dict[str, tuple[str, str]]


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
    output = pathlib.Path(output)
    if output.is_dir() and any(output.iterdir()) and not keep_going:
        raise GeexError(f"{output} is not empty", "choose another --output, or pass --resume")
    if minutes < 3:
        raise GeexError(f"--minutes {minutes:g} is too short", "give at least 3")
    from geex_jax.training.config import experiments_folder

    experiments = experiments_folder()
    if experiments is None:
        raise GeexError("no experiments folder found", "run from a clone, or reinstall")
    sources = list(inputs) or find_sources()
    if not sources:
        raise GeexError("no source code found on this machine", "name folders with --input")
    output.mkdir(parents=True, exist_ok=True)
    stages = Stages(verb, 60 * minutes)
    judged = programs.learn(
        stages,
        output / "programs",
        experiments / "embedded.py",
        _PREPARING + _AFTER + _LEAST_TRAINING,
    )
    code = learn_source_code(stages, output, sources, experiments / "quickstart.py")
    report = write_report(output, judged, code, stages)
    print(f"\n{report.read_text()}")
    print(f"report: {report}")
    return report


def learn_source_code(
    stages: Stages, output: pathlib.Path, sources: Sequence[str], experiment: pathlib.Path
) -> SourceCode:
    """Trains on source code, quantizes, completes prompts in up to three languages."""
    tokenizer, data, workdir, int8 = (output / n for n in ("tokenizer", "data", "run", "int8"))
    if not tokenizer.is_dir():
        stages.run("tokenizer", "train", "--input", *sources, "--output", tokenizer,
                   "--exclude", *EXCLUDED, "--vocab-size", VOCAB_SIZE,
                   "--max-megabytes", 8)  # fmt: skip
    stages.run("prepare", "--input", *sources, "--output", data, "--tokenizer", tokenizer,
               "--exclude", *EXCLUDED, "--seq-len", SEQ_LEN,
               "--validation-fraction", 0.01)  # fmt: skip
    manifest = load_manifest(data)
    seconds = stages.left - _AFTER
    steps = planned_steps(workdir, seconds, experiment, manifest.tokenizer.vocab_size, SEQ_LEN)
    stages.run("train", f"--config={experiment}", f"--workdir={workdir}",
               f"--config.data.folder={data}", f"--config.steps={steps}")  # fmt: skip
    stages.run("quantize", workdir, "--bits", 8, "--output", int8, "--overwrite")
    train = manifest.splits.get("train", {})
    ranked = sorted(train, key=lambda name: -train[name].tokens)
    completions = {}
    for name in [n for n in ranked if n in PROMPTS][:3]:
        printed = stages.read("generate", "--checkpoint", int8, "--language", name,
                              "--prompt", PROMPTS[name], "--max-new-tokens", 64,
                              "--temperature", 0.4, "--top-p", 0.95, "--json")  # fmt: skip
        completions[name] = PROMPTS[name], json.loads(printed)["text"]
        print("".join(completions[name]))
    return SourceCode(manifest, output, completions)
