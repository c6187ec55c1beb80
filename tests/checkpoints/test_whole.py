"""A save cut off at any byte is never taken for a checkpoint."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.checkpoints import whole
from geex_jax.checkpoints.states import StateStore
from geex_jax.checkpoints.store import saved_steps
from geex_jax.errors import GeexError

REPO = pathlib.Path(__file__).parent.parent.parent


def trees(step):
    params = {"a": jnp.arange(4000.0) + step, "b": {"c": jnp.full((40, 50), step, jnp.float32)}}
    return params, {"step": jnp.asarray(step), "moments": jnp.ones((300,)) * step}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    store = StateStore(folder, 5, 0)
    for step in (1, 2):
        store.save(step, *trees(step), {"step": step})
    store.close()
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def check_restored(folder, step):
    store = StateStore(folder, 5, 0)
    assert store.latest() == step
    params, rest, loader = store.load(step, *trees(0))
    expected = trees(step)
    np.testing.assert_array_equal(params["a"], expected[0]["a"])
    np.testing.assert_array_equal(params["b"]["c"], expected[0]["b"]["c"])
    assert int(rest["step"]) == step and loader == {"step": step}
    store.close()
    return store.passed_over


def test_a_whole_save_is_whole(folder):
    assert saved_steps(folder) == [1, 2]
    assert [whole.damage(folder / str(step)) for step in (1, 2)] == [None, None]
    assert check_restored(folder, 2) == []


def files_of(step: pathlib.Path):
    # An empty marker loses nothing, and Orbax's last one says nothing that the rename does not.
    found = [p for p in step.rglob("*") if p.is_file() and p.stat().st_size]
    return sorted(p for p in found if p != step / "commit_success.txt")


def test_every_file_removed_or_cut_at_a_random_byte_is_noticed(folder):
    chance = random.Random(0)
    step = folder / "2"
    for path in files_of(step):
        content = path.read_bytes()
        path.unlink()
        assert whole.damage(step), f"{path} removed"
        last = len(content.rstrip(b"\n")) - 1  # a list without its newline has lost nothing
        for size in {0, 1, chance.randrange(last), last}:
            path.write_bytes(content[:size])
            assert whole.damage(step), f"{path} cut to {size} of {len(content)}"
        path.write_bytes(content)
    assert whole.damage(step) is None


def test_a_damaged_step_is_passed_over_and_said(folder):
    path = max(files_of(folder / "2"), key=lambda p: p.stat().st_size)
    os.truncate(path, path.stat().st_size - 1)
    (line,) = check_restored(folder, 1)
    assert "checkpoint of step 2 is damaged" in line and "bytes" in line
    assert "going on from step 1" in line and "\n" not in line
    assert (folder.parent / "damaged" / "2-0").is_dir() and saved_steps(folder) == [1]
    store = StateStore(folder, 5, 0)  # the number is free again
    store.save(2, *trees(2), {"step": 2})
    store.close()
    assert check_restored(folder, 2) == []


def test_when_no_step_is_whole_it_says_so(folder):
    for step in (1, 2):
        shutil.rmtree(folder / str(step) / "params")
    with pytest.raises(
        GeexError, match=r"no checkpoint in .* is whole \(step 2: params/.* missing"
    ):
        StateStore(folder, 5, 0)
    assert saved_steps(folder) == [1, 2]  # nothing is moved


def test_a_lost_list_counts_as_damage_and_old_workdirs_without_lists_do_not(folder):
    for step in (1, 2):
        (folder / str(step) / whole.NAME).unlink()
    assert whole.damage(folder / "2") == f"{whole.NAME} is missing"
    (folder / ".steps_have_lists").unlink()  # as an earlier version left it
    assert whole.damage(folder / "2") is None
    check_restored(folder, 2)
    shutil.rmtree(folder / "2" / "rest")
    assert whole.damage(folder / "2") == "rest is missing"


# Saves without end; says when a save has begun.
SAVES = """
import sys
import pathlib
sys.path.insert(0, {repo!r})
import jax.numpy as jnp
from geex_jax.checkpoints.states import StateStore
from tests.checkpoints.test_whole import trees
store = StateStore(pathlib.Path(sys.argv[1]), 3, 0)
first = (store.latest() or 0) + 1
for step in range(first, first + 1000):
    store.save(step, *trees(step), {{"step": step}})
    print(step, flush=True)
"""


def test_killed_in_the_middle_of_a_save(tmp_path):
    """kill -9 at random moments of a stream of saves: the newest folder is always a whole step."""
    folder, chance = tmp_path / "checkpoints", random.Random(1)
    last = 0
    for _ in range(2):
        command = [sys.executable, "-c", SAVES.format(repo=str(REPO)), str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(chance.randint(2, 6)):
            assert process.stdout.readline()
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        steps = saved_steps(folder)
        assert steps and steps[-1] > last
        assert all(whole.damage(folder / str(step)) is None for step in steps)
        last = steps[-1]
        assert check_restored(folder, last) == []
        assert not list(folder.glob("*tmp*"))  # what the kill left is gone
