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
from geex_jax.models import KVCache
from geex_jax.models.cache import append
from geex_jax.parallel import make_mesh, use_mesh
from tests.kernels.test_ahead_of_time import ALONE, FAST

pytestmark = pytest.mark.optimized

ONE = {"v5e": "v5e:2x2", "v6e": "v6e:2x2", "v5p": "v5p:2x2x1"}


@pytest.fixture(autouse=True)
def no_tpu_is_looked_for(monkeypatch):
    for name, value in ALONE.items():
        monkeypatch.setenv(name, os.environ.get(name, value))


@pytest.mark.parametrize("held", ["bfloat16", "int8"])
@pytest.mark.parametrize("topology", list(ONE))
def test_13b_writes_and_reads_the_cache_as_it_lies_on_each_device(topology, held):
    devices = topologies.get_topology_desc(platform="tpu", topology_name=ONE[topology]).devices
    mesh = make_mesh({"tensor": 4}, devices)

    def shape(sizes, dtype, *places):
        place = NamedSharding(mesh, PartitionSpec(*places))
        return jax.ShapeDtypeStruct(sizes, jnp.dtype(dtype), sharding=place)

    sizes = (3, 16, 1024)  # more rows than XLA writes one by one
    split = (None, None, None, "tensor")
    cache: list[Any] = [shape((*sizes, 5120), held, *split)] * 2
    if held == "int8":
        cache += [shape((*sizes, 40), "float32", *split)] * 2

    def run(query, slots, block, *cache):
        # A token of each row enters the cache, and attends to all of it.
        view = KVCache(cache[0], cache[1], slots[:, 0], *cache[2:])
        view = append(view, 2 * query, 3 * query, block)
        given: Any = {"key_scale": view.key_scale, "value_scale": view.value_scale}
        return decode_attention(query, view.key, view.value, block, slots, **given), view.arrays

    with use_mesh(mesh):
        lowered: Any = jax.jit(run, donate_argnums=tuple(range(3, 3 + len(cache)))).lower(
            shape((16, 1, 40, 128), "bfloat16", None, None, "tensor"),
            shape((16, 1), "int32"), shape((), "int32"), *cache,
        )  # fmt: skip
    compiled = lowered.compile(compiler_options=FAST)
    text = compiled.as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == len(cache) // 2
    assert ("s8" if held == "int8" else "bf16") + "[3,16,1024,1280]" in text  # ten heads of forty
    assert not [c for c in ("all-gather", "all-reduce", "all-to-all") if f" {c}" in text]
    # No keys are made again, not even one block's; scales of ten heads may be, a 30th of them.
    assert compiled.memory_analysis().temp_size_in_bytes < 16 * 1024 * 1280 // 2


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
