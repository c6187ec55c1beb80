"""Preparing on a real Ray cluster of two machines, one of which is killed in the middle."""

import os
import pathlib
import signal

import pytest

from geex_jax.data import PrepareConfig, prepare
from geex_jax.data.journal import Journal
from geex_jax.data.runners.ray import connect
from geex_jax.errors import GeexError
from tests import ray_nodes
from tests.data.conftest import CONFIG
from tests.data.helpers import ByteTokenizer, digests

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra [ray])")
HEAD, OTHER = "127.0.0.4", "127.0.0.5"
REPO = pathlib.Path(__file__).parent.parent.parent


@pytest.mark.parametrize("phase", ["read", "gather", "pack"])
def test_a_killed_machine_changes_no_byte(prepared, tree, tmp_path, monkeypatch, phase):
    with (
        ray_nodes.environment(PYTHONPATH=str(REPO)) as variables,
        ray_nodes.two_nodes(variables, HEAD, OTHER) as (address, second),
    ):
        connect(address)
        ray_nodes.wait_for_cores(variables, 2)
        killed, phases = [], set()
        real = Journal.add

        def add(journal, now, number, result):
            phases.add(now)
            if now == phase and not killed:
                os.killpg(second.pid, signal.SIGKILL)
                killed.append(number)
            real(journal, now, number, result)

        monkeypatch.setattr(Journal, "add", add)
        config = PrepareConfig(**{**vars(CONFIG), "runner": address, "workers": None})
        prepare(tree, tmp_path / "data", ByteTokenizer(), config)
        ray.shutdown()
    assert killed and phases == {"read", "scatter", "gather", "place", "pack"}
    assert digests(tmp_path / "data") == digests(prepared[0])


def test_a_cluster_that_is_not_there_is_named(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_CLIENT_TIMEOUT", "1")
    address = f"ray://{HEAD}:{ray_nodes.free_port(HEAD)}"
    config = PrepareConfig(**{**vars(CONFIG), "runner": address})
    with pytest.raises(GeexError, match=f"no Ray cluster at {address}"):
        prepare(tree, tmp_path / "data", ByteTokenizer(), config)
    assert not (tmp_path / "data").exists()
