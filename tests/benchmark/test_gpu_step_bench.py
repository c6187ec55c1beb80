"""The GPU bench: refused without a GPU; its code paths on a CPU at a tiny shape."""

import json

import pytest

from geex_jax import cli
from geex_jax.benchmark import gpu_step_bench as bench

SMALL = "--device cpu --preset geex-3m --batch-size 1 --seq-len 16 --steps 2"


def run(capsys, flags):
    status = cli.main(["bench", "gpu-step", *flags.split()])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--steps 0", "--steps 0; give a number above 0"),
        ("--preset geex-2b", "unknown model preset 'geex-2b'"),
        ("--seq-len 4096", "--seq-len 4096 is longer than the context of geex-1.3b"),
        ("--remat everything", "model.remat = 'everything' is not known"),
        ("--device tpu", "invalid choice: 'tpu'"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, flags, message):
    status, _, error = run(capsys, flags)
    assert status == 2 and message in error and error.count("\n") == 1


def test_without_a_gpu_it_refuses(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    from geex_jax.errors import GeexError

    spec = bench.Spec("geex-3m", "cuda", {"remat": "none"}, 512, 3, False)
    with pytest.raises(GeexError, match=r"no GPU: JAX sees cpu; pip install \"geex-jax\[gpu\]\""):
        bench.OurGpuStep(spec)


def test_a_tiny_shape_runs_on_a_cpu(capsys):
    pytest.importorskip("torch", reason="the peer is PyTorch")
    # Eager: torch.compile takes a minute on a CPU, and is PyTorch's own code.
    status, out, error = run(capsys, f"{SMALL} --eager --json --remat full")
    assert status == 0, error
    result = json.loads(out)
    assert result["largest_relative_difference"] < bench.TOLERANCE
    for name in (bench.OURS, bench.PYTORCH):
        assert len(result["seconds"][name]) == 2 and result["peak_bytes"][name] > 0
        rate = result["flops_per_token"] * result["tokens_per_second"][name]
        best = max(result["matmul_flops_per_second"].values())
        assert result["mfu_measured"][name] == pytest.approx(rate / best)
        assert result["mfu_public"][name] is None
    assert "only show that the code runs" in bench.report(result)


def test_the_report_names_both_rates():
    both = {bench.OURS: 1.0, bench.PYTORCH: 2.0}
    result = {
        "preset": "geex-1.3b", "device_kind": "NVIDIA H200", "device": "cuda", "eager": False,
        "parameters": 1.3e9, "batch_size": 8, "seq_len": 2048, "changes": {"remat": "none"},
        "versions": {"jax": "1", "torch": "2"}, "largest_relative_difference": 1e-3,
        "losses": {bench.OURS: [1.0]}, "matmul_size": 8192,
        "matmul_flops_per_second": {k: v * 7e14 for k, v in both.items()},
        "tokens_per_second": {k: v * 1e4 for k, v in both.items()},
        "mfu_measured": {k: v * 0.25 for k, v in both.items()},
        "mfu_public": {k: v * 0.2 for k, v in both.items()},
        "peak_bytes": {k: v * 2**30 for k, v in both.items()}, "ratio": 1.5,
    }  # fmt: skip
    text = bench.report(result)
    assert "8192^3 bfloat16 matmul: 700.00 TFLOP/s" in text
    assert "MFU 25.0% of the measured rate, 20.0% of the public peak, peak memory 1.00" in text
    assert text.endswith("times PyTorch: 1.50 by medians")
