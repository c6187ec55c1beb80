"""Preparing on a real Ray cluster of two machines, one of which is killed in the middle."""

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

from geex_jax.data import PrepareConfig, prepare
from geex_jax.data.journal import Journal
from geex_jax.errors import GeexError
from tests.data.conftest import CONFIG
from tests.data.helpers import ByteTokenizer, digests

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra [ray])")
HEAD, OTHER = "127.0.0.4", "127.0.0.5"
RAY = pathlib.Path(sys.executable).parent / "ray"
REPO = pathlib.Path(__file__).parent.parent.parent


def free_port():
    with socket.create_server((HEAD, 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def node(environment, address, *flags):
    """One machine of the cluster: a process group of its own, so that it can be killed whole."""
    command = [
        str(RAY), "start", "--block", "--num-cpus=1", f"--node-ip-address={address}",
        "--object-store-memory=80000000", "--disable-usage-stats", *flags,
    ]  # fmt: skip
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(address, cpus):
    """Waits until the cluster answers and has its machines."""
    deadline = time.monotonic() + 120
    host, port = address.removeprefix("ray://").split(":")
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    ray.init(address, log_to_driver=False)
    while ray.cluster_resources().get("CPU", 0) < cpus:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def environment():
    with tempfile.TemporaryDirectory(prefix="r") as folder:  # paths of sockets must be short
        yield {**os.environ, "RAY_TMPDIR": folder, "PYTHONPATH": str(REPO)}


def test_a_killed_machine_changes_no_byte(prepared, tree, tmp_path, environment, monkeypatch):
    port, client = free_port(), free_port()
    head = ["--head", f"--port={port}", f"--ray-client-server-port={client}",
            "--include-dashboard=false"]  # fmt: skip
    address, joins = f"ray://{HEAD}:{client}", f"--address={HEAD}:{port}"
    with node(environment, HEAD, *head), node(environment, OTHER, joins) as second:
        wait_for(address, cpus=2)
        killed, phases = [], set()
        real = Journal.add

        def add(journal, phase, number, result):
            phases.add(phase)
            if phase == "read" and len(killed) == 0 and number >= 2:
                os.killpg(second.pid, signal.SIGKILL)
                killed.append(number)
            real(journal, phase, number, result)

        monkeypatch.setattr(Journal, "add", add)
        config = PrepareConfig(**{**vars(CONFIG), "runner": address, "workers": None})
        prepare(tree, tmp_path / "data", ByteTokenizer(), config)
        ray.shutdown()
    assert killed and phases == {"read", "scatter", "gather", "place", "pack"}
    assert digests(tmp_path / "data") == digests(prepared[0])


def test_a_cluster_that_is_not_there_is_named(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_CLIENT_TIMEOUT", "1")
    address = f"ray://{HEAD}:{free_port()}"
    config = PrepareConfig(**{**vars(CONFIG), "runner": address})
    with pytest.raises(GeexError, match=f"no Ray cluster at {address}"):
        prepare(tree, tmp_path / "data", ByteTokenizer(), config)
    assert not (tmp_path / "data").exists()
