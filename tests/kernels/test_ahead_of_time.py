"""The real train step, compiled for TPUs that are not here: the kernel is in it, and compiles."""

import os

import jax
import pytest

pytest.importorskip("libtpu")

from jax.experimental import topologies

from geex_jax.parallel import make_mesh
from geex_jax.training.config import default_config
from geex_jax.training.program import train_program

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


def program(topology, sizes, **model):
    """One layer of geex-3m's kind, with heads of 128."""
    config = default_config()
    config.batch_size, config.loss_chunk = 4, 256
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
    return train_program(config, mesh, vocab_size=256, seq_len=256).lower()


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
    assert text.count("splash_mha_fwd") and text.count("splash_mha_dkv")
    assert "256x256xi1>" not in text  # no mask
    local = f"tensor<{4 // sizes.get('tensor', 1)}x256x128xbf16>"  # heads of one device
    assert any(
        "tpu_custom_call" in line and local.split("<")[1][:-1] in line.replace("x1x", "x")
        for line in text.splitlines()
    )
    compiled = lowered.compile(compiler_options=FAST)
    assert compiled.as_text().count("tpu_custom_call") >= 2


def test_an_explicit_xla_is_kept():
    assert "tpu_custom_call" not in program("v5e:2x2", {"fsdp": 4}, attention="xla").as_text()


def test_offloaded_activations_lie_in_the_hosts_memory():
    lowered = program("v5e:2x2", {"fsdp": 4})
    assert "pinned_host" not in lowered.as_text()
    lowered = program_with_offload()
    compiled = lowered.compile(compiler_options=FAST)
    assert compiled.memory_analysis().host_temp_size_in_bytes > 0


def program_with_offload():
    return program("v5e:2x2", {"fsdp": 4}, remat="qkv_offload")


def test_int8_matmuls_are_int8_on_the_chip():
    text = program("v5e:2x2", {"fsdp": 4}, matmul="int8").compile(compiler_options=FAST).as_text()
    assert jax.devices()[0].platform == "cpu" and "s32[" in text and "s8[" in text
