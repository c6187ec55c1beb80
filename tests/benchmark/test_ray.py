"""A real Ray cluster of two machines on loopback, one of which is killed in the middle."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from geex_jax.benchmark import languages
from geex_jax.benchmark.judge import Sample, evaluate
from geex_jax.benchmark.judge.ray_pool import RayPool
from geex_jax.benchmark.judge.results import Results
from geex_jax.benchmark.languages.types import Limits
from geex_jax.errors import GeexError

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra [ray])")
HEAD, OTHER = "127.0.0.2", "127.0.0.3"
RAY = pathlib.Path(sys.executable).parent / "ray"


def free_port():
    with socket.create_server((HEAD, 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def node(environment, address, *flags):
    """One machine of the cluster: a process group of its own, so that it can be killed whole.

    Ray replaces 127.0.0.1 by the address of the machine; others of the loopback range stay.
    """
    command = [
        str(RAY), "start", "--block", "--num-cpus=1", f"--node-ip-address={address}",
        "--object-store-memory=80000000", "--disable-usage-stats",
        # Free ports for all of it: the usual ones may be taken on a machine with other work.
        "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0", *flags,
    ]  # fmt: skip
    path = pathlib.Path(environment["RAY_TMPDIR"], f"{address}.txt")
    with (
        open(path, "wb") as log,
        subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def environment(tmp_path):
    with tempfile.TemporaryDirectory(prefix="r") as folder:  # paths of sockets must be short
        yield {
            **os.environ,
            "GEEX_CACHE": str(tmp_path / "cache"),
            "RAY_TMPDIR": folder,
            "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "120",  # a loaded machine starts slowly
        }


def test_a_killed_machine_loses_and_doubles_nothing(tmp_path, environment):
    problem = {"task_id": "Python/0", "prompt": "def f(x):\n", "test": "assert f(2) == 4\n"}
    samples = [
        Sample("python", "Python/0", n, f"    # {n}\n    return x * {2 + n % 2}\n", problem)
        for n in range(96)
    ] + [Sample("python", "Python/0", n, f"    while x: x = {n}\n", problem) for n in (96, 97)]
    port, client = free_port(), free_port()
    head = ["--head", f"--port={port}", f"--ray-client-server-port={client}",
            "--include-dashboard=false"]  # fmt: skip
    joins = f"--address={HEAD}:{port}"
    with node(environment, HEAD, *head), node(environment, OTHER, joins) as second:
        pool = connect(environment, f"ray://{HEAD}:{client}", cpus=2)
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


def printed(environment):
    """What the machines of the cluster printed."""
    folder = pathlib.Path(environment["RAY_TMPDIR"])
    return "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.txt")))


def connect(environment, address, cpus):
    deadline = time.monotonic() + 120
    host, port = address.removeprefix("ray://").split(":")
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            break
        assert time.monotonic() < deadline, printed(environment)
        time.sleep(0.2)
    pool = RayPool(address)
    while ray.cluster_resources().get("CPU", 0) < cpus:
        assert time.monotonic() < deadline, printed(environment)
        time.sleep(0.2)
    return pool


def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    port = free_port()
    monkeypatch.setenv("RAY_CLIENT_TIMEOUT", "1")
    with pytest.raises(GeexError, match=f"no Ray cluster at ray://{HEAD}:{port}"):
        RayPool(f"ray://{HEAD}:{port}")


def test_languages_are_told_before_anything_is_sent():
    with pytest.raises(GeexError, match="unknown language"):
        languages.parse("python,golem")
