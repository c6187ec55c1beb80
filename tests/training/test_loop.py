"""The loop: resuming after a kill, stopping, refusing, what it leaves behind."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from geex_jax.checkpoints import load_model
from geex_jax.checkpoints.store import saved_steps
from geex_jax.errors import GeexError
from geex_jax.training import loop
from geex_jax.training.metrics import read_metrics
from tests import xla

STEPS = 12
EXPERIMENT = """
from geex_jax.training.config import default_config

def get_config():
    config = default_config()
    config.name = "killed"
    config.steps = {steps}
    config.batch_size = 4
    config.model.preset = "geex-3m"
    config.model.overrides = {{"num_layers": 1, "d_model": 32, "num_heads": 2, "d_ff": 64}}
    config.model.context_length = 96
    config.model.dropout = 0.1
    config.data.folder = {data!r}
    config.optimizer.warmup = 2
    config.mesh = {{"data": 1, "fsdp": 1, "tensor": 1}}
    config.evaluate.update(every=4, batches=1, prompts=[])
    config.checkpoint.every = 3
    config.log.every = 1
    return config
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, prepared) -> pathlib.Path:
    path = tmp_path_factory.mktemp("experiment") / "killed.py"
    path.write_text(EXPERIMENT.format(steps=STEPS, data=str(prepared)))
    return path


