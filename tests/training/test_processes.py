"""Runs of 2 and 4 real processes: the same losses, restored onto other meshes, stopped, hung."""

import json
import re
import signal

import jax
import numpy as np
import pytest

from geex_jax.checkpoints import load_model
from geex_jax.training import loop
from geex_jax.training.config import load_config
from geex_jax.training.metrics import read_metrics
from tests.training.processes import Group, write_experiment

STEPS = 8
SUMS = 2e-4  # relative: sums in another order, over a few steps


def losses(workdir) -> dict[int, float]:
    rows = [r for r in read_metrics(workdir) if r["kind"] == "train"]
    assert [r["step"] for r in rows] == sorted({r["step"] for r in rows})
    return {r["step"]: r["loss"] for r in rows}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, prepared):
    path = tmp_path_factory.mktemp("several") / "several.py"
    return write_experiment(path, prepared, STEPS, save_every=2, int8=STEPS)


@pytest.fixture(scope="module")
def alone(experiment, tmp_path_factory):
    """One process, 8 simulated devices, mesh 8x1, never disturbed."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    config = load_config(experiment, ["--config.mesh.fsdp=8"])
    loop.train(config, workdir, sample=lambda *_: [])  # on a mesh the loop makes them itself
    return workdir


@pytest.mark.slow
def test_4_processes_then_2_then_4_on_other_meshes_give_the_losses_of_one(
    alone, experiment, tmp_path
):
    """SIGTERM on one of 4, kill -9 of one of 2, and the last 4 end: as if nothing had happened."""
    workdir = tmp_path / "run"
    four = Group(4, 2, experiment, workdir, {"fsdp": 4, "tensor": 2})
    try:
        four.wait_for_step(2)
        four.processes[2].send_signal(signal.SIGTERM)
        assert four.wait() == [0, 0, 0, 0], four.all_output()
    finally:
        four.end()
    said = re.search(r"SIGTERM: saved step (\d+)", four.output())
    assert said, four.all_output()
    stopped = int(said[1])
    assert 2 <= stopped < STEPS and (workdir / "checkpoints" / str(stopped)).is_dir()
    assert max(losses(workdir)) == stopped

    two = Group(2, 4, experiment, workdir, {"data": 2, "fsdp": 2, "tensor": 2})
    try:
        two.wait_for_step(min(stopped + 2, STEPS - 1))
        two.kill(1)
    finally:
        two.end()
    assert f"resuming    at step {stopped}" in two.output(), two.all_output()

    last = Group(4, 2, experiment, workdir, {"fsdp": 8})
    try:
        assert last.wait() == [0, 0, 0, 0], last.all_output()
    finally:
        last.end()
    assert "resuming    at step" in last.output()
    mine, expected = losses(workdir), losses(alone)
    assert sorted(mine) == sorted(expected) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(
        [mine[step] for step in sorted(mine)],
        [expected[step] for step in sorted(mine)],
        rtol=SUMS,
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0.02, atol=2e-4),
        load_model(workdir).params,
        load_model(alone).params,
    )
    _the_rest_is_the_same_too(workdir, alone)


def _the_rest_is_the_same_too(workdir, alone):
    # Tokens seen are counts, validation and int8 drift are sums; samples are the same text.
    rows, expected = (
        {(r["kind"], r["step"]): r for r in read_metrics(folder)} for folder in (workdir, alone)
    )
    assert rows["train", STEPS]["tokens_seen"] == expected["train", STEPS]["tokens_seen"]
    for kind, key in (("validation", "bits_per_byte"), ("int8", None)):
        mine, theirs = rows[kind, STEPS], expected[kind, STEPS]
        mine, theirs = (mine[key], theirs[key]) if key else (mine, theirs)
        for name in theirs.keys() - {"kind", "complete"}:
            assert mine[name] == pytest.approx(theirs[name], rel=0.02, abs=2e-4), name
    assert abs(rows["int8", STEPS]["change"]) < 0.02 and 0 < rows["int8", STEPS]["kl"] < 0.01
    told = [(folder / "samples.md").read_text() for folder in (workdir, alone)]
    assert told[0] == told[1] and "Python" in told[0]
    account = json.loads((workdir / "goodput.json").read_text())
    assert account["runs"] == 3 and 0 < account["goodput"] < 1
    parts = ("productive", "data", "start", "restore", "compile", "evaluate", "save", "lost")
    assert sum(account[p] for p in parts) + account["down"] == pytest.approx(account["wall"], 0.01)
    each = [(workdir / "checkpoints" / str(STEPS) / "params" / f"ocdbt.process_{i}").is_dir()
            for i in range(4)]  # fmt: skip
    assert all(each), "each process writes its own part"


# Process 1 stands still when it should read the batch of step 4.
HANGS = """
import sys, time
from geex_jax.cli import main
from geex_jax.data import loader
real = loader.Loader.__next__
def slow(self):
    import jax
    if self.step == 3 and jax.process_index() == 1:
        time.sleep(600)
    return real(self)
loader.Loader.__next__ = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_hung_process_is_named_and_all_end_with_stacks(experiment, tmp_path):
    """Here a mesh whose tensor axis crosses the processes: both read the same rows."""
    workdir = tmp_path / "run"
    group = Group(
        2, 1, experiment, workdir, {"tensor": 2},
        "--config.watchdog.seconds=12", "--config.watchdog.grace=5", script=HANGS,
    )  # fmt: skip
    try:
        statuses = group.wait()
    finally:
        group.end()
    # The first to end takes the others' coordinator or peer with it.
    assert 70 in statuses and 0 not in statuses, group.all_output()
    assert re.search(
        r"watchdog: process 0 .*; process 1 \(.*, pid \d+\) hangs in step 4, waiting for data",
        group.output(0),
    ), group.all_output()
    stacks = (workdir / "stacks" / "process-1.txt").read_text()
    assert "in slow" in stacks and "waiting for data" in stacks
    assert (workdir / "stacks" / "process-0.txt").is_file()
    assert max(losses(workdir)) <= 3
