"""Rows of a batch onto the mesh, by one process and as one of several does it."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from geex_jax.errors import GeexError
from geex_jax.parallel import batch_sharding, make_mesh, placing


class Part(NamedSharding):
    """A sharding of which only some devices are this process's."""

    def __init__(self, mesh, spec, devices):
        super().__init__(mesh, spec)
        self.mine = devices

    def addressable_devices_indices_map(self, global_shape):
        found = self.devices_indices_map(global_shape)
        return {d: found[d] for d in self.mine}


@pytest.mark.parametrize(
    ("sizes", "devices", "rows"),
    [
        ({"fsdp": 8}, range(4), range(8)),
        ({"fsdp": 8}, range(6, 8), range(12, 16)),
        ({"fsdp": 2, "tensor": 4}, range(2, 4), range(8)),  # half of the tensor axis
        ({"data": 2, "fsdp": 2, "tensor": 2}, range(4, 6), range(8, 12)),
        ({"tensor": 8}, [5], range(16)),  # all processes hold all rows
        ({"fsdp": 8}, [1, 6], [2, 3, 12, 13]),
    ],
)
def test_a_process_has_the_rows_of_its_devices(sizes, devices, rows):
    mesh = make_mesh(sizes, jax.devices()[:8])
    mine = [mesh.devices.flat[i] for i in devices]
    place = Part(mesh, batch_sharding(mesh).spec, mine)
    np.testing.assert_array_equal(placing.local_rows(place, 16), list(rows))


def test_a_process_without_a_device_in_the_mesh_is_refused():
    mesh = make_mesh({"fsdp": 2}, jax.devices()[:8])
    with pytest.raises(GeexError, match="has no device in a mesh"):
        placing.local_rows(Part(mesh, PartitionSpec("fsdp"), []), 16)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("spec", [PartitionSpec(("data", "fsdp")), PartitionSpec("fsdp", "tensor")])
def test_every_element_lands_in_its_place(monkeypatch, count, spec):
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2}, jax.devices()[:8])
    place = NamedSharding(mesh, spec)
    monkeypatch.setattr(jax, "process_count", lambda: count)  # 2: as one of several places them
    batch = {"tokens": np.arange(64).reshape(8, 8), "mask": np.ones((8, 4), np.float32)}
    placed = placing.put(batch, place, placing.local_rows(place, 8), 8)
    for name, x in batch.items():
        np.testing.assert_array_equal(placed[name], x)
        assert placed[name].sharding == place
