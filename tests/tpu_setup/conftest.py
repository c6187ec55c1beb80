"""A stand-in for gcloud, first on PATH: it records its arguments and gives planted answers."""

import os
import pathlib
import shlex
import stat
import subprocess

import pytest

TPU = pathlib.Path(__file__).parent.parent.parent / "tpu_setup" / "tpu"

SETTINGS = "PROJECT=my-project\nZONE=us-west4-a\nNAME=geex\nTYPE=v5litepod-16\n"
# Bash, as it starts faster than Python: answers/N/pattern, and answers/N/M.{out,err,status}, of
# which one is used up at each call; the last stays.
STAND_IN = r"""#!/usr/bin/env bash
cd {folder} || exit 9
shopt -s nullglob
exec 9>lock
flock 9
printf '%s\0' "$@" >>calls
printf '\n\0' >>calls
for answer in answers/*/; do
  if [[ "$*" == *"$(<"$answer/pattern")"* ]]; then
    replies=("$answer"/*.status)
    reply=${{replies[0]%.status}}
    cp "$reply.out" reply.$$.out
    cp "$reply.err" reply.$$.err
    status=$(<"$reply.status")
    [ ${{#replies[@]}} = 1 ] || rm "$reply".*
    flock -u 9
    cat reply.$$.out
    cat reply.$$.err >&2
    exit "$status"
  fi
done
"""


class Cloud:
    """The stand-in, and `tpu_setup/tpu` run with it."""

    def __init__(self, folder):
        self.folder = folder
        binary = folder / "bin" / "gcloud"
        binary.parent.mkdir()
        binary.write_text(STAND_IN.format(folder=shlex.quote(str(folder))))
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
        (folder / "calls").write_text("")
        (folder / "answers").mkdir()

    def answer(self, pattern, *replies):
        """Plants what a command that contains `pattern` says; strings are stdout."""
        answer = self.folder / "answers" / f"{len(list((self.folder / 'answers').iterdir())):03}"
        answer.mkdir()
        (answer / "pattern").write_text(pattern)
        for i, reply in enumerate(replies):
            out, err, status = (reply, "", 0) if isinstance(reply, str) else reply
            (answer / f"{i:03}.out").write_text(out)
            (answer / f"{i:03}.err").write_text(err)
            (answer / f"{i:03}.status").write_text(str(status))

    def run(self, *words, env=SETTINGS, text=""):
        """Runs tpu_setup/tpu in an empty folder with these settings."""
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        (work / "tpu.env").write_text(env)
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            [str(TPU), *words], cwd=work, input=text, capture_output=True, text=True, timeout=60,
            env={**os.environ, "PATH": path},
        )  # fmt: skip

    def calls(self):
        """The recorded commands, as one string each."""
        lines = (self.folder / "calls").read_text().split("\0\n\0")[:-1]
        return [" ".join(line.split("\0")) for line in lines]


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)
