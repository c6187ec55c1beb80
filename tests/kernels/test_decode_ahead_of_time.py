"""Decode's kernels, compiled for TPUs that are not here."""

import os
from typing import Any

import pytest

pytest.importorskip("libtpu")

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from geex_jax.kernels import decode_attention, quantized_pallas
from geex_jax.parallel import make_mesh, use_mesh
from tests.kernels.test_ahead_of_time import ALONE, FAST

ONE = {"v5e": "v5e:2x2", "v6e": "v6e:2x2", "v5p": "v5p:2x2x1"}


@pytest.fixture(autouse=True)
def no_tpu_is_looked_for(monkeypatch):
    for name, value in ALONE.items():
        monkeypatch.setenv(name, os.environ.get(name, value))


@pytest.mark.parametrize("held", ["bfloat16", "int8"])
@pytest.mark.parametrize("topology", list(ONE))
def test_attention_of_13b_reads_the_cache_as_it_lies_on_each_device(topology, held):
    devices = topologies.get_topology_desc(platform="tpu", topology_name=ONE[topology]).devices
    mesh = make_mesh({"tensor": 4}, devices)

    def shape(sizes, dtype, *places):
        place = NamedSharding(mesh, PartitionSpec(*places))
        return jax.ShapeDtypeStruct(sizes, jnp.dtype(dtype), sharding=place)

    sizes = (3, 2, 1024)
    split = (None, None, None, "tensor")
    cache = [shape((*sizes, 5120), held, *split)] * 2
    if held == "int8":
        cache += [shape((*sizes, 40), "float32", *split)] * 2

    def run(query, slots, block, key, value, *scales):
        given = dict(zip(("key_scale", "value_scale"), scales, strict=False))
        return decode_attention(query, key, value, block, slots, **given)

    with use_mesh(mesh):
        lowered: Any = jax.jit(run).lower(
            shape((2, 1, 40, 128), "bfloat16", None, None, "tensor"),
            shape((2, 1), "int32"), shape((), "int32"), *cache,
        )  # fmt: skip
    compiled = lowered.compile(compiler_options=FAST)
    text = compiled.as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 1
    assert ("s8" if held == "int8" else "bf16") + "[3,2,1024,1280]" in text  # ten heads of forty
    assert not [c for c in ("all-gather", "all-reduce", "all-to-all") if f" {c}" in text]
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 1 << 20  # not even a tile of the cache is made again


@pytest.mark.parametrize(("groups", "activations"), [(0, "float"), (40, "float"), (0, "int8")])
@pytest.mark.parametrize("topology", list(ONE))
def test_weights_go_to_the_kernel_as_a_stack_and_are_not_copied(topology, groups, activations):
    devices = topologies.get_topology_desc(platform="tpu", topology_name=ONE[topology]).devices
    mesh = make_mesh({"data": 1}, devices[:1])

    def shape(sizes, dtype):
        place = NamedSharding(mesh, PartitionSpec())
        return jax.ShapeDtypeStruct(sizes, jnp.dtype(dtype), sharding=place)

    kind = "int8" if activations == "int8" else "uint8"
    kernel = shape((3, 1024, 5120 if kind == "int8" else 2560), kind)
    scale = shape((1024, groups) if groups else (1024,), "float32")

    def run(x, kernel, scale, index):
        return quantized_pallas.matmul(x, kernel, scale, index, activations)

    with jax.set_mesh(mesh):
        given = (shape((2, 5120), "bfloat16"), kernel, scale, shape((), "int32"))
        lowered: Any = jax.jit(run).lower(*given)
    compiled = lowered.compile(compiler_options=FAST)
    assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 1
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 1 << 20  # a layer's kernel is 2.5 or 5 MiB
