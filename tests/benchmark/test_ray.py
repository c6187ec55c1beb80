"""A real Ray cluster of two machines on loopback, one of which is killed in the middle."""

import os
import signal

import pytest

from geex_jax.benchmark import languages
from geex_jax.benchmark.judge import Sample, evaluate
from geex_jax.benchmark.judge.ray_pool import RayPool
from geex_jax.benchmark.judge.results import Results
from geex_jax.benchmark.languages.types import Limits
from geex_jax.errors import GeexError
from tests import ray_nodes

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra [ray])")
HEAD, OTHER = "127.0.0.2", "127.0.0.3"


def test_a_killed_machine_loses_and_doubles_nothing(tmp_path):
    problem = {"task_id": "Python/0", "prompt": "def f(x):\n", "test": "assert f(2) == 4\n"}
    samples = [
        Sample("python", "Python/0", n, f"    # {n}\n    return x * {2 + n % 2}\n", problem)
        for n in range(96)
    ] + [Sample("python", "Python/0", n, f"    while x: x = {n}\n", problem) for n in (96, 97)]
    with (
        ray_nodes.environment(GEEX_CACHE=str(tmp_path / "cache")) as variables,
        ray_nodes.two_nodes(variables, HEAD, OTHER) as (address, second),
    ):
        pool = RayPool(address)
        ray_nodes.wait_for_cores(variables, 2)
        pool.batch = 4
        results = Results(tmp_path / "results.jsonl")
        killed = []

        class Killing:
            """Passes on what the pool says, and kills a machine after the first few."""

            def judge(self, programs, limits):
                for number, item in enumerate(pool.judge(programs, limits)):
                    if number == 8:
                        os.killpg(second.pid, signal.SIGKILL)
                        killed.append(number)
                    yield item

        limits = Limits(cpu_seconds=1, wall_seconds=5)
        assert evaluate(samples, results, Killing(), limits, progress=False) == {}
        ray.shutdown()
    results.close()
    assert killed
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(lines) == len(results.rows) == 98
    outcomes = [results.rows["given", "", "Python/0", n]["outcome"] for n in range(98)]
    assert outcomes == ["passed", "wrong answer"] * 48 + ["timeout"] * 2


def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    port = ray_nodes.free_port(HEAD)
    monkeypatch.setenv("RAY_CLIENT_TIMEOUT", "1")
    with pytest.raises(GeexError, match=f"no Ray cluster at ray://{HEAD}:{port}"):
        RayPool(f"ray://{HEAD}:{port}")


def test_languages_are_told_before_anything_is_sent():
    with pytest.raises(GeexError, match="unknown language"):
        languages.parse("python,golem")
