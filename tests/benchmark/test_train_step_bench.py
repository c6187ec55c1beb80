"""The train-step bench: its PyTorch side computes what ours does; flags; lazy imports."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from geex_jax import cli
from geex_jax.benchmark import train_step_bench as bench
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer
from geex_jax.training.optimizer import OptimizerConfig, make_optimizer, schedule
from geex_jax.training.step import init_state, train_step

CONFIG = ModelConfig(
    vocab_size=256, context_length=64, d_model=64, num_layers=2, num_heads=4, d_ff=128
)


def packed_batch(seed: int) -> dict[str, np.ndarray]:
    # Two documents and padding in each row; the first token of the second one is not predicted.
    batch = bench.make_batch(CONFIG.vocab_size, 4, 32, seed)
    segments = np.repeat([1, 2, 0], [17, 12, 3]).astype(np.int32)
    positions = np.concatenate([np.arange(n) for n in (17, 12, 3)]).astype(np.int32)
    mask = (segments > 0).astype(np.float32)
    mask[16] = 0
    batch["segment_ids"] = np.tile(segments, (4, 1))
    batch["positions"] = np.tile(positions, (4, 1))
    batch["loss_mask"] = np.tile(mask, (4, 1))
    return batch


def test_the_reference_trains_as_we_do():
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    from geex_jax.benchmark.torch_reference import TorchStep

    settings = OptimizerConfig(lr=1e-2, warmup=0, steps=20, weight_decay=0.5)
    torch.set_num_threads(1)  # threads that wait for each other are slow on a busy machine
    state = jax.jit(lambda: init_state(Transformer(CONFIG), make_optimizer(settings), seed=1))()
    # Random biases and scales: zeros and ones would hide one that is lost.
    leaves, tree = jax.tree.flatten(jax.device_get(state.params))
    rng = np.random.default_rng(0)
    leaves = [x + rng.normal(0, 0.05, x.shape).astype(np.float32) for x in leaves]
    state = state.replace(params=jax.tree.unflatten(tree, leaves))
    peer = TorchStep(CONFIG, state.params, settings)
    update = jax.jit(train_step)
    rates = np.asarray(schedule(settings)(np.arange(8)))
    # PyTorch takes another path for packed rows (a mask) than for whole ones (causal).
    batches = [packed_batch(0), bench.make_batch(256, 4, 32, 1)]
    ours, theirs = [], []
    for i in range(8):
        state, metrics = update(state, batches[i % 2])
        ours.append(float(metrics["loss"]))
        theirs.append(peer.step(batches[i % 2], float(rates[i])))
    assert ours[-1] < ours[1] - 0.3, "nothing was learned: the updates are not tested"
    np.testing.assert_allclose(ours, theirs, rtol=2e-5)


def test_the_reference_refuses_another_architecture():
    pytest.importorskip("torch", reason="the reference is PyTorch's")
    from geex_jax.benchmark.torch_reference import check_config

    check_config(CONFIG)
    with pytest.raises(GeexError, match="norm = 'rmsnorm'"):
        check_config(CONFIG.replace(norm="rmsnorm"))


def test_losses_that_differ_are_refused():
    same = {"geex_jax": [2.0, 1.0], "pytorch": [2.0, 1.0001]}
    assert bench.check_losses(same, 1e-3) == pytest.approx(1e-4, rel=0.01)
    with pytest.raises(GeexError, match="the losses differ"):
        bench.check_losses(same, 1e-5)
    with pytest.raises(GeexError, match="the losses differ"):
        bench.check_losses({"geex_jax": [float("nan")], "pytorch": [1.0]}, 1e-3)


def test_it_prints_json_and_keeps_its_own_cores(capsys):
    pytest.importorskip("torch", reason="the peer is PyTorch")
    allowed = os.sched_getaffinity(0)
    flags = "--preset geex-3m --batch-size 1 --seq-len 16 --rounds 1 --dtype bfloat16 --json"
    assert cli.main(["bench", "train-step", *flags.split(), "--cores", str(min(allowed))]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["cores"] == [min(allowed)] and os.sched_getaffinity(0) == allowed
    assert len(result["losses"]["pytorch"]) == bench.CHECKED_STEPS
    assert result["largest_relative_difference"] < bench.TOLERANCE["bfloat16"]
    assert "times the faster PyTorch" in bench.report(result)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--preset geex-20", "unknown model preset 'geex-20'"),
        ("--loss-chunk 0", "--loss-chunk 0; give"),
        ("--rounds 0", "--rounds 0; give a number above 0"),
        ("--batch-size -1", "--batch-size -1; give"),
        ("--seq-len 4096", "--seq-len 4096 is longer than the context of geex-20m"),
        ("--cores a-b", "--cores a-b is not a list of cores"),
        ("--cores 100000", "--cores 100000 does not fit"),
        ("--dtype float64", "invalid choice: 'float64'"),
        ("--round 3", "unknown flag --round; did you mean --rounds"),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, capsys):
    assert cli.main(["bench", "train-step", *flags.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_the_chosen_bench_is_imported():
    code = """
import sys
from geex_jax import cli
sys.modules["geex_jax.benchmark.tokenizer_bench"] = None  # importing it fails
for argv in (["bench", "--help"], ["bench", "train-step", "--help"]):
    try:
        cli.main(argv)
    except SystemExit:
        pass
    print("loaded:", [m for m in ("geex_jax.benchmark.train_step_bench", "jax", "torch")
                      if m in sys.modules])
"""
    out = run_python(code)
    assert "tokenizer" in out and "--rounds" in out
    loaded = [line for line in out.splitlines() if line.startswith("loaded:")]
    assert loaded == ["loaded: []", "loaded: ['geex_jax.benchmark.train_step_bench']"]


def test_without_pytorch_one_line_names_the_extra():
    code = """
import sys
from geex_jax import cli
sys.modules["torch"] = None  # importing it fails
sys.stderr = sys.stdout
print(cli.main("bench train-step --preset geex-3m --rounds 1".split()))
"""
    lines = run_python(code).splitlines()
    expected = 'geex: error: this bench needs PyTorch; pip install "geex-jax[convert]"'
    assert lines == [expected, "2"]
