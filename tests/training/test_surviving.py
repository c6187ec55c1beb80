"""What a run notices by itself: NaNs by layer, spikes by language, hangs, goodput, profiles."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from geex_jax.errors import GeexError
from geex_jax.models import Transformer, preset
from geex_jax.parallel import use_mesh
from geex_jax.training import OptimizerConfig, StepConfig, init_state, loop, make_optimizer
from geex_jax.training import config as configs
from geex_jax.training.goodput import Clock, Goodput
from geex_jax.training.metrics import read_metrics
from geex_jax.training.nans import first_not_finite
from geex_jax.training.profiling import parse_steps
from geex_jax.training.run import Run
from geex_jax.training.watchdog import Watchdog, blame, excused

LAYERS = 3


@pytest.fixture(scope="module")
def state():
    shape = preset("geex-3m").replace(
        vocab_size=128, context_length=16, num_layers=LAYERS, d_model=16, num_heads=2, d_ff=32
    )
    assert shape.top_query_layer and shape.scan_layers
    model, optimizer = Transformer(shape), make_optimizer(OptimizerConfig())
    return jax.jit(lambda: init_state(model, optimizer, 0, StepConfig()))()


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    tokens = random.integers(0, 128, (4, 16), dtype=np.int32)
    return {
        "tokens": tokens,
        "targets": np.roll(tokens, -1, axis=1),
        "positions": np.tile(np.arange(16, dtype=np.int32), (4, 1)),
        "segment_ids": np.ones((4, 16), np.int32),
        "loss_mask": np.ones((4, 16), np.float32),
    }


def planted(state, *path, layer=None, value=np.inf):
    """The state with one number of one parameter replaced."""
    params = jax.tree.map(np.array, state.params)
    leaf = params
    for name in path:
        leaf = leaf[name]
    leaf[(() if layer is None else (layer,)) + (0,) * (leaf.ndim - (layer is not None))] = value
    return dataclasses.replace(state, params=params)


@pytest.mark.parametrize(
    ("path", "layer", "where"),
    [
        (("layers", "mlp", "up", "kernel"), 1, "layers[1] mlp_out"),
        (("layers", "attention", "output", "kernel"), 2, "layers[2] attention_out"),
        (("embedding", "tokens"), None, "the embedding's output"),
        (("final_norm", "scale"), None, "the final norm's output"),
        (("top_query", "layer", "mlp", "down", "kernel"), None, "the top query layer's mlp_out"),
    ],
)
def test_the_first_layer_that_is_not_finite_is_named(state, batch, path, layer, where):
    name = "/".join(path) if layer is None else f"layers[{layer}]/{'/'.join(path[1:])}"
    if path[0] == "embedding":
        batch = {**batch, "tokens": np.zeros_like(batch["tokens"])}  # they look up row 0
    said = first_not_finite(planted(state, *path, layer=layer), batch, 0)
    assert said.startswith(f"first not finite: {where} (its finite numbers from ")
    assert f"; the parameter {name} is not finite itself" in said and "\n" not in said


def test_parts_of_a_batch_are_looked_at_one_by_one(state, batch):
    bad = planted(state, "layers", "mlp", "up", "kernel", layer=0)
    bad = dataclasses.replace(bad, config=StepConfig(accumulate=2))
    assert "layers[0] mlp_out" in first_not_finite(bad, batch, 0)


def test_what_only_the_gradient_has(state, batch, monkeypatch):
    from geex_jax.models import layers

    @jax.custom_vjp
    def act(x):
        return jax.nn.relu(x)

    # Only layer 1's input is large: its gradient, and those of the layers below, are infinite.
    def backward(x, g):
        return (jax.numpy.where(jax.numpy.max(jax.numpy.abs(x)) > 100, np.inf, g),)

    act.defvjp(lambda x: (act(x), x), backward)
    monkeypatch.setitem(layers.ACTIVATIONS, preset("geex-3m").activation, act)
    one = planted(state, "layers", "mlp", "up", "bias", layer=1, value=1000.0)
    one = dataclasses.replace(one, config=StepConfig(loss_chunk=8))  # another program
    said = first_not_finite(one, batch, 0)
    assert "the forward pass is finite; first not finite: the gradient of layers[1]/" in said


def test_a_run_names_the_layer_and_goes_on_to_its_rule(config, tmp_path, monkeypatch, capsys):
    fresh = Run.fresh_state

    def broken(self):
        state = fresh(self)
        leaf = state.params["layers"]["mlp"]["down"]["kernel"]
        state.params["layers"]["mlp"]["down"]["kernel"] = leaf.at[0, 0, 0].set(np.inf)
        return state

    monkeypatch.setattr(Run, "fresh_state", broken)
    config.skip.stop_after = 2
    with pytest.raises(GeexError, match="2 steps in a row had to be skipped"):
        loop.train(config, tmp_path / "run", debug_nans=True)
    said = capsys.readouterr()
    assert "step 1: first not finite: layers[0] mlp_out" in said.out
    assert re.search(r"step 1 skipped, .* not finite; loss by language: ", said.err)
    skips = [r for r in read_metrics(tmp_path / "run") if r["kind"] == "skip"]
    assert [r["step"] for r in skips] == [1, 2] and "language_loss" in skips[0]


def test_a_spike_is_counted_and_told_by_language(config, tmp_path, monkeypatch, capsys):
    """All rows of step 5 are C and have one and the same target: the gradients add up."""
    arrays = loop._arrays
    calls = []

    def spiked(run, batch):
        calls.append(1)
        found = arrays(run, batch)
        if len(calls) == 6:  # one call is the compiler's
            c = run.manifest.language_index("C")
            found["language"] = np.full_like(found["language"], c)
            found["targets"] = np.full_like(found["targets"], 500)
        return found

    monkeypatch.setattr(loop, "_arrays", spiked)
    config.skip.update(window=4, sigma=6.0)
    config.optimizer.lr = 1e-3  # what the model learns in these steps changes little
    config.evaluate.every = 0
    config.checkpoint.every = 5
    loop.train(config, tmp_path / "run", profile_steps=(2, 3))
    said = capsys.readouterr()
    assert "step 5 skipped, parameters unchanged: spike: loss" in said.err
    assert re.search(r"loss by language: C \d+\.\d+$", said.err.strip())
    rows = {r["step"]: r for r in read_metrics(tmp_path / "run") if r["kind"] == "train"}
    assert rows[5]["language_skips"] == rows[6]["language_skips"] == {"C": 1}
    assert "language_skips" not in rows[4] and set(rows[4]["language_loss"]) == {"C", "Python"}
    # The profile, and the split of a step's time.
    assert "profile     of steps 2 to 3" in said.out
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    row = rows[6]
    parts = sum(row[f"{x}_seconds"] for x in ("data", "host", "device"))
    assert parts == pytest.approx(row["step_seconds"]) and 0 < row["goodput"] < 1
    kept = json.loads((tmp_path / "run" / "checkpoints" / "6" / "loader" / "metadata").read_text())
    assert kept["language_skips"] == {"C": 1} and kept["productive_seconds"] > 0


def test_per_language_sums_are_those_of_the_batch(config, tmp_path):
    """The step's sums by language, over two parts, against the loader's batch."""
    config.accumulate = 2
    run = Run(config, tmp_path / "run")
    raw = run.loader.batch(0)
    with use_mesh(run.mesh):
        state = run.fresh_state()
        step = loop.jit_train_step(run.mesh, state)
        _, numbers = step(state, run.put(loop._arrays(run, raw)))
    found = np.asarray(numbers["by_language"])
    assert found[0].sum() / found[1].sum() == pytest.approx(float(numbers["loss"]), rel=1e-5)
    mine = [raw["language"] == i for i in range(len(run.manifest.languages))]
    np.testing.assert_array_equal(found[1], [raw["loss_mask"][m].sum() for m in mine])
    np.testing.assert_array_equal(found[2], [run.counter.per_row(raw)[m].sum() for m in mine])
    np.testing.assert_array_equal(found[3], [(raw["segment_ids"][m] > 0).sum() for m in mine])


@pytest.mark.parametrize(("text", "steps"), [("10:13", (10, 13)), ("7", (7, 7))])
def test_profile_steps(text, steps):
    assert parse_steps(text) == steps


@pytest.mark.parametrize("text", ["", "0:3", "5:4", "a:b", "1:2:3", "-1"])
def test_profile_steps_that_are_none(text):
    with pytest.raises(GeexError, match="write FIRST:LAST"):
        parse_steps(text)


def test_profile_steps_beyond_the_run_are_refused_early(config, tmp_path):
    with pytest.raises(GeexError, match="4:9 is not within this run's steps 1 to 6"):
        loop.train(config, tmp_path / "run", profile_steps=(4, 9))


def test_mesh_and_watchdog_may_change_on_resume():
    old = {"mesh": {"fsdp": 8}, "zero": 3, "watchdog": {"seconds": 1.0}, "seed": 0}
    new = {"mesh": {"fsdp": 2, "sequence": 2}, "zero": 1, "watchdog": {"seconds": 0.0}, "seed": 1}
    assert configs.same_run(old, new) == ["seed: 0 -> 1"]


def test_goodput_over_a_kill(tmp_path):
    """10 s of steps, of which a kill loses 4: they go to "lost", and the parts add up."""
    clock = Clock()
    one = Goodput(tmp_path, clock, 0, 0.0, keep=True)
    one.first -= 100
    clock.spent.update(host=2.0, device=8.0, data=1.0, compile=5.0)
    one.write(20, at_once=True)
    two = Goodput(tmp_path, Clock(), 12, 6.0, keep=True)
    table = two.table()
    assert (table["productive"], table["lost"], table["compile"], table["data"]) == (
        pytest.approx(6), pytest.approx(4), 5, 1)  # fmt: skip
    assert two.runs == 2 and two.value() == pytest.approx(6 / table["wall"], rel=0.05)
    assert table["wall"] >= 100
    assert sum(v for k, v in table.items() if k != "wall") == pytest.approx(table["wall"])
    assert json.loads((tmp_path / "goodput.json").read_text())["step"] == 12


def beat(folder, number, step, phase, age=0.0):
    row = {"process": number, "host": f"host{number}", "pid": 100 + number, "step": step,
           "phase": phase, "seconds": age, "time": time.time() - age}  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / f"process-{number}.json").write_text(json.dumps(row))


def test_the_process_that_is_behind_is_blamed(tmp_path):
    folder = tmp_path / "heartbeats"
    for number in range(4):
        beat(folder, number, 8, "device")
    assert "all 4 processes are there" in blame(folder, 4)
    beat(folder, 2, 7, "data")
    said = blame(folder, 4)
    assert said == "process 2 (host2, pid 102) hangs in step 7, waiting for data"
    beat(folder, 3, 8, "device", age=100)
    assert blame(folder, 4) == "no sign of life from process 3 (host3, pid 103)"
    assert blame(folder, 5).endswith("process 3 (host3, pid 103), process 4")


def test_who_compiles_or_saves_is_waited_for(tmp_path):
    folder = tmp_path / "heartbeats"
    beat(folder, 0, 8, "device")
    beat(folder, 1, 8, "data")
    assert not excused(folder, 2, 8, seconds=5)
    beat(folder, 1, 0, "compile")
    assert excused(folder, 2, 8, seconds=5)
    beat(folder, 1, 8, "save", age=10)
    assert excused(folder, 2, 8, seconds=5) and not excused(folder, 2, 8, seconds=3)
    beat(folder, 1, 9, "save")  # it is ahead: nobody waits for it
    assert not excused(folder, 2, 8, seconds=5)
    beat(folder, 1, 0, "compile", age=100)  # it is gone
    assert not excused(folder, 2, 8, seconds=5)


HANG = """
import pathlib, sys, threading, time
from geex_jax.training.goodput import Clock
from geex_jax.training.watchdog import Watchdog
clock = Clock()
with Watchdog(pathlib.Path(sys.argv[1]), clock, 0.5, 0.2).watching():
    clock.enter("compile", 3)
    time.sleep(1.5)
    clock.enter("device")
    def waits_for_ever():
        time.sleep(60)
    waits_for_ever()
"""


def test_a_hung_process_ends_with_its_stacks_on_disk(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HANG, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 70, done.stderr
    assert re.search(r"process 0 .* waiting for the devices in step 3 for \d+ s", done.stderr)
    assert "waits_for_ever" in (tmp_path / "stacks" / "process-0.txt").read_text()


def test_a_watchdog_that_is_off_leaves_nothing(tmp_path):
    with Watchdog(tmp_path, Clock(), 0, 1).watching():
        pass
    assert not list(pathlib.Path(tmp_path).iterdir())