def start(experiment, workdir, *extra) -> subprocess.Popen:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla.flags()}
    command = [sys.executable, "-m", "geex_jax", "train", f"--config={experiment}"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", *extra],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def losses(workdir) -> dict[int, tuple[float, float]]:
    rows = [r for r in read_metrics(workdir) if r["kind"] == "train"]
    assert [r["step"] for r in rows] == sorted({r["step"] for r in rows})
    return {r["step"]: (r["loss"], r["grad_norm"]) for r in rows}


@pytest.fixture(scope="module")
def undisturbed(experiment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    process = start(experiment, workdir)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return workdir, losses(workdir), output


def wait_for_step(process, workdir, step, timeout=120):
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        rows = [r["step"] for r in read_metrics(workdir)]
        if rows and max(rows) >= step:
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_runs_resume_to_the_same_losses_bit_for_bit(undisturbed, experiment, tmp_path):
    _, expected, _ = undisturbed
    workdir = tmp_path / "run"
    chance = random.Random(0)
    for kill_at in (chance.randint(1, 5), chance.randint(6, STEPS - 1)):
        process = start(experiment, workdir)
        wait_for_step(process, workdir, kill_at)
        while kill_at > 5 and not saved_steps(workdir / "checkpoints") and process.poll() is None:
            time.sleep(0.01)  # on a busy machine a save may take longer than the steps
        time.sleep(chance.random() * 0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(experiment, workdir)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "resuming    at step" in output
    assert losses(workdir) == expected
    first, second = (load_model(w).params for w in (undisturbed[0], workdir))
    np.testing.assert_array_equal(first["embedding"]["tokens"], second["embedding"]["tokens"])


@pytest.mark.slow
def test_sigterm_saves_and_exits_cleanly_and_the_run_goes_on(undisturbed, experiment, tmp_path):
    workdir = tmp_path / "run"
    process = start(experiment, workdir)
    wait_for_step(process, workdir, 4)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "SIGTERM: saved step" in output
    stopped = max(losses(workdir))
    assert 4 <= stopped <= STEPS and (workdir / "checkpoints" / str(stopped)).is_dir()
    process = start(experiment, workdir)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert losses(workdir) == undisturbed[1]


def test_what_a_run_says_and_leaves_behind(undisturbed):
    workdir, values, output = undisturbed
    assert sorted(values) == list(range(1, STEPS + 1))
    for word in ("model", "mesh", "data", "memory", "MFU", "compiled", "tokens/s", "left"):
        assert word in output
    assert (workdir / "loss.png").stat().st_size > 5000
    assert list((workdir / "tensorboard").glob("events*"))
    validation = [r for r in read_metrics(workdir) if r["kind"] == "validation"]
    assert [r["step"] for r in validation] == [4, 8, 12]
    assert set(validation[-1]["bits_per_byte"]) == {"C", "Python", "all"}
    # keep_last 2: steps 9 and 12; only steps with an evaluation can be the best one.
    kept = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    assert kept == [9, 12]
    loaded = load_model(workdir)
    assert loaded.provenance["step"] == 12 and loaded.tokenizer.vocab_size <= 512


def test_tokens_seen_are_counted_per_language_and_go_on_after_a_stop(config, tmp_path, monkeypatch):
    from geex_jax.data import make_loader

    config.evaluate.every = 0
    config.data.curriculum = ((2, {"C": 1.0}),)
    loop.train(config, tmp_path / "whole")
    loader = make_loader(
        config.data.folder, batch_size=8, seed=config.seed, curriculum=((2, {"C": 1.0}),)
    )
    names = [x.name for x in loader.manifest.languages]
    expected: dict[str, int] = {}
    for row in (r for r in read_metrics(tmp_path / "whole") if r["kind"] == "train"):
        batch = loader.batch(row["step"] - 1)
        for language, segments in zip(batch["language"], batch["segment_ids"], strict=True):
            name = names[language]
            expected[name] = expected.get(name, 0) + int((segments > 0).sum())
        assert row["tokens_seen"] == expected
    assert set(expected) == {"C", "Python"}
    # a run that ends at step 4, and goes on
    add = loop.Progress.add

    def stop(self, step, *rest):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        add(self, step, *rest)

    monkeypatch.setattr(loop.Progress, "add", stop)
    assert not loop.train(config, tmp_path / "parts").finished
    monkeypatch.setattr(loop.Progress, "add", add)
    loop.train(config, tmp_path / "parts")
    rows = [r for r in read_metrics(tmp_path / "parts") if r["kind"] == "train"]
    assert len(rows) == config.steps and rows[-1]["tokens_seen"] == expected


def test_refuses_more_steps_than_the_cap_on_epochs_allows(config, tmp_path):
    config.data.max_epochs = 0.05
    refuse(config, tmp_path / "a", r"max_epochs ends the data after \d+; set config.steps")
    config.data.curriculum = ((3, {"Java": 1.0}),)
    refuse(config, tmp_path / "a", "Java has no rows")


def test_it_learns(config, tmp_path):
    config.steps = 60
    config.evaluate.every = 0
    config.checkpoint.every = 0
    result = loop.train(config, tmp_path / "run")
    first = next(r for r in read_metrics(tmp_path / "run") if r["kind"] == "train")
    assert result.finished and result.step == 60
    assert result.validation["all"] < 0.5 * first["bits_per_byte"]


def test_best_checkpoint_is_kept_beside_the_last(config, tmp_path, monkeypatch):
    scores = iter([3.0, 1.0, 2.0, 2.5])
    config.evaluate.every = config.checkpoint.every = 1
    config.steps = 4
    config.checkpoint.keep_last = 1
    monkeypatch.setattr(loop, "validator", lambda *_: lambda params, step: {"all": next(scores)})
    loop.train(config, tmp_path / "run")
    kept = sorted(
        int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdigit()
    )
    assert kept == [2, 4]


def test_a_damaged_checkpoint_is_passed_over_and_said(undisturbed, config, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed[0], workdir)
    for file in (workdir / "checkpoints" / "12" / "params").rglob("*"):
        if file.is_file() and file.stat().st_size > 2000:
            os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(GeexError, match="damaged or cut short") as error:
        load_model(workdir)
    assert "\n" not in str(error.value)
    saved = json.loads((workdir / "experiment.json").read_text())
    saved.pop("data_fingerprint")
    with config.unlocked():
        config.update(saved)
    config.steps = STEPS
    loop.train(config, workdir)
    said = capsys.readouterr().out
    assert re.search(r"checkpoint of step 12 is damaged \(params/.* bytes\): moved to", said)
    assert "going on from step 9" in said and (workdir / "damaged" / "12-0").is_dir()
    assert losses(workdir) == undisturbed[1]


def refuse(config, workdir, message):
    before = list(workdir.iterdir()) if workdir.exists() else []
    with pytest.raises(GeexError, match=message) as error:
        loop.train(config, workdir)
    assert "\n" not in str(error.value)
    assert (list(workdir.iterdir()) if workdir.exists() else []) == before


def test_refusals_before_any_work(config, tmp_path, undisturbed):
    config.data.folder = str(tmp_path / "nothing")
    refuse(config, tmp_path / "a", "geex prepare")
    config.data.folder = ""
    refuse(config, tmp_path / "a", "config.data.folder is empty")


def test_refuses_a_vocabulary_that_does_not_fit(config, tmp_path):
    config.model.vocab_size = 52224
    refuse(config, tmp_path / "a", "vocab_size 52224 does not fit the data's vocabulary")
    config.model.vocab_size = 128
    refuse(config, tmp_path / "a", "vocab_size 128 does not fit")


def test_refuses_a_batch_that_does_not_divide(config, tmp_path):
    config.batch_size = 9
    config.mesh.data = 2
    refuse(config, tmp_path / "a", "batch_size 9 does not divide over 2 .*config.batch_size=8")


def test_refuses_a_context_shorter_than_the_rows(config, tmp_path):
    config.model.context_length = 64
    refuse(config, tmp_path / "a", "context_length 64 is shorter than the data's rows of 96")


def test_refuses_the_workdir_of_another_config(config, undisturbed):
    refuse(config, undisturbed[0], "holds a run of another config")


def test_refuses_a_folder_that_is_no_workdir(config, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    refuse(config, tmp_path, "is not empty and no workdir")


def test_fine_tuning_starts_from_another_run(config, undisturbed, tmp_path):
    config.init_from = str(undisturbed[0])
    config.steps = 1
    config.optimizer.warmup = 1
    loop.train(config, tmp_path / "run")
    tuned = next(r for r in read_metrics(tmp_path / "run") if r["kind"] == "train")
    assert tuned["loss"] < undisturbed[1][1][0] - 0.2


def test_fine_tuning_refuses_another_vocabulary(config, undisturbed, tmp_path):
    from geex_jax.data import PrepareConfig, prepare
    from geex_jax.data.filters import Filters
    from geex_jax.tokenizers import train_sentencepiece
    from tests.training.conftest import write_sources

    sources = write_sources(tmp_path / "sources", 20)
    tokenizer = train_sentencepiece(
        (p.read_text() for p in sources.iterdir()), tmp_path / "spm", 400
    )
    settings = PrepareConfig(seq_len=96, workers=1, filters=Filters(min_bytes=1))
    prepare([sources], tmp_path / "data", tokenizer, settings)
    config.data.folder = str(tmp_path / "data")
    config.init_from = str(undisturbed[0])
    refuse(config, tmp_path / "run", "vocabulary of .* is not the data's")


def test_a_run_that_cannot_learn_stops(config, tmp_path, monkeypatch):
    config.skip.stop_after = 3
    config.optimizer.lr = 1e-2
    arrays = loop._arrays

    def broken(run, batch):
        found = arrays(run, batch)
        return {**found, "loss_mask": np.full_like(found["loss_mask"], np.nan)}

    monkeypatch.setattr(loop, "_arrays", broken)
    with pytest.raises(GeexError, match="3 steps in a row had to be skipped"):
        loop.train(config, tmp_path / "run")


def test_weights_and_biases_gets_what_tensorboard_gets(config, tmp_path, monkeypatch):
    logged, calls = [], {}

    class Stub:
        @staticmethod
        def init(**words):
            calls.update(words)
            return Stub

        @staticmethod
        def log(values, step):
            logged.append((step, values))

        @staticmethod
        def finish():
            calls["finished"] = True

    monkeypatch.setitem(sys.modules, "wandb", Stub)
    config.log.wandb = "project"
    config.steps = 2
    loop.train(config, tmp_path / "run")
    assert calls["project"] == "project" and calls["id"] == "run" and calls["finished"]
    assert {step for step, values in logged if "train/loss" in values} == {1, 2}
    assert any("validation/bits_per_byte/all" in values for _, values in logged)


def test_weights_and_biases_that_is_not_installed_is_one_line(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config.log.wandb = "project"
    with pytest.raises(GeexError, match="needs wandb"):
        loop.train(config, tmp_path / "run")
