"""A stand-in for gcloud, first on PATH: it records its arguments and gives planted answers."""

import json
import os
import pathlib
import stat
import subprocess
import sys

import pytest

TPU = pathlib.Path(__file__).parent.parent.parent / "tpu_setup" / "tpu"

SETTINGS = "PROJECT=my-project\nZONE=us-west4-a\nNAME=geex\nTYPE=v5litepod-16\n"
STAND_IN = """#!{python}
import json, pathlib, subprocess, sys, fcntl, os
folder = pathlib.Path({folder!r})
words = sys.argv[1:]
with open(folder / "lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with open(folder / "calls.jsonl", "a") as calls:
        calls.write(json.dumps(words) + "\\n")
    # Answers: [pattern, [[stdout, stderr, status], ...]]; the last of a list stays.
    answers = json.loads((folder / "answers.json").read_text())
    line = " ".join(words)
    reply = ["", "", 0]
    for answer in answers:
        if answer[0] in line:
            reply = answer[1][0]
            if len(answer[1]) > 1:
                answer[1].pop(0)
                (folder / "answers.json").write_text(json.dumps(answers))
            break
sys.stdout.write(reply[0])
sys.stderr.write(reply[1])
sys.exit(reply[2])
"""


class Cloud:
    """The stand-in, and `tpu_setup/tpu` run with it."""

    def __init__(self, folder):
        self.folder = folder
        self.answers = []
        binary = folder / "bin" / "gcloud"
        binary.parent.mkdir()
        binary.write_text(STAND_IN.format(python=sys.executable, folder=str(folder)))
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
        (folder / "calls.jsonl").write_text("")

    def answer(self, pattern, *replies):
        """Plants what a command that contains `pattern` says; strings are stdout."""
        full = [[r, "", 0] if isinstance(r, str) else list(r) for r in replies]
        self.answers.append([pattern, full])

    def run(self, *words, env=SETTINGS, text=""):
        """Runs tpu_setup/tpu in an empty folder with these settings."""
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        (work / "tpu.env").write_text(env)
        (self.folder / "answers.json").write_text(json.dumps(self.answers))
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            [str(TPU), *words], cwd=work, input=text, capture_output=True, text=True, timeout=60,
            env={**os.environ, "PATH": path},
        )  # fmt: skip

    def calls(self):
        """The recorded commands, as one string each."""
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        return [" ".join(json.loads(line)) for line in lines]


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)
