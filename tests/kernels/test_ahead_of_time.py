"""The real train step, compiled for TPUs that are not here: the kernel is in it, and compiles."""

import os

import pytest

pytest.importorskip("libtpu")

from jax.experimental import topologies

from geex_jax.parallel import make_mesh
from geex_jax.training.config import default_config
from geex_jax.training.program import train_program

pytestmark = pytest.mark.optimized

ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
}
FAST = {"exec_time_optimization_effort": -1.0}


@pytest.fixture(autouse=True)
def no_tpu_is_looked_for(monkeypatch):
    for name, value in ALONE.items():
        monkeypatch.setenv(name, os.environ.get(name, value))


def program(topology, sizes, moments="float32", **model):
    """One layer of geex-3m's kind, with heads of 128."""
    config = default_config()
    config.optimizer.moments = moments
    config.batch_size, config.loss_chunk = 4, 384
    config.model.update({"preset": "geex-3m", "dtype": "bfloat16", "remat": "ctx"} | model)
    config.model.overrides = {
        "num_layers": 1,
        "d_model": 256,
        "num_heads": 4,
        "head_dim": 128,
        "d_ff": 256,
        "top_query_layer": False,
    }
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    mesh = make_mesh(sizes, found.devices)
    return train_program(config, mesh, vocab_size=256, seq_len=384).lower()


@pytest.mark.parametrize(
    ("topology", "sizes"),
    [
        ("v5e:2x2", {"fsdp": 4}),
        ("v6e:2x2", {"fsdp": 2, "tensor": 2}),
        ("v5p:2x2x1", {"tensor": 4}),
    ],
)
def test_auto_is_splash_forward_and_backward_on_each_device(topology, sizes):
    lowered = program(topology, sizes)
    text = lowered.as_text()
    calls = [line for line in text.splitlines() if "@tpu_custom_call" in line]
    assert ["splash_mha_fwd" in line for line in calls] == [True, False]
    assert ["splash_mha_dkv" in line for line in calls] == [False, True]
    rows, heads = 4 // sizes.get("fsdp", 1), 4 // sizes.get("tensor", 1)
    for line in calls:  # rows and heads of one device
        local = f"{rows}x{heads}x384x128xbf16".removeprefix("1x")  # one row is no dimension
        assert f"tensor<{local}>" in line
    assert "384x384xi1>" not in text  # no mask
    compiled = lowered.compile(compiler_options=FAST)
    # The forward pass, and its kernel not again: "ctx" keeps what the backward one needs.
    assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 2


def test_an_explicit_xla_is_kept():
    text = program("v5e:2x2", {"fsdp": 4}, attention="xla").as_text()
    assert "@tpu_custom_call" not in text and "384x384xi1>" in text


def test_offloaded_activations_lie_in_the_hosts_memory():
    compiled = program("v5e:2x2", {"fsdp": 4}, remat="qkv_offload").compile(FAST)
    assert compiled.memory_analysis().host_temp_size_in_bytes > 0
    assert "S(5)" in compiled.as_text()  # XLA's number of the host's memory


def test_int8_matmuls_are_int8_on_the_chip_and_in_what_it_gathers():
    text = program("v5e:2x2", {"fsdp": 4}, matmul="int8").compile(FAST).as_text()
    products = [line for line in text.splitlines() if " convolution(" in line]
    assert any(" s32[" in line for line in products)
    assert any(" all-gather" in line and " s8[" in line for line in text.splitlines())


def test_moments_in_int8_are_arguments_and_results_of_the_step():
    text = program("v5e:2x2", {"fsdp": 4}, moments="int8").as_text()
    head = next(line for line in text.splitlines() if "func public @main" in line)
    for kind in ("ui8", "i8"):  # the layer's MLP: an argument, and a result in its place
        assert head.count(f"tensor<1x256x256x{kind}>") >= 2
