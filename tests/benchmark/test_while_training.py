"""pass@k beside a training run: figures of each judged checkpoint, and no step that waits."""

import json
import sys
import time

import pytest

from geex_jax.benchmark import while_training
from geex_jax.benchmark.while_training import Functional
from geex_jax.errors import GeexError
from geex_jax.training.loop import train
from tests.training.conftest import config, prepared  # noqa: F401 - fixtures


@pytest.fixture
def tasks(tmp_path):
    row = {
        "task_id": "Python/0", "prompt": "def f(x):\n", "declaration": "def f(x):\n",
        "canonical_solution": "    return x\n", "test": "assert f(1) == 1\n", "example_test": "",
        "text": "",
    }  # fmt: skip
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return str(path)


def test_checkpoints_are_judged_and_logged(config, tasks, tmp_path):  # noqa: F811
    config.evaluate.functional.max_tokens = 4
    workdir = tmp_path / "run"
    beside = Functional(workdir, tasks, "python", samples=2, temperature=0.8, max_tokens=4)
    train(config, workdir, functional=beside)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = {row["step"]: row for row in rows if row["kind"] == "functional"}
    log = (workdir / "functional" / "6" / "log.txt").read_text()
    assert found, log
    assert found[6]["pass@1"] == {"python": 0.0}, log
    assert (workdir / "functional" / "6" / "report.html").exists()
    assert Functional(workdir, tasks, "python").poll() == []  # step 6 is done: nothing starts


def test_polling_never_waits(tasks, tmp_path, monkeypatch):
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    beside = Functional(tmp_path, tasks, "python")
    slow = tmp_path / "slow"
    slow.write_text(f"#!{sys.executable}\nimport time; time.sleep(60)\n")
    slow.chmod(0o755)
    monkeypatch.setattr(while_training.sys, "executable", str(slow))
    assert beside.poll() == []
    process = beside._process
    assert process is not None and process.poll() is None
    (tmp_path / "checkpoints" / "5").mkdir()
    assert beside.poll() == [] and beside._process is process  # one at a time
    assert beside.close(wait=False) == []
    assert process.poll() is not None


def test_a_killed_judge_is_left_out(tasks, tmp_path, monkeypatch):
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    monkeypatch.setattr(while_training.sys, "executable", "/bin/false")
    beside = Functional(tmp_path, tasks, "python")
    assert beside.poll() == []
    while beside._process is not None and beside._process.poll() is None:
        time.sleep(0.01)
    assert beside.poll() == []
    assert beside.close(wait=True) == []


def test_mistakes_show_before_training(tasks, tmp_path):
    with pytest.raises(GeexError, match="unknown language"):
        Functional(tmp_path, tasks, "phyton")
    with pytest.raises(GeexError, match=r"nothing\.jsonl"):
        Functional(tmp_path, str(tmp_path / "nothing.jsonl"), "python")
