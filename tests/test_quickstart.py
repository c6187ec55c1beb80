"""The quickstart from end to end, small: real verbs, few tasks, a few steps of training."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest

from geex_jax import quickstart
from geex_jax.errors import GeexError
from geex_jax.quickstart import programs, report
from geex_jax.quickstart.stages import Stages
from tests import xla


def test_a_command_that_fails_ends_the_row_of_commands(capsys):
    stages = Stages(lambda words: 3 if words[0] == "bad" else 0, seconds=60)
    stages.run("good", "--path", "a b")
    assert stages.attempt("bad") == 3
    with pytest.raises(GeexError, match="'geex bad --x 1' ended with status 3"):
        stages.run("bad", "--x", 1)
    assert [s.command for s in stages.done] == [
        "geex good --path 'a b'",
        "geex bad",
        "geex bad --x 1",
    ]
    assert "$ geex good --path 'a b'" in capsys.readouterr().out
    assert 59 < stages.left <= 60


def test_what_a_command_prints_can_be_read(capsys):
    stages = Stages(lambda words: print(json.dumps(list(words))) or 0, seconds=60)
    assert json.loads(stages.read("generate", "--json")) == ["generate", "--json"]
    assert capsys.readouterr().out == "\n$ geex generate --json\n"


@pytest.mark.parametrize(("minutes", "what"), [(1, "too short"), (5, "is not empty")])
def test_what_cannot_work_is_refused_before_anything_runs(tmp_path, minutes, what):
    if minutes == 5:
        (tmp_path / "file").touch()
    with pytest.raises(GeexError, match=what):
        quickstart.run(tmp_path, [], minutes, lambda words: pytest.fail(f"ran {words}"))


SMALL = """
import sys
from geex_jax import quickstart
from geex_jax.cli import main
from geex_jax.quickstart import programs, report

for module in (programs, report):
    module.TASKS, module.HELD_OUT = 60, 4
programs.VOCAB_SIZE, quickstart.VOCAB_SIZE = 400, 600
programs.languages_here = lambda: ["python"]
programs.planned_steps = quickstart.planned_steps = lambda *_: 51
print(quickstart.run(sys.argv[1], sys.argv[2:], 10, main))
"""


def test_from_tasks_and_sources_to_a_report(tmp_path):
    code, output = tmp_path / "code", tmp_path / "out"
    for name in ("json", "email", "asyncio", "unittest", "importlib", "xml"):
        shutil.copytree(f"{sysconfig.get_path('stdlib')}/{name}", code / name)
    # A process of its own, on one device: the tests' own has eight.
    environment = {**os.environ, "GEEX_CACHE": str(tmp_path / "cache"), "XLA_FLAGS": xla.flags()}
    subprocess.run([sys.executable, "-c", SMALL, output, code], env=environment, check=True)
    text = (output / "report.md").read_text()
    # So few steps teach nothing: what counts is that real verdicts of both models stand there.
    for name in ("float", "int8"):
        assert f"| {name} | " in text
        folder = output / "programs" / f"judged-{name}"
        rows = [json.loads(x) for x in (folder / "results.jsonl").read_text().splitlines()]
        assert {row["task_id"] for row in rows} == {f"Python/{i}" for i in range(4)}
        made = json.loads((folder / "run.json").read_text())
        assert made["benchmark"] == "embedded"
        assert made["command"].startswith("geex bench humaneval-x --checkpoint")
        assert "CodeGeeX-13B" not in (folder / "report.md").read_text()
    assert "Against xz -9 file by file the model misses" in text
    assert "geex bench humaneval-x --checkpoint" in text and "| all |" in text
    assert (output / "tasks.png").is_file() and (output / "loss.png").is_file()


def test_where_programs_cannot_be_run_nothing_is_claimed():
    judged = programs.Judged(["python"], {}, {}, {}, 51, 52224)
    text = "\n".join(report._programs(judged))
    assert "Not judged" in text and "%" not in text
