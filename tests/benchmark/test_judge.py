"""The judge: workers, verdicts kept, runs that go on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from geex_jax.benchmark import languages
from geex_jax.benchmark.judge import Pool, Sample, evaluate
from geex_jax.benchmark.judge.cache import VerdictCache
from geex_jax.benchmark.judge.pool import judge_all
from geex_jax.benchmark.judge.results import Results
from geex_jax.benchmark.languages.types import Limits, Outcome, Program, Toolchain, Verdict
from geex_jax.benchmark.sandbox.client import SandboxDied
from geex_jax.errors import GeexError

PROBLEM = {"task_id": "Python/0", "prompt": "def f(x):\n", "test": "assert f(2) == 4\n"}
LIMITS = Limits(cpu_seconds=1, wall_seconds=5)
CODES = ["    return x + 2\n", "    return x\n", "    return (\n", "    while x: pass\n",
         "    return 1 // 0\n", "    import os; os._exit(0)\n"]  # fmt: skip
EXPECTED = ["passed", "wrong answer", "compile error", "timeout", "runtime error", "runtime error"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def samples(codes):
    return [Sample("python", "Python/0", n, code, PROBLEM) for n, code in enumerate(codes)]


class Counting:
    """A pool that counts what it runs."""

    def __init__(self, pool):
        self.pool, self.ran = pool, 0

    def judge(self, programs, limits):
        for item in self.pool.judge(programs, limits):
            self.ran += 1
            yield item


def outcomes(results):
    return [results.rows["given", "", "Python/0", n]["outcome"] for n in range(len(results.rows))]


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (1, 64), (2, 1), (2, 64)])
def test_verdicts_are_the_same_for_all_workers_and_batches(tmp_path, cache, workers, batch):
    results = Results(tmp_path / "results.jsonl")
    pool = Pool(workers, cache, batch=batch)
    evaluate(samples(CODES * 3), results, pool, LIMITS, progress=False)
    assert outcomes(results) == EXPECTED * 3


def test_a_program_is_never_run_twice(tmp_path, cache):
    kept = tmp_path / "verdicts.sqlite"
    pool = Counting(Pool(1, cache))
    first = Results(tmp_path / "a.jsonl")
    evaluate(samples(CODES[:2] * 4), first, pool, LIMITS, VerdictCache(kept), progress=False)
    assert pool.ran == 2 and len(first.rows) == 8
    assert sum(row["cached"] for row in first.rows.values()) == 6
    second = Results(tmp_path / "b.jsonl")
    evaluate(samples(CODES[:2]), second, pool, LIMITS, VerdictCache(kept), progress=False)
    assert pool.ran == 2 and outcomes(second) == EXPECTED[:2]
    other = Limits(cpu_seconds=2)
    evaluate(samples(CODES[:2]), second, pool, other, VerdictCache(kept), progress=False)
    assert pool.ran == 4  # other limits, other verdicts


def test_rows_that_are_there_are_left(tmp_path, cache):
    path = tmp_path / "results.jsonl"
    pool = Counting(Pool(1, cache))
    first = Results(path)
    evaluate(samples(CODES[:2]), first, pool, LIMITS, progress=False)
    first.close()
    with open(path, "ab") as file:
        file.write(b'{"task_id": "Python/0", "samp')  # a kill in the middle of a line
    again = Results(path)
    evaluate(samples(CODES[:3]), again, pool, LIMITS, progress=False)
    again.close()
    assert pool.ran == 3
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["outcome"] for row in rows] == EXPECTED[:3]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"task_id": "a", "sample": 0}\nnonsense\n')
    with pytest.raises(GeexError, match="line 2, is not a result"):
        Results(path)


def test_timeouts_alone_are_judged_again(tmp_path, cache):
    slow = (
        "    import time; end = time.process_time() + 1.5\n"
        "    while time.process_time() < end: pass\n    return 4\n"
    )
    results = Results(tmp_path / "results.jsonl")
    pool = Counting(Pool(1, cache))
    evaluate(samples([slow, CODES[1]]), results, pool, LIMITS, progress=False)
    assert outcomes(results) == ["timeout", "wrong answer"]
    more = Limits(cpu_seconds=4)
    evaluate(samples([slow, CODES[1]]), results, pool, more, progress=False,
             again=lambda row: row["outcome"] == "timeout")  # fmt: skip
    results.rewrite()
    results.close()
    assert outcomes(Results(tmp_path / "results.jsonl")) == ["passed", "wrong answer"]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2


def test_a_missing_toolchain_is_not_a_failure(tmp_path, cache, monkeypatch):
    missing = Toolchain({}, (("python", "apt-get install python3"),))
    kind = type(languages.get("python"))
    monkeypatch.setattr(kind, "toolchain", lambda self: missing)
    results = Results(tmp_path / "results.jsonl")
    pool = Counting(Pool(1, cache))
    absent = evaluate(samples(CODES[:2]), results, pool, LIMITS, progress=False)
    assert absent == {"python": "python: apt-get install python3"}
    assert outcomes(results) == ["not run"] * 2 and pool.ran == 0
    monkeypatch.undo()  # it is installed: the same command judges what was not run
    evaluate(samples(CODES[:2]), results, pool, LIMITS, progress=False)
    assert outcomes(results) == EXPECTED[:2]


def test_a_verdict_file_that_is_not_one_is_put_aside(tmp_path):
    path = tmp_path / "verdicts.sqlite"
    path.write_bytes(b"nonsense" * 1000)
    cache = VerdictCache(path)
    cache.put("key", Verdict(Outcome.PASSED))
    assert cache.get("key").outcome is Outcome.PASSED
    cache.close()
    assert VerdictCache(path).get("key").outcome is Outcome.PASSED
    assert (tmp_path / "verdicts.sqlite.broken").exists()


class Dying:
    """A sandbox that one program ends."""

    def judge(self, programs, limits):
        for index, program in enumerate(programs):
            if program.code == "deadly":
                raise SandboxDied("gone")
            yield index, Verdict(Outcome.PASSED)


def test_a_program_that_ends_its_sandbox_fails_alone():
    programs = [Program(code, "") for code in ("a", "deadly", "b", "c")]
    verdicts = dict(judge_all(Dying(), programs, LIMITS))
    assert [verdicts[i].outcome for i in range(4)] == [
        Outcome.PASSED, Outcome.RUNTIME_ERROR, Outcome.PASSED, Outcome.PASSED,
    ]  # fmt: skip
    assert "gone" in verdicts[1].message


def test_a_killed_run_goes_on(tmp_path, cache):
    code = (
        "import sys\n"
        "from geex_jax.benchmark.judge import Pool, Sample, evaluate\n"
        "from geex_jax.benchmark.judge.results import Results\n"
        "from geex_jax.benchmark.languages.types import Limits\n"
        f"problem = {PROBLEM!r}\n"
        "some = [Sample('python', 'Python/0', n, f'    return x + 2 # {n}\\n', problem)\n"
        "        for n in range(300)]\n"
        "evaluate(some, Results(sys.argv[1]), Pool(2, sys.argv[2], batch=4), Limits(),\n"
        "         progress=False)\n"
    )
    path = tmp_path / "results.jsonl"
    command = [sys.executable, "-c", code, str(path), str(cache)]
    with subprocess.Popen(command) as process:
        while not path.exists() or path.stat().st_size < 3000:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    before = Results(path).rows
    assert 0 < len(before) < 300
    subprocess.run(command, check=True, timeout=120)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(row["sample"] for row in rows) == list(range(300))
    assert {row["outcome"] for row in rows} == {"passed"}
    assert os.listdir(tmp_path) == ["results.jsonl"]
